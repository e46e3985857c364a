"""The journal of a batch: one SQLite file beside the outputs, and all SQL that is sent to it.

It is read by ``batch status`` and by the next run. Within a scene, the part file beside its output
records where to continue; the journal records which scenes are done, by which options and from
which files, and the time of every block. Times of day in it are for information only.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rssc_geo.closing import Closing
from rssc_geo.errors import InputError, OutputError, one_line
from rssc_geo.files import make_folders, remove_empty
from rssc_geo.fingerprints import content_mark
from rssc_geo.locks import FileLock, check_journal
from rssc_geo.output import timestamp
from rssc_geo.raster import is_remote

NAME = "rssc-geo-batch.sqlite"
_LOCK = ".rssc-geo-batch.lock"
STATES = ("waiting", "running", "done", "empty", "failed")
_FORMAT = 3
_BUSY_S = 30
_CREATE = """
    CREATE TABLE meta (format INTEGER NOT NULL);
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY, started TEXT NOT NULL, ended TEXT, outcome TEXT,
        versions TEXT NOT NULL, options TEXT NOT NULL
    );
    CREATE TABLE scenes (
        output TEXT PRIMARY KEY, id TEXT NOT NULL, input TEXT NOT NULL, state TEXT NOT NULL,
        attempts INTEGER NOT NULL, options_hash TEXT NOT NULL, error TEXT, started TEXT, ended TEXT,
        run INTEGER, input_files TEXT, made INTEGER, output_files TEXT, tiles INTEGER,
        tiles_done INTEGER, cells INTEGER, classes TEXT, seconds REAL, reading_s REAL, model_s REAL,
        writing_s REAL, warnings TEXT, mark TEXT
    );
    CREATE TABLE blocks (
        scene TEXT NOT NULL, first_tile INTEGER NOT NULL, tiles INTEGER NOT NULL,
        state TEXT NOT NULL, attempts INTEGER NOT NULL, error TEXT, seconds REAL, worker TEXT,
        ended TEXT, PRIMARY KEY (scene, first_tile)
    ) WITHOUT ROWID;
    CREATE TABLE problems (label TEXT NOT NULL, message TEXT NOT NULL);
    CREATE TABLE merged (
        output TEXT PRIMARY KEY, made_of TEXT NOT NULL, output_files TEXT NOT NULL, mark TEXT
    );
