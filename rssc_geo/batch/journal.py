"""What became of each scene: one SQLite file beside the outputs, read by people (``batch status``)
and by the next run.

Within a scene, the part file beside its output says where to go on; the journal says which scenes
are done, by which options and of which files, and what every block took. All times of day in it are
for people: nothing is decided by them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rssc_geo.errors import InputError, OutputError
from rssc_geo.output import timestamp

if TYPE_CHECKING:
    from typing import Self

NAME = "rssc-geo-batch.sqlite"
LOCK = ".rssc-geo-batch.lock"
STATES = ("waiting", "running", "done", "failed")
_FORMAT = 1
_BUSY_S = 30
_CREATE = """
    CREATE TABLE meta (format INTEGER NOT NULL);
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, outcome TEXT, versions TEXT NOT NULL, options TEXT NOT NULL
    );
    CREATE TABLE scenes (
        output TEXT PRIMARY KEY, id TEXT NOT NULL, input TEXT NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
        options_hash TEXT NOT NULL, error TEXT, started TEXT, ended TEXT, run INTEGER,
        input_files TEXT, made INTEGER, output_files TEXT, tiles INTEGER, tiles_done INTEGER, cells INTEGER, classes TEXT,
        seconds REAL, reading_s REAL, model_s REAL, writing_s REAL, warnings TEXT
    );
    CREATE TABLE blocks (
        scene TEXT NOT NULL, first_tile INTEGER NOT NULL, tiles INTEGER NOT NULL, state TEXT NOT NULL,
        attempts INTEGER NOT NULL, error TEXT, seconds REAL, worker TEXT, ended TEXT, PRIMARY KEY (scene, first_tile)
    ) WITHOUT ROWID;
    CREATE TABLE problems (label TEXT NOT NULL, message TEXT NOT NULL);
    CREATE TABLE merged (output TEXT PRIMARY KEY, made_of TEXT NOT NULL, output_files TEXT NOT NULL);
"""
_JSON = ("input_files", "output_files", "classes", "warnings")


class Journal:
    """The journal of a folder, held by one batch at a time; a context manager, to be used from one
    thread.

    Raises ``OutputError`` when another batch runs there, when the folder cannot be written, or when
    the file is damaged or of another version.
    """

    def __init__(self, folder: Path, *, options: Mapping[str, object]) -> None:
        self.folder, self.path = folder, folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {folder} ({error.strerror}): choose another --output"
            ) from error
        self._lock = _lock(folder / LOCK)
        try:
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
            with self._told():
                self._prepare(json.dumps(options, default=str))
        except BaseException:
            self._lock.close()
            raise

    def _prepare(self, options: str) -> None:
        run = self._connection.execute
        run(
            "PRAGMA journal_mode = DELETE"
        )  # a killed run's file is made consistent at the next opening; no -wal is left
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")
        if not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _CREATE.strip().rstrip(";").split(";"):
                run(statement)
            run("INSERT INTO meta VALUES (?)", (_FORMAT,))
        check_format(self._connection, self.path)
        # What a killed run was at is to be done again.
        run("UPDATE scenes SET state = 'waiting' WHERE state = 'running'")
        run("DELETE FROM problems")
        self.run = run(
            "INSERT INTO runs (started, versions, options) VALUES (?, ?, ?)",
            (timestamp(), json.dumps(versions()), options),
        ).lastrowid
        run("COMMIT")

    def write(self, statement: str, *rows: Sequence[object] | Mapping[str, object]) -> None:
        """Run a statement for each row, all or none. ``OutputError`` when it cannot be written."""
        with self._told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def key(self, output: Path) -> str:
        """An output as the journal names it."""
        return key_of(output, self.folder)

    def scene(self, output: str) -> dict[str, Any] | None:
        """What is known of the scene that is written to ``output``."""
        with self._told():
            return next(
                iter(_rows(self._connection, "SELECT * FROM scenes WHERE output = ?", output)), None
            )

    def await_scenes(self, scenes: Iterable[Mapping[str, object]]) -> None:
        """Set scenes waiting.

        Their output, id, input, options_hash and input_files (as JSON), all in one transaction.
        """
        self.write(
            "INSERT INTO scenes (output, id, input, options_hash, input_files, state, attempts)"
            " VALUES (:output, :id, :input, :options_hash, :input_files, 'waiting', 0) ON CONFLICT"
            " (output) DO UPDATE SET id = excluded.id, input = excluded.input, options_hash ="
            " excluded.options_hash, input_files = excluded.input_files, state = 'waiting', error ="
            " NULL",
            *scenes,
        )

    def update(self, output: str, **values: object) -> None:
        """Set columns of a scene."""
        stored = [
            json.dumps(value) if key in _JSON and value is not None else value
            for key, value in values.items()
        ]
        changes = ", ".join(f"{key} = ?" for key in values)
        self.write(f"UPDATE scenes SET {changes} WHERE output = ?", (*stored, output))

    def merged(self, output: str) -> tuple[str, list[list[Any]]] | None:
        """What a merged output was made of, and its files as they were then."""
        with self._told():
            row = self._connection.execute(
                "SELECT made_of, output_files FROM merged WHERE output = ?", (output,)
            ).fetchone()
        return None if row is None else (row[0], json.loads(row[1]))

    def end(self, outcome: str) -> None:
        """Note how the run ended."""
        self.write(
            "UPDATE runs SET ended = ?, outcome = ? WHERE id = ?", (timestamp(), outcome, self.run)
        )

    def close(self) -> None:
        """Let the folder go."""
        self._connection.close()
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _told(self) -> _Told:
        return _Told(self.path)


class _Told:
    """Turns SQLite's errors into ours."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, sqlite3.OperationalError):
            raise OutputError(
                f"cannot write {self._path} ({error}): make room or make the folder writable, then"
                " run the same command again"
            ) from error
        if isinstance(error, sqlite3.DatabaseError):
            raise damaged(self._path, error) from error


