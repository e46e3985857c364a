"""An indexing that is killed again and again ends with the archive of one that was not."""

from __future__ import annotations

import json
import random
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

    def found(archive: str) -> list[object]:
        done = rssc("search", tmp_path / archive, "a river", "-n", "1000", "--json")
        hits = json.loads(done.out)["hits"]
        return sorted((h["scene"], h["row"], h["col"], h["score"]) for h in hits)

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
    assert found("killed") == found("whole")
    assert len(found("whole")) == 64
