"""The scripts and the notebook of examples/ run and write what they say."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import nbformat
import pytest
import rasterio
import yaml
from nbclient import NotebookClient
from rasterio.windows import Window

from .blocks import type_command
from .conftest import ROOT, Draw

SCRIPTS = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"make_demo_scene"}


@pytest.fixture
def part(desk: Path, drawn: Draw) -> Path:
    """A part of the drawn scene: forest, meadow and fields, some thirty tiles."""
    drawn(["python", "examples/make_demo_scene.py", "whole.tif", "--gsd", "7.5"])
    window = Window(0, 0, 240, 300)
    with rasterio.open("whole.tif") as whole:
        profile = {
            **whole.profile,
            "width": 240,
            "height": 300,
        }  # from its corner, so that the transform stays
        with rasterio.open("part.tif", "w", **profile) as target:
            target.write(whole.read(window=window))
    return desk / "part.tif"


def classes_of(path: str) -> set[str]:
    return set(gpd.read_file(path, layer="landuse")["class"])


def test_every_script_has_a_test() -> None:
    tested = {
        name.removeprefix("test_script_") for name in globals() if name.startswith("test_script_")
    }
    assert tested == SCRIPTS


def test_script_classify(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    type_command(["python", "examples/classify.py", "part.tif", "landuse.gpkg"])
    assert "Forest" in capsys.readouterr().out
    assert "Forest" in classes_of("landuse.gpkg")


def test_script_many_rasters(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    type_command(["python", "examples/many_rasters.py", "maps", "part.tif", "missing.tif"])
    assert "missing.tif: " in capsys.readouterr().out
    assert classes_of("maps/part.gpkg")


def test_script_own_classes(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    type_command(
        [
            "python",
            "examples/own_classes.py",
            "part.tif",
            "examples/demo_labels.geojson",
            "label",
            "mine",
            "mine.gpkg",
        ]
    )
    assert "woodland" in classes_of("mine.gpkg") <= {"woodland", "grassland", "fields"}
    assert "right for" in capsys.readouterr().out


@pytest.mark.slow
def test_script_words(part: Path) -> None:
    type_command(["python", "examples/words.py", "part.tif", "words.gpkg"])
    assert (
        "forest"
        in classes_of("words.gpkg")
        <= {"water", "forest", "open land", "built-up", "other"}
    )


@pytest.mark.slow
def test_script_local_cluster(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("distributed", reason="the extra 'distributed' is not installed")
    type_command(["python", "examples/local_cluster.py", "maps", "part.tif"])
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("1 of 1 scenes, ")
    assert all(line.startswith("tcp://") for line in told[1:])
    assert "Forest" in classes_of("maps/part.gpkg")


def test_the_cluster_of_containers_is_the_one_of_the_script() -> None:
    """Where no container can be built, its form: a scheduler, two workers, and who asks them."""
    place = ROOT / "examples" / "cluster" / "compose.yaml"
    services = yaml.safe_load(place.read_text(encoding="utf-8"))["services"]
    entries = {name: each["entrypoint"] for name, each in services.items()}
    assert entries["scheduler"] == ["dask", "scheduler"]
    assert entries["worker-1"] == entries["worker-2"]
    assert entries["worker-1"][:3] == ["dask", "worker", "tcp://scheduler:8786"]
    assert entries["batch"] == ["rssc-geo", "batch"]
    assert len({tuple(each["volumes"]) for each in services.values()}) == 1  # paths mean the same
    assert (place.parent / services["batch"]["build"] / "Dockerfile").resolve().is_file()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "examples" / "first_map.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), (
        "commit the notebook without outputs"
    )
    client = NotebookClient(
        notebook,
        timeout=240,
        kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "examples")}},
    )
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("confidence" in output.get("data", {}).get("text/html", "") for output in shown)
