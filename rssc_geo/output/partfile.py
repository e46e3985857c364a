"""The resumable state of a run: an SQLite file ``<output>.part`` beside the target.

It holds the cells classified so far and the *watermark*, an integer by which the caller resumes.
Both change in one transaction, so a run killed at any moment continues where its last batch ended.
Once all cells are there, steps over the set of them may change them, each as a whole. The file is
identified by SQLite's application id and user version and has a digest of its contents, so that no
damaged file is continued and no other file is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rssc_geo.closing import Closing
from rssc_geo.errors import OutputError, one_line
from rssc_geo.fingerprints import content_mark
from rssc_geo.locks import FileAtPath, delete_locked, in_use, lock_database, make_database

log = logging.getLogger(__name__)

_APPLICATION_ID = 0x52534750  # "RSGP"
_SCHEMA = 5  # the user version; changes with what the tables hold
_FETCH = 8192
_HEADER_BYTES = 100
_DIGESTS = 1 << 128
_MOST_NAMED = 3  # of what differs from an earlier run, in a warning
_CREATE = """
    CREATE TABLE meta (
        run_key TEXT NOT NULL, watermark INTEGER NOT NULL, count INTEGER NOT NULL,
        digest TEXT NOT NULL, steps TEXT NOT NULL, made TEXT NOT NULL, mark TEXT NOT NULL
    );
    CREATE TABLE cells (
        row INTEGER NOT NULL, col INTEGER NOT NULL, class_id INTEGER NOT NULL,
        confidence REAL NOT NULL, runner_up INTEGER, margin REAL NOT NULL, caption TEXT NOT NULL,
        probabilities BLOB, familiarity REAL, color BLOB, embedding BLOB,
        PRIMARY KEY (row, col)
    ) WITHOUT ROWID;
"""
_VALUES = "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # of a cell
_STATEMENTS = [text.strip() for text in _CREATE.strip().rstrip(";").split(";")]

Row = tuple[
    int, int, int, float, int | None, float, str, bytes | None, float | None, bytes | None,
    bytes | None,
]  # fmt: skip
"""A cell: row, col, class id, confidence, runner-up's id, margin, caption, its probabilities,
familiarity, its mean color, its embedding.

