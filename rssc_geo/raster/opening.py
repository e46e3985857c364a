"""How a source is opened: as it is, as a virtual raster (VRT), or warped virtually.

Separate files, palettes and a nodata value that the file does not carry become a VRT (XML text,
nothing is written); rasters placed by ground control points or RPCs alone are warped virtually.
:func:`open_source` opens the source once and settles what only the open dataset can tell; an
:class:`Opening` holds text and numbers, from which any thread or process opens the same again.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Interleaving, MaskFlags, Resampling, WktVersion
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT

from rssc_geo.errors import GeoreferenceError, InputError, UsageError, one_line
from rssc_geo.geometry import parse_crs
from rssc_geo.raster.bands import BandChoice, alpha_band, check_bands, choose_bands, is_paletted
from rssc_geo.raster.mask import MaskRule, can_hold, find_mask_rule

_REMOTE_ENV = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "TRUE"}
_VRT_TYPES = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}


@dataclass(frozen=True, slots=True)
class Warp:
    """A virtual warp of a raster that has no geotransform.

    Attributes
    ----------
    src_crs, crs : CRS of the control points, and the one to warp to
    nodata : value of invalid pixels on both sides, if any
    rpc_height_m : mean height of the ground in metres, where RPCs place the raster
    """

    src_crs: str
    crs: str
    nodata: float | None = None
    rpc_height_m: float | None = None

    def over(self, dataset: rasterio.DatasetReader) -> WarpedVRT:
        """The warped raster over an open dataset, which must stay open as long."""
        # Named, since a file may also store a geotransform that says nothing.
        extra = {"METHOD": "GCP_POLYNOMIAL"}
        if self.rpc_height_m is not None:
            extra = {"METHOD": "RPC", "RPC_HEIGHT": repr(self.rpc_height_m)}
        has_mask = ColorInterp.alpha in dataset.colorinterp or self.nodata is not None
        return WarpedVRT(
            dataset,
            src_crs=self.src_crs,
            crs=self.crs,
            resampling=Resampling.bilinear,
            src_nodata=self.nodata,
            nodata=self.nodata,
            add_alpha=not has_mask,
            **extra,
        )


@dataclass(frozen=True, slots=True)
class Opening:
    """How a raster is opened and its three bands are read, again and again.

    Attributes
    ----------
    dataset : a path, URL or VRT text
    label : the source's name in messages
    warp : the virtual warp on top of it, if any
    indexes : 1-based bands of the handle to read as red, green, blue
    mask_rule : what makes a pixel of the handle invalid
    overviews : reduction factors there are
    block_shape : (rows, columns) of a block as it is stored
    pixel_bytes : what a pixel takes of GDAL's block cache
    """

    dataset: str
    label: str
    warp: Warp | None
    indexes: tuple[int, int, int]
    mask_rule: MaskRule
    overviews: tuple[int, ...]
    block_shape: tuple[int, int]
    pixel_bytes: int

    def open(self) -> rasterio.DatasetReader | WarpedVRT:
        """A new handle, to be used by one thread and closed by it.

        Raises ``InputError`` when it cannot be opened.
        """
        with gdal_errors(self.label), gdal_env(self.dataset):
            handle = rasterio.open(self.dataset)
            return handle if self.warp is None else self.warp.over(handle)


@dataclass(frozen=True, slots=True)
class Source:
    """What only the open dataset can tell of a raster.

    Attributes
    ----------
    opening : how to open it again
    name : a short title
    files : paths of the files that it consists of, as far as GDAL tells them
    shape, transform : (rows, columns), affine from (column, row) to the CRS
    crs : the raster's own, None where it has none
    bands : the source bands taken as red, green, blue
    dtype : numpy name of the pixels' type
    nodata, mask : the nodata value in force, and in words what makes a pixel invalid
    """

    opening: Opening
    name: str
    files: tuple[str, ...]
    shape: tuple[int, int]
    transform: Affine
    crs: pyproj.CRS | None
    bands: BandChoice
    dtype: str
    nodata: float | None
    mask: str


@dataclass(frozen=True, slots=True)
class _View:
    """The raster that is read: the file itself, a VRT over files, or a warp over a file.

    Attributes
    ----------
    bands : the source bands taken as red, green, blue
    indexes : 1-based bands of the view that show them
    warp, vrt : the warp, or the VRT's text, if any
    vrt_block_shape : of the file behind a VRT, whose own blocks mean nothing
    mask_band : band of the VRT that holds the file's own mask
    palette, palette_nodata : whether the VRT expands a palette, and the index that is invalid
    """

    bands: BandChoice
    indexes: tuple[int, int, int] = (1, 2, 3)
    warp: Warp | None = None
    vrt: str = ""
    vrt_block_shape: tuple[int, int] = (0, 0)
    mask_band: int | None = None
    palette: bool = False
    palette_nodata: float | None = None

    @contextlib.contextmanager
    def over(self, dataset: rasterio.DatasetReader) -> Iterator[rasterio.DatasetReader]:
        """The view of an open dataset; a second one comes into being for a VRT or a warp alone."""
        if self.vrt:
            with rasterio.open(self.vrt) as handle:
                yield handle
        elif self.warp is not None:
            with self.warp.over(dataset) as handle:
                yield handle
        else:
            yield dataset


def open_source(
    source: str | Path | Sequence[str | Path],
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    assume_crs: str | None,
) -> Source:
    """Open a source once and settle how it is read; arguments and errors of ``open_scene``."""
    if not isinstance(source, str | Path):
        return _open_separate([os.fspath(path) for path in source], bands=bands, nodata=nodata)
    path = os.fspath(source)
    _check_path(path)
    with (
        gdal_errors(path),
        gdal_env(path),
        _no_place_is_no_warning(),
        rasterio.open(path) as dataset,
    ):
        view = _view_file(dataset, path, bands=bands, nodata=nodata, assume_crs=assume_crs)
        is_text = path.lstrip().startswith("<")
        name = "scene" if is_text else Path(path.split("?", maxsplit=1)[0]).stem
        files = tuple(str(file) for file in dataset.files) or (path,)
        with view.over(dataset) as handle:
            return _describe_source(
                handle, view, dataset=view.vrt or path, label=path, name=name, files=files
            )


def is_remote(path: str) -> bool:
    """Whether the path is a URL or one of GDAL's virtual file systems."""
    return "://" in path or path.startswith("/vsi")


