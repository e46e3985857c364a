"""Messages on stderr and in a log file, and the remaining time."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.factories import texture, write_raster

from .conftest import Rssc, whole_tiles

TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "


@pytest.fixture(autouse=True)
def levels() -> Iterator[None]:
    yield
    for name in ("rssc_geo", "rssc_geo_cli"):
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(tmp_path / "scene.tif", texture(256, 256), photometric="rgb")


def test_more_messages_tell_what_runs_where_and_how_long(
    rssc: Rssc, scene: Path, bundle: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.gpkg"
    done = rssc(
        "classify", scene, "-o", out, "--model", bundle, "--device", "cpu", *whole_tiles("64px"),
        "--preview", tmp_path / "map.png", "-v",
    )  # fmt: skip
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert all(re.match(TIME + "(info|warning): ", line) for line in lines), done.err
    assert lines[0].endswith(f"info: opening {scene}")
    for words in (
        r"256 x 256 pixels of [\d.]+ m, bands 1,2,3 .*; tiles of 64 x 64 pixels, .* 16 of them",
        rf"loading the model {bundle}",
        r"small 0 on cpu, float32, \d+ threads, batches of 16, captions by compact; [\d.]+ s",
        rf"16 tiles to classify; part file {out}\.part",
        r"16 tiles classified in [\d.]+ s",
        rf"{out} written in [\d.]+ s",
        r"the preview made in [\d.]+ s",
    ):
        assert re.search(words, done.err), words


def test_debugging_is_of_this_program_alone(rssc: Rssc, scene: Path) -> None:
    done = rssc("info", scene, "-vv")
    assert done.code == 0
    names = re.findall(f"^{TIME}([a-z_.]+) (?:debug|info|warning): ", done.err, re.MULTILINE)
    assert len(names) == len(done.err.splitlines()) > 0
    assert {name.split(".")[0] for name in names} == {"rssc_geo"}
    assert not logging.getLogger("rasterio").isEnabledFor(logging.INFO)


@pytest.mark.parametrize(
    "words",
    [
        ("models", "list"),
        ("models", "info"),
        ("models", "cache"),
        ("info", "scene.tif"),
        ("tile", "scene.tif", "-o", "chips", "--overwrite"),
        ("areas", "none.gpkg", "-o", "areas.csv"),
        ("batch", "status", "."),
        ("classify", "scene.tif", "-o", "map.gpkg", "--tile-size", "nonsense"),
        ("classify", "scene.tif", "--no-such-option"),
        ("clasify",),
    ],
)
def test_all_of_stderr_is_json_lines(
    rssc: Rssc,
    scene: Path,
    tmp_path: Path,
    words: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also of what comes before the options are known: the environment, and wrong usage."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSSC_GEO_NONSENSE", "1")
    monkeypatch.setenv("RSSC_GEO_CACHE", str(tmp_path / "cache"))
    asked = rssc(*words, "--log-json")
    monkeypatch.setenv("RSSC_GEO_LOG_JSON", "1")
    by_environment = rssc(*words)
    assert asked.code == by_environment.code
    for done in (asked, by_environment):
        told = [json.loads(line) for line in done.err.splitlines()]
        assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in told)
        if words != ("clasify",):
            assert "RSSC_GEO_NONSENSE is no option" in told[0]["message"]
        if done.code:
            assert told[-1]["level"] == "error"


@pytest.mark.parametrize("command", [("list",), ("info",), ("cache",)])
def test_quiet_and_log_files_are_heeded_by_the_models_commands(
    rssc: Rssc, tmp_path: Path, command: tuple[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSSC_GEO_CACHE", str(tmp_path / "cache"))
    log = tmp_path / "log.txt"
    quiet = rssc("models", *command, "-q", "--log-file", log)
    assert (quiet.code, quiet.err) == (0, "")
    assert log.exists()
    assert rssc("models", *command).out.startswith(quiet.out)


def test_warnings_of_libraries_have_the_form_asked_for(scene: Path, tmp_path: Path) -> None:
    script = (
        "import sys, warnings\n"
        "from rssc_geo_cli import main\n"
        "import rssc_geo_cli.info as info\n"
        "import rssc_geo.inference.plan as plan\n"
        "own = plan.open_scene\n"
        "def told(*a, **k):\n"
        "    warnings.warn('for programmers\\nonly', FutureWarning)\n"
        "    return own(*a, **k)\n"
        "plan.open_scene = told\n"
        f"sys.argv = ['rssc-geo', 'info', {str(scene)!r}, '--log-json', '-vv']\n"
        "main.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    told = [json.loads(line) for line in done.stderr.splitlines()]
    (warned,) = [entry for entry in told if entry["logger"] == "py.warnings"]
    assert r"for programmers\nonly" in warned["message"]


def test_the_time_left_is_by_what_this_run_has_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rssc_geo.options import RunOptions
    from rssc_geo_cli import console

    clock = iter([10.0, 12.0, 16.0, 20.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.running(RunOptions(progress="json")) as progress:
        progress("classify", 60, 100)  # 60 of an earlier run
        progress("classify", 70, 100)
        progress("classify", 90, 100)
        progress("write", 0, 1)
    left = [json.loads(line)["seconds_left"] for line in capsys.readouterr().out.splitlines()]
    assert left == [None, 6.0, 2.0, None]


def test_the_first_event_comes_before_anything_slow(
    rssc: Rssc, scene: Path, bundle: Path, tmp_path: Path
) -> None:
    done = rssc(
        "classify", scene, "-o", tmp_path / "map.gpkg", "--model", bundle, "--progress", "json",
        *whole_tiles("64px"),
    )  # fmt: skip
    stages = [json.loads(line).get("stage") for line in done.out.splitlines()]
    assert stages[:3] == ["open", "load model", "classify"]
    assert stages[-1] is None  # the result


def test_a_log_is_added_to_logs_alone(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    before = scene.read_bytes()
    done = rssc("info", scene, "--log-file", scene)
    assert done.code == 2
    assert "is not a log of this program" in done.message
    assert scene.read_bytes() == before
    for _ in range(2):
        assert rssc("info", scene, "--log-file", tmp_path / "a.log").code == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_full_or_closed_streams_and_a_lost_folder_end_in_one_line(
    scene: Path, tmp_path: Path
) -> None:
    program = f"{sys.executable} -m rssc_geo_cli.main info {scene} --json"
    lost = tmp_path / "lost"
    for shell, code, told in (
        (f"{program} > /dev/full", 1, "No space left on device"),
        (f"{program} >&-", 0, ""),
        (
            f"mkdir {lost} && cd {lost} && rmdir {lost} && {program} > /dev/null",
            2,
            "no longer exists",
        ),
    ):
        done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert told in done.stderr
        assert len(done.stderr.splitlines()) == bool(told)


@pytest.mark.parametrize("value", ["nan", "inf", "-1"])
def test_an_area_is_a_number_of_0_or_more(rssc: Rssc, scene: Path, value: str) -> None:
    done = rssc("classify", scene, "-o", "map.gpkg", f"--min-area={value}")
    assert done.code == 2
    assert "--min-area" in done.message
