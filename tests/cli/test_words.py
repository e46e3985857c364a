"""Messages about errors and odd names: complete, on one line, as JSON on request."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rssc_geo.options import PrintOptions
from rssc_geo_cli.console import echo_areas, set_up_logging
from tests.factories import texture, write_raster

from .conftest import Rssc, whole_tiles


@pytest.mark.parametrize(
    "arguments",
    [("info", "none.tif"), ("classify", "none.tif", "-o", "o.gpkg"), ("info", "--no-such-option")],
)
def test_a_failure_is_an_object_where_json_is_asked_for(
    rssc: Rssc, arguments: tuple[str, ...]
) -> None:
    outcome = rssc(*arguments, "--json")
    (line,) = outcome.out.splitlines()
    error = json.loads(line)["error"]
    assert error["exit_code"] == outcome.code != 0
    assert outcome.message == f"rssc-geo: error: {error['message']}"


def test_a_failure_is_an_event_among_events(rssc: Rssc) -> None:
    outcome = rssc("classify", "none.tif", "-o", "o.gpkg", "--progress", "json")
    event = json.loads(outcome.out.splitlines()[-1])
    assert (event["event"], event["exit_code"]) == ("error", outcome.code)


@pytest.mark.parametrize(
    ("environment", "content", "key"),
    [
        ({"RSSC_GEO_JSON": "1"}, None, "error"),
        ({"RSSC_GEO_PROGRESS": "json"}, None, "event"),
        ({}, "json = true", "error"),
        ({}, '[classify]\nprogress = "json"', "event"),
        ({"RSSC_GEO_PROGRESS": "none"}, 'progress = "json"\njson = true', "error"),
        ({"RSSC_GEO_JSON": "0"}, "[info]\njson = true", ""),
    ],
)
def test_json_may_be_asked_for_elsewhere(
    rssc: Rssc,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    environment: dict[str, str],
    content: str | None,
    key: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    more: tuple[object, ...] = ()
    if content is not None:
        (tmp_path / "own.toml").write_text(content)
        more = ("--config", tmp_path / "own.toml")
    for wrong in ((), ("--no-such-option",)):
        outcome = rssc("classify", "none.tif", "-o", tmp_path / "o.gpkg", *more, *wrong)
        assert outcome.code != 0
        if key:
            assert key in json.loads(outcome.out.splitlines()[-1])
        else:
            assert not outcome.out


@pytest.mark.parametrize("name", ["a" * 250 + ".gpkg", "a" * 240 + ".gpkg", "é" * 120 + ".fgb"])
def test_a_name_too_long_for_what_is_made_beside_it_is_refused(
    rssc: Rssc, tmp_path: Path, name: str
) -> None:
    scene = write_raster(tmp_path / "s.tif", texture(64, 64), photometric="rgb")
    outcome = rssc("classify", scene, "-o", tmp_path / name)
    assert outcome.code == 2
    assert "choose a shorter one" in outcome.message
    assert os.listdir(tmp_path) == ["s.tif"]


@pytest.mark.parametrize("option", ["-o", "--preview", "--report", "--class-raster"])
def test_a_name_with_a_line_break_is_refused(rssc: Rssc, tmp_path: Path, option: str) -> None:
    scene = write_raster(tmp_path / "s.tif", texture(64, 64), photometric="rgb")
    names = {"-o": "m.gpkg", option: "a\nb.png"}
    words = [word for pair in names.items() for word in (pair[0], tmp_path / pair[1])]
    outcome = rssc("classify", scene, *words)
    assert outcome.code == 2
    assert "has a line break or control character in it" in outcome.message


def _classify(
    code: str, folder: Path, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A scene in the folder, mapped beside it by a process that runs this code."""
    scene = write_raster(folder / "s.tif", texture(300, 300), photometric="rgb")
    words = ["classify", scene, "-o", folder / "m.gpkg", *whole_tiles("300px"), "--json", "-q"]
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
    )


_LIMITED = """
import resource, sys
resource.setrlimit(resource.{what}, ({value}, {value}))
from rssc_geo_cli.main import main
sys.argv = ["rssc-geo", *sys.argv[1:]]
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("RLIMIT_NOFILE", 8),
        ("RLIMIT_NOFILE", 12),
        ("RLIMIT_AS", 400 << 20),
        ("RLIMIT_AS", 900 << 20),
        ("RLIMIT_AS", 1400 << 20),
    ],
)
def test_a_limit_of_the_system_is_one_line(tmp_path: Path, what: str, value: int) -> None:
    code = _LIMITED.format(what=what, value=value)
    done = _classify(code, tmp_path, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    told = [line for line in done.stderr.splitlines() if line.startswith("rssc-geo: error: ")]
    if done.returncode == 0:
        assert sorted(os.listdir(tmp_path)) == ["m.gpkg", "s.tif"]
        return
    assert done.returncode == 1, done.stderr
    assert len(told) == 1, done.stderr
    assert json.loads(done.stdout)["error"]["exit_code"] == 1
    assert "internal error" not in told[0]
    assert "Traceback" not in done.stderr
    assert [name for name in os.listdir(tmp_path) if name != "m.gpkg.part"] == ["s.tif"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HF_HUB_ETAG_TIMEOUT", "PROJ_NETWORK"])
def test_a_variable_that_a_library_cannot_read_is_one_line(tmp_path: Path, name: str) -> None:
    code = "from rssc_geo_cli.main import main; main()"
    done = _classify(code, tmp_path, env={**os.environ, name: "soon"})
    assert done.returncode == 1
    message = f"the environment variable {name} is 'soon': correct or unset it"
    assert done.stderr == f"rssc-geo: error: {message}\n"
    *own, answer = done.stdout.splitlines()  # huggingface_hub prints a line of its own
    assert len(own) <= 1
    assert json.loads(answer)["error"]["message"] == message
    assert os.listdir(tmp_path) == ["s.tif"]


_IMPATIENT = """
import os, signal, sys
from rssc_geo_cli import main as program
tell = program._tell
def impatient(*arguments, **more):
    os.kill(os.getpid(), signal.SIGINT)
    told = tell(*arguments, **more)
    os.kill(os.getpid(), signal.SIGINT)
    return told
