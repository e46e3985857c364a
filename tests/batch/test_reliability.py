"""Batches as processes that are killed, run out of room, or find their input changed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rssc_geo.batch import Journal
from tests.programs import Program

from .conftest import begun, content, load_json, states, status, write_scene

Start = Callable[..., Program]
# Slows every batch of tiles, so that a kill meets the run at work and not between scenes.
SLOW = """
import time
from rssc_geo.inference.predictor import Predictor

def slow(self, pixels, mask, inner=Predictor.__call__, **more):
    time.sleep(0.04 * len(pixels))
    return inner(self, pixels, mask, **more)

if Predictor.__call__.__name__ != "slow":  # Dask runs a preloaded script twice
    Predictor.__call__ = slow
"""


def command(inputs: Path, maps: Path, bundle: Path, *more: object) -> tuple[object, ...]:
    settings = (
        "--tile-size",
        "64px",
        "--model",
        bundle,
        "--batch-size",
        1,
        "--threads",
        1,
        "--json",
    )
    return ("run", inputs, "-o", maps / "{stem}.gpkg", *settings, *more)


def runs_of(folder: Path) -> int:
    """Runs that the journal knows of."""
    return len(status(folder)["runs"]) if begun(folder) else 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_at_random_moments_change_nothing(
    start: Start, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    write_scene(scenes / "a_big.tif", side=512, seed=9)
    code, _, err = start(*command(scenes, whole, bundle)).finish()
    assert code == 0, err
    moments = random.Random(6)
    kills = 0
    for _ in range(10):
        runs = runs_of(killed)
        batch = start(*command(scenes, killed, bundle), before=SLOW)
        while batch.running and (
            runs_of(killed) == runs or "running" not in states(killed).values()
        ):
            time.sleep(0.02)  # a kill before the work begins would prove little
        time.sleep(moments.uniform(0, 0.8))
        kills += batch.running
        batch.kill()
    assert (
        kills >= 5
    )  # what a killed run has done is not done again: the last may be through before their moment
    code, _, err = start(*command(scenes, killed, bundle)).finish()
    assert code == 0, err
    for name in ("a_big", "scene_0", "scene_1", "scene_2"):
        assert content(killed / f"{name}.gpkg") == content(whole / f"{name}.gpkg")
    assert set(states(killed).values()) == {"done"}
    assert not list(killed.glob("*.part*"))
    assert not list(killed.glob("*-journal"))


def test_an_interrupted_batch_says_so_and_goes_on(
    start: Start, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    first = start(*command(scenes, maps, bundle), before=SLOW)
    while not list(maps.glob("*.part")):
        assert first.running, first.finish()
        time.sleep(0.05)
    code, _, err = start(*command(scenes, maps, bundle)).finish()
    assert code == 1
    assert "is in use by another rssc-geo process" in err
    os.kill(first.process.pid, signal.SIGTERM)
    code, _, err = first.finish()
    assert code == 130, err
    assert "interrupted; run the same command again" in err
    assert "running" not in states(maps).values()
    code, out, err = start(*command(scenes, maps, bundle)).finish()
    assert code == 0, err
    assert load_json(out)["done"] == 3


@pytest.mark.slow
@pytest.mark.parametrize("room_kb", [150, 300, 550])
def test_a_full_disk_stops_the_batch_which_goes_on_when_there_is_room(
    start: Start, scenes: Path, bundle: Path, small_disk: Path, tmp_path: Path, room_kb: int
) -> None:
    code, _, err = start(*command(scenes, tmp_path / "whole", bundle)).finish()
    assert code == 0, err
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * (shutil.disk_usage(small_disk).free - (room_kb << 10)))
    code, _, err = start(*command(scenes, small_disk, bundle)).finish()
    assert code == 1
    assert "the same command" in err
    assert err.count("rssc-geo: error: ") == 1
    assert "failed" not in states(small_disk).values()
    ballast.unlink()
    code, out, err = start(*command(scenes, small_disk, bundle)).finish()
    assert code == 0, err
    assert load_json(out)["done"] == 3
    for name in ("scene_0", "scene_1", "scene_2"):
        assert content(small_disk / f"{name}.gpkg") == content(tmp_path / "whole" / f"{name}.gpkg")
    assert not list(small_disk.glob("*.part*"))


def test_a_read_only_output_is_refused_at_once(
    start: Start, scenes: Path, bundle: Path, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, _, err = start(*command(scenes, small_disk, bundle)).finish()
    assert code == 1
    assert f"cannot write in {small_disk}" in err


@pytest.mark.slow
def test_a_scene_damaged_in_the_middle_fails_alone(
    start: Start, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    import rasterio

    maps, victim = tmp_path / "maps", scenes / "scene_1.tif"
    with rasterio.open(victim) as raster:
        pixels, profile = raster.read(), raster.profile
    with rasterio.open(victim, "w", **{**profile, "compress": "deflate"}) as raster:
        raster.write(pixels)
    size = victim.stat().st_size
    with victim.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 8))
    code, out, err = start(*command(scenes, maps, bundle)).finish()
    assert code == 4
    assert "scene_1.tif cannot be read at rows" in err
    assert load_json(out)["done"] == 2
    assert states(maps) == {
        "scene_0.gpkg": "done",
        "scene_1.gpkg": "failed",
        "scene_2.gpkg": "done",
    }
    scene = status(maps)["scenes"][1]
    assert scene["blocks"].get("done", 0) == 0 or scene["tiles_done"] < 16
    write_scene(victim, seed=1)
    code, out, err = start(*command(scenes, maps, bundle, "--retry-failed")).finish()
    assert code == 0, err


@pytest.mark.slow
def test_a_scene_that_changes_while_it_is_read_is_found_out(
    start: Start, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    batch = start(*command(scenes, maps, bundle), before=SLOW)
    while not list(maps.glob("scene_0.gpkg.part")):
        assert batch.running, batch.finish()
        time.sleep(0.02)
    os.utime(scenes / "scene_0.tif", ns=(1, 1))
    code, _, err = batch.finish()
    assert code == 4
    assert "scene_0.tif changed while it was being read" in err
    assert sorted(path.name for path in maps.glob("scene*")) == ["scene_1.gpkg", "scene_2.gpkg"]
    code, _, err = start(
        *command(scenes, maps, bundle)
    ).finish()  # its time is another now: tried again without being asked
    assert code == 0, err


def test_jumps_of_the_clock_decide_nothing(
    start: Start, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    os.utime(scenes / "scene_1.tif", (2e9, 2e9))  # from a clock that was ahead
    jumping = """
