"""`caption`, `classify` with a captioner on a server, and the cache between them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
from PIL import Image
from shapely.geometry import box

from rssc_geo.training import load_image_folder
from tests.chat_server import ChatServer, refusal
from tests.factories import texture, write_raster

from .conftest import Outcome, Rssc, whole_tiles


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatServer]:
    monkeypatch.setenv("RSSC_GEO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSSC_GEO_API_KEY", raising=False)
    with ChatServer() as chat:
        yield chat


@pytest.mark.slow
def test_caption_fills_what_classify_needs(rssc: Rssc, server: ChatServer, tmp_path: Path) -> None:
    pixels = texture(500, 400)
    pixels[:, :200, :100] = 0
    raster = write_raster(tmp_path / "scene.tif", pixels, nodata=0, photometric="rgb")
    asked = ["--captioner", server.captioner, *whole_tiles("100px")]
    done = rssc("caption", raster, "-o", tmp_path / "captions.gpkg", *asked, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["tiles"] == 18 == len(server.requests)
    layer = gpd.read_file(tmp_path / "captions.gpkg", layer="captions")
    assert layer.crs.to_epsg() == 32632
    assert set(layer["caption"].str[:17]) == {"A field of color "}
    places = list(zip(layer["row"], layer["col"], strict=True))
    assert places == sorted((r, c) for r in range(5) for c in range(4) if r > 1 or c > 0)
    for row in layer.itertuples():
        x, y = 500_000 + 200 * row.col, 5_000_000 - 200 * row.row
        assert row.geometry.equals(box(x, y - 200, x + 200, y))

    done = rssc("classify", raster, "-o", tmp_path / "map.gpkg", *asked)
    assert done.code == 0, done.err
    assert len(server.requests) == 18
    scenes = gpd.read_file(tmp_path / "map.gpkg", layer="cells").set_index(["row", "col"])
    assert (scenes["caption"] == layer.set_index(["row", "col"])["caption"]).all()

    done = rssc(
        "caption",
        raster,
        "-o",
        tmp_path / "captions.jsonl",
        *asked,
        "--cell-size",
        "50px",
        "--progress",
        "json",
    )
    assert done.code == 0, done.err
    assert len(server.requests) > 18
    assert json.loads(done.out.splitlines()[-1])["event"] == "result"
    lines = [json.loads(line) for line in (tmp_path / "captions.jsonl").read_text().splitlines()]
    assert all(set(line) == {"row", "col", "bounds", "crs", "caption"} for line in lines)
    by_place = {(line["row"], line["col"]): line for line in lines}
    assert by_place[4, 2]["bounds"] == [500_200, 4_999_400, 500_400, 4_999_600]
    assert by_place[4, 2]["caption"] == scenes.loc[(2, 1), "caption"]
    assert by_place[4, 2]["crs"] == "EPSG:32632"


def test_the_words_of_a_server_reach_the_class(
    rssc: Rssc, server: ChatServer, scene: Path, tmp_path: Path
) -> None:
    frames = {}
    for name, captioner in {"own": "compact", "server": server.captioner}.items():
        done = rssc(
            "classify",
            scene,
            "-o",
            tmp_path / f"{name}.gpkg",
            *whole_tiles("200px"),
            "--no-unknown",
            "--captioner",
            captioner,
        )
        assert done.code == 0, done.err
        frames[name] = gpd.read_file(tmp_path / f"{name}.gpkg", layer="cells")
    assert (frames["own"]["confidence"] - frames["server"]["confidence"]).abs().max() > 1e-3


def test_uncertain_tiles_only(rssc: Rssc, server: ChatServer, scene: Path, tmp_path: Path) -> None:
    usual = [*whole_tiles("100px"), "--no-unknown"]
    own = rssc("classify", scene, "-o", tmp_path / "own.gpkg", *usual)
    assert own.code == 0, own.err
    confidence = gpd.read_file(tmp_path / "own.gpkg", layer="cells")["confidence"]
    threshold = round(float(np.median(confidence)), 4)
    done = rssc(
        "classify",
        scene,
        "-o",
        tmp_path / "map.gpkg",
        *usual,
        "--captioner",
        server.captioner,
        "--caption-when",
        f"uncertain:{threshold}",
    )
    assert done.code == 0, done.err
    scenes = gpd.read_file(tmp_path / "map.gpkg", layer="cells")
    asked = scenes["caption"].str.startswith("A field of color ")
    assert asked.sum() == len(server.requests) > 0
    assert (asked == (confidence < threshold)).all()
    assert (scenes["caption"].str.len() > 5).all()


def test_what_captions_do_not_change_is_not_captioned_by_confidence(
    rssc: Rssc, server: ChatServer, scene: Path, tmp_path: Path
) -> None:
    large = ["--captioner", server.captioner, "--caption-when", "uncertain:0.8"]
    fine = rssc("classify", scene, "-o", tmp_path / "map.gpkg", "--cell-size", "50px", *large)
    assert fine.code == 2
    assert "do not change the classes of a fine map; use cells that are whole tiles" in fine.message
    alone = rssc("caption", scene, "-o", tmp_path / "captions.jsonl", *large)
    assert (alone.code, "--caption-when is for maps" in alone.message) == (2, True)
    assert not server.requests
    assert not list(tmp_path.glob("*map*")) + list(tmp_path.glob("captions*"))


def test_a_failed_tile_ends_the_run_and_the_next_goes_on(
    rssc: Rssc, server: ChatServer, scene: Path, tmp_path: Path
) -> None:
    command = [
        "caption",
        scene,
        "-o",
        tmp_path / "captions.jsonl",
        "--captioner",
        server.captioner,
        *whole_tiles("200px"),
    ]
    command += ["--caption-requests", "1"]
    assert rssc(*command[:-2], "--caption-requests", "0").code == 2
    server.faults = deque([*[None] * 5, refusal(400, "too blue")])  # type: ignore[list-item] -- None: no fault
    done = rssc(*command)
    assert done.code == 1
    assert "too blue" in done.message
    assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.glob("captions.*"))
    held = json.loads(rssc("models", "cache", "--json").out)
    assert (held["captions"], held["captioners"]) == (5, {server.captioner: 5})
    server.requests.clear()
    done = rssc(*command)
    assert done.code == 0, done.err
    assert len(server.requests) == 12 - 5
    cleared = rssc("models", "cache", "--clear")
    assert cleared.out.startswith("12 captions cleared")
    assert json.loads(rssc("models", "cache", "--json").out)["captions"] == 0


def test_sharing_asks_once_for_tiles_alike(rssc: Rssc, server: ChatServer, tmp_path: Path) -> None:
    sea = np.random.default_rng(0).normal(104, 5, (3, 512, 512)).astype(np.uint8)
    raster = write_raster(tmp_path / "sea.tif", sea, photometric="rgb")
    done = rssc(
        "caption",
        raster,
        "-o",
        tmp_path / "sea.gpkg",
        "--captioner",
        server.captioner,
        *whole_tiles("128px"),
        "--share-captions",
    )
    assert done.code == 0, done.err
    assert len(server.requests) == 1
    assert gpd.read_file(tmp_path / "sea.gpkg")["caption"].nunique() == 1


def test_key_and_provenance(
    rssc: Rssc, server: ChatServer, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "sk-very-secret"
    monkeypatch.setenv("RSSC_GEO_API_KEY", "sk-very-secret")
    usual = [
        *whole_tiles("400px"),
        "--captioner",
        server.captioner,
        "--prompt",
        "Which crops grow here?",
    ]
    done = rssc("classify", scene, "-o", tmp_path / "map.gpkg", *usual, "-vv")
    assert done.code == 0
    assert "sk-very" not in done.err + done.out
    for file in [tmp_path / "map.gpkg", *(tmp_path / "cache").iterdir()]:
        assert b"sk-very" not in file.read_bytes()
    assert b"Which crops grow here?" in (tmp_path / "map.gpkg").read_bytes()


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["-o", "x.shp"], 2, ".gpkg or .jsonl"),
        (["-o", "no/such/x.jsonl"], 1, "not an existing folder"),
        (["-o", "there.jsonl"], 1, "--overwrite"),
        (["-o", "x.jsonl", "--crs", "EPSG:4326"], 2, "--crs"),
        (["-o", "x.gpkg", "--captioner", "none"], 2, "writes no captions"),
        (["-o", "x.gpkg", "--prompt", "free"], 2, "hf:"),
        (["-o", "x.gpkg", "--captioner", "openai:http://localhost/v1"], 2, "#model"),
        (
            ["-o", "x.gpkg", "--captioner", "openai:http://localhost/v1#m", "--prompt", "freee"],
            2,
            "'freee'",
        ),
        (["-o", "scene.tif", "--overwrite"], 2, "is the input itself"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes(
    rssc: Rssc,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    extra: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.jsonl").write_text("mine\n")
    done = rssc("caption", scene, *extra)
    assert done.code == code
    assert words in done.message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.tif", "there.jsonl"]


def test_nothing_to_describe(rssc: Rssc, tmp_path: Path) -> None:
    raster = write_raster(
        tmp_path / "empty.tif", np.zeros((3, 300, 300), np.uint8), nodata=0, photometric="rgb"
    )
    for name in ("captions.gpkg", "captions.jsonl"):
        done = rssc("caption", raster, "-o", tmp_path / name)
        assert done.code == 3
        assert "nothing to classify" in done.message
    assert [path.name for path in tmp_path.iterdir()] == ["empty.tif"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")
def test_stops_at_once_with_its_parent_while_the_server_thinks(
    server: ChatServer, scene: Path, tmp_path: Path
) -> None:
    server.delay_s = 60.0
    words = [
        "caption",
        scene,
        "-o",
        tmp_path / "x.jsonl",
        "--captioner",
        server.captioner,
        "--exit-on-stdin-eof",
    ]
    program = [sys.executable, "-m", "rssc_geo_cli.main", *map(str, words)]
    run = subprocess.Popen(program, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdin is not None
    while not server.at_once:  # a request has come, and is being thought about
        assert run.poll() is None
        time.sleep(0.05)
    run.stdin.close()
    run.stdin = None
    _, errors = run.communicate(timeout=50)  # busy machines take their time, the server longer
    assert run.returncode == 130
    assert "run the same command again" in errors
    assert not list(tmp_path.glob("x.jsonl*"))


def test_pictures_are_described_for_training(rssc: Callable[..., Outcome], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name, level in {"Forest": 60, "Beach": 200}.items():
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(3):
            pixels = random.integers(level - 20, level + 20, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{index}.png")
    target = tmp_path / "captions.jsonl"
    words = ["caption", "--pictures", tmp_path / "pictures", "-o", target]
    done = rssc(*words, "--batch-size", 4, "--device", "cpu", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["tiles"] == 6
    assert json.loads(done.out)["device"] == "cpu"
    data = load_image_folder(tmp_path / "pictures", size=32, captions=target)
    assert all(len(texts) == 1 and len(texts[0]) > 5 for texts in data.captions)
    assert "exists" in rssc(*words).message
    assert "as .jsonl" in rssc(*words[:-1], tmp_path / "captions.gpkg").message
    assert "none writes no captions" in rssc(*words, "--captioner", "none", "--overwrite").message
    assert not list(tmp_path.glob("*.part"))
