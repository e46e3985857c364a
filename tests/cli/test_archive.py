"""An indexing that is killed again and again ends with the archive of one that was not."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.factories import texture, write_raster
from tests.programs import Program

from .conftest import Outcome, whole_tiles

SLOW = """
import time
from rssc_geo.batch import Worker
run = Worker.run
def slow(self, block):
    time.sleep(0.2)
    return run(self, block)
Worker.run = slow
"""


SLOWLY_REMOVED = """
import time
from pathlib import Path
from rssc_geo.archive import ArchiveStore
forget, unlink = ArchiveStore.forget, Path.unlink
def slowly(self, names):
    time.sleep(0.1)
    forget(self, names)
    time.sleep(0.1)
def slow_unlink(self, missing_ok=False):
    time.sleep(0.05)
    unlink(self, missing_ok=missing_ok)
ArchiveStore.forget, Path.unlink = slowly, slow_unlink
"""


@pytest.mark.slow
def test_a_removal_is_killed_at_any_moment(
    start: Callable[..., Program], rssc: Callable[..., Outcome], tmp_path: Path
) -> None:
    """What is found then is found before or after it; the next run ends it."""
    for number in range(5):
        write_raster(tmp_path / f"s{number}.tif", texture(128, 128, number))
    options = ("--captioner", "none", "--device", "cpu", *whole_tiles("64px"), "-q")
    whole, archive = tmp_path / "whole", tmp_path / "archive"
    assert rssc("index", tmp_path / "s*.tif", "-o", whole, *options).code == 0
    kept = (tmp_path / "s0.tif", tmp_path / "s3.tif")

    def found() -> list[object]:
        done = rssc("search", archive, "a river", "-n", "1000", "--json")
        assert done.code == 0, done.err
        hits = json.loads(done.out)["hits"]
        return sorted((h["scene"], h["row"], h["col"], h["score"]) for h in hits)

    def files() -> list[str]:
        folders = (archive, archive / "scenes")
        return sorted(path.name for folder in folders for path in folder.iterdir())

    shutil.copytree(whole, archive)
    before = found()
    started = time.monotonic()
    command = ("index", *kept, "-o", archive, "--prune", *options)
    assert start(*command, before=SLOWLY_REMOVED).finish()[0] == 0
    seconds = time.monotonic() - started
    after, left = found(), files()
    assert len(after) < len(before)
    moments = random.Random(5)
    for _ in range(6):
        shutil.rmtree(archive)
        shutil.copytree(whole, archive)
        program = start(*command, before=SLOWLY_REMOVED)
        until = time.monotonic() + moments.uniform(0.3, 1) * seconds
        while program.running and time.monotonic() < until:
            time.sleep(0.02)
        program.kill()
        assert found() in (before, after)
        code, _, err = start(*command).finish()
        assert code == 0, err
        assert (found(), files()) == (after, left)


@pytest.mark.slow
def test_killed_again_and_again(
    start: Callable[..., Program], rssc: Callable[..., Outcome], tmp_path: Path
) -> None:
    scenes = tmp_path / "in"
    scenes.mkdir()
    for number in range(4):
        write_raster(scenes / f"s{number}.tif", texture(256, 256, number))
    options = ("--captioner", "none", "--device", "cpu", *whole_tiles("64px"))

    def command(archive: str) -> tuple[object, ...]:
        return ("index", scenes, "-o", tmp_path / archive, *options)

    def found(archive: str) -> dict[tuple[object, ...], object]:
        done = rssc("search", tmp_path / archive, "a river", "-n", "1000", "--json")
        hits = json.loads(done.out)["hits"]
        return {(h["scene"], h["row"], h["col"]): h["score"] for h in hits}

    assert rssc(*command("whole")).code == 0
    moments = random.Random(3)
    for _ in range(5):
        program = start(*command("killed"), before=SLOW)
        until = time.monotonic() + moments.uniform(0.5, 2.5)
        while program.running and time.monotonic() < until:
            time.sleep(0.02)
        program.kill()
    code, _, err = start(*command("killed")).finish()
    assert code == 0, err
    assert found("killed") == pytest.approx(found("whole"), abs=1e-5)  # other batches
    assert len(found("whole")) == 64
