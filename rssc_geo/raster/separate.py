"""Several single-band files as one raster."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from rssc_geo.errors import InputError, UsageError
from rssc_geo.raster.bands import BandChoice, check_bands, is_paletted
from rssc_geo.raster.validity import holds
from rssc_geo.raster.virtual import (
    VirtualBand,
    dtype_of,
    gdal_env,
    gdal_errors,
    gdal_name,
    vrt_xml,
)


def separate_files(
    paths: Sequence[str], *, bands: Sequence[int] | None, nodata: float | None
) -> tuple[str, BandChoice, tuple[int, int]]:
    """A VRT of three single-band files as red, green and blue; the choice of bands; the first
    file's block shape.

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
    with contextlib.ExitStack() as stack:
        files: dict[int, rasterio.DatasetReader] = {}
        for number in dict.fromkeys(chosen):
            path = paths[number - 1]
            with gdal_errors(path), gdal_env(path):
                files[number] = stack.enter_context(rasterio.open(path))
        first = files[chosen[0]]
        for file in files.values():
            _check_alike(file, first)
        if nodata is not None and not holds(np.dtype(dtype_of(first, 1)), nodata):
            raise UsageError(
                f"--nodata {nodata:g}: {first.name} has pixels of type {first.dtypes[0]}, which"
                " never have that value"
            )
        virtual = [_band(files[number], nodata) for number in chosen]
        masked = next(
            (file for file in files.values() if MaskFlags.per_dataset in file.mask_flag_enums[0]),
            None,
        )
        mask = (
            None
            if masked is None or nodata is not None
            else VirtualBand(gdal_name(masked), "mask,1")
        )
        return (
            vrt_xml(first, virtual, mask=mask),
            BandChoice(chosen, "separate files"),
            first.block_shapes[0],
        )


def _band(file: rasterio.DatasetReader, nodata: float | None) -> VirtualBand:
    # Overviews averaged without the user's nodata value would let a collar bleed in.
    overviews = nodata is None or file.nodata == nodata
    return VirtualBand(
        gdal_name(file),
        "1",
        dtype_of(file, 1),
        file.nodata if nodata is None else nodata,
        overviews=overviews,
    )


def _check_alike(file: rasterio.DatasetReader, first: rasterio.DatasetReader) -> None:
    if file.count != 1 or is_paletted(file):
        what = "is paletted" if file.count == 1 else f"has {file.count} bands"
        raise InputError(
            f"{file.name} {what}: --bands-from takes single-band files; give it alone, with --bands"
            " if need be"
        )
    pixel = max(
        abs(first.transform.a),
        abs(first.transform.b),
        abs(first.transform.d),
        abs(first.transform.e),
    )
    differences = {
        "size": (file.shape == first.shape, f"{file.shape} and {first.shape} rows and columns"),
        "CRS": (file.crs == first.crs, f"{file.crs} and {first.crs}"),
        "transform": (
            file.transform.almost_equals(first.transform, precision=pixel * 1e-3),
            f"{tuple(file.transform)[:6]} and {tuple(first.transform)[:6]}",
        ),
        "type": (file.dtypes == first.dtypes, f"{file.dtypes[0]} and {first.dtypes[0]}"),
    }
    for what, (same, values) in differences.items():
        if not same:
            raise InputError(
                f"{file.name} differs from {first.name} in {what}: {values}; bring them to one grid"
                " first"
            )
