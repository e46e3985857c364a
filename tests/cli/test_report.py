"""The report: a self-contained page that escapes names and works in a browser."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest

from rssc_geo.captioning import make_captioner
from rssc_geo.inference import Predictor, choose_compute
from rssc_geo.models import Model, scene_classes
from rssc_geo.options import ClassifyOptions
from rssc_geo.pipelines.classify import classify
from tests.factories import NORTH_UP, texture, write_raster

from .conftest import Rssc, whole_tiles

VOID_ELEMENTS = {"meta", "img", "input", "br", "image", "rect", "line"}


class Page(HTMLParser):
    """A page taken apart.

    Texts by element, attributes, and whether every element is closed where it should be.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.count: dict[str, int] = {}
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "action"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        assert tag in VOID_ELEMENTS

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID_ELEMENTS:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)


@pytest.mark.parametrize("suffix", ["gpkg", "fgb"])
def test_the_report_shows_the_map_it_stands_beside(
    rssc: Rssc, scene: Path, bundle: Path, tmp_path: Path, suffix: str
) -> None:
    target, report = tmp_path / f"map.{suffix}", tmp_path / "map.html"
    done = rssc(
        "classify",
        scene,
        "-o",
        target,
        "--model",
        bundle,
        *whole_tiles("100px"),
        "--report",
        report,
        "--review",
        7,
        "--json",
    )
    assert done.code == 0, done.err
    values = json.loads(done.out)
    beside = [] if suffix == "gpkg" else [tmp_path / "map_cells.fgb", tmp_path / "map_review.fgb"]
    assert values["outputs"] == [str(path) for path in (target, *beside, report)]
    page = Page(report)
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert len(page.ids) == len(set(page.ids))
    # The policy lets the page's own script run, and no other.
    (script,) = re.findall(r"<script>(.*?)</script>", page.source, flags=re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in page.source
    scenes = gpd.read_file(target, layer="cells") if suffix == "gpkg" else gpd.read_file(beside[0])
    titles = {"Field": "Field", "River, wide": "Wide river", "Town <b>": "Town & <b>"}
    present = {titles[name] for name in scenes["class"]}
    # A name with a tag in it is text wherever it stands.
    assert present <= set(page.texts["span"])
    assert present == set(page.texts["title"][1:]) - {
        text for text in page.texts["title"] if text.endswith(" cells")
    }
    assert "b" not in page.count or all(
        "<" not in text or text in present for text in page.texts["b"]
    )
    bars = [
        int(text.split(": ")[1].split()[0])
        for text in page.texts["title"]
        if text.endswith(" cells")
    ]
    expected, _ = np.histogram(scenes["confidence"], bins=np.arange(21) / 20)
    assert bars == expected.tolist()
    examples = sum(min(3, count) for count in scenes["class"].value_counts())
    assert page.count["figure"] == examples + 12
    surest = scenes.loc[scenes["confidence"].idxmax()]
    assert f"row {surest['row']}, col {surest['col']}" in page.texts["span"]
    hectares = sum(entry["area_m2"] for entry in values["classes"]) / 1e4
    assert f"{hectares:,.1f}" in page.texts["td"]
    assert scene.name in page.texts["dd"]


def test_areas_stand_under_their_groups(
    fine_model: Model, fine_scene: Path, tmp_path: Path
) -> None:
    card = dataclasses.replace(
        fine_model.card, classes=scene_classes(["Pond", "Lake", "OpenWater"])
    )
    model = dataclasses.replace(fine_model, card=card)
    predictor = Predictor(model, make_captioner(model), choose_compute("cpu"))
    options = ClassifyOptions(report=str(tmp_path / "map.html"), min_valid=0.5)
    result = classify(fine_scene, tmp_path / "map.gpkg", options, model=predictor)
    shown = [total for total in result.summary.classes if total.cells]
    assert len(shown) > 1
    page = Page(tmp_path / "map.html")
    assert page.texts["th"] == ["Class", "ha", "Share", "Water", "All"]
    assert page.source.count('<tr class="member">') == len(shown)
    largest = sorted(shown, key=lambda total: -total.area_m2)
    names = [text for text in page.texts["span"] if text in {total.title for total in shown}]
    assert names == [total.title for total in largest]
    hectares = [text for text in page.texts["td"] if "%" not in text]
    assert hectares[0] == hectares[-1]  # the group's are all
    assert len(hectares) == len(shown) + 2


def test_an_interrupted_run_gives_the_same_report_and_review(
    small_model: Model, scene: Path, tmp_path: Path
) -> None:
    def run(folder: str, stop_at: int | None) -> tuple[str, gpd.GeoDataFrame]:
        target = tmp_path / folder / "map.gpkg"
        target.parent.mkdir(exist_ok=True)

        def progress(stage: str, done: int, _total: int) -> None:
            if stop_at is not None and stage == "classify" and done >= stop_at:
                raise KeyboardInterrupt

        options = ClassifyOptions(
            tile_size="100px", report=str(target.with_suffix(".html")), review=6
        )
        compute = choose_compute("cpu", batch_size=4)
        predictor = Predictor(small_model, make_captioner(small_model), compute)
        classify(scene, target, options, model=predictor, progress=progress)
        page = target.with_suffix(".html").read_text(encoding="utf-8")
        return re.sub(r"<dt>(Made|Map)</dt><dd>.*</dd>", "", page), gpd.read_file(
            target, layer="review"
        )

    with pytest.raises(KeyboardInterrupt):
        run("stopped", 20)
    page, review = run("stopped", None)
    whole_page, whole_review = run("whole", None)
    assert page == whole_page
    assert review.equals(whole_review)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--report", "map.pdf"], "name it .html"),
        (["--report", "there.html"], "there.html exists"),
        (["--report", "missing/map.html"], "not an existing folder"),
        (["--review", "0"], "--review '0' is not a whole number; give 1 or more"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(
    rssc: Rssc,
    scene: Path,
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.html").touch()
    done = rssc("classify", scene, "-o", "map.gpkg", "--model", bundle, *options)
    assert done.code in (1, 2)
    assert message in done.message
    assert not list(tmp_path.glob("map*"))


def test_it_works_in_a_browser(bundle: Path, tmp_path: Path) -> None:
    browser = (
        shutil.which("chromium")
        or shutil.which("google-chrome")
        or shutil.which("chromium-browser")
    )
    if browser is None:
        pytest.skip("no Chromium on PATH")
    # A scene turned by 30 degrees, with a hole.
    pixels = texture(320, 320)
    pixels[:, :100, :100] = 0
    raster = write_raster(
        tmp_path / "turned.tif", pixels, nodata=0, transform=NORTH_UP @ NORTH_UP.rotation(30)
    )
    report = tmp_path / "map.html"
    classify(
        raster,
        tmp_path / "map.gpkg",
        ClassifyOptions(
            model=str(bundle), device="cpu", tile_size="64px", report=str(report), force=True
        ),
    )
    quiet = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    wanted = [
        "--window-size=390,844",
        "--enable-logging=stderr",
        "--virtual-time-budget=2000",
        "--dump-dom",
        report.as_uri(),
    ]
    done = subprocess.run(
        [browser, *quiet, *wanted], capture_output=True, text=True, timeout=120, check=True
    )
    assert "CONSOLE" not in done.stderr  # neither errors nor refusals by the page's own policy
    scale = re.search(r'<div id="scale"([^>]*)>([^<]*)<', done.stdout)
    assert scale is not None
    assert "hidden" not in scale[1]
    assert re.fullmatch(r"[125]0* (m|km)", scale[2])
    assert 'data-script="" hidden' not in done.stdout


def test_what_cannot_be_made_beside_a_map_leaves_it_whole(
    rssc: Rssc, scene: Path, bundle: Path, small_disk: Path
) -> None:
    """A disk that is full when the map is in place: one line, and the map can be used."""
    target, beside = scene.parent / "map.gpkg", small_disk / "map"
    beside.mkdir()
    command = (
        "classify",
        scene,
        "-o",
        target,
        "--model",
        bundle,
        *whole_tiles("100px"),
        "-q",
    )
    command += ("--preview", beside / "map.png", "--report", beside / "map.html", "--review", 3)
    (small_disk / "ballast").write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    done = rssc(*command)
    assert done.code == 1
    assert (
        done.message
        == f"rssc-geo: error: {target} is complete, but the preview could not be made (No space"
        " left on device) and the report could not be made (No space left on device): fix"
        " that, then run again with --overwrite"
    )
    assert len(gpd.read_file(target, layer="cells")) == 48
    assert len(gpd.read_file(target, layer="review")) == 3  # in the map, where there was room
    assert list(beside.iterdir()) == []
    assert sorted(path.name for path in scene.parent.glob("*map*")) == ["map.gpkg"]
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    assert rssc(*command, "--overwrite").code == 0
    assert sorted(path.name for path in beside.iterdir()) == ["map.html", "map.png"]


@pytest.mark.parametrize("option", ["--preview", "--report"])
def test_where_nothing_can_be_written_is_said_before_the_run(
    rssc: Rssc, scene: Path, bundle: Path, small_disk: Path, option: str
) -> None:
    name = "map.png" if option == "--preview" else "map.html"
    command = ("classify", scene, "-o", scene.parent / "map.gpkg", "--model", bundle, option)
    assert "is not an existing folder" in rssc(*command, small_disk / "none" / name).message
    assert rssc(*command, small_disk / "map.tif").code == 2
    (small_disk / name).mkdir()
    assert "is a folder: name a file in it" in rssc(*command, small_disk / name).message
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = rssc(*command, small_disk / f"other_{name}")
    assert done.code == 1
    assert f"cannot write in {small_disk} (Read-only file system)" in done.message
    assert not list(scene.parent.glob("map.gpkg*"))