def gdal_env(dataset: str, *, cache_bytes: int | None = None) -> rasterio.Env:
    """GDAL's settings for a raster: remote folders are not listed, remote reads are cached.

    ``cache_bytes`` is the size of the block cache: GDAL's own grows to 5 % of the machine's memory.
    The user's ``GDAL_CACHEMAX`` is left in force.
    """
    options: dict[str, str | int] = (
        dict(_REMOTE_ENV) if is_remote(dataset) or "/vsi" in dataset[:4096] else {}
    )
    if cache_bytes is not None and "GDAL_CACHEMAX" not in os.environ:
        options["GDAL_CACHEMAX"] = cache_bytes
    return rasterio.Env(**options)


@contextlib.contextmanager
def gdal_errors(label: str) -> Iterator[None]:
    """Turn what GDAL could not read into an ``InputError`` of one line with GDAL's own reason."""
    try:
        yield
    except (RasterioError, OSError) as error:
        # rasterio's own text is general ("Read failed. See previous exception"); the cause has
        # GDAL's reason.
        reason = one_line(error.__cause__ or error)
        raise InputError(f"{label} cannot be read as a raster: {reason}") from error


# What the view of a source tells.


def _describe_source(
    handle: rasterio.DatasetReader,
    view: _View,
    *,
    dataset: str,
    label: str,
    name: str,
    files: tuple[str, ...],
) -> Source:
    """Note down everything that is needed of the open view of a source."""
    first, indexes = view.indexes[0], view.indexes
    dtype = _dtype_of(handle, first, label)
    if any(_dtype_of(handle, index, label) != dtype for index in indexes):
        raise InputError(
            f"{label}: its bands have different types ({', '.join(handle.dtypes)}); convert it"
            " to one type"
        )
    warp_nodata = view.warp is not None and view.warp.nodata is not None
    rule = find_mask_rule(
        handle,
        indexes,
        mask_band=view.mask_band,
        nodata_beside_alpha=view.mask_band is not None or warp_nodata,
    )
    by_pixel = handle.interleaving is Interleaving.pixel
    opening = Opening(
        dataset=dataset,
        label=label,
        warp=view.warp,
        indexes=indexes,
        mask_rule=rule,
        overviews=tuple(handle.overviews(first)),
        block_shape=view.vrt_block_shape if view.vrt else handle.block_shapes[first - 1],
        pixel_bytes=np.dtype(dtype).itemsize * (handle.count if by_pixel else 4),
    )
    crs = None
    if handle.crs:
        crs = pyproj.CRS.from_wkt(handle.crs.to_wkt(version=WktVersion.WKT2_2019))
    return Source(
        opening=opening,
        name=name,
        files=files,
        shape=(handle.height, handle.width),
        transform=handle.transform,
        crs=crs,
        bands=view.bands,
        dtype=dtype,
        nodata=rule.nodata[0] if rule.nodata else view.palette_nodata,
        mask=_describe_mask(rule, view, files),
    )


