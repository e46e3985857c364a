"""Locks between processes: SQLite files in an exclusive transaction, released by a crash too."""

from __future__ import annotations

import os
import sqlite3
import sys
from contextlib import suppress
from pathlib import Path

from rssc_geo.closing import Closing
from rssc_geo.errors import OutputError

_JOURNAL = bytes.fromhex("d9d505f920a163d7")
"""Start of a journal of SQLite (https://sqlite.org/fileformat.html); zeros before it is synced."""

_WAIT_S = 0.1
"""How long one waits for a lock: of two that try at once, each may find the other in its way."""


class FileLock(Closing):
    """The lock of a file that is made for it, held until ``close``; a crash releases it.

    ``taken``: what the lock is about, for messages. Raises ``OutputError`` where another process
    holds it, the file is not empty, which none of ours is, or the folder cannot be written.
    """

    def __init__(self, path: Path, *, taken: Path) -> None:
        self._path = path
        try:
            self._connection = lock_database(path, taken=taken)
        except sqlite3.OperationalError as error:
            # The last holder of a lock deletes the folder, too, that it made for it.
            if "locked" in str(error) or not path.parent.is_dir():
                raise in_use(taken) from error
            if path.exists() and not os.access(path, os.R_OK | os.W_OK):
                raise in_the_way(path) from error
            folder = taken if taken.is_dir() else taken.parent
            raise OutputError(
                f"cannot write in {folder} ({error}): choose a folder that is writable"
            ) from error
        except sqlite3.DatabaseError as error:
            raise in_the_way(path) from error
        if path.stat().st_size:
            self._connection.close()
            raise in_the_way(path)

    def close(self) -> None:
        """Release the lock and delete its file."""
        delete_locked(self._path, self._connection)


class FileAtPath(Closing):
    """The file that is at a path now, to be compared with the one that is there later.

    A process that opens and locks a file holds the lock of its path only if that is still the file
    there: its last holder may have deleted it meanwhile. ``taken``: what the lock is about. On
    Linux the file is held by a descriptor that opens nothing: else a new file could get the number
    of one that is deleted. (A descriptor that opens the file would end SQLite's locks of it when it
    is closed.)
    """

    def __init__(self, path: Path, *, taken: Path) -> None:
        self._path, self._taken = path, taken
        self._descriptor = None
        if sys.platform == "linux":
            with suppress(FileNotFoundError):
                self._descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        self._number = file_number(path if self._descriptor is None else self._descriptor)

    def check(self) -> None:
        """Refuse with ``OutputError`` a path whose file is another now."""
        if self._number is None or file_number(self._path) != self._number:
            raise in_use(self._taken)

    def close(self) -> None:
        """Let the number of the file go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def file_number(file: Path | int) -> tuple[int, int] | None:
    """Device and number of a file by path or descriptor; None where there is none."""
    try:
        found = os.stat(file)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def lock_database(path: Path, *, taken: Path) -> sqlite3.Connection:
    """Open an SQLite file, which is made if need be, in an exclusive transaction.

    Raises SQLite's errors, and ``OutputError`` for one that was deleted meanwhile, or is a link;
    ``taken``: what it is about.
    """
    make_database(path)
    # One that was deleted meanwhile is not made anew: it would stay behind.
    existing = f"{path.absolute().as_uri()}?mode=rw"
    with FileAtPath(path, taken=taken) as file:
        try:
            connection = sqlite3.connect(existing, uri=True, timeout=_WAIT_S, isolation_level=None)
        except BaseException:
            file.check()
            raise
        try:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            finally:
                file.check()
        except BaseException:
            connection.close()
            raise
    return connection


def make_database(path: Path) -> None:
    """Make an empty SQLite file where there is none.

    Raises ``OutputError`` for a link, of which ours never are: SQLite would make a file elsewhere,
    and deleting it would delete the link alone. And what ``check_journal`` does, and SQLite's
    errors.
    """
    if path.is_symlink():
        raise in_the_way(path)
    check_journal(path)
    sqlite3.connect(path).close()


def check_journal(path: Path) -> None:
    """Refuse a file of others that has the name of an SQLite file's journal: SQLite deletes it.

    Raises ``OutputError``.
    """
    journal = path.with_name(f"{path.name}-journal")
    if not os.path.lexists(journal):
        return
    try:
        with journal.open("rb") as file:
            start = file.read(len(_JOURNAL))
    except OSError as error:
        raise in_the_way(journal) from error
    if start.strip(b"\0") and not _JOURNAL.startswith(start):
        raise in_the_way(journal)


def delete_locked(path: Path, connection: sqlite3.Connection) -> None:
    """Delete an SQLite file, close the connection that locks it, both once.

    In this order, so that no other process has locked the file that is deleted. Windows deletes no
    file that is open: there it is closed first, and stays where another process has opened it.
    """
    try:
        # Else closing would delete a journal of that name, which may be another process's by then.
        connection.execute("PRAGMA journal_mode = OFF")
    except sqlite3.Error:  # it was closed before
        connection.close()
        return
    if os.name == "nt":
        connection.close()
    with suppress(OSError):
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    connection.close()


def in_the_way(path: Path) -> OutputError:
    """The error for a file or folder of others that has the name of one of ours."""
    return OutputError(
        f"{path} is in the way (rssc-geo did not make it): rename or delete it, or choose another"
        " output"
    )


def in_use(taken: Path) -> OutputError:
    """The error for a result that another process works on."""
    return OutputError(
        f"{taken} is in use by another rssc-geo process: wait for it to end, or choose another"
        " output"
    )
