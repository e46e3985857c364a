"""Land-use maps from any GeoTIFF, by scene classification with words.

The names below are imported when they are first used, so that ``import rssc_geo`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rssc_geo.errors import RsscGeoError as RsscGeoError
    from rssc_geo.inference.pipeline import classify as classify
    from rssc_geo.inference.plan import TilingOptions as TilingOptions
    from rssc_geo.inference.plan import make_plan as make_plan
    from rssc_geo.models.bundle import load_card as load_card
    from rssc_geo.models.bundle import load_model as load_model
    from rssc_geo.raster.scene import Scene as Scene
    from rssc_geo.raster.scene import open_scene as open_scene
    from rssc_geo.training.data import load_image_folder as load_image_folder
    from rssc_geo.training.evaluate import evaluate as evaluate
    from rssc_geo.training.recipe import TrainOptions as TrainOptions
    from rssc_geo.training.trainer import train as train

_HOME = {
    "RsscGeoError": "rssc_geo.errors",
    "Scene": "rssc_geo.raster.scene",
    "TrainOptions": "rssc_geo.training.recipe",
    "TilingOptions": "rssc_geo.inference.plan",
    "classify": "rssc_geo.inference.pipeline",
    "evaluate": "rssc_geo.training.evaluate",
    "load_card": "rssc_geo.models.bundle",
    "load_image_folder": "rssc_geo.training.data",
    "load_model": "rssc_geo.models.bundle",
    "make_plan": "rssc_geo.inference.plan",
    "open_scene": "rssc_geo.raster.scene",
    "train": "rssc_geo.training.trainer",
}
__all__ = [
    "RsscGeoError",
    "Scene",
    "TilingOptions",
    "TrainOptions",
    "classify",
    "evaluate",
    "load_card",
    "load_image_folder",
    "load_model",
    "make_plan",
    "open_scene",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
