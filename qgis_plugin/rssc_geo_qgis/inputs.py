"""Conversion of QGIS's inputs to files that the backend opens.

Files, online layers, areas of interest.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from qgis.core import (
    Qgis,
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
    QgsRaster,
    QgsRasterBlock,
    QgsRasterBlockFeedback,
    QgsRasterDataProvider,
    QgsRasterFileWriter,
    QgsRasterLayer,
    QgsRasterPipe,
    QgsRasterRange,
    QgsRectangle,
    QgsVectorFileWriter,
)
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtNetwork import QNetworkReply

from .i18n import tr

MAX_RENDERED_PIXELS = 100_000_000
MAX_COPIED_BYTES = 4_000_000_000
_BYTES_DRAWN = 4  # red, green, blue, alpha
_RENDERED = ("wms", "arcgismapserver")
_IN_MEMORY = "/vsimem/"
_COMPUTED_NO_DATA = -3.4028234663852886e38
"""Of what older QGIS computes (virtual rasters); newer has NaN. Neither tells it as nodata."""
_FLOATING = {Qgis.DataType.Float32, Qgis.DataType.Float64}
_FIRST_BANDS = (1, 2, 3)
_BLOCK = 512  # pixels; a multiple of the file's own tiles
_EDGE = 1e-6  # of a pixel: an extent that was typed ends where a pixel does
_AUTHORITIES = ("EPSG:", "ESRI:", "IGNF:", "OGC:", "IAU_2015:")


@dataclass(frozen=True)
class Pixels:
    """The pixels that a layer has of its own: their extent, how many, and the bytes of each."""

    extent: QgsRectangle
    columns: int
    rows: int
    bytes_each: int


@dataclass(frozen=True)
class RasterInput:
    """A raster layer as the backend needs it; made on QGIS's main thread, used on another.

    ``picture`` is a copy of the provider of a layer that has no file for the backend, from which
    QGIS writes one: of pictures of any resolution (WMS, WMTS, XYZ), or with ``pixels`` of their own
    (virtual rasters, WCS, PostGIS, files in memory). ``assume_crs`` is set when the layer's CRS was
    chosen in QGIS and is not that of the file, ``bands`` ("4,3,2") when the layer shows others than
    the first three, ``nodata`` when the user named a value as such.
    """

    source: str
    title: str
    crs: QgsCoordinateReferenceSystem
    assume_crs: str
    picture: QgsRasterDataProvider | None
    bands: str = ""
    nodata: float | None = None
    pixels: Pixels | None = None


@dataclass(frozen=True)
class Window:
    """What QGIS writes of a layer that has no file: an extent in its CRS, and how many pixels."""

    extent: QgsRectangle
    columns: int
    rows: int


def read_raster(layer: QgsRasterLayer) -> RasterInput:
    """Describe a layer.

    Raises ``QgsProcessingException`` when its place is unknown, or the backend cannot have it.
    """
    kind = layer.providerType()
    if kind in _RENDERED:
        return RasterInput("", layer.name(), layer.crs(), "", layer.dataProvider().clone())
    if not layer.crs().isValid():
        raise QgsProcessingException(
            tr(
                "The layer '{name}' has no CRS. Set it first (right click on the layer ▸ Layer"
                " CRS)."
            ).format(name=layer.name())
        )
    source = layer.source().split("|option:")[0]
    bands, nodata = _other_bands(layer), _user_nodata(layer)
    if kind != "gdal" or _IN_MEMORY in source:
        picture, pixels = _own_pixels(layer)
        return RasterInput("", layer.name(), layer.crs(), "", picture, bands, nodata, pixels)
    if os.path.exists(source):
        source = os.path.abspath(source)
    elif source.startswith(("http://", "https://")):
        source = f"/vsicurl/{source}"
    chosen = layer.crs() != layer.dataProvider().crs()
    assumed = crs_text(layer.crs()) if chosen else ""
    return RasterInput(source, layer.name(), layer.crs(), assumed, None, bands, nodata)


def _own_pixels(layer: QgsRasterLayer) -> tuple[QgsRasterDataProvider, Pixels | None]:
    """A copy of the layer's provider, and its pixels where it says how many it has."""
    picture = layer.dataProvider().clone()
    if picture is None:
        raise QgsProcessingException(
            tr(
                "The layer '{name}' comes from '{kind}', which QGIS cannot copy. Save it as a"
                " GeoTIFF first (Layer ▸ Save As…)."
            ).format(name=layer.name(), kind=layer.providerType())
        )
    bands = range(1, picture.bandCount() + 1)
    for band in bands:  # the backend is told of these, and gets the pixels as they are
        picture.setUserNoDataValue(band, [])
    columns, rows = picture.xSize(), picture.ySize()
    if columns < 1 or rows < 1:
        return picture, None
    each = sum(QgsRasterBlock.typeSize(picture.sourceDataType(band)) for band in bands)
    return picture, Pixels(picture.extent(), columns, rows, each)