def _describe_mask(rule: MaskRule, view: _View, files: Sequence[str]) -> str:
    """What makes a pixel invalid, in words."""
    words = []
    if rule.mask_band is not None and view.mask_band is not None:
        words.append("the file's own mask")
    elif rule.mask_band is not None:
        words.append("alpha band" if view.warp is None else "outside the warped picture")
    if rule.dataset_mask and view.palette_nodata is not None:
        words.append(f"palette index {view.palette_nodata:g}")
    elif rule.dataset_mask and view.palette:
        words.append("palette transparency or mask")
    elif rule.dataset_mask:
        sidecar = any(file.endswith(".msk") for file in files)
        words.append("sidecar mask" if sidecar else "internal mask")
    if rule.nodata is not None:
        words.append("nodata " + "/".join(f"{value:g}" for value in dict.fromkeys(rule.nodata)))
    if rule.nan and (rule.nodata is None or not all(map(math.isnan, rule.nodata))):
        words.append("NaN")
    return " and ".join(words) or "none"


# One file.


def _view_file(
    dataset: rasterio.DatasetReader,
    path: str,
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    assume_crs: str | None,
) -> _View:
    """Decide whether a file is read as it is, warped, or through a VRT."""
    if dataset.count == 0:
        inside = f"; it contains {dataset.subdatasets[0]} and others" if dataset.subdatasets else ""
        raise InputError(f"{path} has no raster bands{inside}")
    warp = _warp_of(dataset, path, nodata=nodata, assume_crs=assume_crs)
    if nodata is not None:
        for dtype in dataset.dtypes:
            _check_nodata(nodata, dtype, path)
    if is_paletted(dataset) and (bands is None or list(bands) == [1, 1, 1]):
        if warp is not None:
            raise GeoreferenceError(
                f"{path} is paletted and placed by control points alone: warp it first with"
                " gdalwarp"
            )
        value = nodata if nodata is not None else dataset.nodata
        return _View(
            BandChoice((1, 1, 1), "palette expanded"),
            vrt=_palette_vrt(dataset, nodata=value),
            vrt_block_shape=dataset.block_shapes[0],
            palette=True,
            palette_nodata=value,
        )
    choice = choose_bands(dataset, bands=bands, source=path)
    masked = alpha_band(dataset) is not None or MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    tagged = all(dataset.nodatavals[band - 1] == nodata for band in choice.bands) and not masked
    if warp is not None or nodata is None or tagged:
        return _View(choice, indexes=choice.bands, warp=warp)
    # The overviews are left out: they were averaged without this nodata value, so that a collar has
    # bled in.
    file = _gdal_name(dataset)
    parts = [
        _VrtBand(file, str(band), _dtype_of(dataset, band, path), nodata, overviews=False)
        for band in choice.bands
    ]
    if masked:
        parts.append(_VrtBand(file, "mask,1"))
    return _View(
        choice,
        vrt=_vrt(dataset, parts),
        vrt_block_shape=dataset.block_shapes[0],
        mask_band=4 if masked else None,
    )


def _warp_of(
    dataset: rasterio.DatasetReader, path: str, *, nodata: float | None, assume_crs: str | None
) -> Warp | None:
    """The virtual warp that a raster without geotransform needs; None for one that has it."""
    if not dataset.transform.is_identity:
        return None
    points, points_crs = dataset.gcps
    value = nodata if nodata is not None else dataset.nodata
    if points:
        crs = (
            parse_crs(assume_crs, option="--assume-crs").to_wkt()
            if assume_crs
            else points_crs and points_crs.to_wkt()
        )
        if not crs:
            raise GeoreferenceError(
                f"{path}: its control points have no CRS; name it with --assume-crs (such as"
                " EPSG:4326)"
            )
        return Warp(crs, crs, value)
    if dataset.rpcs is not None:
        return Warp("EPSG:4326", "EPSG:4326", value, float(dataset.rpcs.height_off))
    raise GeoreferenceError(
        f"{path} is not georeferenced: it has no geotransform, control points or RPCs; georeference"
        " it first (in QGIS, or put a world file beside it)"
    )


