"""Batches whose lists and rasters come from a web server, which is a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.file_server import serve_folder

from .conftest import content, load_json, states
from .test_reliability import command

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def site(scenes: Path) -> Iterator[str]:
    """The folder of the scenes as a web site."""
    with serve_folder(scenes) as address:
        yield address


def item(name: str, href: str) -> dict[str, object]:
    assets = {"picture": {"href": href, "roles": ["data"]}}
    common = {"type": "Feature", "stac_version": "1.0.0", "geometry": None, "links": []}
    return {
        **common,
        "id": name,
        "properties": {"datetime": "2026-01-01T00:00:00Z"},
        "assets": assets,
    }


def test_a_static_catalogue_with_children(
    rssc_run: Run, scenes: Path, site: str, bundle: Path, tmp_path: Path
) -> None:
    """By path and by URL.

    The maps are the same as those of the files, and a missing raster fails alone.
    """
    (scenes / "children").mkdir()
    catalogue = {"type": "Catalog", "stac_version": "1.0.0", "id": "all", "description": "all"}
    children = [("one", "../scene_0.tif"), ("two", "../scene_1.tif"), ("gone", "../gone.tif")]
    links = [{"rel": "item", "href": f"./children/{name}.json"} for name, _ in children]
    (scenes / "catalog.json").write_text(json.dumps({**catalogue, "links": links}))
    for name, href in children:
        (scenes / "children" / f"{name}.json").write_text(json.dumps(item(name, href)))
    for place, maps in ((str(scenes), tmp_path / "by_path"), (site, tmp_path / "by_url")):
        code, out, err = rssc_run(
            "run",
            f"{place}/catalog.json",
            "-o",
            maps,
            "--tile-size",
            "64px",
            "--model",
            bundle,
            "--batch-size",
            1,  # as the command of the files below: sums of another size differ in the last digit
            "--threads",
            1,
            "--json",
        )
        assert code == 4, err
        assert load_json(out)["done"] == 2
        assert states(maps) == {"one.gpkg": "done", "two.gpkg": "done", "gone.gpkg": "failed"}
        assert "gone.tif" in err
    code, _, err = rssc_run(*command(scenes / "scene_0.tif", tmp_path / "by_file", bundle))
    assert code == 0, err
    for maps in ("by_path", "by_url"):
        assert content(tmp_path / maps / "one.gpkg") == content(
            tmp_path / "by_file" / "scene_0.gpkg"
        )


def test_rasters_and_collections_by_url(
    rssc_run: Run, scenes: Path, site: str, bundle: Path, tmp_path: Path
) -> None:
    maps = tmp_path / "maps"
    (scenes / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": [item("one", "scene_1.tif")]})
    )
    (tmp_path / "list.txt").write_text(
        f"{site}/scene_0.tif\n{site}/gone.tif\nhttp://127.0.0.1:9/x.tif\n"
    )
    words = (
        "run",
        tmp_path / "list.txt",
        f"{site}/items.json",
        "-o",
        maps,
        "--tile-size",
        "64px",
        "--model",
        bundle,
        "--json",
    )
    code, out, err = rssc_run(*words)
    assert code == 4
    assert states(maps) == {
        "scene_0.gpkg": "done",
        "gone.gpkg": "failed",
        "x.gpkg": "failed",
        "one.gpkg": "done",
    }
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 3
    assert lines[0].startswith(f"error: {site}/gone.tif ")
    assert lines[1].startswith("error: http://127.0.0.1:9/x.tif ")
    assert load_json(out)["done"] == 2
    assert load_json(rssc_run(*words)[1])["skipped"] == 2