"""
# Each row of these tables has a checksum. It is computed in Python between statements: SQLite turns
# a Ctrl-C that arrives in a function which it calls into an error of its own.
_MARKED = {
    "scenes": "output, id, input, state, attempts, options_hash, error, started, ended, run,"
    " input_files, made, output_files, tiles, tiles_done, cells, classes, seconds, reading_s,"
    " model_s, writing_s, warnings",
    "merged": "output, made_of, output_files",
}
_RELEASE = "UPDATE scenes SET state = 'waiting' WHERE state = 'running'"
_ATTEMPT = "attempts = attempts + 1"
_FILES = ("input_files", "output_files")
_JSON = (*_FILES, "classes", "warnings")


_Values = Sequence[object] | Mapping[str, object]


# Signatures of files.


class Signature(NamedTuple):
    """What tells whether a file is still what it was; a list in JSON.

    All but the name are None for a file that is not there, and for a URL, which is only named.

    Attributes
    ----------
    name : relative to a folder
    size : bytes
    content_ns, entry_ns : when the content and the file's entry changed, in nanoseconds
    mark : hash of the content; None where it was not read
    """

    name: str
    size: int | None = None
    content_ns: int | None = None
    entry_ns: int | None = None
    mark: str | None = None


def signatures(
    files: Iterable[str | Path], folder: str | Path, *, content: bool = True
) -> list[Signature]:
    """Signatures of files, named relative to a folder; ``content``: read for their hashes, too.

    Neither moving both nor another working folder changes the result of ``unchanged``.
    """
    made = (
        _signature(relative_name(str(file), folder), str(file), content=content) for file in files
    )
    return sorted(made, key=lambda known: known.name)


def unchanged(known: Iterable[Signature], folder: str | Path) -> bool:
    """Whether the files, the folder being where it is now, are as they were.

    A file is read only where its entry changed, but neither its size nor the time of its content:
    it was copied, moved, or exchanged for one of another content.
    """
    return all(_is_unchanged(each, folder) for each in known)


def _is_unchanged(known: Signature, folder: str | Path) -> bool:
    place = _place(known.name, folder)
    now = _signature(known.name, place, content=False)
    if (now.size, now.content_ns) != (known.size, known.content_ns):
        return False
    # Elsewhere than on POSIX systems it is the time of creation.
    same_entry = now.entry_ns == known.entry_ns and os.name == "posix"
    if same_entry or known.mark is None:
        return True
    return _signature(known.name, place, content=True).mark == known.mark


def existing(known: Iterable[Signature], folder: str | Path) -> list[Signature]:
    """The signatures of those files that exist, changed or not."""
    return [each for each in known if os.path.exists(_place(each.name, folder))]


def relative_name(file: str, folder: str | Path) -> str:
    """The name of a file from a folder on, with ``/``; URLs and /vsi paths as they are."""
    if is_remote(file):
        return file
    try:
        return Path(os.path.relpath(file, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return os.path.abspath(file)


def _place(name: str, folder: str | Path) -> str:
    return name if is_remote(name) else os.path.join(folder, name)


def _signature(name: str, file: str, *, content: bool) -> Signature:
    """The signature of a file that has this name in a folder."""
    try:
        found = os.stat(file)
        mark = content_mark(Path(file)) if content and os.path.isfile(file) else None
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return Signature(name)
    return Signature(name, found.st_size, found.st_mtime_ns, found.st_ctime_ns, mark)


# What is recorded.


@dataclass(frozen=True, slots=True)
class SceneFigures:
    """Figures of a scene's map and its times, as the journal keeps them.

    ``classes``: name, cells and area_m2 (m²) of each class that occurs; ``seconds`` from opening to
    the end; ``reading_s``, ``model_s``, ``writing_s``: time of work in each stage.
    """

    cells: int
    classes: list[dict[str, Any]]
    seconds: float
    reading_s: float
    model_s: float
    writing_s: float


class BlockRecord(NamedTuple):
    """A row about a block: ``scene`` is its key; ``seconds`` of reading and model."""

    scene: str
    first_tile: int
    tiles: int
    state: str
    attempts: int
    error: str | None
    seconds: float | None
    worker: str
    ended: str


class Journal(Closing):
    """The journal of a folder, held by one batch at a time; a context manager for one thread.

    A scene is known by its key: its output's name from the folder on. ``known``: the keys of the
    scenes that had failed before this run, and the inputs that had given none.

    Raises ``OutputError`` when another batch runs there, when the folder cannot be written, or when
    the file is damaged or of another version; so do all methods when it cannot be written.
    """

    def __init__(self, folder: Path, *, options: Mapping[str, object]) -> None:
        self.folder, self.path = folder, folder / NAME
        self._made = make_folders(folder)
        try:
            self._lock = FileLock(folder / _LOCK, taken=folder)
        except BaseException:
            remove_empty(self._made)
            raise
        self._is_new, self._withdrawn = not self.path.exists(), False
        try:
            check_journal(self.path)
            with _writing(self.path):
                self._connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)
                self._prepare(json.dumps(options, default=str))
        except BaseException:
            self._lock.close()
            remove_empty(self._made)
            raise

    def _prepare(self, options: str) -> None:
        run = self._connection.execute
        # The file of a killed run is repaired at the next opening; no -wal is left.
        run("PRAGMA journal_mode = DELETE")
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")
        if not run("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in _CREATE.strip().rstrip(";").split(";"):
                run(statement)
            run("INSERT INTO meta VALUES (?)", (_FORMAT,))
        _check_format(self._connection, self.path)
        _check_content(self._connection, self.path)
        self.known = self._failures()
        # Scenes in progress in a killed run are done again.
        self._run_marked("scenes", _RELEASE, [()])
        run("DELETE FROM problems")
        self._run = run(
            "INSERT INTO runs (started, versions, options) VALUES (?, ?, ?)",
            (timestamp(), json.dumps(_versions()), options),
        ).lastrowid
        run("COMMIT")

    def _failures(self) -> frozenset[str]:
        """Scenes that have failed, by key, and inputs that gave none, before this run."""
        run = self._connection.execute
        failed = run("SELECT output FROM scenes WHERE state = 'failed'").fetchall()
        return frozenset(name for (name,) in [*failed, *run("SELECT label FROM problems")])

    def key(self, output: Path) -> str:
        """The key of an output in this journal."""
        return key_of(output, self.folder)

    def add_problems(self, problems: Iterable[tuple[str, str]]) -> None:
        """Record the inputs that give no scene, each with the reason."""
        self._write("INSERT INTO problems VALUES (?, ?)", problems)

    def scene(self, key: str) -> dict[str, Any] | None:
        """The row of a scene, by column; None where there is none."""
        with _writing(self.path):
            found = _rows(self._connection, "SELECT * FROM scenes WHERE output = ?", key)
            return next(iter(found), None)

    def await_scenes(self, scenes: Iterable[Mapping[str, object]]) -> None:
        """Set scenes waiting, all or none.

        Of each its ``output`` (the key), ``id``, ``input``, ``options_hash`` and ``input_files``.
        """
        rows = [{**scene, "input_files": json.dumps(scene["input_files"])} for scene in scenes]
        self._write(
            "INSERT INTO scenes (output, id, input, options_hash, input_files, state, attempts)"
            " VALUES (:output, :id, :input, :options_hash, :input_files, 'waiting', 0) ON CONFLICT"
            " (output) DO UPDATE SET id = excluded.id, input = excluded.input, options_hash ="
            " excluded.options_hash, input_files = excluded.input_files, state = 'waiting', error ="
            " NULL",
            rows,
            marked="scenes",
        )

    def start_scene(
        self,
        key: str,
        *,
        tiles: int,
        tiles_done: int,
        input_files: Sequence[Signature],
        warnings: Sequence[str],
    ) -> None:
        """A scene is open: one attempt more, at so many tiles, some done by an earlier run."""
        self._update(
            key,
            _ATTEMPT,
            state="running",
            started=timestamp(),
            run=self._run,
            input_files=input_files,
            tiles=tiles,
            tiles_done=tiles_done,
            warnings=list(warnings),
        )

    def forget_blocks(self, key: str, *, start: int = 0) -> None:
        """Forget a scene's blocks from a tile on, and those before that are not done."""
        self._write(
            "DELETE FROM blocks WHERE scene = ? AND (first_tile >= ? OR state != 'done')",
            [(key, start)],
        )

    def record_blocks(self, blocks: Sequence[BlockRecord]) -> None:
        """Record the state of blocks."""
        self._write("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", blocks)

    def record_tiles(self, done: Mapping[str, int]) -> None:
        """Record how many tiles of scenes are written, by key."""
        self._write(
            "UPDATE scenes SET tiles_done = ? WHERE output = ?",
            [(tiles, key) for key, tiles in done.items()],
            marked="scenes",
        )

    def expect_output(self, key: str) -> None:
        """Record that an output may exist from here on, which is ours.

        After a run that is killed before the scene is recorded as done, it is made again.
        """
        self._update(key, made=1, output_files=None)

    def finish_scene(self, key: str, figures: SceneFigures, files: Iterable[Path]) -> None:
        """A scene is done, and these are the files of its map."""
        self._update(
            key,
            "tiles_done = tiles",
            state="done",
            ended=timestamp(),
            error=None,
            output_files=signatures(files, self.folder),
            **asdict(figures),
        )

    def fail_scene(self, key: str, message: str, *, again: bool, opened: bool) -> None:
        """A scene has failed; ``again``: the next run shall try it without being asked.

        ``opened``: whether the attempt has been counted by ``start_scene``.
        """
        state = "waiting" if again else "failed"
        attempt = () if opened else (_ATTEMPT,)
        self._update(key, *attempt, state=state, error=message, ended=timestamp())

    def empty_scene(self, key: str, message: str, *, opened: bool) -> None:
        """A scene has nothing to classify; ``opened`` as for ``fail_scene``."""
        attempt = () if opened else (_ATTEMPT,)
        self._update(key, *attempt, state="empty", error=message, ended=timestamp())

    def release_scenes(self) -> None:
        """Scenes that are under way wait for the next run."""
        self._write(_RELEASE, [()], marked="scenes")

    def merged(self, key: str) -> tuple[str, list[Signature]]:
        """The hash of what a merged output was made of, and its files; "" and none if unknown."""
        with _writing(self.path):
            row = self._connection.execute(
                "SELECT made_of, output_files FROM merged WHERE output = ?", (key,)
            ).fetchone()
        return ("", []) if row is None else (row[0], _signatures_in(row[1]))

    def record_merged(self, key: str, made_of: str, files: Iterable[Path]) -> None:
        """Record what a merged output was made of, and its files."""
        known = json.dumps(signatures(files, self.folder))
        self._write(
            "INSERT OR REPLACE INTO merged (output, made_of, output_files) VALUES (?, ?, ?)",
            [(key, made_of, known)],
            marked="merged",
        )

    def end(self, outcome: str) -> None:
        """Record how the run ended."""
        self._write(
            "UPDATE runs SET ended = ?, outcome = ? WHERE id = ?",
            [(timestamp(), outcome, self._run)],
        )

    def close(self) -> None:
        """Close the journal and release the folder."""
        self._connection.close()
        if self._withdrawn:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        self._lock.close()
        if self._withdrawn:
            remove_empty(self._made)

    def withdraw(self) -> None:
        """End a run that could not begin: a journal that it has made is deleted when it is closed.

        With the folders made for it, where they are empty.
        """
        self._withdrawn = self._is_new
        if not self._withdrawn:
            self.end("stopped")

    def _update(self, key: str, *expressions: str, **values: object) -> None:
        """Set columns of a scene, by expressions of SQL and by values."""
        stored = [
            json.dumps(value) if name in _JSON and value is not None else value
            for name, value in values.items()
        ]
        changes = ", ".join([*(f"{name} = ?" for name in values), *expressions])
        statement = f"UPDATE scenes SET {changes} WHERE output = ?"  # noqa: S608 -- our own names
        self._write(statement, [(*stored, key)], marked="scenes")

    def _write(self, statement: str, rows: Iterable[_Values], *, marked: str = "") -> None:
        """Run a statement for each row, all or none; ``marked``: the table, of ``_MARKED``."""
        with _writing(self.path):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                if marked:
                    self._run_marked(marked, statement, rows)
                else:
                    self._connection.executemany(statement, rows)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _run_marked(self, table: str, statement: str, rows: Iterable[_Values]) -> None:
        """Run a statement for each row, within a transaction, and mark what it changed."""
        run = self._connection.execute
        changed = [
            key for row in rows for key in run(f"{statement} RETURNING output", row).fetchall()
        ]
        # Read again: RETURNING gives whole numbers for columns of REAL.
        query = f"SELECT {_MARKED[table]} FROM {table} WHERE output = ?"  # noqa: S608 -- our own names
        found = [run(query, key).fetchone() for key in changed]
        self._connection.executemany(
            f"UPDATE {table} SET mark = ? WHERE output = ?",  # noqa: S608 -- our own names
            [(_row_mark(*values), values[0]) for values in found],
        )