def read_together(layers: list[QgsMapLayer], *, kept: bool = False) -> list[RasterInput]:
    """Describe layers that one run reads in the same way.

    ``kept``: the backend will want to open them again. Raises ``QgsProcessingException`` where one
    has no file that it can then open, is drawn for an extent only, or where bands, no data value or
    CRS that were chosen in QGIS are not the same for all.
    """
    rasters = []
    for layer in layers:
        if not isinstance(layer, QgsRasterLayer):
            raise QgsProcessingException(
                tr("The layer '{name}' is no raster.").format(name=layer.name())
            )
        raster = read_raster(layer)
        if raster.picture is not None and (kept or raster.pixels is None):
            raise no_file(raster)
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


def no_file(raster: RasterInput) -> QgsProcessingException:
    """The error for a layer of which a file is needed."""
    text = tr(
        "'{title}' has no file for the backend. Save it as a GeoTIFF first (Export ▸ Save As…)."
    )
    return QgsProcessingException(text.format(title=raster.title))


def shown_bands(layer: QgsRasterLayer) -> tuple[int, ...]:
    """The bands that the layer shows as red, green, blue; of other styles the first three."""
    return _colored_bands(layer) or tuple(min(band, layer.bandCount()) for band in _FIRST_BANDS)


def _other_bands(layer: QgsRasterLayer) -> str:
    """The bands that the layer shows as red, green, blue; '' for the first three, as for gray."""
    shown = _colored_bands(layer)
    return "" if shown in ((), _FIRST_BANDS) else ",".join(map(str, shown))


def _colored_bands(layer: QgsRasterLayer) -> tuple[int, ...]:
    renderer = layer.renderer()
    if not isinstance(renderer, QgsMultiBandColorRenderer):
        return ()
    shown = (renderer.redBand(), renderer.greenBand(), renderer.blueBand())
    return () if min(shown) < 1 else shown


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


def bounds_text(extent: QgsRectangle) -> str:
    """An extent as the program's options take it: MINX,MINY,MAXX,MAXY."""
    corners = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
    return ",".join(f"{value:.15g}" for value in corners)


def window_of(raster: RasterInput, extent: QgsRectangle, resolution_m: float) -> Window:
    """What is written of a layer that has no file; of its own pixels those that the extent touches.

    ``extent``: in the layer's CRS; a null one: all, of what has pixels of its own.
    ``resolution_m``: meters a pixel of what has none. Raises ``QgsProcessingException`` when there
    is no extent, it lies beside, or it makes too much.
    """
    if raster.pixels is None:
        return _drawn_window(raster, extent, resolution_m)
    pixels, whole = raster.pixels, raster.pixels.extent
    if extent.isNull():
        window = Window(whole, pixels.columns, pixels.rows)
    else:
        wanted = extent.intersect(whole)
        if wanted.isEmpty():
            raise QgsProcessingException(
                tr("The extent lies beside '{title}'.").format(title=raster.title)
            )
        window = _touched(pixels, wanted)
    size = window.columns * window.rows * pixels.bytes_each
    if size > MAX_COPIED_BYTES:
        raise QgsProcessingException(
            tr(
                "'{title}' has no file for the backend, and a copy of {columns} × {rows} pixels"
                " would take {size:.1f} GB; {most:g} GB are copied at most. Choose a smaller"
                " extent, or save it as a GeoTIFF first (Export ▸ Save As…)."
            ).format(
                title=raster.title,
                columns=window.columns,
                rows=window.rows,
                size=size / 1e9,
                most=MAX_COPIED_BYTES / 1e9,
            )
        )
    return window


