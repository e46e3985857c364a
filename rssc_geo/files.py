"""Files and folders of results: they appear whole or not at all, and only where they may.

What is being made lies beside its target under a hidden name that starts with the target's own and
ends with ``.rssc-geo``, so that a rename within one file system announces it. Everything is synced
before that rename.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from rssc_geo.errors import OutputError, UsageError, one_line

_SUFFIX = ".rssc-geo"
_HEADER_BYTES = 65536
_MARKER = "staging.rssc-geo"
_MARK = "rssc-geo makes results in this folder and deletes it with all it holds\n"


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Refuse before the work starts a file that could not be written at its end.

    Raises ``OutputError`` where the path is a folder, exists without ``overwrite``, or lies in a
    folder that is not there or takes no files.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another name, or replace it with --overwrite")
    folder = path.parent
    if not folder.is_dir():
        raise OutputError(f"{folder} is not an existing folder: create it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write in {folder} ({error.strerror}): choose a folder that is writable"
        ) from error


def check_not_input(results: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Refuse to replace what is being read, whatever ``overwrite`` says; ``UsageError``."""
    read = [Path(file) for file in inputs]
    for path in results:
        if any(_same_file(path, file) for file in read):
            raise UsageError(f"{path} is the input itself; choose another name for the result")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what is written there becomes ``path`` at the end.

    Nothing is left when the block raises. Raises ``OutputError`` for what the file system says.
    """
    made = _hidden(path)
    try:
        # An exclusive new file, as readable as the umask makes all others.
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield made
        sync(made)
        made.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        made.unlink(missing_ok=True)


@contextmanager
def atomic_folder(target: Path, *, index: str, overwrite: bool) -> Iterator[Path]:
    """Yield a new folder to write into, which becomes ``target`` at the end.

    ``index``: the file that every such result holds; with ``overwrite`` a folder that is there is
    replaced if it holds one. An empty folder is used. Nothing is left when the block raises.
    Raises ``OutputError`` when the folder exists, is something else, or cannot be written.
    """
    taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if taken and not overwrite:
        raise OutputError(f"{target} exists; choose another folder or add --overwrite")
    if taken and not (target / index).is_file():
        raise OutputError(
            f"{target} holds no {index}, so it is not an earlier result; it is not replaced"
        )
    made = _hidden(target)
    try:
        made.mkdir()
    except OSError as error:
        raise write_error(target, error) from error
    try:
        yield made
        for folder, _, names in os.walk(made):
            for name in names:
                sync(Path(folder, name))
        earlier = _hidden(target)
        if target.exists():
            target.replace(earlier)
        made.replace(target)
        sync_folder(target.parent)
        shutil.rmtree(earlier, ignore_errors=True)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


class StagingFolder:
    """A hidden folder beside ``target`` where files are made that appear together.

    A context manager; the folder is gone when the block ends. One that a killed run left behind
    is known by a marker inside and replaced: only one process may write a target at a time. Raises
    ``OutputError`` when the folder cannot be made, or something else has its name.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.folder = target.with_name(f".{target.name}{_SUFFIX}")

    def place(self, result: Path) -> Path:
        """Where to make the file that will be ``result``; the names of results differ."""
        return self.folder / result.name

    def publish(self, results: Sequence[Path], *, obsolete: Iterable[Path] = ()) -> None:
        """Sync the files made and move them to their places, the main one last.

        ``obsolete`` files are deleted just before. A result may lie on another file system. Raises
        ``OutputError`` naming the file that could not be put in place.
        """
        path = results[-1]
        try:
            for path in results:
                sync(self.place(path))
            for path in obsolete:
                path.unlink(missing_ok=True)
            for path in results:
                _move(self.place(path), path)
            for folder in dict.fromkeys(path.parent for path in results):
                sync_folder(folder)
        except OSError as error:
            raise write_error(path, error) from error

    def __enter__(self) -> Self:
        self._remove()
        try:
            self.folder.mkdir()
            (self.folder / _MARKER).write_text(_MARK, encoding="utf-8")
        except OSError as error:
            self._remove()
            raise write_error(self._target, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OutputError):  # what is left is recognized by the next run
            self._remove()

    def _remove(self) -> None:
        """Delete the folder if it is one of ours, or empty; the marker goes last."""
        if not os.path.lexists(self.folder):
            return
        try:
            if self._is_ours():
                for entry in self.folder.iterdir():
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry)
                    elif entry.name != _MARKER:
                        entry.unlink()
                (self.folder / _MARKER).unlink()
            self.folder.rmdir()
        except OSError as error:
            raise OutputError(
                f"{self.folder} is in the way ({error.strerror or one_line(error)}): rename or"
                " delete it, or choose another output"
            ) from error

    def _is_ours(self) -> bool:
        marker = self.folder / _MARKER
        if self.folder.is_symlink() or not marker.is_file():
            return False
        return marker.read_bytes() in (_MARK.encode(), b"")  # empty: killed while it was written


def write_error(path: Path, reason: object) -> OutputError:
    """The one error for a result that the file system does not take.

    ``path``: the result, or the file in a staging folder that will be it; ``reason``: what was
    raised, or in words.
    """
    folder = path.parent.parent if path.parent.name.endswith(_SUFFIX) else path.parent
    words = reason.strerror if isinstance(reason, OSError) else None
    return OutputError(
        f"cannot write {path.name} in {folder} ({words or one_line(str(reason))}): make room there,"
        " or make it writable, then run the same command again"
    )


def sync(path: Path) -> None:
    """Make a file's content durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames durable where folders can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fingerprint(files: Iterable[str | Path]) -> str:
    """SHA-256 of what identifies files cheaply: name, size, time of change and first 64 KiB.

    What is no file here (a URL) counts by its name alone.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(file))
        if Path(file).is_file():
            stat = Path(file).stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
            with Path(file).open("rb") as stream:
                digest.update(stream.read(_HEADER_BYTES))
    return digest.hexdigest()


def _hidden(path: Path) -> Path:
    """A new hidden name beside ``path``."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{_SUFFIX}")


def _same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file: links, and case where the file system has none."""
    if one.resolve() == other.resolve():
        return True
    return one.exists() and other.exists() and one.samefile(other)


def _move(made: Path, path: Path) -> None:
    """Rename; across file systems copy beside the target first."""
    try:
        made.replace(path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_write(path) as beside:
            shutil.copyfile(made, beside)
