"""The part file: cells and watermark agree, however a run ends."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rssc_geo.errors import OutputError
from rssc_geo.output import PartFile, Row, delete_part_file

KEY = {"input": "abc", "options": {"cell_size": [64, 64]}, "name": "naïve 🌲"}


def rows(first: int, count: int) -> list[Row]:
    return [
        (index, 7, 1, 0.75, 2, 0.5, f"caption {index} 'quoted' \"é\"", b"\0\1", 0.25, b"\2", b"\3")
        for index in range(first, first + count)
    ]


def test_a_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg.part"
    with PartFile(path, KEY) as part:
        assert (part.watermark, len(part)) == (0, 0)
        part.append(rows(0, 3), 30)
    assert os.listdir(tmp_path) == ["map.gpkg.part"]  # no journal after a normal close
    with PartFile(path, dict(reversed(KEY.items()))) as part:  # the order of keys is no matter
        assert (part.watermark, len(part)) == (30, 3)
        part.append(rows(3, 2), 50)
        assert [row for chunk in part.read("*") for row in chunk] == rows(0, 5)


def test_cells_come_back_in_row_major_order(tmp_path: Path) -> None:
    with PartFile(tmp_path / "x.part", KEY) as part:
        part.append(
            [
                (row, col, 0, 1.0, None, 1.0, "", None, None, None, None)
                for row, col in ((2, 0), (0, 5), (0, 1), (1, 9))
            ],
            1,
        )
        assert [row for chunk in part.read("row, col") for row in chunk] == [
            (0, 1),
            (0, 5),
            (1, 9),
            (2, 0),
        ]


def test_a_failing_batch_leaves_neither_cells_nor_watermark(tmp_path: Path) -> None:
    with PartFile(tmp_path / "x.part", KEY) as part:
        part.append(rows(0, 3), 3)
        with pytest.raises(sqlite3.IntegrityError):  # cell 2 again
            part.append([*rows(3, 1), *rows(2, 1)], 5)
        assert (part.watermark, len(part)) == (3, 3)


@pytest.mark.parametrize("size", [None, 0, 100, 5000])
def test_another_run_and_cut_files_are_started_anew_with_a_warning(
    tmp_path: Path, size: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "x.part"
    with PartFile(path, {"input": "another"} if size is None else KEY) as part:
        part.append(rows(0, 3), 3)
    if size is not None:
        path.write_bytes(path.read_bytes()[:size])
    with caplog.at_level(logging.WARNING), PartFile(path, KEY) as part:
        assert (part.watermark, len(part)) == (0, 0)
        part.append(rows(0, 1), 1)
    if size == 0:
        assert not caplog.records  # nothing was lost
    else:
        assert "starting again" in caplog.text
        assert len(caplog.records) == 1


_CHILD = """
import sys
from pathlib import Path
from rssc_geo.output import PartFile
part = PartFile(Path(sys.argv[1]), {"input": "abc"})
first = part.watermark
while True:
    rows = [(first, col, 1, 0.5, None, 0.5, "x" * 200, *[None] * 4) for col in range(200)]
    part.append(rows, first + 1)
    first += 1
    print(first, flush=True)
