"""A lock is held by one process at most, and its file is gone with it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from rssc_geo.errors import OutputError
from rssc_geo.locks import FileLock
from rssc_geo.output import PartFile

posix = pytest.mark.skipif(os.name != "posix", reason="a matter of POSIX")


def test_the_lock_of_a_file_that_is_deleted_meanwhile_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last holder deletes it: whoever opened it before has locked a file without a name."""
    path, connect = tmp_path / "lock", sqlite3.connect
    for other in (True, False):
        holder = FileLock(path, taken=tmp_path)
        opened, third = 0, []

        def late(*args: Any, **settings: Any) -> sqlite3.Connection:
            nonlocal opened
            connection = connect(*args, **settings)
            opened += 1
            if opened == 2:  # open, not locked yet
                holder.close()  # noqa: B023
                if other:  # noqa: B023
                    third.append(FileLock(path, taken=tmp_path))  # noqa: B023
            return connection

        monkeypatch.setattr(sqlite3, "connect", late)
        with pytest.raises(OutputError, match="is in use by another rssc-geo process") as caught:
            FileLock(path, taken=tmp_path)
        assert str(tmp_path) in str(caught.value)
        monkeypatch.setattr(sqlite3, "connect", connect)
        for lock in third:
            with pytest.raises(OutputError, match="in use"):
                FileLock(path, taken=tmp_path)
            lock.close()
        assert os.listdir(tmp_path) == []


@posix
def test_a_lock_is_held_until_its_file_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unlink, tried = tmp_path / "lock", Path.unlink, []

    def watched(file: Path, missing_ok: bool = False) -> None:
        if file == path:
            with pytest.raises(OutputError, match="in use"):
                FileLock(path, taken=tmp_path)
            tried.append(file)
        unlink(file, missing_ok=missing_ok)

    with FileLock(path, taken=tmp_path) as lock:
        monkeypatch.setattr(Path, "unlink", watched)
    assert tried == [path]
    monkeypatch.undo()
    with FileLock(path, taken=tmp_path):
        lock.close()  # again: the file is another's now
        assert path.exists()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"\0" * 4096, b"mine", "database"])
def test_a_file_with_content_is_no_lock(tmp_path: Path, content: bytes | str) -> None:
    path = tmp_path / "lock"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE mine (x)")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="is in the way") as caught:
        FileLock(path, taken=tmp_path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


@posix
@pytest.mark.parametrize("target", ["nowhere", "empty", "part"])
def test_a_link_is_neither_lock_nor_part_file(tmp_path: Path, target: str) -> None:
    (tmp_path / "empty").touch()
    PartFile(tmp_path / "part", {"input": "abc"}).close()
    path = tmp_path / "link"
    path.symlink_to(tmp_path / target)
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.exists()}
    with pytest.raises(OutputError, match="link is in the way"):
        FileLock(path, taken=tmp_path)
    with pytest.raises(OutputError, match="link is in the way"):
        PartFile(path, {"input": "abc"})
    assert path.is_symlink()
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.exists()} == before


@posix
def test_a_file_with_the_number_of_a_deleted_one_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File systems give numbers again: the file that was opened need not be the one there now."""
    path, connect = tmp_path / "lock", sqlite3.connect
    holder = FileLock(path, taken=tmp_path)
    number, opened = path.stat().st_ino, 0

    def late(*args: Any, **settings: Any) -> sqlite3.Connection:
        nonlocal holder, opened
        opened += 1
        if opened != 2:
            return connect(*args, **settings)
        monkeypatch.setattr(sqlite3, "connect", connect)
        holder.close()
        between = tmp_path / "between"
        between.touch()  # with the number of the lock's file
        holder = FileLock(path, taken=tmp_path)
        connection = connect(*args, **settings)
        between.unlink()
        for _ in range(100):
            holder.close()
            holder = FileLock(path, taken=tmp_path)
            if path.stat().st_ino == number:
                break
        return connection

    monkeypatch.setattr(sqlite3, "connect", late)
    with pytest.raises(OutputError, match="in use"):
        FileLock(path, taken=tmp_path)
    with pytest.raises(OutputError, match="in use"):
        FileLock(path, taken=tmp_path)
    holder.close()
    assert os.listdir(tmp_path) == []
