"""A map as an item of a SpatioTemporal Asset Catalog (STAC 1.1, https://stacspec.org).

Its classes are described by the classification extension, its provenance by the processing
extension and its place by the projection extension. Properties without a standard field, such as
the model with the hashes of its weights and the options, are in ``rssc_geo:`` fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from affine import Affine
from pyproj import CRS

from rssc_geo.errors import InputError, UsageError, one_line
from rssc_geo.files import relative_link
from rssc_geo.geometry import TileGrid
from rssc_geo.inference import Plan, PredictorSpec, describe_run, without_folders
from rssc_geo.models import (
    STAC_VERSION,
    SceneClass,
    legend_of,
    stac_class,
    write_stac_item,
)
from rssc_geo.output import (
    FORMATS,
    WGS84,
    GeoGrid,
    LandUseSummary,
    OutputTarget,
    Placement,
    ShownClasses,
    date_text,
    timestamp,
)
from rssc_geo.raster import GDAL_ERRORS, acquired

_EXTENSIONS = tuple(
    f"https://stac-extensions.github.io/{name}/schema.json"
    for name in ("classification/v2.0.0", "processing/v1.1.0", "projection/v2.0.0")
)
_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_BESIDE = {
    "preview": ("image/png", "Preview", "overview"),
    "report": ("text/html", "Report", "metadata"),
    "areas": ("text/csv", "Areas of the classes", "metadata"),
}
_EDGE_PARTS = 16
"""Parts of an edge of the footprint, since edges may be curved in degrees."""

_DIGITS = 7
"""Decimals of degrees: a centimeter."""


class MapItem:
    """The item of a map: checked when made, written after the map.

    Parameters
    ----------
    path : .json, in the folder from which the map's files are linked
    target, plan : of the map

    Raises ``UsageError`` for a scene without a date.
    """

    def __init__(self, path: Path, target: OutputTarget, plan: Plan) -> None:
        self._overwrite = target.overwrite or target.is_announced
        date = target.date or acquired(plan.scene)
        if date is None:
            raise UsageError(
                f"--stac-item: an item needs the date of its scene, and the tags of"
                f" {plan.scene.name} have none; give --date"
            )
        self._path, self._target, self._plan, self._date = path, target, plan, date

    def write(
        self, summary: LandUseSummary, spec: PredictorSpec, beside: Mapping[str, Path]
    ) -> Path:
        """Write it; its path.

        ``beside``: other files made of the map: ``preview``, ``report``, ``areas``. Raises
        ``InputError`` for a class raster that cannot be read, ``OutputError`` where the item cannot
        be written.
        """
        target = self._target
        footprint = _Footprint(summary.shown)
        item = {
            "type": "Feature",
            "stac_version": STAC_VERSION,
            "stac_extensions": list(_EXTENSIONS),
            "id": target.path.stem,
            **footprint.on_earth(),
            "properties": self._properties(summary, spec, footprint),
            "links": [],
            "assets": dict(self._assets(_classes(summary, legend_of(spec.card)), beside)),
        }
        return write_stac_item(self._path, item, overwrite=self._overwrite)

    def _properties(
        self, summary: LandUseSummary, spec: PredictorSpec, footprint: _Footprint
    ) -> dict[str, Any]:
        target, plan = self._target, self._plan
        crs = target.crs_of(plan.scene.crs)
        run = describe_run(plan, spec.card)
        told = {
            "title": f"Land use of {plan.scene.name}",
            "description": (
                f"{summary.cells} cells of {len(summary.present)} classes by {run.model}"
            ),
            "datetime": date_text(self._date),
            "created": timestamp(),
            **_projection(crs),
            "proj:bbox": footprint.bounds_in(crs),
            "processing:lineage": (
                f"Scene classification of {plan.scene.name} with the model {run.model}, captioner"
                f" {spec.captioner}"
            ),
            "processing:software": {
                name: version(name) for name in ("rssc-geo", "torch", "rasterio", "shapely")
            },
            "rssc_geo:run": run.as_dict(),
            "rssc_geo:made_by": spec.as_dict(),
        }
        if target.full_provenance:
            return told
        return without_folders(told, plan, *spec.captioner_places)

    def _assets(
        self, classes: Sequence[Mapping[str, Any]], beside: Mapping[str, Path]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """The assets, by key."""
        target, legend = self._target, {"classification:classes": classes}
        for path in target.layer_paths:
            key = "map" if path == target.path else "cells"
            yield key, self._asset(path, target.format.media_type, "Land use", "data") | legend
        if (raster := target.class_raster) is not None:
            grid = _raster_grid(raster, self._plan)
            yield "class_raster", self._asset(raster, _COG, "Classes", "data") | grid | legend
        if target.embeddings is not None:
            kind = FORMATS[".parquet"].media_type
            yield "embeddings", self._asset(target.embeddings, kind, "Embeddings", "data")
        for key, told in _BESIDE.items():
            if key in beside and beside[key].exists():  # else it failed, which is reported
                yield key, self._asset(beside[key], *told)

    def _asset(self, path: Path, kind: str, title: str, role: str) -> dict[str, Any]:
        href = relative_link(path, self._path.parent)
        return {"href": href, "type": kind, "title": title, "roles": [role]}


class _Footprint:
    """The smallest rectangle of the raster's grid that holds all of a map."""

    def __init__(self, shown: ShownClasses) -> None:
        grid = shown.geo.grid
        rows, cols = np.nonzero(shown.class_grid >= 0)
        row_edges, col_edges = grid.row_edges(), grid.col_edges()
        top, bottom = (int(row_edges[k]) for k in (rows.min(), rows.max() + 1))
        left, right = (int(col_edges[k]) for k in (cols.min(), cols.max() + 1))
        self._shape = bottom - top, right - left
        self._transform = shown.geo.transform @ Affine.translation(left, top)
        self._crs = shown.geo.crs
        corners = [(0, 0), (right - left, 0), (right - left, bottom - top), (0, bottom - top)]
        outline = shapely.Polygon([self._transform @ corner for corner in corners])
        self._outline = shapely.segmentize(outline, outline.length / 4 / _EDGE_PARTS)

    def on_earth(self) -> dict[str, Any]:
        """``geometry`` and ``bbox`` in degrees, cut at the antimeridian (RFC 7946)."""
        shape = shapely.orient_polygons(self._placed(WGS84), exterior_cw=False)
        rounded = shapely.transform(shape, lambda xy: np.round(xy, _DIGITS))
        parts = shapely.bounds(shapely.get_parts(rounded))
        west, east = parts[:, 0], parts[:, 2]
        at_west, at_east = west <= -180, east >= 180
        if at_west.any() and at_east.any() and not (at_west & at_east).any():
            # An area on both sides of the antimeridian: its west has the larger longitude.
            west, east = west[~at_west], east[~at_east]
        _, south, _, north = shapely.total_bounds(rounded)
        return {
            "geometry": json.loads(shapely.to_geojson(rounded)),
            "bbox": [float(west.min()), float(south), float(east.max()), float(north)],
        }

    def bounds_in(self, crs: CRS) -> list[float]:
        """Least and largest x and y in a CRS: min x, min y, max x, max y."""
        return [float(side) for side in shapely.bounds(self._placed(crs))]

    def _placed(self, crs: CRS) -> shapely.Geometry:
        whole = GeoGrid(TileGrid(self._shape, self._shape, self._shape), self._transform, self._crs)
        placement = Placement(whole, crs, wrap=crs.is_geographic)
        return placement.place(np.array([self._outline], object))[0]


def _projection(crs: CRS) -> dict[str, Any]:
    """The CRS by its code; by WKT where it has none."""
    authority = crs.to_authority()
    if authority is not None:
        return {"proj:code": ":".join(authority)}
    return {"proj:code": None, "proj:wkt2": crs.to_wkt()}


def _classes(summary: LandUseSummary, legend: Sequence[SceneClass]) -> list[dict[str, Any]]:
    """The classes, with their shares of the map's area."""
    known = {scene_class.id: scene_class for scene_class in legend}
    whole = sum(total.area_m2 for total in summary.classes) or 1.0
    return [
        {**stac_class(known[total.id]), "percentage": round(100 * total.area_m2 / whole, 3)}
        for total in summary.classes
    ]


def _raster_grid(path: Path, plan: Plan) -> dict[str, Any]:
    try:
        with rasterio.open(path) as raster:
            shape, transform = raster.shape, raster.transform
    except GDAL_ERRORS as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error
    return {
        **_projection(plan.scene.crs),
        "proj:shape": list(shape),
        "proj:transform": list(transform)[:6],
    }