import random, time
time.time = lambda real=time.time, jumps=random.Random(1): real() + jumps.choice([-1e6, 0, 1e6])
"""
    code, out, err = start(*command(scenes, maps, bundle), before=jumping).finish()
    assert code == 0, err
    assert 0 <= load_json(out)["seconds"] < 250
    assert all(0 <= scene["seconds"] < 250 for scene in status(maps)["scenes"])
    code, out, err = start(*command(scenes, maps, bundle), before=jumping).finish()
    assert load_json(out)["skipped"] == 3, err


@pytest.mark.slow
def test_files_that_no_batch_has_made_are_not_replaced(
    rssc_run: Callable[..., tuple[int, str, str]], scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "scene_1.gpkg").write_text("mine")
    code, _, err = rssc_run(*command(scenes, maps, bundle))
    assert code == 4
    assert "scene_1.gpkg exists" in err
    assert (maps / "scene_1.gpkg").read_text() == "mine"
    code, out, err = rssc_run(*command(scenes, maps, bundle, "--overwrite", "--retry-failed"))
    assert code == 0, err
    assert load_json(out)["skipped"] == 2
    before = (maps / "scene_0.gpkg").stat().st_mtime_ns
    code, out, err = rssc_run(
        *command(scenes, maps, bundle, "--min-area", 1e5)
    )  # its own files it may replace
    assert code == 0, err
    assert (maps / "scene_0.gpkg").stat().st_mtime_ns != before


def test_a_stop_while_a_row_is_marked_stays_one_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would make an error of its own of it, were the checksum one of its functions."""

    def stop(*_values: object) -> str:
        raise KeyboardInterrupt

    scene = {"id": "a", "input": "a.tif", "options_hash": "00ff", "input_files": []}
    with Journal(tmp_path, options={}) as journal:
        journal.await_scenes([{"output": "a.gpkg", **scene}])
        with monkeypatch.context() as patch:
            patch.setattr("rssc_geo.batch.journal._row_mark", stop)
            with pytest.raises(KeyboardInterrupt):
                journal.record_tiles({"a.gpkg": 3})
        journal.record_tiles({"a.gpkg": 2})
    assert [scene["tiles_done"] for scene in status(tmp_path)["scenes"]] == [2]