def _palette_vrt(dataset: rasterio.DatasetReader, *, nodata: float | None) -> str:
    """A VRT with red, green and blue of a paletted raster.

    Masked where the index is nodata or its color transparent.
    """
    path = _gdal_name(dataset)
    # A nodata value that no byte has makes GDAL average colors; without one it would average, then
    # look up, indices.
    colors = [_VrtBand(path, "1", nodata=math.nan, color=component) for component in (1, 2, 3)]
    if MaskFlags.per_dataset in dataset.mask_flag_enums[0]:
        return _vrt(dataset, colors, mask=_VrtBand(path, "mask,1"))
    size = 256 if dataset.dtypes[0] == "uint8" else 65536
    alpha = np.zeros(size, dtype=np.uint8)
    for index, color in dataset.colormap(1).items():
        alpha[index] = color[3]
    if nodata is not None and nodata in range(size):
        alpha[int(nodata)] = 0
    if alpha.all():
        return _vrt(dataset, colors)
    table = ",".join(f"{index}:{value}" for index, value in enumerate(alpha))
    return _vrt(dataset, colors, mask=_VrtBand(path, "1", nodata=math.nan, lut=table))


def _check_path(path: str) -> None:
    if is_remote(path) or path.lstrip().startswith("<") or Path(path).is_file():
        return
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder: give a raster file in it")
    # GDAL's own names of parts of a file, such as NETCDF:"x.nc":var, are no paths.
    if not re.match(r"\w{2,}:", path):
        raise InputError(f"{path} does not exist")


def _check_nodata(nodata: float, dtype: str, path: str) -> None:
    """GDAL would bend a value that the type cannot have to the nearest one that it can."""
    if np.dtype(dtype).kind in "iuf" and not can_hold(np.dtype(dtype), nodata):
        raise UsageError(
            f"--nodata {nodata:g}: {path} has pixels of type {dtype}, which never have that value"
        )


