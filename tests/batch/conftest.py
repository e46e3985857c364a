"""Small scenes, a small model, and batches in processes of their own."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import geopandas as gpd
import pytest
from affine import Affine

from rssc_geo.batch import NAME
from tests.factories import texture, write_raster
from tests.programs import Program


def write_scene(
    path: Path,
    *,
    side: int = 256,
    seed: int = 0,
    origin: tuple[float, float] = (500_000, 5_000_000),
) -> Path:
    """A GeoTIFF of colored noise, tiled, UTM 32N at 2 m."""
    layout = {"tiled": True, "blockxsize": 64, "blockysize": 64, "photometric": "rgb"}
    transform = Affine(2.0, 0, origin[0], 0, -2.0, origin[1])
    return write_raster(path, texture(side, side, seed), transform=transform, **layout)


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """All features of both layers: geometry and values, in order."""
    layers = {}
    for layer in ("landuse", "cells"):
        frame = gpd.read_file(path, layer=layer)
        values = frame.drop(columns="geometry").assign(wkb=frame.geometry.to_wkb())
        values = values.astype(object).where(values.notna(), None)  # NaN would equal nothing
        layers[layer] = sorted(values.itertuples(index=False, name=None), key=repr)
    return layers


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Folder of three scenes of 4 × 4 tiles of 64 px."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        write_scene(folder / f"scene_{number}.tif", seed=number)
    return folder


@pytest.fixture
def start(start: Callable[..., Program]) -> Callable[..., Program]:
    """Start a batch; whatever is left is killed at the end."""
    return functools.partial(start, "batch")


def status(folder: Path) -> dict:
    from rssc_geo.batch import read_status

    return read_status(folder)


def begun(folder: Path) -> bool:
    """Whether there is a journal with something in it."""
    return (folder / NAME).exists() and (folder / NAME).stat().st_size > 0


def states(folder: Path) -> dict[str, str]:
    """State of each scene in the journal."""
    return {scene["output"]: scene["state"] for scene in status(folder)["scenes"]}


def load_json(text: str) -> dict:
    return json.loads(text.strip().splitlines()[-1])


@pytest.fixture
def rssc_run(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run ``rssc-geo batch …`` in this process: exit code, stdout, stderr."""
    from rssc_geo_cli.main import run

    def call(*arguments: object) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(["batch", *map(str, arguments)])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call
