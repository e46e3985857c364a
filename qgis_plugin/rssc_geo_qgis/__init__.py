"""QGIS plugin.

Land-use maps from the layers of a project, made by the program ``rssc-geo`` beside QGIS.
"""

from __future__ import annotations

from typing import Any


def classFactory(iface: Any) -> Any:
    """Called by QGIS; ``iface`` is None under ``qgis_process``."""
    from .i18n import load_translation

    translator = load_translation()
    from .plugin import RsscGeoPlugin

    return RsscGeoPlugin(iface, translator)
