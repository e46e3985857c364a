"""Files and folders of results: they appear whole or not at all, and replace nothing without leave.

A result in progress lies beside its target under a hidden name that starts with the target's own
and ends with ``.rssc-geo``, so that a rename within one file system completes it. Everything is
synced before that rename. A result that is a symbolic link is followed: what it points to is
replaced, the link stays.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from rssc_geo.errors import OutputError, UsageError, one_line
from rssc_geo.locks import FileLock, in_the_way

_SUFFIX = ".rssc-geo"
_LONGEST_NAME = 255  # bytes, on all usual file systems
_TOKEN = re.compile("[0-9a-f]{16}")
_MARKER, _LOCK = "staging.rssc-geo", "lock.rssc-geo"
_LOCK_FILES = (_LOCK, f"{_LOCK}-journal")
FilesOf = Callable[[Path], Iterable[str]]
"""Gives the names of the files of a result, a folder."""
_MARK = "rssc-geo makes results in this folder and deletes it with all it holds\n"


def paths_of(given: object) -> list[str]:
    """One path or several, as Python callers give them, as texts: a text alone is one path.

    ``UsageError`` for what is none.
    """
    if isinstance(given, str | os.PathLike):
        return [path_of(given)]
    return [path_of(path) for path in (given if isinstance(given, Iterable) else [given])]


def path_of(given: object) -> str:
    """A path as a Python caller gives it, as text; ``UsageError`` for what is none, as tables."""
    if isinstance(given, str | os.PathLike):
        return os.fsdecode(given)
    raise UsageError(
        f"a path cannot be of Python's type {type(given).__name__}: give the path of a file as text"
    )


def check_name(path: Path) -> None:
    """Refuse a result's name that is too long for the files beside it, or no single line of text.

    Also a path that no file can have, or that GDAL reads without the spaces before it. Raises
    ``UsageError``.
    """
    text = os.fspath(path)
    if "\0" in text or text[:1].isspace():
        raise UsageError(
            f"{text!r} begins with a space or holds a null character: choose another name"
        )
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp") for sign in path.name):
        raise UsageError(
            f"{path.name!r} has a line break or control character in it: choose another name"
        )
    room = _LONGEST_NAME - len(_hidden(Path("x")).name) + 1
    if (size := len(os.fsencode(path.name))) > room:
        raise UsageError(
            f"the name {path.name} has {size} bytes, {room} are the most that leave room for the"
            " names of files made beside it: choose a shorter one"
        )


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Refuse, before the work starts, a file that could not be written at the end.

    Raises ``OutputError`` where the path is a folder, exists without ``overwrite``, or lies in a
    folder that is not there or takes no files; ``UsageError`` for its name.
    """
    check_name(path)
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another name, or replace it with --overwrite")
    folder = followed(path).parent
    if not folder.is_dir():
        raise OutputError(f"{folder} is not an existing folder: create it first")
    check_takes_files(folder)