@contextlib.contextmanager
def _no_place_is_no_warning() -> Iterator[None]:
    """Keep rasterio silent where a geotransform is missing: an error or a warp of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


# Several single-band files as one raster.


def _open_separate(
    paths: Sequence[str], *, bands: Sequence[int] | None, nodata: float | None
) -> Source:
    """Open a VRT of three single-band files as red, green and blue.

    ``bands`` counts the files and is needed when there are more or fewer than three. Raises
    ``InputError`` naming the file that has several bands or another size, place, CRS or type than
    the first.
    """
    if bands is None and len(paths) != 3:
        raise UsageError(
            f"--bands-from takes three files (red, green, blue), got {len(paths)}; --bands chooses"
            " three of them, counted from 1"
        )
    if not paths:
        raise UsageError("--bands-from names no file")
    chosen = (
        (1, 2, 3)
        if bands is None
        else check_bands(bands, len(paths), alpha=None, source="--bands-from")
    )
    label = ", ".join(paths)
    with contextlib.ExitStack() as stack:
        files: dict[int, rasterio.DatasetReader] = {}
        for number in dict.fromkeys(chosen):
            path = paths[number - 1]
            with gdal_errors(path), gdal_env(path):
                files[number] = stack.enter_context(rasterio.open(path))
        first = files[chosen[0]]
        for file in files.values():
            _check_alike(file, first)
        if nodata is not None:
            _check_nodata(nodata, _dtype_of(first, 1, first.name), first.name)
        parts = [_separate_band(files[number], nodata) for number in chosen]
        masked = [
            file for file in files.values() if MaskFlags.per_dataset in file.mask_flag_enums[0]
        ]
        mask = _VrtBand(_gdal_name(masked[0]), "mask,1") if masked and nodata is None else None
        view = _View(
            BandChoice(chosen, "separate files"),
            vrt=_vrt(first, parts, mask=mask),
            vrt_block_shape=first.block_shapes[0],
        )
        with gdal_errors(label), gdal_env(view.vrt), view.over(first) as handle:
            return _describe_source(
                handle,
                view,
                dataset=view.vrt,
                label=label,
                name=Path(paths[0]).stem,
                files=tuple(dict.fromkeys([*paths, *_files_of(files.values())])),
            )


def _separate_band(file: rasterio.DatasetReader, nodata: float | None) -> _VrtBand:
    # Overviews averaged without the user's nodata value would let a collar bleed in.
    overviews = nodata is None or file.nodata == nodata
    value = file.nodata if nodata is None else nodata
    dtype = _dtype_of(file, 1, file.name)
    return _VrtBand(_gdal_name(file), "1", dtype, value, overviews=overviews)


def _files_of(files: Iterable[rasterio.DatasetReader]) -> list[str]:
    """What GDAL names of several open files: sidecars, and what lies behind virtual rasters."""
    return [str(name) for file in files for name in file.files]


def _check_alike(file: rasterio.DatasetReader, first: rasterio.DatasetReader) -> None:
    if file.count != 1 or is_paletted(file):
        what = "is paletted" if file.count == 1 else f"has {file.count} bands"
        raise InputError(
            f"{file.name} {what}: --bands-from takes single-band files; give it alone, with --bands"
            " if need be"
        )
    place = first.transform
    pixel = max(abs(place.a), abs(place.b), abs(place.d), abs(place.e))
    differences = {
        "size": (file.shape == first.shape, f"{file.shape} and {first.shape} rows and columns"),
        "CRS": (file.crs == first.crs, f"{file.crs} and {first.crs}"),
        "transform": (
            file.transform.almost_equals(place, precision=pixel * 1e-3),
            f"{tuple(file.transform)[:6]} and {tuple(place)[:6]}",
        ),
        "type": (file.dtypes == first.dtypes, f"{file.dtypes[0]} and {first.dtypes[0]}"),
    }
    for what, (same, values) in differences.items():
        if not same:
            raise InputError(
                f"{file.name} differs from {first.name} in {what}: {values}; bring them to one grid"
                " first"
            )


# Virtual rasters.


@dataclass(frozen=True, slots=True)
class _VrtBand:
    """One band of a VRT.

    Attributes
    ----------
    path, band : a file by GDAL's name, and its band ("1", or "mask,1")
    color : which component of the band's palette is shown: 1, 2, 3 for red, green, blue
    lut : a table "from:to,…" that maps the values
    """

    path: str
    band: str
    dtype: str = "uint8"
    nodata: float | None = None
    color: int | None = None
    lut: str = ""
    overviews: bool = True


def _vrt(
    like: rasterio.DatasetReader, bands: Sequence[_VrtBand], *, mask: _VrtBand | None = None
) -> str:
    """A VRT of the bands with the size and place of ``like``, and with a dataset mask if given."""
    root = ET.Element("VRTDataset", rasterXSize=str(like.width), rasterYSize=str(like.height))
    if like.crs:
        ET.SubElement(root, "SRS").text = like.crs.to_wkt()
    ET.SubElement(root, "GeoTransform").text = ", ".join(
        repr(float(value)) for value in like.transform.to_gdal()
    )
    for number, band in enumerate(bands, start=1):
        _add_band(root, band, {"band": str(number)})
    if mask is not None:
        _add_band(ET.SubElement(root, "MaskBand"), mask, {})
    return ET.tostring(root, encoding="unicode")


def _add_band(parent: ET.Element, band: _VrtBand, attributes: dict[str, str]) -> None:
    element = ET.SubElement(
        parent, "VRTRasterBand", {"dataType": _VRT_TYPES[band.dtype], **attributes}
    )
    if band.nodata is not None:
        ET.SubElement(element, "NoDataValue").text = repr(float(band.nodata))
    mapped = band.color is not None or band.lut
    source = ET.SubElement(element, "ComplexSource" if mapped else "SimpleSource")
    ET.SubElement(source, "SourceFilename", relativeToVRT="0").text = band.path
    if not band.overviews:
        options = ET.SubElement(source, "OpenOptions")
        ET.SubElement(options, "OOI", key="OVERVIEW_LEVEL").text = "NONE"
    ET.SubElement(source, "SourceBand").text = band.band
    if band.color is not None:
        ET.SubElement(source, "ColorTableComponent").text = str(band.color)
    if band.lut:
        ET.SubElement(source, "LUT").text = band.lut


def _gdal_name(dataset: rasterio.DatasetReader) -> str:
    """The name GDAL itself knows the file by: an absolute path, or a ``/vsi`` path for a URL."""
    name = str(dataset.files[0] if dataset.files else dataset.name)
    return name if is_remote(name) else os.path.abspath(name)


def _dtype_of(dataset: rasterio.DatasetReader, band: int, label: str) -> str:
    """The numpy name of a band's type; ``InputError`` for complex numbers, which are no picture."""
    name = str(dataset.dtypes[band - 1])
    if name not in _VRT_TYPES:
        raise InputError(
            f"{label}: its pixels are of type {name}; a picture of real numbers is needed"
        )
    return name
