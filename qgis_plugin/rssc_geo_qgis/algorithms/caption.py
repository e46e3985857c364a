"""Caption scene."""

from __future__ import annotations

from types import MappingProxyType

from ..i18n import tr
from .polygons import PolygonAlgorithm


class Caption(PolygonAlgorithm):
    """``rssc-geo caption``."""

    NAME = "caption"
    COMMAND = "caption"
    TITLE = tr("Caption scene")
    TAGS = tr("description text words vision language ai")
    SUFFIXES = MappingProxyType({"OUTPUT": (".gpkg",)})
    LAYERS = MappingProxyType({"OUTPUT": "captions"})
    OUTPUT_HELP = tr("A GeoPackage.")
    HELP = tr(
        "Describes each cell of a satellite or aerial picture in a sentence: one "
        "polygon a cell with its caption.<br><br>The captioner that comes with "
        "the backend is small and quick. A vision-language model on this "
        "computer (hf:<i>model</i>) or on a server "
        "(openai:<i>url</i>#<i>model</i>) writes more and takes longer."
    )