def check_takes_files(folder: Path) -> None:
    """Refuse with ``OutputError`` a folder in which no file can be made."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(
            f"cannot write in {folder} ({error.strerror}): choose a folder that is writable"
        ) from error


def make_folders(path: Path) -> list[Path]:
    """Make a folder and those above it; those that were not there, the innermost first.

    Raises ``OutputError``.
    """
    missing = []
    place = path
    while not place.exists() and place != place.parent:
        missing.append(place)
        place = place.parent
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder {path} ({error.strerror}): choose another --output"
        ) from error
    return missing


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders of ``make_folders`` in which nothing is."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def check_not_input(results: Iterable[Path], inputs: Iterable[str | Path]) -> None:
    """Refuse to replace what is being read, whatever ``overwrite`` says.

    ``inputs``: files, also by GDAL's names of what lies in archives. Raises ``UsageError`` for a
    result that is one of them, or a folder that holds one.
    """
    folder_of = functools.cache(os.path.realpath)  # many files share one
    places = [local_file(file) or os.fspath(file) for file in inputs]
    read = {key for place in places for key in _file_keys(place, folder_of)}
    for path in results:
        if not read.isdisjoint(_file_keys(path, folder_of)):
            raise UsageError(f"{path} is the input itself; choose another name for the result")
        if os.path.isdir(path):
            folder = path.resolve()
            for place in places:
                if _is_inside(place, folder):
                    raise UsageError(
                        f"{place} lies in {path}, which is to hold the result alone: choose another"
                        " folder"
                    )


def check_distinct(results: Iterable[Path]) -> None:
    """Refuse one file for two results, also by two names of it: ``UsageError``."""
    folder_of = functools.cache(os.path.realpath)
    taken: set[str] = set()
    for path in results:
        place = real_place(path, folder_of)
        if place in taken:
            raise UsageError(f"two results are named {path.name}: give each its own name")
        taken.add(place)


def real_place(path: Path, folder_of: Callable[[str], str]) -> str:
    """Where a result really lies: of two names of the same file the same.

    ``folder_of``: the path of a folder without links, which many results share.
    """
    text = os.fspath(path)
    if os.path.islink(text):
        return os.path.realpath(text)
    folder, name = os.path.split(text)
    return os.path.normcase(f"{folder_of(folder)}{os.sep}{name}")


def _is_inside(place: str, folder: Path) -> bool:
    with suppress(OSError, ValueError):  # a name that no file can have
        return Path(place).resolve().is_relative_to(folder)
    return False


def local_file(name: str | Path) -> str | None:
    """The file or folder on this machine that a GDAL name refers to, None where there is none.

    For a file in an archive (``/vsizip/a.zip/b.tif``) it is the archive.
    """
    text = os.fspath(name)
    if not text.startswith("/vsi"):
        return text if os.path.exists(text) else None
    if text.startswith("/vsimem/"):
        return None
    path = re.sub(r"^(/vsi\w+/)+", "", text).replace("{", "").replace("}", "")
    for place in (path, f"/{path}"):
        found = Path(place)
        while found.name:
            if found.is_file():
                return str(found)
            found = found.parent
    return None


def followed(path: Path) -> Path:
    """The path at which a result is put: the target of a symbolic link, else the path itself.

    Raises ``OutputError`` for links that lead in a circle.
    """
    if not path.is_symlink():
        return path
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise OutputError(
            f"{path} is a symbolic link that leads nowhere ({one_line(error)}): choose another name"
        ) from error


def relative_link(path: Path, folder: Path) -> str:
    """A file as a link from a document in a folder; absolute where no relative path exists.

    Examples
    --------
    >>> from pathlib import Path
    >>> from rssc_geo.files import relative_link
    >>> relative_link(Path("maps/my scene.gpkg"), Path("maps"))
    './my%20scene.gpkg'
    """
    place = path.resolve()
    try:
        relative = Path(os.path.relpath(place, folder.resolve()))
    except ValueError:  # on another drive
        return place.as_uri()
    named = quote(os.fsencode(relative.as_posix()))
    return named if named.startswith("../") else f"./{named}"


@contextmanager
def atomic_write(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; what is written there becomes ``path`` at the end.

    Nothing is left when the block raises. Raises ``OutputError`` for errors of the file system, and
    without ``overwrite`` for a file that is there at the end: another process has made it.
    """
    target = followed(path)
    made = _hidden(target)
    try:
        # An exclusive new file, with the permissions of the umask.
        os.close(os.open(made, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except OSError as error:
        raise write_error(path, error) from error
    try:
        yield made
        sync(made)
        _put(made, target, overwrite=overwrite)
        sync_folder(target.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        made.unlink(missing_ok=True)
    _tidy(target)


@contextmanager
def atomic_folder(
    target: Path, *, index: str, overwrite: bool, others: FilesOf | None = None
) -> Iterator[Path]:
    """Yield a new folder to write into, which becomes ``target`` at the end.

    ``index``: the file that every such result holds; ``others``: gives the names of the other files
    of an earlier result, which is its argument; None: they have any names. With ``overwrite`` a
    folder that is there is replaced if it holds the one, and nothing but the others (and what GDAL
    puts beside them). An empty folder is used. Nothing is left when the block raises.
    Raises ``OutputError`` when the folder exists, is something else, or cannot be written,
    ``UsageError`` for its name.
    """
    _check_replaceable(target, index, others, overwrite=overwrite)
    place = followed(target)
    made = _hidden(place)
    try:
        made.mkdir()
    except OSError as error:
        raise write_error(target, error) from error
    try:
        yield made
        for folder, _, names in os.walk(made):
            for name in names:
                sync(Path(folder, name))
            sync_folder(Path(folder))
        # Again: another process may have written the same folder meanwhile.
        _check_replaceable(target, index, others, overwrite=overwrite)
        _exchange(made, place, overwrite=overwrite)
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    _tidy(place)


def _check_replaceable(
    target: Path, index: str, others: FilesOf | None, *, overwrite: bool
) -> None:
    """Refuse with ``OutputError`` a folder that ``atomic_folder`` must not replace."""
    check_name(target)
    taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if taken and not overwrite:
        raise OutputError(f"{target} exists; choose another folder or add --overwrite")
    if taken and not (target / index).is_file():
        raise OutputError(
            f"{target} holds no {index}, so it is not an earlier result; it is not replaced"
        )
    if taken and (foreign := _foreign(target, index, others)):
        raise OutputError(
            f"{target} holds {foreign}, which is of no earlier result and would be lost: move it"
            " away, or choose another folder"
        )


def _exchange(made: Path, place: Path, *, overwrite: bool) -> None:
    """Put a folder in place of an earlier one, which comes back where that fails."""
    earlier = _hidden(place)
    if place.exists() and not overwrite:
        place.rmdir()  # an empty one; another process may have filled it meanwhile
    elif place.exists():
        place.replace(earlier)
    try:
        made.replace(place)
    except OSError:
        if earlier.exists():
            earlier.replace(place)
        raise
    sync_folder(place.parent)
    shutil.rmtree(earlier, ignore_errors=True)


def _foreign(folder: Path, index: str, others: FilesOf | None) -> str:
    """The first name in the folder of an earlier result that does not belong to it."""
    names = sorted(os.listdir(folder))
    own = set(names)
    if others is not None:
        listed = set(others(folder))
        own = {index, f"{index}-wal", f"{index}-shm"}
        own |= listed | {f"{name}.aux.xml" for name in listed}
    return next((name for name in names if name not in own or (folder / name).is_dir()), "")


class StagingFolder:
    """A hidden folder beside ``target`` where files are made that appear together.

    A context manager; the folder is gone when the block ends. One that a killed run left behind
    is known by a marker inside and emptied. Only one process may write a target at a time, which
    holds a lock in it. Raises ``OutputError`` when the folder cannot be made, something else has
    its name, or another process is writing the target.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self.folder = target.with_name(f".{target.name}{_SUFFIX}")
        self._lock: FileLock | None = None
        self._folders = {target.parent: self.folder}

    def check(self) -> None:
        """Refuse with ``OutputError``, before the work starts, what has the folder's name."""
        if os.path.lexists(self.folder) and not self._is_ours():
            raise in_the_way(self.folder)

    def place(self, result: Path) -> Path:
        """The path for the file that becomes ``result``.

        Files of one folder lie in one folder here too, since some belong together by their names.
        """
        made = self._folders.setdefault(result.parent, self.folder / str(len(self._folders)))
        if made != self.folder:
            made.mkdir(exist_ok=True)
        return made / result.name

    def publish(
        self, results: Sequence[Path], *, overwrite: bool, obsolete: Iterable[Path] = ()
    ) -> None:
        """Sync the files made and move them to their places, the main one last.

        ``obsolete`` files are deleted just before. A result may lie on another file system. Raises
        ``OutputError`` naming the file that could not be put in place, or is there now without
        ``overwrite``.
        """
        path = results[-1]
        try:
            for path in results:
                sync(self.place(path))
            for path in () if overwrite else results:  # before one of several is put in place
                if path.exists():
                    raise _made_meanwhile(path)
            for path in obsolete:
                path.unlink(missing_ok=True)
            for path in results:
                _move(self.place(path), followed(path), overwrite=overwrite)
            for folder in dict.fromkeys(followed(path).parent for path in results):
                sync_folder(folder)
        except OSError as error:
            raise write_error(path, error) from error

    def __enter__(self) -> Self:
        try:
            self._take()
        except OSError as error:
            self._give_back()
            raise write_error(self._target, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._give_back()

    def _take(self) -> None:
        """Make the folder, or empty one that a killed run left, once its lock is held."""
        self.check()
        self.folder.mkdir(exist_ok=True)
        self._lock = FileLock(self.folder / _LOCK, taken=self._target)
        self._empty()
        (self.folder / _MARKER).write_text(_MARK, encoding="utf-8")

    def _empty(self) -> None:
        """Delete what was made in the folder; the marker goes last."""
        for entry in self.folder.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != _MARKER and entry.name not in _LOCK_FILES:
                entry.unlink()
        (self.folder / _MARKER).unlink(missing_ok=True)

    def _give_back(self) -> None:
        """Delete the folder and release its lock; what stays is recognized by the next run."""
        if self._lock is None:
            return
        with suppress(OSError):
            self._empty()
        self._lock.close()
        self._lock = None
        with suppress(OSError):  # another process has taken it
            self.folder.rmdir()

    def _is_ours(self) -> bool:
        """Whether the folder was left by a run, which had the same permissions."""
        usable = os.access(self.folder, os.R_OK | os.W_OK | os.X_OK)
        if not usable or self.folder.is_symlink() or not self.folder.is_dir():
            return False
        marker = self.folder / _MARKER
        if not marker.is_file():  # killed before it was there
            return set(os.listdir(self.folder)) <= set(_LOCK_FILES)
        try:  # empty: killed while it was written
            return marker.read_bytes() in (_MARK.encode(), b"")
        except PermissionError:
            return False


def write_error(path: Path, reason: object) -> OutputError:
    """The error for a result that cannot be written.

    ``path``: the result, or the file in a staging folder that becomes it; ``reason``: an exception,
    or words.
    """
    staging = next((folder for folder in path.parents if folder.name.endswith(_SUFFIX)), path)
    words = reason.strerror if isinstance(reason, OSError) else None
    return OutputError(
        f"cannot write {path.name} in {staging.parent} ({words or one_line(str(reason))}): make"
        " room there, or make it writable, then run the same command again"
    )


def sync(path: Path) -> None:
    """Make a file's content durable."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make renames durable where folders can be opened (not on Windows, nor without permission)."""
    if os.name == "posix" and os.access(folder, os.R_OK):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _hidden(path: Path) -> Path:
    """A new hidden name beside ``path``, with marks of the machine and process that make it."""
    token = f"{_machine()}{os.getpid():08x}{secrets.token_hex(2)}"
    return path.with_name(f".{path.name}.{token}{_SUFFIX}")


def _machine() -> str:
    """Four characters that identify this machine among those that share its folders."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:4]


def _tidy(path: Path) -> None:
    """Delete hidden files of ``path`` that killed processes of this machine have left."""
    start = f".{path.name}."
    names: list[str] = []
    with suppress(OSError):
        names = os.listdir(path.parent)
    for name in names:
        token = name.removeprefix(start).removesuffix(_SUFFIX)
        if name != start + token + _SUFFIX or not _TOKEN.fullmatch(token):
            continue
        left = path.with_name(name)
        if token[:4] != _machine() or _is_alive(int(token[4:12], 16)):
            continue
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left, ignore_errors=True)
        else:
            with suppress(OSError):  # of another user, in a folder where each deletes its own
                left.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether there is a process of that number; True where the check is not safe."""
    if os.name != "posix":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _file_keys(path: str | Path, folder_of: Callable[[str], str]) -> set[object]:
    """Identifiers of a file: two paths to the same file have one in common.

    Its path without links, and its number in the file system, which covers hard links and case.
    ``folder_of``: the path of a folder without links.
    """
    text = os.fspath(path)
    keys: set[object] = {text}
    with suppress(OSError, ValueError):  # no file, or a name that no file can have
        folder, name = os.path.split(text)
        whole = name in ("", ".", "..") or os.path.islink(text)
        keys.add(os.path.realpath(text) if whole else os.path.join(folder_of(folder), name))
        found = os.stat(text)
        keys.add((found.st_dev, found.st_ino))
    return keys


def _move(made: Path, path: Path, *, overwrite: bool) -> None:
    """Rename; across file systems copy beside the target first."""
    try:
        _put(made, path, overwrite=overwrite)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_write(path, overwrite=overwrite) as beside:
            shutil.copyfile(made, beside)


def _put(made: Path, path: Path, *, overwrite: bool) -> None:
    """Rename; without ``overwrite`` one of several processes at most does it.

    Raises ``OutputError`` where another was first.
    """
    if overwrite:
        made.replace(path)
        return
    try:
        try:
            os.link(made, path)
            made.unlink()
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno in (errno.EXDEV, errno.ENOENT):
                raise
            # A file system without hard links: an empty file takes the name.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            try:
                made.replace(path)
            except OSError:
                path.unlink()
                raise
    except FileExistsError:
        raise _made_meanwhile(path) from None


def _made_meanwhile(path: Path) -> OutputError:
    return OutputError(
        f"{path} was made by another process meanwhile: choose another name, or replace it with"
        " --overwrite"
    )