def _touched(pixels: Pixels, wanted: QgsRectangle) -> Window:
    """The pixels that an extent within theirs touches."""
    whole = pixels.extent
    width, height = whole.width() / pixels.columns, whole.height() / pixels.rows
    left = math.floor((wanted.xMinimum() - whole.xMinimum()) / width + _EDGE)
    right = math.ceil((wanted.xMaximum() - whole.xMinimum()) / width - _EDGE)
    top = math.floor((whole.yMaximum() - wanted.yMaximum()) / height + _EDGE)
    bottom = math.ceil((whole.yMaximum() - wanted.yMinimum()) / height - _EDGE)
    snapped = QgsRectangle(
        whole.xMinimum() + left * width,
        whole.yMaximum() - bottom * height,
        whole.xMinimum() + right * width,
        whole.yMaximum() - top * height,
    )
    return Window(snapped, right - left, bottom - top)


def _drawn_window(raster: RasterInput, extent: QgsRectangle, resolution_m: float) -> Window:
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
    return Window(extent, max(columns, 1), max(rows, 1))


def write_raster(raster: RasterInput, window: Window, path: str, feedback: QgsFeedback) -> None:
    """Write what a layer without a file shows in a window, in the layer's CRS, as a GeoTIFF.

    Pictures get an alpha band; pixels of the layer's own stay as they are, with their nodata.
    Raises ``QgsProcessingException`` where any of it did not come. Ends early, without an error,
    when ``feedback`` is cancelled.
    """
    _check_space(raster, window, path)
    size = {"columns": window.columns, "rows": window.rows, "title": raster.title}
    progress = QgsRasterBlockFeedback()
    # This thread may have no event loop that would take a message to it.
    feedback.canceled.connect(progress.cancel, Qt.ConnectionType.DirectConnection)
    writer = QgsRasterFileWriter(path)
    writer.setOutputFormat("GTiff")
    options = ["TILED=YES", "COMPRESS=DEFLATE", "ZLEVEL=1", "BIGTIFF=IF_SAFER"]
    with _failed_requests() as failed:
        if raster.pixels is None:
            fetching = tr(
                "Fetching {columns} × {rows} pixels of '{title}'. Mind the terms of its"
                " service: many forbid bulk downloads."
            )
            feedback.pushWarning(fetching.format(**size))
            writer.setCreateOptions(options)
            whole = _draw(raster, window, writer, progress)
        else:
            feedback.pushInfo(tr("Copying {columns} × {rows} pixels of '{title}'.").format(**size))
            alpha = "YES" if _ends_with_alpha(raster.picture) else "NO"
            writer.setCreateOptions([*options, f"ALPHA={alpha}"])
            whole = _copy(raster, window, writer, progress)
    if feedback.isCanceled():
        return
    errors = [*progress.errors(), *failed.values()]
    if errors or not whole:
        told = errors[0] if errors else tr("QGIS does not say why")
        more = tr(" (and {count} more)").format(count=len(errors) - 1) if len(errors) > 1 else ""
        raise QgsProcessingException(
            tr(
                "'{title}' could not be fetched: {told}{more}. Try again later, or choose"
                " another extent."
            ).format(title=raster.title, told=told, more=more)
        )


def _check_space(raster: RasterInput, window: Window, path: str) -> None:
    """Refuse what may not fit on the disk: what is cut off would be read as no data."""
    folder = os.path.dirname(path)
    each = _BYTES_DRAWN if raster.pixels is None else raster.pixels.bytes_each
    size, free = window.columns * window.rows * each, shutil.disk_usage(folder).free
    if size > free:
        raise QgsProcessingException(
            tr(
                "A copy of '{title}' may take {size:.1f} GB, and {free:.1f} GB are free in"
                " {folder}. Make room there, or choose a smaller extent."
            ).format(title=raster.title, size=size / 1e9, free=free / 1e9, folder=folder)
        )


def _draw(
    raster: RasterInput,
    window: Window,
    writer: QgsRasterFileWriter,
    progress: QgsRasterBlockFeedback,
) -> bool:
    """Write a picture of any resolution; whether the file is whole."""
    pipe = QgsRasterPipe()
    pipe.set(raster.picture)
    result = writer.writeRaster(
        pipe,
        window.columns,
        window.rows,
        window.extent,
        raster.crs,
        QgsCoordinateTransformContext(),
        progress,
    )
    return result == QgsRasterFileWriter.WriterError.NoError


