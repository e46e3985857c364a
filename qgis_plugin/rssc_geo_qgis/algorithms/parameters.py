"""Parameters that several algorithms share.

A parameter's name is the option of ``rssc-geo`` in capitals.
"""

from __future__ import annotations

from qgis.core import (
    QgsProcessing,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterCrs,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
)

Parameters = list[QgsProcessingParameterDefinition]

HTML = (".html", ".htm")
"""What the name of a page ends with."""


def described(
    parameter: QgsProcessingParameterDefinition, help_text: str
) -> QgsProcessingParameterDefinition:
    """The parameter with its tool tip."""
    parameter.setHelp(help_text)
    return parameter


def advanced(
    parameter: QgsProcessingParameterDefinition, help_text: str
) -> QgsProcessingParameterDefinition:
    """The parameter with its tool tip, among the advanced ones."""
    parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
    return described(parameter, help_text)


def tiling() -> Parameters:
    """How the raster is cut and read."""
    return [
        tile_size(),
        _text(
            "STRIDE",
            "Stride",
            "Side of a cell of the result, such as 200m, at most the tile's. Empty: the tile size.",
        ),
        *reading(),
    ]


def tile_size() -> QgsProcessingParameterDefinition:
    """How much is looked at at a time."""
    return _text(
        "TILE_SIZE",
        "Tile size",
        "Side of what the network looks at, such as 256px or 400m. Empty: by the model.",
    )


def reading() -> Parameters:
    """How the raster is read."""
    return [
        advanced(
            QgsProcessingParameterNumber(
                "MIN_VALID",
                "Valid share",
                QgsProcessingParameterNumber.Type.Double,
                0.5,
                minValue=0.01,
                maxValue=1,
            ),
            "Share of valid (not nodata) pixels a cell needs.",
        ),
        _text(
            "BANDS",
            "Bands",
            "Numbers of the bands used as red, green, blue, such as 4,3,2. Empty: by their colors.",
        ),
        _text(
            "STRETCH",
            "Stretch",
            "Scaling to 8 bit: 2%,98% or 0,3000 or minmax. Empty: 2%,98% beyond 8 bit.",
        ),
        _number(
            "NODATA",
            "Nodata value",
            "A value that counts as nodata, for rasters whose collar carries no tag.",
        ),
    ]


def area() -> Parameters:
    """Which part of the raster is looked at."""
    return [
        advanced(
            QgsProcessingParameterFeatureSource(
                "AOI",
                "Area of interest",
                [QgsProcessing.SourceType.TypeVectorPolygon],
                optional=True,
            ),
            "Only cells whose center lies in these polygons; 'Selected features only' narrows it"
            " further.",
        ),
        advanced(
            QgsProcessingParameterExtent("EXTENT", "Extent", optional=True),
            "Only cells whose center lies in this rectangle, for example the canvas extent. Online"
            " layers need it.",
        ),
        advanced(
            QgsProcessingParameterNumber(
                "RESOLUTION",
                "Resolution of online layers (m)",
                QgsProcessingParameterNumber.Type.Double,
                1.0,
                minValue=0.01,
            ),
            "Metres a pixel at which a WMS, WMTS or XYZ layer is fetched; files are read as they"
            " are.",
        ),
    ]


def model() -> QgsProcessingParameterDefinition:
    """Which network."""
    return _text(
        "MODEL",
        "Model",
        "compact (comes with the backend), the folder of a trained one, or a hub id.",
        "compact",
    )


def captioner() -> QgsProcessingParameterDefinition:
    """Who describes the tiles."""
    return _text(
        "CAPTIONER",
        "Captioner",
        "Who describes the tiles: compact, none, hf:<model> or openai:<url>#<model>.",
        "compact",
    )


def shape() -> Parameters:
    """What the polygons look like."""
    return [
        advanced(
            QgsProcessingParameterBoolean(
                "AOI_CLIP", "Clip polygons to the area", defaultValue=False
            ),
            "Also cut the polygons at the border of the area of interest or extent.",
        ),
        _number(
            "MIN_AREA",
            "Smallest region (m²)",
            "Smaller regions join a neighbor. Empty: none do.",
            minimum=0,
        ),
        advanced(
            QgsProcessingParameterBoolean(
                "PROBABILITIES", "Probabilities of all classes", defaultValue=False
            ),
            "One column for each class in the cells layer.",
        ),
        crs(),
    ]


def crs() -> QgsProcessingParameterDefinition:
    """In which CRS the result is."""
    return advanced(
        QgsProcessingParameterCrs("CRS", "CRS of the result", optional=True), "Empty: the raster's."
    )


def review() -> QgsProcessingParameterDefinition:
    """How many cells a person is asked about."""
    return advanced(
        QgsProcessingParameterNumber(
            "REVIEW",
            "Cells to review",
            QgsProcessingParameterNumber.Type.Integer,
            optional=True,
            minValue=1,
        ),
        "Also a layer of the so many cells that are most worth labeling: fill in its field 'label'"
        " and train with it.",
    )


def compute() -> Parameters:
    """Where the network runs."""
    return [
        advanced(
            QgsProcessingParameterNumber(
                "BATCH_SIZE",
                "Batch size",
                QgsProcessingParameterNumber.Type.Integer,
                optional=True,
                minValue=1,
            ),
            "Tiles at once. Empty: by the device.",
        ),
        device(),
    ]


def device() -> QgsProcessingParameterDefinition:
    """Where alone."""
    return _text(
        "DEVICE",
        "Device",
        "cpu, cuda, cuda:1 or mps. Empty: that of the settings, else the fastest there is.",
    )


def _text(
    name: str, label: str, help_text: str, default: str = ""
) -> QgsProcessingParameterDefinition:
    return advanced(QgsProcessingParameterString(name, label, default, optional=True), help_text)


def _number(
    name: str, label: str, help_text: str, minimum: float | None = None
) -> QgsProcessingParameterDefinition:
    limits = {} if minimum is None else {"minValue": minimum}
    double = QgsProcessingParameterNumber.Type.Double
    return advanced(
        QgsProcessingParameterNumber(name, label, double, optional=True, **limits), help_text
    )
