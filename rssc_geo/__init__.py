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

_HOME = {
    "RsscGeoError": "rssc_geo.errors",
    "Scene": "rssc_geo.raster.scene",
    "TilingOptions": "rssc_geo.inference.plan",
    "classify": "rssc_geo.inference.pipeline",
    "load_card": "rssc_geo.models.bundle",
    "load_model": "rssc_geo.models.bundle",
    "make_plan": "rssc_geo.inference.plan",
    "open_scene": "rssc_geo.raster.scene",
}
__all__ = [
    "RsscGeoError",
    "Scene",
    "TilingOptions",
    "classify",
    "load_card",
    "load_model",
    "make_plan",
    "open_scene",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