def key_of(output: Path, folder: Path) -> str:
    """An output as the journal in ``folder`` names it.

    From that folder on, so that the folder can be moved.
    """
    path, root = output.absolute(), folder.absolute()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def damaged(path: Path, error: object) -> OutputError:
    """The error for a journal that SQLite cannot read."""
    return OutputError(
        f"{path} is damaged ({error}): move it away; the next run then makes every scene anew where"
        " --overwrite allows it"
    )


def check_format(connection: sqlite3.Connection, path: Path) -> None:
    """``OutputError`` for a file that is no journal of this version."""
    tables = {
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    }
    found = (
        connection.execute("SELECT max(format) FROM meta").fetchone()[0]
        if "meta" in tables
        else None
    )
    if found != _FORMAT:
        what = (
            "no journal of rssc-geo batch"
            if found is None
            else f"a journal of format {found}, this program writes {_FORMAT}"
        )
        raise OutputError(
            f"{path} is {what}: use the program that wrote it, another folder, or move the file"
            " away"
        )


def read_status(folder: Path) -> dict[str, Any]:
    """The journal as plain data: counts, scenes, blocks by state, problems, the last run.

    ``InputError`` where there is none.
    """
    place = (
        folder.parent if folder.is_file() else folder
    )  # an output, or the journal itself, says where it is too
    path = place / NAME
    if not path.is_file():
        raise InputError(f"{place} holds no {NAME}: give the folder of a batch's outputs")
    try:
        # Writable, where it is: what a killed run has left half written is undone by the next who
        # looks.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)
        ) as connection:
            check_format(connection, path)
            scenes = list(_rows(connection, "SELECT * FROM scenes ORDER BY rowid"))
            blocks = connection.execute(
                "SELECT scene, state, count(*) FROM blocks GROUP BY scene, state"
            ).fetchall()
            problems = list(_rows(connection, "SELECT label, message FROM problems"))
            runs = list(
                _rows(connection, "SELECT started, ended, outcome, versions FROM runs ORDER BY id")
            )
    except sqlite3.OperationalError as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error
    for scene in scenes:
        scene["blocks"] = {state: count for name, state, count in blocks if name == scene["output"]}
    counts = {state: sum(scene["state"] == state for scene in scenes) for state in STATES}
    for entry in runs:
        entry["versions"] = json.loads(entry["versions"])
    return {
        "journal": str(path),
        "counts": counts,
        "scenes": scenes,
        "problems": problems,
        "runs": runs,
    }


def versions() -> dict[str, str]:
    """What made the outputs."""
    return {name: version(name) for name in ("rssc-geo", "torch", "rasterio", "pyogrio", "shapely")}


def _lock(path: Path) -> sqlite3.Connection:
    """Held as long as the connection is open, let go by a crash.

    The file stays, empty: removing it could race.
    """
    connection = None
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if connection is not None:
            connection.close()
        if "locked" in str(error):
            raise OutputError(
                f"another rssc-geo batch is at work in {path.parent}: wait for it to end, or choose"
                " another folder"
            ) from error
        raise OutputError(
            f"cannot write in {path.parent} ({error}): choose a folder that is writable"
        ) from error
    return connection


def _rows(
    connection: sqlite3.Connection, statement: str, *values: object
) -> Iterable[dict[str, Any]]:
    cursor = connection.execute(statement, values)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        entry = dict(zip(names, row, strict=True))
        yield {
            key: json.loads(value) if key in _JSON and value is not None else value
            for key, value in entry.items()
        }
