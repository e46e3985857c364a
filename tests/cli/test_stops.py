"""A stop (Ctrl-C, SIGTERM) that arrives at any line of a run ends it with 130 and one line."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import whole_tiles
from tests.factories import texture, write_raster
from tests.programs import Program

Start = Callable[..., Program]

STOP = "rssc-geo: error: interrupted; run the same command again to continue where it stopped"
PLACES = 12
"""Lines at which a command is stopped, of some 1500 that its main thread runs."""

# What the program's own handler raises, when the main thread is at a line for the first time.
# Without a line: how often it is at each.
_AT = """
import collections, json, os, signal, sys
import rssc_geo_cli.main as program
os.chdir({folder!r})
hits, wanted = collections.Counter(), {line!r}
def at_line(frame, event, _argument):
    if event == "line":
        line = f"{{frame.f_code.co_filename}}:{{frame.f_lineno}}"
        hits[line] += 1
        if line == wanted and hits[line] == 1:
            sys.settrace(None)
            program._interruption(signal.SIGINT, frame)
    return at_line
def at_call(frame, _event, _argument):
    name = frame.f_code.co_filename
    return at_line if (wanted.startswith(name) if wanted else "/rssc_geo" in name) else None
if not wanted:
    run = program.main
    def counted():
        try:
            run()
        finally:
            sys.settrace(None)
            with open("hits", "w") as file:
                json.dump(hits, file)
    program.main = counted
sys.settrace(at_call)
"""

# A stop that Python cannot raise where it arrives.
_LOST = """
import os, signal
import rssc_geo.pipelines.classify as pipeline
class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
load = pipeline.load_card
def loses(*arguments, **options):
    Finalized()
    return load(*arguments, **options)
pipeline.load_card = loses
"""

# A library that makes an error of its own of a stop, as SQLite does of one in a function it calls.
_TURNED = """
import signal
import rssc_geo.pipelines.classify as pipeline
import rssc_geo_cli.main as program
from rssc_geo.errors import OutputError
def turns(*_arguments, **_options):
    try:
        program._interruption(signal.SIGINT, None)
    except KeyboardInterrupt:
        raise OutputError("user-defined function raised exception") from None
pipeline.load_card = turns
"""

posix = pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")


@pytest.fixture
def commands(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    """Command lines, which make their results in the working folder."""
    (tmp_path / "scenes").mkdir()
    for number in range(2):
        path = tmp_path / "scenes" / f"{number}.tif"
        write_raster(path, texture(192, 192, number), photometric="rgb")
    scene = str(tmp_path / "scenes" / "0.tif")
    options = (*whole_tiles("64px"), "--device", "cpu", "--force", "-q")
    return {
        "batch": ("batch", "run", str(tmp_path / "scenes"), "-o", "maps", *options),
        "classify": ("classify", scene, "-o", "map.gpkg", *options),
        "caption": ("caption", scene, "-o", "captions.jsonl", *options),
    }


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@posix
@pytest.mark.slow
@pytest.mark.parametrize("command", ["batch", "classify", "caption"])
def test_a_stop_at_any_line_is_a_stop(
    command: str, commands: dict[str, Any], start: Start, tmp_path: Path
) -> None:
    def run(name: str, line: str) -> tuple[int | None, str, str]:
        (tmp_path / name).mkdir(exist_ok=True)
        before = _AT.format(folder=str(tmp_path / name), line=line)
        return start(*commands[command], before=before).finish()

    assert run("whole", "")[0] == 0
    lines = json.loads((tmp_path / "whole" / "hits").read_text())
    (tmp_path / "whole" / "hits").unlink()
    for number, line in enumerate(random.Random(0).sample(sorted(lines), PLACES)):
        name = f"stopped_{number}"
        code, _, errors = run(name, line)
        # Over before, or told: 0 where the run was done when it was stopped.
        assert code in (0, 130), (line, code, errors)
        assert code == 0 or errors.strip().splitlines() == [STOP], (line, errors)
        code, _, errors = run(name, "no line")
        assert code == 0 or "exists" in errors, (line, code, errors)
        assert names(tmp_path / name) == names(tmp_path / "whole"), line


@posix
@pytest.mark.parametrize("before", [_LOST, _TURNED])
def test_a_stop_that_python_or_a_library_swallows_is_a_stop(
    before: str, commands: dict[str, Any], start: Start, tmp_path: Path
) -> None:
    program = start(*commands["classify"], before=f"import os; os.chdir({str(tmp_path)!r}){before}")
    code, _, errors = program.finish()
    assert (code, errors.strip().splitlines()) == (130, [STOP])
    assert not list(tmp_path.glob("map.*"))
