"""Land-use maps from any GeoTIFF, by scene classification with words.

The names below are imported when they are first used, so that ``import rssc_geo`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rssc_geo.errors import RsscGeoError as RsscGeoError
    from rssc_geo.inference.captions import caption as caption
    from rssc_geo.inference.explain import explain as explain
    from rssc_geo.inference.pipeline import classify as classify
    from rssc_geo.inference.plan import TilingOptions as TilingOptions
    from rssc_geo.inference.plan import make_plan as make_plan
    from rssc_geo.models.bundle import load_card as load_card
    from rssc_geo.models.bundle import load_model as load_model
    from rssc_geo.raster.scene import Scene as Scene
    from rssc_geo.raster.scene import open_scene as open_scene
    from rssc_geo.training.custom import CustomOptions as CustomOptions
    from rssc_geo.training.custom import train_on_polygons as train_on_polygons
    from rssc_geo.training.data import load_image_folder as load_image_folder
    from rssc_geo.training.evaluate import evaluate as evaluate
    from rssc_geo.training.recipe import TrainOptions as TrainOptions
    from rssc_geo.training.trainer import train as train
    from rssc_geo.zeroshot import name_classes as name_classes
    from rssc_geo.zeroshot import refine_classes as refine_classes

_HOME = {
    "RsscGeoError": "rssc_geo.errors",
    "Scene": "rssc_geo.raster.scene",
    "TrainOptions": "rssc_geo.training.recipe",
    "TilingOptions": "rssc_geo.inference.plan",
    "caption": "rssc_geo.inference.captions",
    "classify": "rssc_geo.inference.pipeline",
    "name_classes": "rssc_geo.zeroshot",
    "refine_classes": "rssc_geo.zeroshot",
    "train_on_polygons": "rssc_geo.training.custom",
    "CustomOptions": "rssc_geo.training.custom",
    "evaluate": "rssc_geo.training.evaluate",
    "explain": "rssc_geo.inference.explain",
    "load_card": "rssc_geo.models.bundle",
    "load_image_folder": "rssc_geo.training.data",
    "load_model": "rssc_geo.models.bundle",
    "make_plan": "rssc_geo.inference.plan",
    "open_scene": "rssc_geo.raster.scene",
    "train": "rssc_geo.training.trainer",
}
__all__ = [
    "CustomOptions",
    "RsscGeoError",
    "Scene",
    "TilingOptions",
    "TrainOptions",
    "caption",
    "classify",
    "evaluate",
    "explain",
    "load_card",
    "load_image_folder",
    "load_model",
    "make_plan",
    "name_classes",
    "open_scene",
    "refine_classes",
    "train",
    "train_on_polygons",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