def key_of(output: Path, folder: Path) -> str:
    """The key of an output in the journal in ``folder``.

    Relative to that folder, so that the folder can be moved.
    """
    path, root = output.absolute(), folder.absolute()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def read_journal(folder: Path) -> dict[str, Any]:
    """The journal in a folder as plain data: its path, scenes, problems and runs.

    Each scene has its columns, and ``blocks``: how many are in which state. Raises ``InputError``
    where there is no journal, ``OutputError`` for one that is damaged or of another version.
    """
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder} holds no {NAME}: give the folder of a batch's outputs")
    check_journal(path)
    try:
        # Opened for writing where possible: a transaction that a killed run left unfinished is
        # rolled back by the next reader.
        with closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_S)
        ) as connection:
            _check_format(connection, path)
            _check_content(connection, path)
            scenes = list(_rows(connection, "SELECT * FROM scenes ORDER BY rowid"))
            blocks = connection.execute(
                "SELECT scene, state, count(*) FROM blocks GROUP BY scene, state"
            ).fetchall()
            problems = list(_rows(connection, "SELECT label, message FROM problems"))
            runs = list(
                _rows(connection, "SELECT started, ended, outcome, versions FROM runs ORDER BY id")
            )
            for entry in runs:
                entry["versions"] = json.loads(entry["versions"])
    except sqlite3.OperationalError as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error
    except ValueError as error:  # damaged JSON
        raise _damaged(path, error) from error
    by_scene: dict[str, dict[str, int]] = {}
    for key, state, count in blocks:
        by_scene.setdefault(key, {})[state] = count
    for scene in scenes:
        scene["blocks"] = by_scene.get(scene["output"], {})
    return {"journal": str(path), "scenes": scenes, "problems": problems, "runs": runs}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OutputError(
            f"cannot write {path} ({one_line(error)}): make room or make the folder writable, then"
            " run the same command again"
        ) from error
    except sqlite3.DatabaseError as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: object) -> OutputError:
    return OutputError(
        f"{path} is damaged ({one_line(str(error))}): move it away; the next run then makes every"
        " scene again where --overwrite allows it"
    )


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    """``OutputError`` for a file that is no journal of this version."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    found = None
    if ("meta",) in tables:
        found = connection.execute("SELECT max(format) FROM meta").fetchone()[0]
    if found == _FORMAT:
        return
    what = f"a journal of format {found}, this program writes {_FORMAT}"
    if found is None:
        what = "no journal of rssc-geo batch"
    raise OutputError(
        f"{path} is {what}: use the program that wrote it, another folder, or move the file away"
    )


def _check_content(connection: sqlite3.Connection, path: Path) -> None:
    """``OutputError`` for a journal whose pages or rows are not what was written."""
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if found != "ok":
        raise _damaged(path, found)
    for table, columns in _MARKED.items():
        query = f"SELECT {columns}, mark FROM {table}"  # noqa: S608 -- our own names
        for *values, mark in connection.execute(query):
            if mark != _row_mark(*values):
                raise _damaged(path, f"a row of {table} is not what was written")


def _row_mark(*values: object) -> str:
    """The checksum of a row."""
    return hashlib.sha256(repr(values).encode("utf-8", "surrogatepass")).hexdigest()


def _versions() -> dict[str, str]:
    """The versions of program and libraries."""
    return {name: version(name) for name in ("rssc-geo", "torch", "rasterio", "pyogrio", "shapely")}


def _rows(
    connection: sqlite3.Connection, statement: str, *values: object
) -> Iterator[dict[str, Any]]:
    cursor = connection.execute(statement, values)
    names = [column[0] for column in cursor.description]
    for row in cursor:
        entry = dict(zip(names, row, strict=True))
        for key in _JSON:
            if entry.get(key) is not None:
                read = _signatures_in if key in _FILES else json.loads
                entry[key] = read(entry[key])
        yield entry


def _signatures_in(text: str) -> list[Signature]:
    """Signatures as a column of the journal holds them."""
    return [Signature(*values) for values in json.loads(text)]
