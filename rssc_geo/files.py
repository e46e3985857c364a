"""Files and folders of results: they appear whole or not at all, and only where they may.

What is being made lies beside its target under a hidden name that starts with the target's own and
ends with ``.rssc-geo``, so that a rename within one file system announces it. Everything is synced
before that rename.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rssc_geo.errors import OutputError, UsageError, one_line

_SUFFIX = ".rssc-geo"
_HEADER_BYTES = 65536


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
    read = {Path(file).resolve() for file in inputs}
    for path in results:
        if path.resolve() in read:
            raise UsageError(f"{path} is the input itself; choose another name for the result")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what is written there becomes ``path`` at the end.

    Nothing is left when the block raises. Raises ``OutputError`` for what the file system says.

    >>> with atomic_write(Path("areas.csv")) as made:  # doctest: +SKIP
    ...     made.write_text("class,area\\n", encoding="utf-8")
    """
    try:
        descriptor, name = tempfile.mkstemp(_SUFFIX, f".{path.name}.", path.parent)
        os.close(descriptor)
        made = Path(name)
        # mkstemp makes files that only their owner can read; a result is as readable as others.
        made.chmod(0o666 & ~_umask())
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        yield made
        sync(made)
        made.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
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
    try:
        made = Path(tempfile.mkdtemp(_SUFFIX, f".{target.name}.", target.parent))
        made.chmod(0o777 & ~_umask())
    except OSError as error:
        raise _unwritable(target, error) from error
    try:
        yield made
        if target.exists():
            shutil.rmtree(target)
        made.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        raise _unwritable(target, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path} cannot be written: {error.strerror or one_line(error)}")