"""


def test_a_killed_run_is_resumable_and_its_lock_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    done = 0
    for stop in (3, 7, 12):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        while done < stop:
            done = int(child.stdout.readline())
        with pytest.raises(
            OutputError, match=r"x\.part is in use by another"
        ):  # while the child works
            PartFile(path, {"input": "abc"})
        child.send_signal(signal.SIGKILL)
        rest = child.communicate()[0].split()
        done = int(rest[-1]) if rest else done
        with PartFile(path, {"input": "abc"}) as part:
            assert part.watermark in (done, done + 1)  # killed between commit and print
            assert len(part) == 200 * part.watermark
            done = part.watermark


def test_the_same_process_cannot_open_it_twice(tmp_path: Path) -> None:
    with PartFile(tmp_path / "x.part", KEY), pytest.raises(OutputError, match="in use"):
        PartFile(tmp_path / "x.part", KEY)


def test_a_run_without_cells_leaves_nothing(tmp_path: Path) -> None:
    with PartFile(tmp_path / "x.part", KEY) as part:
        part.append([], 100)
    assert os.listdir(tmp_path) == []


def test_remove_leaves_nothing(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "x.part", KEY)
    part.append(rows(0, 2), 2)
    part.remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["missing/x.part", "."])
def test_a_place_that_cannot_hold_it_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"cannot write .*run the same command again") as caught:
        PartFile(tmp_path / name, KEY)
    assert "\n" not in str(caught.value)


_FULL = """
import resource, sys
from pathlib import Path
from rssc_geo.errors import OutputError
from rssc_geo.output import PartFile
part = PartFile(Path(sys.argv[1]), {"input": "abc"})
for index in range(5):
    rows = [(index, col, 1, 0.5, None, 0.5, "x" * 200, *[None] * 4) for col in range(20)]
    part.append(rows, index + 1)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    for index in range(5, 1000):
        rows = [(index, col, 1, 0.5, None, 0.5, "x" * 200, *[None] * 4) for col in range(20)]
        part.append(rows, index + 1)
except OutputError as error:
    print(index, error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to stand for a full disk")
def test_a_full_disk_is_one_line_and_what_was_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.part"
    run = subprocess.run(
        [sys.executable, "-c", _FULL, str(path)], capture_output=True, text=True, check=True
    )
    index, message = run.stdout.strip().split(" ", 1)
    assert message.startswith(f"cannot write {path}")
    assert "\n" not in message
    with PartFile(path, {"input": "abc"}) as part:
        assert part.watermark == int(index) >= 5
        assert len(part) == 20 * part.watermark


@pytest.mark.parametrize("other", [True, False])
def test_a_part_file_that_is_deleted_meanwhile_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    """Its last run ends, after which the path is another run's: two would write one journal."""
    path, connect = tmp_path / "x.part", sqlite3.connect
    holder, third, opened = PartFile(path, KEY), [], 0

    def late(*args: Any, **settings: Any) -> sqlite3.Connection:
        nonlocal opened
        connection = connect(*args, **settings)
        opened += 1
        if opened == 2:  # open, not locked yet
            holder.remove()
            if other:
                third.append(PartFile(path, KEY))
        return connection

    monkeypatch.setattr(sqlite3, "connect", late)
    with pytest.raises(OutputError, match="x.part is in use by another rssc-geo process"):
        PartFile(path, KEY)
    monkeypatch.setattr(sqlite3, "connect", connect)
    for part in third:
        part.append(rows(0, 1), 1)
        holder.close()  # again: the file is another's now
        delete_part_file(path)  # neither is it ours to delete
        assert part.is_whole()
        part.close()
        assert os.listdir(tmp_path) == ["x.part"]
        delete_part_file(path)
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="a matter of POSIX")
def test_a_part_file_is_deleted_while_it_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unlink, tried = tmp_path / "x.part", Path.unlink, []

    def watched(file: Path, missing_ok: bool = False) -> None:
        if file == path:
            with pytest.raises(OutputError, match="in use"):
                PartFile(path, KEY)
            tried.append(file)
        unlink(file, missing_ok=missing_ok)
        if file == path:  # at once another run begins
            third.append(PartFile(path, KEY))
            third[0].append(rows(0, 1), 1)

    third: list[PartFile] = []
    part = PartFile(path, KEY)
    part.append(rows(0, 1), 1)
    monkeypatch.setattr(Path, "unlink", watched)
    part.remove()
    monkeypatch.undo()
    assert tried == [path]
    assert sorted(os.listdir(tmp_path)) == ["x.part", "x.part-journal"], "the other's journal stays"
    third[0].close()
    with PartFile(path, KEY) as again:
        assert again.watermark == 1
