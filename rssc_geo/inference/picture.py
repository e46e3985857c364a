"""The preview picture: a reduced read of the scene under its classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from affine import Affine

from rssc_geo.errors import UsageError
from rssc_geo.geometry.grid import Window
from rssc_geo.inference.plan import Plan
from rssc_geo.models.card import SceneClass
from rssc_geo.raster.radiometry import Radiometry
from rssc_geo.vector.preview import write_preview
from rssc_geo.vector.target import check_file

_SIDE = 1200  # pixels of the longer side that are read; the picture shows about as many


def check_preview(path: Path, *, overwrite: bool) -> None:
    """Refuse before the work starts what could not be written at its end."""
    if path.suffix.lower() != ".png":
        raise UsageError(f"--preview {path}: the picture is a PNG; name it .png")
    check_file(path, overwrite=overwrite)


def draw_preview(
    path: Path, *, plan: Plan, radiometry: Radiometry, class_grid: np.ndarray, classes: Sequence[SceneClass]
) -> None:
    """Write the picture of a finished run. ``class_grid``: int (cell rows, cell columns), negative where there is none."""
    scene = plan.scene
    reduction = max(1.0, max(scene.shape) / _SIDE)
    rows, cols = (max(1, round(side / reduction)) for side in scene.shape)
    with scene.open() as handle:
        colours, valid = scene.pixel_reader(handle).read(Window(0, 0, scene.height, scene.width), (rows, cols))
    write_preview(
        path,
        scene_rgb=radiometry.apply(colours, valid),
        scene_mask=np.ones((rows, cols), bool) if valid is None else valid,
        transform=scene.transform @ Affine.scale(scene.width / cols, scene.height / rows),
        gsd_m=(scene.gsd_m[0] * scene.height / rows, scene.gsd_m[1] * scene.width / cols),
        class_grid=class_grid,
        grid=plan.grid,
        grid_transform=scene.transform,
        classes=classes,
        title=scene.name,
    )