def _copy(
    raster: RasterInput,
    window: Window,
    writer: QgsRasterFileWriter,
    progress: QgsRasterBlockFeedback,
) -> bool:
    """Write pixels as they are, in blocks that are soon done; whether the file is whole."""
    source, bands = raster.picture, range(1, raster.picture.bandCount() + 1)
    nodata = _nodata_of(source)
    kind = _kind_of_copy(source, nodata)
    target = writer.createMultiBandRaster(
        kind, window.columns, window.rows, window.extent, raster.crs, len(bands)
    )
    if target is None or not (target.isEditable() or target.setEditable(True)):
        return False
    if nodata is not None:
        for band in bands:
            target.setNoDataValue(band, nodata)
    for part, left, top in _parts(window):
        for band in bands:
            block = source.block(band, part.extent, part.columns, part.rows, progress)
            if progress.isCanceled():
                return False
            if not block.isValid() or block.isEmpty() or not block.convert(kind):
                return False
            if nodata is not None and math.isnan(nodata):
                _mark_with_nan(block)
            if not target.writeBlock(block, band, left, top):
                return False
    return target.setEditable(False)


def _nodata_of(source: QgsRasterDataProvider) -> float | None:
    """The one nodata value of a copy's bands; NaN where the source has no single one.

    None where all pixels are valid: whole numbers of which the source names no nodata.
    """
    bands = range(1, source.bandCount() + 1 - _ends_with_alpha(source))
    values = {
        source.sourceNoDataValue(band) if source.sourceHasNoDataValue(band) else None
        for band in bands
    }
    if values == {None}:
        return math.nan if any(source.dataType(band) in _FLOATING for band in bands) else None
    return values.pop() if len(values) == 1 else math.nan


def _kind_of_copy(source: QgsRasterDataProvider, nodata: float | None) -> Qgis.DataType:
    """The type of a copy's pixels: of all bands where they have one that can hold the nodata."""
    kinds = {source.dataType(band) for band in range(1, source.bandCount() + 1)}
    if len(kinds) == 1 and (kinds <= _FLOATING or nodata is None or not math.isnan(nodata)):
        return kinds.pop()
    return Qgis.DataType.Float64


def _mark_with_nan(block: QgsRasterBlock) -> None:
    """Make the nodata of a block NaN: the value that it names, or that of what is computed."""
    value = block.noDataValue() if block.hasNoDataValue() else _COMPUTED_NO_DATA
    block.setNoDataValue(math.nan)
    if not math.isnan(value):  # a range without bounds has all
        block.applyNoDataValues([QgsRasterRange(value, value)])


def _parts(window: Window) -> Iterator[tuple[Window, int, int]]:
    """The blocks of a window, with their first column and row."""
    extent = window.extent
    width, height = extent.width() / window.columns, extent.height() / window.rows
    for top in range(0, window.rows, _BLOCK):
        for left in range(0, window.columns, _BLOCK):
            columns, rows = min(_BLOCK, window.columns - left), min(_BLOCK, window.rows - top)
            place = QgsRectangle(
                extent.xMinimum() + left * width,
                extent.yMaximum() - (top + rows) * height,
                extent.xMinimum() + (left + columns) * width,
                extent.yMaximum() - top * height,
            )
            yield Window(place, columns, rows), left, top


def _ends_with_alpha(provider: QgsRasterDataProvider) -> bool:
    last = provider.colorInterpretation(provider.bandCount())
    return last == QgsRaster.ColorInterpretation.AlphaBand


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
    source: QgsProcessingFeatureSource, path: str, title: str, fields: Sequence[str] = ()
) -> None:
    """Write the features of a source to a GeoPackage, with some of its fields.

    Only the selected ones where the user said so. Raises ``QgsProcessingException`` when there are
    none, or no such field.
    """
    if not source.sourceCrs().isValid():
        raise QgsProcessingException(
            tr(
                "The layer '{title}' has no CRS. Set it first (right click on the layer ▸"
                " Layer CRS)."
            ).format(title=title)
        )
    kept, wanted = QgsFields(), [source.fields().indexOf(field) for field in fields]
    for field, index in zip(fields, wanted):
        if index < 0:
            raise QgsProcessingException(
                tr("The layer '{title}' has no field '{field}'; there are {names}.").format(
                    title=title, field=field, names=", ".join(source.fields().names())
                )
            )
        kept.append(QgsField(source.fields().at(index)))
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    writer = QgsVectorFileWriter.create(
        path, kept, source.wkbType(), source.sourceCrs(), QgsCoordinateTransformContext(), options
    )
    count = 0
    for feature in source.getFeatures():
        copy = QgsFeature(kept)
        copy.setGeometry(feature.geometry())
        copy.setAttributes([feature.attribute(index) for index in wanted])
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
