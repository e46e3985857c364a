"""Conversion of QGIS's inputs to files that the backend opens.

Files, online layers, areas of interest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsDistanceArea,
    QgsFeature,
    QgsFeedback,
    QgsField,
    QgsFields,
    QgsMapLayer,
    QgsMultiBandColorRenderer,
    QgsNetworkAccessManager,
    QgsNetworkReplyContent,
    QgsPointXY,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsRasterBlockFeedback,
    QgsRasterDataProvider,
    QgsRasterFileWriter,
    QgsRasterLayer,
    QgsRasterPipe,
    QgsRectangle,
    QgsVectorFileWriter,
)
from qgis.PyQt.QtNetwork import QNetworkReply

from .i18n import tr

MAX_RENDERED_PIXELS = 100_000_000
_RENDERED = ("wms", "arcgismapserver")
_AUTHORITIES = ("EPSG:", "ESRI:", "IGNF:", "OGC:", "IAU_2015:")


@dataclass(frozen=True)
class RasterInput:
    """A raster layer as the backend needs it; made on QGIS's main thread, used on another.

    ``picture`` is a copy of the provider of a layer that has no file (WMS, WMTS, XYZ);
    ``assume_crs`` is set when the layer's CRS was chosen in QGIS and is not that of the file,
    ``bands`` ("4,3,2") when the layer shows others than the first three, ``nodata`` when the user
    named a value as such.
    """

    source: str
    title: str
    crs: QgsCoordinateReferenceSystem
    assume_crs: str
    picture: QgsRasterDataProvider | None
    bands: str = ""
    nodata: float | None = None


def read_raster(layer: QgsRasterLayer) -> RasterInput:
    """Describe a layer.

    Raises ``QgsProcessingException`` when the backend cannot open such a one, or its place is
    unknown.
    """
    kind = layer.providerType()
    if kind in _RENDERED:
        return RasterInput("", layer.name(), layer.crs(), "", layer.dataProvider().clone())
    if kind != "gdal":
        raise QgsProcessingException(
            tr(
                "The layer '{name}' comes from '{kind}', which rssc-geo cannot read. Save it"
                " as a GeoTIFF first (Layer ▸ Save As…)."
            ).format(name=layer.name(), kind=kind)
        )
    if not layer.crs().isValid():
        raise QgsProcessingException(
            tr(
                "The layer '{name}' has no CRS. Set it first (right click on the layer ▸ Layer"
                " CRS)."
            ).format(name=layer.name())
        )
    source = layer.source().split("|option:")[0]
    if os.path.exists(source):
        source = os.path.abspath(source)
    elif source.startswith(("http://", "https://")):
        source = f"/vsicurl/{source}"
    chosen = layer.crs() != layer.dataProvider().crs()
    assumed = crs_text(layer.crs()) if chosen else ""
    nodata = _user_nodata(layer)
    return RasterInput(
        source, layer.name(), layer.crs(), assumed, None, _shown_bands(layer), nodata
    )


def read_together(layers: list[QgsMapLayer]) -> list[RasterInput]:
    """Describe layers that one run reads in the same way.

    Raises ``QgsProcessingException`` where one has no file, or where bands, no data value or CRS
    that were chosen in QGIS are not the same for all.
    """
    rasters = []
    for layer in layers:
        if not isinstance(layer, QgsRasterLayer):
            raise QgsProcessingException(
                tr("The layer '{name}' is no raster.").format(name=layer.name())
            )
        raster = read_raster(layer)
        if raster.picture is not None:
            raise QgsProcessingException(
                tr(
                    "'{title}' is an online layer. Save it as a GeoTIFF first (Layer ▸ Save As…)."
                ).format(title=raster.title)
            )
        rasters.append(raster)
        first = rasters[0]
        same = (raster.bands, raster.nodata, raster.assume_crs)
        if same != (first.bands, first.nodata, first.assume_crs):
            raise QgsProcessingException(
                tr(
                    "'{title}' and '{other}' show other bands, or have another additional no data"
                    " value or CRS that was chosen in QGIS. Make them the same first (Layer"
                    " Properties)."
                ).format(title=first.title, other=raster.title)
            )
    if not rasters:
        raise QgsProcessingException(tr("Choose a raster layer first."))
    return rasters


def _shown_bands(layer: QgsRasterLayer) -> str:
    """The bands that the layer shows as red, green, blue; '' for the first three, as for gray."""
    renderer = layer.renderer()
    if not isinstance(renderer, QgsMultiBandColorRenderer):
        return ""
    shown = (renderer.redBand(), renderer.greenBand(), renderer.blueBand())
    return "" if shown == (1, 2, 3) or min(shown) < 1 else ",".join(map(str, shown))


def _user_nodata(layer: QgsRasterLayer) -> float | None:
    """The value that counts as nodata by the layer's properties; None: by the file alone.

    Raises ``QgsProcessingException`` for ranges, which the backend does not know.
    """
    provider = layer.dataProvider()
    bands = range(1, provider.bandCount() + 1)
    ranges = [found for band in bands for found in provider.userNoDataValues(band)]
    values = {found.min() for found in ranges} | {found.max() for found in ranges}
    if len(values) > 1:
        raise QgsProcessingException(
            tr(
                "The layer '{name}' has more than one additional no data value (Layer"
                " Properties ▸ Transparency); one counts. Leave one, or none."
            ).format(name=layer.name())
        )
    return next(iter(values), None)


def crs_text(crs: QgsCoordinateReferenceSystem) -> str:
    """A CRS as other programs understand it: its code, or WKT where it is one of the user's own."""
    if crs.authid().startswith(_AUTHORITIES):
        return crs.authid()
    return crs.toWkt(QgsCoordinateReferenceSystem.WktVariant.WKT2_2019)


