"""Classify scene."""

from __future__ import annotations

from ..i18n import tr
from .landuse import LandUseAlgorithm


class Classify(LandUseAlgorithm):
    """``rssc-geo classify``."""

    NAME = "classify"
    COMMAND = "classify"
    TITLE = tr("Classify scene")
    TAGS = tr(
        "land use cover scene classification satellite aerial remote sensing ai deep learning"
    )
    HELP = tr(
        "Makes a land-use map of a satellite or aerial picture: the picture is "
        "cut into tiles, each is described in words and classified, and the "
        "result is two polygon layers, styled.<br><br><b>Land use</b>: one "
        "polygon for each region of one class.<br><b>Cells</b>: one for each "
        "cell, with its caption, its confidence and the second best class. By "
        "default tiles have the size that suits the model, and a cell is a sixth "
        "of a tile; <i>Cell size</i>, and <i>Tile size</i> among the advanced "
        "parameters, set others.<br><br>What is unlike all training data of the model is "
        "<i>Unknown</i>; the <i>familiarity</i> of a cell, from 0 to 1, states "
        "how similar it is. Both layers have the <i>group</i> of a class too, "
        "and further styles, by group and by confidence.<br><br>Optional: a "
        "<b>report</b>, a page with map, areas and examples; a <b>raster of "
        "classes</b>; and <b>cells to review</b>, those whose labels would help "
        "a model most; Train classifier reads them.<br><br>The model that comes "
        "with the backend knows 41 classes and was trained on pictures of 0.3 to "
        "10 m a pixel."
    )
