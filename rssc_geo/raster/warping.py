"""Virtual warps: of a raster that has no geotransform, and to the grid of another raster."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, Resampling
from rasterio.rpc import RPC
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform

from rssc_geo.errors import GeoreferenceError, one_line
from rssc_geo.geometry import parse_crs
from rssc_geo.raster.gdal import GDAL_ERRORS
from rssc_geo.raster.mask import MaskRule, held_nodata, nodata_values
from rssc_geo.raster.virtual import dtype_of

Scale = tuple[float, float]
"""Pixels of a warp's result that a pixel of the raster covers along its columns and rows."""


class WarpedFile(WarpedVRT):  # type: ignore[misc]  # rasterio has no types
    """A warped raster that closes the dataset under it when it is closed."""

    def close(self) -> None:
        """Close the warp, then what it is made of."""
        super().close()
        self.src_dataset.close()


@dataclass(frozen=True, slots=True)
class Warp:
    """A virtual warp of a raster that has no geotransform.

    Attributes
    ----------
    src_crs, crs : CRS of the control points, and the one to warp to
    nodata : value of invalid pixels on both sides, if any
    rpc_height_m : mean height of the ground in meters, where RPCs place the raster
    scale : as of ``Onto``
    """

    src_crs: str
    crs: str
    nodata: float | None = None
    rpc_height_m: float | None = None
    scale: Scale | None = None

    def over(self, dataset: rasterio.DatasetReader) -> WarpedFile:
        """The warped raster over an open dataset, which is closed with it.

        Raises ``GeoreferenceError`` where its control points or RPCs give no place.
        """
        # Named, since a file may also store a meaningless geotransform.
        extra = {"METHOD": "GCP_POLYNOMIAL"}
        if self.rpc_height_m is not None:
            extra = {"METHOD": "RPC", "RPC_HEIGHT": repr(self.rpc_height_m)}
        extra |= _scale_settings(self.scale)
        has_mask = ColorInterp.alpha in dataset.colorinterp or self.nodata is not None
        try:
            return WarpedFile(
                dataset,
                src_crs=self.src_crs,
                crs=self.crs,
                resampling=Resampling.bilinear,
                src_nodata=self.nodata,
                nodata=self.nodata,
                add_alpha=not has_mask,
                **extra,
            )
        except GDAL_ERRORS as error:
            points = "control points" if self.rpc_height_m is None else "RPCs"
            raise GeoreferenceError(
                f"{dataset.name}: its {points} give it no place ({one_line(error)}): correct them,"
                " or georeference it otherwise (in QGIS, or with gdalwarp)"
            ) from error


@dataclass(frozen=True, slots=True)
class Onto:
    """A virtual warp of a raster, or of a warped one, to the grid of another.

    Attributes
    ----------
    crs, transform, height, width : the grid
    mask_rule : what makes a pixel of the raster invalid before it is warped
    scale : None: as GDAL estimates it, which takes a turned raster for a finer one and blurs it
    """

    crs: str
    transform: Affine
    height: int
    width: int
    mask_rule: MaskRule
    scale: Scale | None = None

    @property
    def adds_alpha(self) -> bool:
        """Whether a band after the raster's own holds the mask."""
        return self.mask_rule.mask_band is None and self._nodata is None

    @property
    def _nodata(self) -> float | None:
        if self.mask_rule.nodata is not None:
            return self.mask_rule.nodata[0]
        # Otherwise NaN would spread to the pixels around it.
        return math.nan if self.mask_rule.nan and not self.mask_rule.dataset_mask else None

    def over(self, dataset: rasterio.DatasetReader | WarpedVRT) -> WarpedFile:
        """The raster on the grid over an open dataset, which is closed with it."""
        rule = self.mask_rule
        settings: dict[str, Any] = {**_scale_settings(self.scale)}
        if rule.mask_band is not None:
            settings["src_alpha"] = rule.mask_band
        return WarpedFile(
            dataset,
            crs=self.crs,
            transform=self.transform,
            height=self.height,
            width=self.width,
            resampling=Resampling.cubic,
            src_nodata=self._nodata,
            nodata=self._nodata,
            add_alpha=self.adds_alpha,
            **settings,
        )


def _scale_settings(scale: Scale | None) -> dict[str, str]:
    return {} if scale is None else {"XSCALE": repr(scale[0]), "YSCALE": repr(scale[1])}


def _scale_of(
    dataset: rasterio.DatasetReader,
    crs: str,
    make_transformer: Callable[[], GCPTransformer | RPCTransformer],
    **placing: Any,
) -> Scale | None:
    """The scale in the middle of a raster without geotransform; None where it cannot be told.

    Parameters
    ----------
    dataset : the open raster
    crs : that of the coordinates which the transformer gives
    make_transformer : makes the transformer of pixels by control points or RPCs
    placing : the same points or RPCs, as ``calculate_default_transform`` takes them
    """
    row, col = dataset.height / 2, dataset.width / 2
    try:
        transform, _, _ = calculate_default_transform(
            crs, crs, dataset.width, dataset.height, **placing
        )
        with make_transformer() as transformer:
            xs, ys = transformer.xy([row, row, row + 1], [col, col + 1, col], offset="ul")
    except (*GDAL_ERRORS, ValueError):
        return None
    middle, right, below = (np.array(~transform @ place) for place in zip(xs, ys, strict=True))
    with np.errstate(invalid="ignore"):  # of points without a place
        across, down = np.linalg.norm([right - middle, below - middle], axis=1).tolist()
    return (across, down) if 0.1 < across < 10 and 0.1 < down < 10 else None


def _rpcs_of(dataset: rasterio.DatasetReader, path: str) -> RPC | None:
    """A raster's RPCs; None where it has none, ``GeoreferenceError`` for damaged ones."""
    try:
        return dataset.rpcs
    except (KeyError, ValueError) as error:  # rasterio parses GDAL's text
        raise GeoreferenceError(
            f"{path}: its RPCs cannot be read ({one_line(error)}); georeference it otherwise, or"
            " repair them"
        ) from error


def warp_of(
    dataset: rasterio.DatasetReader, path: str, *, nodata: float | None, assume_crs: str | None
) -> Warp | None:
    """The virtual warp that a raster without geotransform needs; None for one that has it.

    Parameters
    ----------
    dataset, path : the open raster, and its name in messages
    nodata : counts as nodata instead of the raster's own value, if given
    assume_crs : CRS of control points that have none or a wrong one

    Raises
    ------
    GeoreferenceError
        Where the raster is not georeferenced, its control points have no CRS, or its RPCs cannot
        be read.
    """
    if not dataset.transform.is_identity:
        return None
    points, points_crs = dataset.gcps
    value = (
        nodata
        if nodata is not None
        else held_nodata(np.dtype(dtype_of(dataset, 1, path)), nodata_values(dataset)[0])
    )
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
        scale = _scale_of(dataset, crs, partial(GCPTransformer, points), gcps=points)
        return Warp(crs, crs, value, scale=scale)
    rpcs = _rpcs_of(dataset, path)
    if rpcs is not None:
        height = float(rpcs.height_off)
        make_transformer = partial(RPCTransformer, rpcs, RPC_HEIGHT=height)
        scale = _scale_of(dataset, "EPSG:4326", make_transformer, rpcs=rpcs, RPC_HEIGHT=height)
        return Warp("EPSG:4326", "EPSG:4326", value, height, scale)
    raise GeoreferenceError(
        f"{path} is not georeferenced: it has no geotransform, control points or RPCs; georeference"
        " it first (in QGIS, or put a world file beside it)"
    )
