"""What is said where something fails or a name is odd: whole, on one line, as JSON where asked."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rssc_geo.options import PrintOptions
from rssc_geo_cli.console import set_up_logging
from tests.factories import texture, write_raster

from .conftest import Outcome

Rssc = Callable[..., Outcome]


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
    assert rssc("classify", scene, "-o", tmp_path / "map.gpkg").code == 0
