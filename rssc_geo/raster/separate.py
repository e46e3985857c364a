"""Opening of several single-band files as one raster, through a virtual raster (VRT)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import MaskFlags

from rssc_geo.errors import GeoreferenceError, InputError, UsageError
from rssc_geo.raster.bands import BandChoice, check_bands, is_paletted
from rssc_geo.raster.gdal import (
    check_beside,
    check_path,
    gdal_env,
    gdal_errors,
    gdal_name,
    unplaced_is_silent,
)
from rssc_geo.raster.mask import held, held_nodata, nodata_values
from rssc_geo.raster.opening import (
    Source,
    View,
    bits_of,
    check_nodata,
    describe_source,
    gaps_of,
    nodata_notes,
    scale_of,
)
from rssc_geo.raster.virtual import (
    NO_OVERVIEWS,
    VrtBand,
    VrtSource,
    check_sources,
    dtype_of,
    files_of,
    vrt_text,
)
from rssc_geo.raster.warping import warp_of


def open_separate(
    paths: Sequence[str],
    *,
    bands: Sequence[int] | None,
    nodata: float | None,
    assume_crs: str | None,
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
            check_path(path)
            check_beside(path)
            with gdal_errors(path), gdal_env(path), unplaced_is_silent():
                files[number] = stack.enter_context(rasterio.open(path))
        first = files[chosen[0]]
        for number, file in files.items():
            check_sources(file, paths[number - 1])
            _check_alike(file, first)
            if warp_of(file, paths[number - 1], nodata=None, assume_crs=assume_crs) is not None:
                raise GeoreferenceError(
                    f"{paths[number - 1]} is placed by control points or RPCs alone: warp the files"
                    " for --bands-from first, with gdalwarp"
                )
        view = _separate_view(
            [(paths[number - 1], files[number]) for number in chosen], chosen, nodata=nodata
        )
        with gdal_errors(label), gdal_env(view.vrt), view.over(first) as handle:
            return describe_source(
                handle,
                view,
                dataset=view.vrt,
                label=label,
                name=Path(paths[0]).stem,
                files=tuple(
                    dict.fromkeys(
                        [*paths, *(name for file in files.values() for name in files_of(file))]
                    )
                ),
            )


def _separate_view(
    files: Sequence[tuple[str, rasterio.DatasetReader]],
    chosen: tuple[int, int, int],
    *,
    nodata: float | None,
) -> View:
    """The view of three files, given with their names, as one raster.

    A pixel is invalid where the mask of any of them is 0, and where all hold nodata.
    """
    parts: list[VrtBand] = []
    masks: list[VrtSource] = []
    notes: list[str] = []
    for path, file in files:
        name, dtype = gdal_name(path), dtype_of(file, 1, path)
        value = own = held_nodata(np.dtype(dtype), nodata_values(file)[0])
        if nodata is not None:
            check_nodata(nodata, dtype, path)
            value = held(np.dtype(dtype), nodata)
        # Overviews averaged without the user's nodata value would let a collar bleed in.
        options = () if nodata is None or own == value else NO_OVERVIEWS
        own_mask = MaskFlags.per_dataset in file.mask_flag_enums[0]
        gaps = None if own_mask else gaps_of(file, name, (1,), nodata=nodata)
        whole = gaps or VrtSource(name, "1")
        source = replace(whole, band="1", options=(*whole.options, *options))
        parts.append(VrtBand((source,), dtype, value))
        if own_mask or gaps is not None:
            masks.append(replace(whole, band="mask,1"))
        notes += nodata_notes(file, 1, path) if nodata is None else ()
    # Twice the same file, with --bands, is one mask.
    mask = VrtBand(tuple(dict.fromkeys(masks))) if masks else None
    first = files[0][1]
    both = mask is not None and all(part.nodata is not None for part in parts)
    if mask is not None and both:
        parts.append(replace(mask, dtype=parts[0].dtype))  # read together: of one type
    return View(
        BandChoice(chosen, "separate files"),
        vrt=vrt_text(first, parts, mask=None if both else mask),
        vrt_block_shape=first.block_shapes[0],
        mask_band=4 if both else None,
        nodata_copied=both,
        scales=tuple(scale_of(file, 1) for _, file in files),
        bits=bits_of(first, 1),
        notes=tuple(dict.fromkeys(notes)),
    )


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
