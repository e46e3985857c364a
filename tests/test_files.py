"""Results appear whole or not at all, and foreign files are not changed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from rssc_geo.errors import OutputError, UsageError
from rssc_geo.files import (
    StagingFolder,
    atomic_folder,
    atomic_write,
    check_not_input,
    check_writable,
    path_of,
    paths_of,
)
from rssc_geo.fingerprints import fingerprint
from tests.users import without_privileges

posix = pytest.mark.skipif(os.name != "posix", reason="a matter of POSIX")


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_one_path_is_no_list_of_its_letters() -> None:
    assert paths_of("scene.tif") == paths_of(Path("scene.tif")) == ["scene.tif"]
    assert paths_of(path for path in ("a.tif", Path("b.tif"))) == ["a.tif", "b.tif"]
    with pytest.raises(UsageError, match="a path cannot be of Python's type DataFrame"):
        path_of(pd.DataFrame({"class": ["a"]}))
    for given in (None, 3, b"a.tif", [b"a.tif"], [["a.tif"]]):
        with pytest.raises(UsageError, match="a path cannot be of Python's type"):
            paths_of(given)


def test_a_file_appears_at_the_end_and_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "areas.csv"
    path.write_text("old")
    with atomic_write(path) as made:
        made.write_text("new")
        assert path.read_text() == "old"
        assert made.parent == path.parent
        assert made.name.startswith(".areas.csv.")
        assert made.name.endswith(".rssc-geo")
    assert path.read_text() == "new"
    assert names(tmp_path) == ["areas.csv"]


def test_what_killed_processes_left_is_deleted_where_that_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unlink = tmp_path / "areas.csv", Path.unlink
    with atomic_write(path) as made:
        token = made.name.split(".")[-2]
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept, left = (
        tmp_path / f".areas.csv.{token[:4]}{ended.pid:08x}{number:04x}.rssc-geo"
        for number in range(2)
    )
    for each in (kept, left):
        each.write_text("half")

    def refuse(self: Path, **options: bool) -> None:
        if self == kept:  # of another user, in a folder with the sticky bit
            raise PermissionError(errno.EPERM, "Operation not permitted")
        unlink(self, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    with atomic_write(path) as made:
        made.write_text("new")
    assert path.read_text() == "new"
    assert names(tmp_path) == sorted([kept.name, "areas.csv"])


@pytest.mark.parametrize("failure", [ValueError("x"), KeyboardInterrupt(), OSError(28, "full")])
def test_a_failure_in_the_middle_leaves_nothing(tmp_path: Path, failure: BaseException) -> None:
    expected = OutputError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected), atomic_write(tmp_path / "a.csv") as made:
        made.write_text("half")
        raise failure
    with (
        pytest.raises(expected),
        atomic_folder(tmp_path / "a", index="i", overwrite=False) as folder,
    ):
        (folder / "i").write_text("half")
        raise failure
    with pytest.raises(type(failure)), StagingFolder(tmp_path / "a.gpkg") as staging:
        staging.place(tmp_path / "a.gpkg").write_text("half")
        raise failure
    assert names(tmp_path) == []


@posix
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_results_are_as_readable_as_the_umask_says(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_write(tmp_path / "file") as made:
            made.write_text("x")
        with atomic_folder(tmp_path / "folder", index="i", overwrite=False) as folder:
            (folder / "i").write_text("x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~mask


@pytest.mark.parametrize("name", ["missing/a.csv", "file/a.csv"])
def test_a_place_that_takes_no_files_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    target = tmp_path / name
    for write in (
        lambda: atomic_write(target),
        lambda: atomic_folder(target, index="i", overwrite=False),
        lambda: StagingFolder(target),
    ):
        with pytest.raises(OutputError, match=r"cannot write a\.csv in ") as caught, write():
            pass
        assert str(target.parent) in one_line(caught)
    assert names(tmp_path) == ["file"]


def test_a_folder_replaces_only_an_earlier_result(tmp_path: Path) -> None:
    target = tmp_path / "tiles"
    target.mkdir()  # empty: used
    with atomic_folder(target, index="index.csv", overwrite=False) as folder:
        (folder / "index.csv").write_text("1")
        (folder / "old.tif").touch()
    with (
        pytest.raises(OutputError, match="exists"),
        atomic_folder(target, index="index.csv", overwrite=False),
    ):
        pass
    with atomic_folder(target, index="index.csv", overwrite=True) as folder:
        (folder / "index.csv").write_text("2")
    assert names(target) == ["index.csv"]
    assert (target / "index.csv").read_text() == "2"
    (target / "index.csv").unlink()
    (target / "diary.txt").touch()
    with (
        pytest.raises(OutputError, match="not an earlier result"),
        atomic_folder(target, index="index.csv", overwrite=True),
    ):
        pass
    assert names(tmp_path) == ["tiles"]
    assert names(target) == ["diary.txt"]


def test_staged_files_appear_together_and_the_main_one_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, side, gone = tmp_path / "map.shp", tmp_path / "map.dbf", tmp_path / "map.qix"
    gone.touch()
    moved = []
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda made, path: moved.append(path) or replace(made, path)
    )
    with StagingFolder(main) as staging:
        for path in (main, side):
            staging.place(path).write_text(path.name)
        assert names(tmp_path) == [".map.shp.rssc-geo", "map.qix"]
        staging.publish([side, main], obsolete=[gone, tmp_path / "never.there"], overwrite=True)
    assert moved == [side, main]
    assert names(tmp_path) == ["map.dbf", "map.shp"]
    assert main.read_text() == "map.shp"


def test_a_file_that_was_not_made_is_named(tmp_path: Path) -> None:
    with StagingFolder(tmp_path / "map.shp") as staging:
        staging.place(tmp_path / "map.shp").touch()
        with pytest.raises(OutputError, match=r"cannot write map\.dbf in ") as caught:
            staging.publish([tmp_path / "map.dbf", tmp_path / "map.shp"], overwrite=False)
    assert one_line(caught)
    assert names(tmp_path) == []


def test_a_result_may_lie_on_another_file_system(tmp_path: Path, small_disk: Path) -> None:
    raster, main = small_disk / "classes.tif", tmp_path / "map.gpkg"
    raster.write_text("old")
    with StagingFolder(main) as staging:
        for path in (raster, main):
            staging.place(path).write_text(path.name)
        staging.publish([raster, main], overwrite=True)
    assert raster.read_text() == "classes.tif"
    assert names(small_disk) == ["classes.tif"]
    with StagingFolder(main) as staging:
        staging.place(raster).write_bytes(b"x" * 3_000_000)  # more than there is room for
        staging.place(main).write_text("new")
        with pytest.raises(OutputError, match=r"cannot write classes\.tif in .*No space left"):
            staging.publish([raster, main], overwrite=True)
    assert (raster.read_text(), main.read_text()) == ("classes.tif", "map.gpkg")
    assert names(small_disk) == ["classes.tif"]


_KILLED = """
import sys, time
from pathlib import Path
from rssc_geo.files import StagingFolder
with StagingFolder(Path(sys.argv[1])) as staging:
    staging.place(Path(sys.argv[1])).write_text("half")
    (staging.folder / "deeper").mkdir()
    print("here", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "map.gpkg"
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(target)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        child.send_signal(signal.SIGKILL)
    assert names(tmp_path) == [".map.gpkg.rssc-geo"]
    with StagingFolder(target) as staging:
        assert not staging.place(target).exists()
    assert names(tmp_path) == []
    (tmp_path / ".map.gpkg.rssc-geo").mkdir()  # killed before the marker was there
    (tmp_path / ".map.gpkg.rssc-geo" / "lock.rssc-geo-journal").touch()
    with StagingFolder(target):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize("links", [True, False])  # not every file system has hard links
def test_what_another_process_made_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:

        def refused(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refused)
    for name in ("a.csv", "a.gpkg"):
        path = tmp_path / name
        for other in (None, "theirs"):
            path.unlink(missing_ok=True)
            refuses = pytest.raises(OutputError, match="made by another process meanwhile")
            with refuses if other else contextlib.nullcontext():
                if name == "a.csv":
                    with atomic_write(path, overwrite=False) as made:
                        made.write_text("ours")
                        if other:
                            path.write_text(other)
                else:
                    with StagingFolder(path) as staging:
                        staging.place(path).write_text("ours")
                        if other:
                            path.write_text(other)
                        staging.publish([path], overwrite=False)
            assert path.read_text() == (other or "ours")
    folder = tmp_path / "tiles"
    with (
        pytest.raises(OutputError, match="exists"),
        atomic_folder(folder, index="i", overwrite=False) as made,
    ):
        (made / "i").write_text("ours")
        folder.mkdir()
        (folder / "i").write_text("theirs")
    assert (folder / "i").read_text() == "theirs"
    assert names(tmp_path) == ["a.csv", "a.gpkg", "tiles"]


def test_only_one_process_writes_a_target_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "map.gpkg"
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(target)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "here\n"
        with pytest.raises(OutputError, match="is in use by another rssc-geo process") as caught:
            StagingFolder(target).__enter__()
        assert str(target) in one_line(caught)
        assert (tmp_path / ".map.gpkg.rssc-geo" / "map.gpkg").read_text() == "half"
        child.terminate()
    with StagingFolder(target) as staging:
        assert not staging.place(target).exists()
    assert names(tmp_path) == []


@pytest.mark.parametrize("marker", [None, "something else"])
def test_a_foreign_folder_of_that_name_is_refused_and_kept(
    tmp_path: Path, marker: str | None
) -> None:
    target, foreign = tmp_path / "map.gpkg", tmp_path / ".map.gpkg.rssc-geo"
    foreign.mkdir()
    (foreign / "diary.txt").write_text("mine")
    if marker is not None:
        (foreign / "staging.rssc-geo").write_text(marker)
    before = names(foreign)
    with pytest.raises(OutputError, match=r"is in the way .*rename") as caught:
        StagingFolder(target).__enter__()
    assert str(foreign) in one_line(caught)
    assert names(foreign) == before


@posix
def test_a_link_or_file_of_that_name_is_refused_and_kept(tmp_path: Path) -> None:
    with StagingFolder(tmp_path / "other") as ours:
        link = tmp_path / ".map.gpkg.rssc-geo"
        link.symlink_to(ours.folder, target_is_directory=True)
        with pytest.raises(OutputError, match="is in the way"):
            StagingFolder(tmp_path / "map.gpkg").__enter__()
        assert ours.folder.is_dir()
        link.unlink()
        link.write_text("a file")
        with pytest.raises(OutputError, match="is in the way"):
            StagingFolder(tmp_path / "map.gpkg").__enter__()
        assert link.read_text() == "a file"


def test_what_could_not_be_written_at_the_end_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    check_writable(path, overwrite=False)
    assert names(tmp_path) == []
    path.touch()
    check_writable(path, overwrite=True)
    for target, overwrite, words in (
        (path, False, "exists: choose another name"),
        (tmp_path, True, "is a folder"),
        (tmp_path / "missing" / "a.csv", False, "create it first"),
    ):
        with pytest.raises(OutputError, match=words) as caught:
            check_writable(target, overwrite=overwrite)
        one_line(caught)


@posix
def test_a_read_only_folder_is_told_by_check_and_by_writing(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    path = tmp_path / "a.csv"
    with without_privileges():
        with pytest.raises(OutputError) as checked:
            check_writable(path, overwrite=False)
        with pytest.raises(OutputError) as written, atomic_write(path):
            pass
    assert one_line(checked).startswith(f"cannot write in {tmp_path} (Permission denied)")
    assert one_line(written).startswith(f"cannot write a.csv in {tmp_path} (Permission denied)")


def test_the_input_is_never_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = tmp_path / "scene.tif"
    scene.touch()
    monkeypatch.chdir(tmp_path)
    check_not_input([tmp_path / "map.tif"], [scene, "https://example.org/scene.tif"])
    os.link(scene, tmp_path / "hard.tif")
    for name in ("scene.tif", str(tmp_path / "x" / ".." / "scene.tif"), "hard.tif"):
        with pytest.raises(UsageError, match="is the input itself"):
            check_not_input([Path("map.gpkg"), Path(name)], ["other.tif", scene])


def test_a_fingerprint_knows_content_and_urls(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"one")
    os.utime(path, ns=(1, 1))
    first = fingerprint([path])
    assert first == fingerprint([str(path)])
    path.write_bytes(b"two")
    os.utime(path, ns=(1, 1))
    assert fingerprint([path]) != first
    assert fingerprint(["https://a"]) != fingerprint(["https://b"])


def test_a_folder_with_files_of_others_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "tiles"
    target.mkdir()
    for name in ("i.gpkg", "i.gpkg-wal", "a_1.tif", "a_1.tif.aux.xml"):
        (target / name).touch()
    (target / "notes.txt").write_text("mine")
    with (
        pytest.raises(OutputError, match=r"holds notes\.txt, which is of no earlier result"),
        atomic_folder(target, index="i.gpkg", overwrite=True, others=lambda _: ["a_1.tif"]),
    ):
        pass
    (target / "notes.txt").unlink()
    with atomic_folder(
        target, index="i.gpkg", overwrite=True, others=lambda _: ["a_1.tif"]
    ) as made:
        (made / "i.gpkg").touch()
    assert names(target) == ["i.gpkg"]


def test_a_folder_that_cannot_be_put_in_place_leaves_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "tiles"
    target.mkdir()
    (target / "i").write_text("earlier")
    replace = Path.replace

    def fail(self: Path, place: Path) -> Path:
        if place == target and (self / "i").read_text() == "new":
            raise OSError(13, "denied")
        return replace(self, place)

    monkeypatch.setattr(Path, "replace", fail)
    with (
        pytest.raises(OutputError, match="denied"),
        atomic_folder(target, index="i", overwrite=True) as made,
    ):
        (made / "i").write_text("new")
    assert names(tmp_path) == ["tiles"]
    assert (target / "i").read_text() == "earlier"


def test_a_folder_that_another_process_made_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "chips"

    def make(content: str) -> None:
        with atomic_folder(target, index="index.csv", overwrite=False) as made:
            (made / "index.csv").write_text(content)
            if content == "first":
                make("second")

    with pytest.raises(OutputError, match="exists"):
        make("first")
    assert (target / "index.csv").read_text() == "second"
    assert os.listdir(tmp_path) == ["chips"]


def test_two_never_hold_a_lock_at_once(tmp_path: Path) -> None:
    """Threads that take and release it as fast as they can, with its folder."""
    inside, most, held = 0, 0, 0
    count, end = threading.Lock(), time.monotonic() + 1

    def work() -> None:
        nonlocal inside, most, held
        while time.monotonic() < end:
            with contextlib.suppress(OutputError), StagingFolder(tmp_path / "map.gpkg"):
                with count:
                    inside += 1
                    held += 1
                    most = max(most, inside)
                time.sleep(0)
                with count:
                    inside -= 1

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    assert most == 1
    assert held > 10
    assert names(tmp_path) == []