program._tell, program._GRACE_S = impatient, 0
from rssc_geo.inference import SceneRun
def stop(*_):
    os.kill(os.getpid(), signal.SIGINT)
SceneRun.classify = stop
sys.argv = ["rssc-geo", *sys.argv[1:]]
program.main()
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_impatience_does_not_break_into_the_goodbye(tmp_path: Path) -> None:
    done = _classify(_IMPATIENT, tmp_path)
    assert done.returncode == 130, done.stderr
    (line,) = done.stderr.strip().splitlines()  # click ends the line that ^C stands in
    assert "interrupted; run the same command again" in line
    assert json.loads(done.stdout)["error"]["exit_code"] == 130
    assert os.listdir(tmp_path) == ["s.tif"]


@pytest.mark.parametrize(
    ("name", "encoding"), [("a.tif", "cp932"), ("日本.tif", "cp1252"), ("日本.tif", "cp437")]
)
def test_json_is_utf8_on_any_code_page(tmp_path: Path, name: str, encoding: str) -> None:
    write_raster(tmp_path / name, texture(128, 128), photometric="rgb")
    done = subprocess.run(
        [sys.executable, "-m", "rssc_geo_cli.main", "info", "--json", name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout.decode("utf-8"))


def test_a_name_that_is_not_utf8_is_refused_before_the_work(rssc: Rssc) -> None:
    outcome = rssc("info", "caf\udce9.tif")
    assert outcome.code == 2
    assert "is not UTF-8" in outcome.message


@pytest.mark.parametrize("log_json", [False, True])
def test_a_name_forges_no_log_line(capsys: pytest.CaptureFixture[str], log_json: bool) -> None:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    try:
        set_up_logging(PrintOptions(log_json=log_json))
        logging.getLogger("rssc_geo").warning("%s is empty", "a\nerror: forged\x1b[2J.tif")
    finally:
        root.handlers = handlers
        root.setLevel(level)
    (line,) = capsys.readouterr().err.splitlines()
    assert r"a\nerror" in (json.loads(line)["message"] if log_json else line)
    assert "\x1b" not in line


def test_a_cache_in_the_environment_stops_no_run_without_a_large_captioner(
    rssc: Rssc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSSC_GEO_CAPTION_CACHE", str(tmp_path / "captions"))
    scene = write_raster(tmp_path / "scene.tif", texture(600, 600), photometric="rgb")
    assert rssc("classify", scene, "-o", tmp_path / "map.gpkg", *whole_tiles("300px")).code == 0


@pytest.mark.parametrize("log_json", [False, True])
def test_the_log_file_has_all_messages_and_the_failure(
    rssc: Rssc, scene: Path, tmp_path: Path, log_json: bool
) -> None:
    log = tmp_path / "night.log"
    words = ("--log-file", log, *(["--log-json"] if log_json else []))
    done = rssc("tile", scene, "-o", tmp_path / "chips", "--quiet", *words)
    assert done.code == 0
    assert done.err == ""
    failed = rssc("tile", scene, "-o", tmp_path / "chips", "--tile-size", "1px", *words)
    assert failed.code == 2
    lines = log.read_text("utf-8").splitlines()  # the second run's behind the first one's
    if log_json:
        assert json.loads(failed.err.splitlines()[-1]) == json.loads(lines[-1])
        assert all(set(json.loads(line)) >= {"time", "level", "message"} for line in lines)
    else:
        assert failed.message.removeprefix("rssc-geo: error: ") in lines[-1]
        assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", lines[-1])
    refused = rssc("info", scene, "--log-file", tmp_path / "no" / "night.log")
    assert refused.code == 2
    assert "cannot be written" in refused.err


def test_an_unknown_command_is_told_the_nearest(rssc: Rssc) -> None:
    done = rssc("clasify", "scene.tif")
    assert (done.code, done.message) == (
        2,
        "rssc-geo: error: there is no command 'clasify': did you mean classify?",
    )
    assert "rssc-geo --help lists them" in rssc("xyz").message
    assert rssc("assess", "run").message == (
        "rssc-geo: error: there is no command 'assess run': rssc-geo assess --help lists them"
    )
    assert "no command 'batch stats': did you mean status?" in rssc("batch", "stats").message


def test_names_in_results_forge_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    echo_areas({"Field\n  Town  1.0 ha\x1b[2J": 1.0})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert "\x1b" not in out
