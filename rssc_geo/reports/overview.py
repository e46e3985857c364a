"""A reduced read of the scene, and the preview picture: that read under its classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from affine import Affine

from rssc_geo.geometry import Window
from rssc_geo.inference import Plan
from rssc_geo.models import SceneClass
from rssc_geo.raster import Radiometry
from rssc_geo.reports.preview import write_preview

_SIDE = 1200  # pixels of the longer side that are read; the picture shows about as many


def read_overview(
    plan: Plan, radiometry: Radiometry, *, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read the whole raster, its longer side at most ``side`` pixels.

    Returns uint8 (H, W, 3) and its mask, bool (H, W), True = valid. Raises ``InputError`` when it
    cannot be read.
    """
    scene = plan.scene
    reduction = max(1.0, max(scene.shape) / side)
    rows, cols = (max(1, round(length / reduction)) for length in scene.shape)
    with scene.pixel_reader() as reader:
        colors, valid = reader.read(Window(0, 0, scene.height, scene.width), (rows, cols))
    return radiometry.apply(colors, valid), np.ones((rows, cols), bool) if valid is None else valid


def draw_preview(
    path: Path,
    *,
    plan: Plan,
    radiometry: Radiometry,
    class_grid: np.ndarray,
    classes: Sequence[SceneClass],
) -> None:
    """Write the picture of a finished run.

    ``class_grid``: int (cell rows, cell columns), negative where there is none.
    """
    scene = plan.scene
    pixels, mask = read_overview(plan, radiometry, side=_SIDE)
    rows, cols = mask.shape
    write_preview(
        path,
        scene_rgb=pixels,
        scene_mask=mask,
        transform=scene.transform @ Affine.scale(scene.width / cols, scene.height / rows),
        gsd_m=(scene.gsd_m[0] * scene.height / rows, scene.gsd_m[1] * scene.width / cols),
        class_grid=class_grid,
        grid=plan.grid,
        grid_transform=scene.transform,
        classes=classes,
        title=scene.name,
    )