def rendered_size(
    raster: RasterInput, extent: QgsRectangle, resolution_m: float
) -> tuple[int, int]:
    """Columns and rows of an online layer's picture.

    Raises ``QgsProcessingException`` when it has no extent or is too large.
    """
    if extent.isEmpty():
        raise QgsProcessingException(
            tr("'{title}' is an online layer: choose the extent to classify (Extent).").format(
                title=raster.title
            )
        )
    width_m, height_m = _ground_size(extent, raster.crs)
    columns, rows = math.ceil(width_m / resolution_m), math.ceil(height_m / resolution_m)
    if columns * rows > MAX_RENDERED_PIXELS:
        fitting = resolution_m * math.sqrt(columns * rows / MAX_RENDERED_PIXELS)
        raise QgsProcessingException(
            tr(
                "The extent of '{title}' makes a picture of {columns} × {rows} pixels at"
                " {resolution:g} m; {most} million pixels are fetched at most."
                " Choose a smaller extent, or a resolution of {fitting:g} m or coarser."
            ).format(
                title=raster.title,
                columns=columns,
                rows=rows,
                resolution=resolution_m,
                most=MAX_RENDERED_PIXELS // 1_000_000,
                fitting=math.ceil(fitting * 10) / 10,
            )
        )
    return max(columns, 1), max(rows, 1)