Probabilities and color are float32 bytes, the embedding float16 bytes; probabilities and embedding
are None where they are not asked for, the familiarity where the model cannot tell.
"""


@dataclass(frozen=True, slots=True)
class CellBatch:
    """n classified cells.

    Attributes
    ----------
    rows, cols : int32 (n,)
    probabilities : float32 (n, classes)
    familiarity : float32 (n,), in [0, 1]; NaN for a model without it
    captions : n texts
    colors : float32 (n, 3), mean red, green and blue of the network's input, 0 to 255
    embeddings : float32 (n, D), unit vectors in the space of the model's texts; None where they
        were not asked for
    """

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    familiarity: NDArray[np.float32]
    captions: list[str]
    colors: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        columns: list[Sized] = [
            self.rows, self.cols, self.probabilities, self.familiarity, self.captions, self.colors
        ]  # fmt: skip
        if self.embeddings is not None:
            columns.append(self.embeddings)
        counts = {len(column) for column in columns}
        if len(counts) != 1 or self.probabilities.ndim != 2:
            raise ValueError(
                f"not a batch of cells: {len(self.rows)} rows, {len(self.cols)} cols, "
                f"probabilities {self.probabilities.shape}, {len(self.captions)} captions, "
                f"colors {self.colors.shape}"
            )


def make_rows(batch: CellBatch, *, keep: bool, unknown_below: float) -> list[Row]:
    """Cells as rows of the part file, with the classes of the map.

    Of equal probabilities the lower class comes first, and a class of probability 0, which is not
    allowed, is no runner-up. A cell less familiar than ``unknown_below`` has the class after all
    named ones, without confidence and margin; its runner-up is its class otherwise. ``keep``:
    whether the rows keep probabilities, for the layers and for steps.
    """
    table = np.ascontiguousarray(batch.probabilities, np.float32)
    order = np.argsort(-table, axis=1, kind="stable")[:, :2]
    top = np.take_along_axis(table, order, axis=1).astype(np.float64)
    halves = None if batch.embeddings is None else batch.embeddings.astype(np.float16)
    second = np.zeros(len(table)) if table.shape[1] == 1 else top[:, 1]
    unknown = batch.familiarity < unknown_below
    following = np.where(unknown, order[:, 0], np.where(second > 0, order[:, -1], -1))
    return list(
        zip(
            np.asarray(batch.rows).tolist(),
            np.asarray(batch.cols).tolist(),
            np.where(unknown, table.shape[1], order[:, 0]).tolist(),
            np.where(unknown, 0, top[:, 0]).tolist(),
            [place if place >= 0 else None for place in following.tolist()],
            np.where(unknown, 0, top[:, 0] - second).tolist(),
            batch.captions,
            _blobs(table) if keep else [None] * len(table),
            [None if np.isnan(value) else value for value in batch.familiarity.tolist()],
            _blobs(batch.colors),
            [None] * len(table) if halves is None else [half.tobytes() for half in halves],
            strict=True,
        )
    )


def as_unknown(rows: Sequence[Row], *, classes: int) -> list[Row]:
    """The rows of cells as ``Unknown``, the class after ``classes``."""
    return [
        (row, col, classes, 0.0, class_id if class_id < classes else second, 0.0, text, table, 0.0,
         color, half)
        for row, col, class_id, _, second, _, text, table, _, color, half in rows
    ]  # fmt: skip


def batch_of(rows: Sequence[Row]) -> CellBatch:
    """The cells of rows that keep probabilities."""
    row, col, *_, captions, probabilities, familiarity, colors, halves = zip(*rows, strict=True)
    return CellBatch(
        np.array(row, np.int32),
        np.array(col, np.int32),
        table_of(probabilities),
        np.array(familiarity, np.float32),  # None becomes NaN
        list(captions),
        table_of(colors),
        None if halves[0] is None else table_of(halves, np.float16).astype(np.float32),
    )


def _blobs(table: NDArray[np.float32]) -> list[bytes]:
    """Each row of a table as float32 bytes."""
    return [row.tobytes() for row in np.ascontiguousarray(table, np.float32)]


def table_of(blobs: Sequence[bytes], dtype: type[np.floating[Any]] = np.float32) -> NDArray[Any]:
    """The probabilities (n, C), colors (n, 3) or, float16, embeddings (n, D) that n rows keep."""
    return np.frombuffer(b"".join(blobs), dtype).reshape(len(blobs), -1)


class PartFile(Closing):
    """The part file at ``path``, locked from opening to closing; a crash releases it.

    ``run_key`` is everything that defines the result, by names that a warning can use. A file left
    by a run with the same key is resumed; one of another run, of another version of this program,
    or a damaged one is started again, with a warning. May be used from any one thread at a time.
    Raises ``OutputError`` when another process works on it, it cannot be written, or something else
    has its name.
    """

    def __init__(self, path: Path, run_key: Mapping[str, object]) -> None:
        self.path = path
        self._key = json.dumps(run_key, sort_keys=True, ensure_ascii=False)
        self._watermark = self._count = self._digest = 0
        self._steps: dict[str, Any] = {}
        self._open()

    def _open(self) -> None:
        try:
            make_database(self.path)
            with FileAtPath(self.path, taken=self.path) as file:
                self._connection = sqlite3.connect(
                    self.path, timeout=0, isolation_level=None, check_same_thread=False
                )
                try:
                    self._lock(file)
                except BaseException:
                    self._connection.close()
                    raise
        except sqlite3.OperationalError as error:
            raise self._failure(error) from error

    def _lock(self, file: FileAtPath) -> None:
        """Continue the file if it is this run's, else start it again; refuse foreign files."""
        try:
            run = self._connection.execute
            fresh, version = _identity(self._connection, self.path)
            # An exclusive lock that outlasts transactions, and dies with the process. The rollback
            # journal (never WAL) makes a killed run's file consistent at the next opening, and is
            # gone after a normal close.
            run("PRAGMA locking_mode = EXCLUSIVE")
            run("PRAGMA journal_mode = DELETE")
            run("PRAGMA synchronous = NORMAL")
            run("BEGIN EXCLUSIVE")
            file.check()
            reason = "" if fresh else self._load(version)
            if fresh or reason:
                self._create()
            run("COMMIT")
        except (sqlite3.Error, ValueError, TypeError, OverflowError) as error:
            file.check()
            if not _is_damage(error):
                raise self._failure(error) from error
            reason = f"it is damaged: {one_line(error)}"
            self._start_over()
        if reason:
            log.warning("%s cannot be continued (%s): starting again", self.path, reason)

    def _load(self, version: int) -> str:
        """Read the state of the run; the reason why it cannot be continued, if any."""
        if version != _SCHEMA:
            return f"it is of version {version}, this program writes {_SCHEMA}"
        meta = _Meta.read(self._connection)
        if meta.run_key != self._key:
            return f"it is from a run with another {_differing(meta.run_key, self._key)}"
        checked = self._connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if checked != "ok":
            raise ValueError(checked)
        self._watermark, self._count = meta.watermark, meta.cells
        self._digest, self._steps = int(meta.digest, 16), json.loads(meta.steps)
        if not self.is_whole():
            raise ValueError("its cells are not those that were written")
        return ""

    def _create(self) -> None:
        run = self._connection.execute
        for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            quoted = name.replace('"', '""')
            run(f'DROP TABLE "{quoted}"')
        for statement in _STATEMENTS:
            run(statement)
        self._watermark = self._count = self._digest = 0
        self._steps = {}
        run("INSERT INTO meta VALUES ('', 0, 0, '', '', '', '')")
        self._write_meta()
        run(f"PRAGMA application_id = {_APPLICATION_ID}")
        run(f"PRAGMA user_version = {_SCHEMA}")

    def _start_over(self) -> None:
        """Delete the file, which is ours, and make a new one."""
        try:
            self._connection.close()
            _journal(self.path).unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            self._open()
        except OSError as error:
            raise self._failure(error) from error

    @property
    def watermark(self) -> int:
        """What the last ``append`` gave; 0 for a fresh run."""
        return self._watermark

    def append(self, rows: Iterable[Row], watermark: int) -> None:
        """Add cells and move the watermark, both or neither.

        Raises ``OutputError`` when it cannot be written.
        """
        added = list(rows)
        before = self._watermark, self._count, self._digest
        self._watermark = watermark
        self._count += len(added)
        self._digest = (self._digest + _digest(added)) % _DIGESTS
        try:
            with self._transaction() as connection:
                connection.executemany(f"INSERT INTO cells {_VALUES}", added)
                self._write_meta()
        except BaseException:
            self._watermark, self._count, self._digest = before
            raise

    @property
    def steps(self) -> Mapping[str, Any]:
        """The record of each step over the set of cells, by its name."""
        return self._steps

    def take_step(
        self,
        name: str,
        record: Mapping[str, Any],
        change: Callable[[Iterator[list[Row]]], Iterator[list[Row]]] | None = None,
    ) -> None:
        """Change all cells and record the step, both or neither.

        ``record``: JSON values for ``steps``; ``change``: is given all cells as they are, in
        row-major order, some thousand at a time, and returns each of them at the same place, in the
        same order; None: they stay unchanged. Raises ``OutputError`` when it cannot be written.
        """
        before = self._steps, self._digest
        self._steps = {**self._steps, name: record}
        try:
            with self._transaction():
                if change is not None:
                    self._digest = self._change_cells(change)
                self._write_meta()
        except BaseException:
            self._steps, self._digest = before
            raise

    def _change_cells(self, change: Callable[[Iterator[list[Row]]], Iterator[list[Row]]]) -> int:
        """Replace all cells; their digest."""
        digest = 0
        for changed in change(self._unchanged()):
            self._connection.executemany(f"REPLACE INTO cells {_VALUES}", changed)
            digest = (digest + _digest(changed)) % _DIGESTS
        return digest

    def _unchanged(self) -> Iterator[list[Row]]:
        """All cells, of which those that were given may be replaced meanwhile."""
        place = (-1, -1)
        query = "SELECT * FROM cells WHERE (row, col) > (?, ?) ORDER BY row, col LIMIT ?"
        while rows := self._connection.execute(query, (*place, _FETCH)).fetchall():
            yield rows
            place = rows[-1][:2]

    def announce(self, results: Mapping[Path, Path]) -> None:
        """Record the results that are about to be put in place: of each the staged file.

        After a run that is killed then they are recognized by it, see ``is_announced``. Raises
        ``OutputError`` when it cannot be written.
        """
        made = {result.name: content_mark(file) for result, file in results.items()}
        with self._transaction():
            self._write_meta(json.dumps(made))

    def is_whole(self) -> bool:
        """Whether the cells are those that were written."""
        count = digest = 0
        for chunk in self.read("*"):
            count += len(chunk)
            digest = (digest + _digest(chunk)) % _DIGESTS
        return (count, digest) == (self._count, self._digest)

    def __len__(self) -> int:
        return self._count

    def read(self, columns: str, rows: range | None = None) -> Iterator[list[tuple[Any, ...]]]:
        """The named columns of cells in row-major order, in lists of some thousand.

        ``rows``: of the grid, those that are wanted; None: all.
        """
        # The columns are named by this package alone.
        query = f"SELECT {columns} FROM cells"  # noqa: S608
        if rows is not None:
            query += f" WHERE row >= {rows.start:d} AND row < {rows.stop:d}"
        cursor = self._connection.execute(f"{query} ORDER BY row, col")
        while chunk := cursor.fetchmany(_FETCH):
            yield chunk

    def probabilities(self) -> Iterator[NDArray[np.float32]]:
        """The probabilities (n, C) that cells keep, but for Unknown ones, in the same order."""
        for chunk in self.read("class_id, probabilities"):
            table = table_of([blob for _, blob in chunk if isinstance(blob, bytes)])
            yield table[np.array([class_id for class_id, _ in chunk]) < table.shape[1]]

    def count_named(self) -> int:
        """How many cells ``probabilities`` gives, without reading them."""
        query = "SELECT count(*) FROM cells WHERE class_id < length(probabilities) / 4"
        (count,) = self._connection.execute(query).fetchone()
        return int(count)

    def share_below(self, familiarity: float, *, but: int | None, confidence: float) -> float:
        """The share of all cells that are less familiar than that, in [0, 1].

        Cells of the class ``but`` with at least this confidence do not count as such.
        """
        query = (
            "SELECT count(*) FROM cells WHERE familiarity < ?"
            " AND NOT (class_id IS ? AND confidence >= ?)"
        )
        values = (familiarity, but, confidence)
        (count,) = self._connection.execute(query, values).fetchone()
        return count / self._count if self._count else 0.0

    def is_gray(self) -> bool:
        """Whether no cell has a color: its mean red, green and blue are within one of 255."""
        for chunk in self.read("color"):
            if not all(isinstance(blob, bytes) for (blob,) in chunk):
                return False
            colors = table_of([blob for (blob,) in chunk])
            if (np.ptp(colors, axis=1) > 1).any():
                return False
        return self._count > 0

    def close(self) -> None:
        """Close, keeping the file for the next run; one without cells is deleted."""
        if self._count:
            self._connection.close()
        else:
            self.remove()

    def remove(self) -> None:
        """Close and delete: the run is complete."""
        delete_locked(self.path, self._connection)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is written in the block, or nothing; SQLite's errors as ours."""
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            try:
                yield self._connection
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back by itself on a full disk
                    run("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise self._failure(error) from error

    def _write_meta(self, made: str = "") -> None:
        steps = json.dumps(self._steps, ensure_ascii=False)
        digest = f"{self._digest:032x}"
        meta = _Meta(self._key, self._watermark, self._count, digest, steps, made)
        self._connection.execute(
            "UPDATE meta SET run_key = ?, watermark = ?, count = ?, digest = ?, steps = ?,"
            " made = ?, mark = ?",
            (*meta, _mark(meta)),
        )

    def _failure(self, error: Exception) -> OutputError:
        text = one_line(error)
        if "locked" in text:
            return in_use(self.path)
        return OutputError(
            f"cannot write {self.path} ({text}): make room or make the folder writable, then run"
            " the same command again to go on"
        )


def delete_part_file(path: Path) -> None:
    """Delete a part file that is no longer wanted, but for one that another process works on."""
    if path.exists():
        with suppress(sqlite3.Error, OutputError):
            delete_locked(path, lock_database(path, taken=path))


def is_announced(path: Path, results: Iterable[Path]) -> bool:
    """Whether all results that are there are those that the run of a part file has just made.

    It was killed before it could delete the part file then; never for a file that is no part file.
    """
    if not path.is_file():
        return False
    try:
        uri = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(uri, timeout=0, uri=True)) as connection:
            fresh, version = _identity(connection, path)
            if fresh or version != _SCHEMA:
                return False
            made = json.loads(_Meta.read(connection).made or "{}")
    except (sqlite3.Error, OutputError, ValueError, TypeError):
        return False
    return all(made.get(file.name) == content_mark(file) for file in results if file.is_file())


