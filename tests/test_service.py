"""Requests to a process that keeps its models loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pytest
from affine import Affine
from shapely.geometry import box

from rssc_geo.service import Service
from tests.factories import texture, write_raster

TRANSFORM = Affine(2.0, 0, 500_000, 0, -2.0, 5_000_000)
TILES = {"tile_size": "100px", "cell_size": "100px"}

Ask = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_raster(
        tmp_path / "scene.tif", texture(400, 300), transform=TRANSFORM, photometric="rgb"
    )


@pytest.fixture(scope="module")
def answered() -> tuple[Service, list[dict[str, Any]]]:
    """A service that has been asked before: its models stay for all tests of this file."""
    answers: list[dict[str, Any]] = []
    return Service(answers.append), answers


@pytest.fixture
def ask(answered: tuple[Service, list[dict[str, Any]]]) -> Ask:
    """Send lines, dicts as JSON, and take the answers to them."""
    service, answers = answered

    def send(*lines: object) -> list[dict[str, Any]]:
        answers.clear()
        for line in lines:
            service.receive(line if isinstance(line, str) else json.dumps(line))
        service.close()
        service.run(idle_s=60)
        return [answer for answer in answers if answer["event"] not in {"ready", "progress"}]

    return send


def test_the_result_is_that_of_the_command_itself(ask: Ask, scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "map.gpkg"
    (result,) = ask(
        {
            "id": "a",
            "command": "classify",
            "raster": str(scene),
            "output": str(output),
            "options": {
                **TILES,
                "no_unknown": True,
                "bounds": [500_000, 4_999_400, 500_400, 5_000_000],
            },
        }
    )
    assert (result["id"], result["event"], result["cells"]) == ("a", "result", 6)
    assert result["outputs"] == [str(output)]
    told = gpd.read_file(output, layer="cells")
    point = told.geometry[0].centroid
    (why,) = ask(
        {
            "id": 2,
            "command": "explain",
            "raster": str(scene),
            "output": str(tmp_path / "why"),
            "options": {"result": str(output), "at": [[point.x, point.y]]},
        }
    )
    (cell,) = why["cells"]
    assert (cell["row"], cell["col"]) == (told["row"][0], told["col"][0])
    assert (cell["class"], cell["confidence"]) == (
        told["class"][0],
        pytest.approx(told["confidence"][0], abs=1e-5),
    )
    assert (tmp_path / "why" / cell["heat_map"]).is_file()


INFO = '{"id": 1, "command": "info", "options": {%s}}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "a request is a JSON object"),
        ({"id": "\ud800", "command": "info"}, "no JSON: it holds half"),
        ({"id": 1, "command": "load", "options": {"model": "x" * 300}}, "give a shorter name"),
        ({"id": 1, "command": "rm"}, "there is no command 'rm'"),
        ({"id": 1, "command": "info", "shell": "x"}, "a request has no 'shell'"),
        ({"command": "info"}, "a request needs an id"),
        ({"id": 1, "command": "info"}, "info needs the argument 'raster'"),
        ({"id": 1, "command": "info", "raster": 3}, "are texts"),
        ({"id": 1, "command": "info", "raster": "none.tif"}, "none.tif"),
        ({"id": 1, "command": "classify", "options": {"x": 1}}, "classify has no option 'x'"),
        ({"id": 1, "command": "classify", "options": {"min_valid": 7}}, "--min-valid '7' is not"),
        (INFO % ('"tile_size": ' + "[" * 400 + "]" * 400), "--tile-size holds a list in a list"),
        (INFO % ('"nodata": ' + '{"a": ' * 400 + "1" + "}" * 400), "--nodata holds a list in a"),
        (
            {"id": 1, "command": "classify", "options": {"trust_remote_code": True}},
            "--trust-remote-code is given on the command line alone",
        ),
        (
            {"id": 1, "command": "classify", "options": {"overwrite": True}},
            "--overwrite is given on the command line alone",
        ),
    ],
)
def test_a_bad_request_costs_one_answer(ask: Ask, scene: Path, line: object, message: str) -> None:
    wrong, right = ask(line, {"id": 9, "command": "info", "raster": str(scene)})
    assert wrong["event"] == "error"
    assert message in wrong["message"]
    assert wrong["exit_code"] in {1, 2}
    assert "internal error" not in wrong["message"]
    assert (right["id"], right["size_px"]) == (9, (400, 300))


def test_what_is_cancelled_ends_at_its_next_step(ask: Ask, scene: Path, tmp_path: Path) -> None:
    classify = {
        "id": 5,
        "command": "classify",
        "raster": str(scene),
        "output": str(tmp_path / "map.gpkg"),
    }
    (ended,) = ask(classify, {"cancel": 5})
    assert (ended["id"], ended["event"], ended["exit_code"]) == (5, "error", 130)
    assert list(tmp_path.glob("map*")) == []


def test_a_cancellation_after_the_answer_cancels_no_later_request_of_that_id(
    ask: Ask, scene: Path
) -> None:
    info = {"id": 6, "command": "info", "raster": str(scene)}
    (first,) = ask(info)
    answers = ask({"cancel": 6}, info)
    assert [answer["event"] for answer in (first, *answers)] == ["result", "result"]


def test_a_model_that_was_trained_anew_is_loaded_anew(
    ask: Ask, scene: Path, tmp_path: Path
) -> None:
    shapes = [box(500_000 + x, 4_999_400, 500_000 + x + 380, 5_000_000) for x in (0, 400)]
    model, page = tmp_path / "mine", tmp_path / "mine.html"
    for number, names in enumerate((["left", "right"], ["west", "east"])):
        labels = tmp_path / f"labels{number}.gpkg"
        gpd.GeoDataFrame({"class": names}, geometry=shapes, crs="EPSG:32632").to_file(labels)
        (trained,) = ask(
            {
                "id": 1,
                "command": "train",
                "raster": str(scene),
                "labels": str(labels),
                "output": str(model),
                "options": {"tile_size": "100px", "report": str(page)},
            }
        )
        assert trained["bundle"] == str(model)
        assert all(name in page.read_text(encoding="utf-8") for name in names)
        (loaded,) = ask({"id": 2, "command": "load", "options": {"model": str(model)}})
        assert loaded["classes"] == sorted(names)
        page.unlink()
        for file in model.iterdir():
            file.unlink()
        model.rmdir()


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rssc_geo_cli.main", "serve", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_the_process_ends_with_its_parent_and_after_a_while_without_work(scene: Path) -> None:
    with _start("--idle", "600") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["event"] == "ready"
        process.stdin.write(json.dumps({"id": 1, "command": "info", "raster": str(scene)}) + "\n")
        process.stdin.flush()
        events = [json.loads(process.stdout.readline()) for _ in range(2)]
        assert [event["event"] for event in events] == ["progress", "result"]
        process.stdin.close()
        assert process.wait(30) == 0
    with _start("--idle", "1") as process:
        assert process.wait(60) == 0


def test_a_line_without_end_costs_one_answer(scene: Path) -> None:
    with _start() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write('{"id": 1, "command": "info", "raster": "' + "x" * 50_000_000 + '"}\n')
        process.stdin.write(json.dumps({"id": 2, "command": "info", "raster": str(scene)}) + "\n")
        process.stdin.flush()
        events = [json.loads(process.stdout.readline()) for _ in range(4)]
        assert [event["event"] for event in events] == ["ready", "error", "progress", "result"]
        assert "no JSON" in events[1]["message"]
        process.stdin.close()


def test_the_process_ends_where_nobody_reads_its_answers() -> None:
    with _start() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write("x\n")
        process.stdin.flush()
        assert process.wait(30) == 1
        assert process.stderr.read() == ""


def test_a_cancellation_reaches_a_request_at_work(scene: Path, tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = []
    service = Service(answers.append)
    options = {"tile_size": "30px", "cell_size": "30px"}
    request = {
        "id": 1,
        "command": "classify",
        "raster": str(scene),
        "output": str(tmp_path / "map.gpkg"),
        "options": options,
    }
    service.receive(json.dumps(request))
    work = threading.Thread(target=lambda: service.run(idle_s=120))
    work.start()
    while not any(answer.get("stage") == "classify" for answer in answers):
        assert work.is_alive()
        time.sleep(0.01)
    service.receive('{"cancel": 1}')
    service.close()
    work.join(60)
    assert answers[-1]["exit_code"] == 130
    assert not (tmp_path / "map.gpkg").exists()
