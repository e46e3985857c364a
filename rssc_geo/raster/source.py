"""How a raster will be opened: as it is, as a VRT, or warped."""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.errors import NotGeoreferencedWarning

from rssc_geo.errors import GeoreferenceError, InputError, UsageError
from rssc_geo.geometry import parse_crs
from rssc_geo.raster.bands import BandChoice, alpha_band, choose_bands, is_paletted
from rssc_geo.raster.separate import separate_files
from rssc_geo.raster.validity import holds
from rssc_geo.raster.virtual import (
    Opening,
    VirtualBand,
    Warp,
    dtype_of,
    gdal_env,
    gdal_errors,
    gdal_name,
    is_remote,
    palette_xml,
    vrt_xml,
)


@dataclass(frozen=True, slots=True)
class SourcePlan:
    """How the raster will be opened, and what only its own (not virtual) bands can tell."""

    opening: Opening
    name: str
    choice: BandChoice
    files: tuple[str, ...]
    indexes: tuple[int, int, int] = (1, 2, 3)
    has_mask_band: bool = False
    """Whether band 4 of the virtual raster is the file's own mask."""
    palette_nodata: float | None = None
    block_shape: tuple[int, int] | None = None
    """Of the file behind a virtual raster, whose own blocks mean nothing."""


def plan_source(
    source: str | Path | Sequence[str | Path],
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    assume_crs: str | None,
) -> SourcePlan:
    """Look at a source (see ``open_scene``) and settle how it will be opened."""
    if not isinstance(source, str | Path):
        paths = [os.fspath(path) for path in source]
        xml, choice, block_shape = separate_files(paths, bands=bands, nodata=nodata)
        label = ", ".join(paths)
        return SourcePlan(
            Opening(xml, label), Path(paths[0]).stem, choice, tuple(paths), block_shape=block_shape
        )
    path = os.fspath(source)
    _check_path(path)
    with (
        gdal_errors(path),
        gdal_env(path),
        _no_place_is_no_warning(),
        rasterio.open(path) as dataset,
    ):
        return _plan_file(dataset, path, bands=bands, nodata=nodata, assume_crs=assume_crs)


def _plan_file(
    dataset: rasterio.DatasetReader,
    path: str,
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    assume_crs: str | None,
) -> SourcePlan:
    if dataset.count == 0:
        inside = f"; it contains {dataset.subdatasets[0]} and others" if dataset.subdatasets else ""
        raise InputError(f"{path} has no raster bands{inside}")
    warp = _warp_of(dataset, path, nodata=nodata, assume_crs=assume_crs)
    if nodata is not None:
        _check_nodata(dataset, path, nodata)
    name = "scene" if path.lstrip().startswith("<") else Path(path.split("?", maxsplit=1)[0]).stem
    files = tuple(str(file) for file in dataset.files) or (path,)
    if is_paletted(dataset) and (bands is None or list(bands) == [1, 1, 1]):
        if warp is not None:
            raise GeoreferenceError(
                f"{path} is paletted and placed by control points alone: warp it first with"
                " gdalwarp"
            )
        value = nodata if nodata is not None else dataset.nodata
        opening = Opening(palette_xml(dataset, nodata=value), path)
        expanded = BandChoice((1, 1, 1), "palette expanded")
        return SourcePlan(
            opening,
            name,
            expanded,
            files,
            palette_nodata=value,
            block_shape=dataset.block_shapes[0],
        )
    choice = choose_bands(dataset, bands=bands, source=path)
    masked = alpha_band(dataset) is not None or MaskFlags.per_dataset in dataset.mask_flag_enums[0]
    tagged = all(dataset.nodatavals[band - 1] == nodata for band in choice.bands) and not masked
    if warp is not None or nodata is None or tagged:
        return SourcePlan(Opening(path, path, warp), name, choice, files, indexes=choice.bands)
    # The overviews are left out: they were averaged without this nodata value, so that a collar has
    # bled in.
    file = gdal_name(dataset)
    parts = [
        VirtualBand(file, str(band), dtype_of(dataset, band), nodata, overviews=False)
        for band in choice.bands
    ]
    if masked:
        parts.append(VirtualBand(file, "mask,1"))
    opening, block_shape = Opening(vrt_xml(dataset, parts), path), dataset.block_shapes[0]
    return SourcePlan(opening, name, choice, files, has_mask_band=masked, block_shape=block_shape)


def _check_nodata(dataset: rasterio.DatasetReader, path: str, nodata: float) -> None:
    """GDAL would bend a value that the type cannot have to the nearest one that it can."""
    for name in dataset.dtypes:
        if np.dtype(name).kind in "iuf" and not holds(np.dtype(name), nodata):
            raise UsageError(
                f"--nodata {nodata:g}: {path} has pixels of type {name}, which never have that"
                " value"
            )


def _warp_of(
    dataset: rasterio.DatasetReader, path: str, *, nodata: float | None, assume_crs: str | None
) -> Warp | None:
    """The virtual warp that a raster without geotransform needs; ``None`` for one that has it."""
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


def _check_path(path: str) -> None:
    if is_remote(path) or path.lstrip().startswith("<") or Path(path).is_file():
        return
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder: give a raster file in it")
    # GDAL's own names of parts of a file, such as NETCDF:"x.nc":var, are no paths.
    if not re.match(r"\w{2,}:", path):
        raise InputError(f"{path} does not exist")


@contextlib.contextmanager
def _no_place_is_no_warning() -> Iterator[None]:
    """Keep rasterio silent where a geotransform is missing.

    Here that is an error or a virtual warp.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