def _identity(connection: sqlite3.Connection, path: Path) -> tuple[bool, int]:
    """Whether the file is empty, and its version; ``OutputError`` for one that is not ours."""
    try:
        pages, kind, version = (
            connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "application_id", "user_version")
        )
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        pages, kind, version = 1, _kind_of_damaged(path), 0
    if pages and kind != _APPLICATION_ID:
        raise OutputError(
            f"{path} is no part file of this program, or a damaged one: move it away or delete it,"
            " or choose another output"
        )
    return pages == 0, version


def _kind_of_damaged(path: Path) -> int:
    """The application id in the header of a file that SQLite does not read; 0 where it has none."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    return int.from_bytes(header[68:72], "big") if header.startswith(b"SQLite format 3\0") else 0


class _Meta(NamedTuple):
    """The state of a run: the columns of the table ``meta`` but for ``mark``, their checksum.

    Attributes
    ----------
    cells, digest : their number, and their digest in hexadecimal digits
    steps : JSON of the records of the steps taken, by name
    made : JSON of the marks of the results about to be put in place, by file name; "" before
    """

    run_key: str
    watermark: int
    cells: int
    digest: str
    steps: str
    made: str

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> _Meta:
        """That of a file; ``ValueError`` for a damaged one."""
        rows = connection.execute("SELECT * FROM meta").fetchall()
        if len(rows) != 1 or rows[0][-1] != _mark(rows[0][:-1]):
            raise ValueError("its state is not what was written")
        return cls(*rows[0][:-1])


def _differing(before: str, now: str) -> str:
    """The first names whose values two keys do not share."""
    old, new = json.loads(before), json.loads(now)
    same = {name for name in old.keys() & new.keys() if old[name] == new[name]}
    names = sorted({*old, *new} - same)
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")


def _mark(values: Sequence[object]) -> str:
    """The checksum of a run's state."""
    return hashlib.sha256(repr(tuple(values)).encode()).hexdigest()


def _digest(rows: Iterable[Sequence[object]]) -> int:
    """Of rows in any order: the sum of their hashes."""
    hashes = (hashlib.blake2b(repr(tuple(row)).encode(), digest_size=16) for row in rows)
    return sum(int.from_bytes(each.digest(), "big") for each in hashes) % _DIGESTS


def _is_damage(error: Exception) -> bool:
    """Whether the file's content is damaged: not the disk, the folder or another process."""
    if not isinstance(error, sqlite3.OperationalError):
        return True
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) == sqlite3.SQLITE_ERROR


def _journal(path: Path) -> Path:
    return path.with_name(path.name + "-journal")