def render(
    raster: RasterInput, extent: QgsRectangle, resolution_m: float, path: str, feedback: QgsFeedback
) -> None:
    """Write an online layer's picture of an extent, in the layer's CRS, as a GeoTIFF with alpha."""
    columns, rows = rendered_size(raster, extent, resolution_m)
    feedback.pushWarning(
        tr(
            "Fetching {columns} × {rows} pixels of '{title}'. Mind the terms of its"
            " service: many forbid bulk downloads."
        ).format(columns=columns, rows=rows, title=raster.title)
    )
    pipe = QgsRasterPipe()
    pipe.set(raster.picture)
    writer = QgsRasterFileWriter(path)
    writer.setOutputFormat("GTiff")
    writer.setCreateOptions(["TILED=YES", "COMPRESS=DEFLATE"])
    progress = QgsRasterBlockFeedback()
    feedback.canceled.connect(progress.cancel)
    with _failed_requests() as failed:
        result = writer.writeRaster(
            pipe, columns, rows, extent, raster.crs, QgsCoordinateTransformContext(), progress
        )
    if feedback.isCanceled():
        return
    errors = [*progress.errors(), *failed.values()]
    if errors or result != QgsRasterFileWriter.WriterError.NoError:
        told = errors[0] if errors else f"error {result}"
        more = tr(" (and {count} more)").format(count=len(errors) - 1) if len(errors) > 1 else ""
        raise QgsProcessingException(
            tr(
                "'{title}' could not be fetched: {told}{more}. Try again later, or choose"
                " another extent."
            ).format(title=raster.title, told=told, more=more)
        )


@contextmanager
def _failed_requests() -> Iterator[dict[str, str]]:
    """Requests of this thread that failed and did not succeed later, by address.

    QGIS draws what did not come as transparent, which would be taken for no data.
    """
    failed: dict[str, str] = {}
    manager = QgsNetworkAccessManager.instance()

    def note(reply: QgsNetworkReplyContent) -> None:
        address = reply.request().url().toString()
        if reply.error() == QNetworkReply.NetworkError.NoError:
            failed.pop(address, None)
        else:
            failed[address] = reply.errorString()

    finished = manager.finished[QgsNetworkReplyContent]
    finished.connect(note)
    try:
        yield failed
    finally:
        finished.disconnect(note)


def write_polygons(
    source: QgsProcessingFeatureSource, path: str, title: str, field: str = ""
) -> None:
    """Write the features of a source to a GeoPackage, with one field or none.

    Only the selected ones where the user said so. Raises ``QgsProcessingException`` when there are
    none.
    """
    if not source.sourceCrs().isValid():
        raise QgsProcessingException(
            tr(
                "The layer '{title}' has no CRS. Set it first (right click on the layer ▸"
                " Layer CRS)."
            ).format(title=title)
        )
    fields = QgsFields()
    wanted = source.fields().indexOf(field) if field else -1
    if wanted >= 0:
        fields.append(QgsField(source.fields().at(wanted)))
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    writer = QgsVectorFileWriter.create(
        path, fields, source.wkbType(), source.sourceCrs(), QgsCoordinateTransformContext(), options
    )
    count = 0
    for feature in source.getFeatures():
        copy = QgsFeature(fields)
        copy.setGeometry(feature.geometry())
        if wanted >= 0:
            copy.setAttributes([feature.attribute(wanted)])
        if not writer.addFeature(copy):
            raise QgsProcessingException(
                tr("The layer '{title}' could not be copied: {reason}").format(
                    title=title, reason=writer.errorMessage()
                )
            )
        count += 1
    del writer  # closes the file
    if not count:
        raise QgsProcessingException(
            tr(
                "The layer '{title}' has no features to use. If 'Selected features only' is"
                " on, select some."
            ).format(title=title)
        )


def _ground_size(extent: QgsRectangle, crs: QgsCoordinateReferenceSystem) -> tuple[float, float]:
    """Width and height in meters on the ground, through the middle.

    A meter of web maps is shorter there.
    """
    measure = QgsDistanceArea()
    measure.setSourceCrs(crs, QgsCoordinateTransformContext())
    measure.setEllipsoid("EPSG:7030")
    center = extent.center()
    width = measure.measureLine(
        QgsPointXY(extent.xMinimum(), center.y()), QgsPointXY(extent.xMaximum(), center.y())
    )
    height = measure.measureLine(
        QgsPointXY(center.x(), extent.yMinimum()), QgsPointXY(center.x(), extent.yMaximum())
    )
    return width, height
