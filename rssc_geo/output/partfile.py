"""The resumable state of a run: an SQLite file ``<output>.part`` beside the target.

It holds the cells classified so far and the *watermark*, an integer with which the caller finds its
place again. Both change in one transaction, so a run killed at any moment goes on where its last
batch ended.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType

from rssc_geo.errors import OutputError
from typing import Self

logger = logging.getLogger(__name__)

_FORMAT = 1
_FETCH = 8192
_CREATE = """
    CREATE TABLE meta (format INTEGER NOT NULL, run_key TEXT NOT NULL, watermark INTEGER NOT NULL);
    CREATE TABLE cells (
        row INTEGER NOT NULL, col INTEGER NOT NULL, class_id INTEGER NOT NULL, confidence REAL NOT NULL,
        runner_up INTEGER, margin REAL NOT NULL, caption TEXT NOT NULL, probabilities BLOB,
        PRIMARY KEY (row, col)
    ) WITHOUT ROWID;
"""

Row = tuple[int, int, int, float, int | None, float, str, bytes | None]
"""A cell.

Row, col, class id, confidence, runner-up's id, margin, caption, float32 probabilities.
"""


class PartFile:
    """The part file at ``path``, held exclusively from opening to closing; a crash lets it go.

    ``run_key`` is everything that defines the result. A file left by a run with the same key is
    resumed; any other file there is started anew, with a warning. May be used from any one thread
    at a time. Raises ``OutputError`` when another process works on it or it cannot be written.
    """

    def __init__(self, path: Path, run_key: Mapping[str, object]) -> None:
        self.path = path
        key = json.dumps(run_key, sort_keys=True, ensure_ascii=False)
        try:
            self._connection = self._connect()
        except sqlite3.OperationalError as error:
            raise self._failure(error) from error
        try:
            self._prepare(key)
        except sqlite3.OperationalError as error:
            self._connection.close()
            raise self._failure(error) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            logger.warning("%s cannot be resumed (%s): starting anew", path, error)
            self._connection.close()
            self._start_anew(key)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=0, isolation_level=None, check_same_thread=False)

    def _prepare(self, key: str) -> None:
        run = self._connection.execute
        # An exclusive lock that outlasts transactions, and dies with the process. The rollback
        # journal (never WAL) makes a killed run's file consistent at the next opening, and is gone
        # after a normal close.
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = DELETE")
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN EXCLUSIVE")
        tables = {name for (name,) in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables >= {"meta", "cells"}:
            found = run("SELECT format, run_key FROM meta").fetchone()
            if found == (_FORMAT, key):
                run("COMMIT")
                return
            logger.warning(
                "%s is from a run with another input, model or other options: starting anew",
                self.path,
            )
        for name in tables:
            quoted = name.replace('"', '""')
            run(f'DROP TABLE "{quoted}"')
        for statement in _CREATE.strip().rstrip(";").split(";"):
            run(statement)
        run("INSERT INTO meta VALUES (?, ?, 0)", (_FORMAT, key))
        run("COMMIT")

    def _start_anew(self, key: str) -> None:
        try:
            _journal(self.path).unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
            self._connection = self._connect()
            self._prepare(key)
        except (OSError, sqlite3.Error) as error:
            raise self._failure(error) from error

    @property
    def watermark(self) -> int:
        """What the last ``append`` gave; 0 for a fresh run."""
        return int(self._connection.execute("SELECT watermark FROM meta").fetchone()[0])

    def append(self, rows: Iterable[Row], watermark: int) -> None:
        """Add cells and move the watermark, both or neither.

        Raises ``OutputError`` when it cannot be written.
        """
        run = self._connection.execute
        try:
            run("BEGIN IMMEDIATE")
            try:
                self._connection.executemany(
                    "INSERT INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows
                )
                run("UPDATE meta SET watermark = ?", (watermark,))
                run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # SQLite rolls back by itself on a full disk
                    run("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:
            raise self._failure(error) from error

    def __len__(self) -> int:
        return int(self._connection.execute("SELECT count(*) FROM cells").fetchone()[0])

    def read(self, columns: str) -> Iterator[list[tuple[object, ...]]]:
        """The named columns of all cells in row-major order, in lists of some thousand rows."""
        cursor = self._connection.execute(f"SELECT {columns} FROM cells ORDER BY row, col")
        while chunk := cursor.fetchmany(_FETCH):
            yield chunk

    def close(self) -> None:
        """Close, keeping the file for the next run."""
        self._connection.close()

    def remove(self) -> None:
        """Close and delete: the run is complete."""
        self.close()
        self.path.unlink(missing_ok=True)
        _journal(self.path).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _failure(self, error: Exception) -> OutputError:
        text = str(error)
        if "locked" in text:
            return OutputError(
                f"{self.path} is in use by another rssc-geo process: wait for it to end, or choose"
                " another output"
            )
        return OutputError(
            f"cannot write {self.path} ({text}): make room or make the folder writable, then run"
            " the same command again to go on"
        )


def _journal(path: Path) -> Path:
    return path.with_name(path.name + "-journal")
