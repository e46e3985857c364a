"""Many maps as one: every place belongs to one scene, whose name each feature has.

Scenes are taken one after another and their cells in small batches, with only those cells of other
scenes that lie there, so that memory depends on how much overlaps, not on how much there is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rssc_geo.batch.inputs import Jobs
from rssc_geo.batch.journal import Journal, signatures, unchanged
from rssc_geo.errors import InputError, one_line
from rssc_geo.geometry import as_multipolygons, geodesic_area_m2
from rssc_geo.options import BatchOptions, OutputOptions
from rssc_geo.output import (
    CELL_FIELDS,
    GEOMETRY,
    LANDUSE_FIELDS,
    Field,
    Layer,
    OutputTarget,
    describe_geopackage,
    make_target,
    probability_fields,
    provenance_document,
)
from rssc_geo.raster import is_remote

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_BATCH = 8192
_NOTHING = 1e-6  # share of a cell that counts as rounding where borders of two rasters meet
_SCENE = Field("scene", "Scene", "text", "Name of the scene that the feature comes from")


@dataclass(frozen=True, slots=True)
class Part:
    """A scene's own map (a GeoPackage) under its name."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class _Lost:
    """The parts of a scene's cells that belong to other scenes.

    Of each piece its area in m², its cell's confidence, and whether it is the whole cell.
    """

    pieces: list[shapely.Geometry] = field(default_factory=list)
    areas_m2: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)


def merge_done(
    jobs: Jobs,
    journal: Journal,
    output: Path,
    options: BatchOptions,
    classes: Sequence[SceneClass],
) -> tuple[Path, ...]:
    """Make one map of the scenes that are done, unless it exists already; its files.

    Raises what ``merge_scenes`` does.
    """
    rule = str(options.merge)
    rows = {job: journal.scene(journal.key(job.output)) for job in jobs.jobs}
    done = {job: row for job, row in rows.items() if row is not None and row["state"] == "done"}
    if not done:
        return ()
    parts = [Part(job.id, job.output) for job in done]
    made_of, key = _hash(parts, rule), journal.key(output)
    made_of_then, files_then = journal.merged(key)
    ours = bool(files_then) and unchanged(files_then, journal.folder)
    if made_of == made_of_then and ours:
        return _merged_files(output)
    missing = [job.id for job in jobs.jobs if job not in done]
    files = merge_scenes(
        parts,
        output,
        rule=rule,
        classes=classes,
        missing=[*missing, *(problem.label for problem in jobs.problems)],
        overwrite=ours or options.overwrite,
    )
    journal.record_merged(key, made_of, files)
    return files


def _name(label: str) -> str:
    """An input's name without its folder."""
    return label if is_remote(label) else Path(label).name


def _hash(parts: Sequence[Part], rule: str) -> str:
    """A hash of everything that a merged map depends on, so that the same one is not made twice."""
    files = []
    for part in parts:
        (file,) = signatures([part.path], part.path.parent, content=False)
        files.append([part.name, [[file.name, file.size, file.content_ns]]])
    everything = [rule, version("rssc-geo"), files]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def _merged_files(output: Path) -> tuple[Path, ...]:
    """The files of a merged map, the main one first."""
    return tuple(reversed(OutputTarget(output).results))


def merge_scenes(
    parts: Sequence[Part],
    output: Path,
    *,
    rule: str,
    classes: Sequence[SceneClass],
    missing: Sequence[str] = (),
    overwrite: bool = False,
) -> tuple[Path, ...]:
    """Write the maps of several scenes into one, and return its files, the main one first.

    Parameters
    ----------
    parts : the maps, all in one CRS
    output : .gpkg or .parquet
    rule : where scenes overlap, a place belongs to the scene that is ``first`` or ``last`` in
        ``parts``, or whose cell there is ``most-confident`` (of equals the first); the other cells
        are cut
    classes : of the model, ``Unknown`` among them where maps may hold it
    missing : names of scenes that are not there, for the provenance
    overwrite : replace files that are there

    Raises ``InputError`` for a part that cannot be read, ``OutputError`` when the result cannot be
    written.
    """
    target = make_target(
        output, OutputOptions(), overwrite=overwrite, inputs=[part.path for part in parts]
    )
    merger = _Merger(parts, rule=rule, classes=classes)
    provenance = provenance_document(
        {
            "scenes": [part.name for part in parts],
            "scenes_missing": [_name(label) for label in missing],
            "overlaps": rule,
            "rssc_geo": version("rssc-geo"),
        }
    )
    # In this order: the parts lost by cells are known before regions are cut.
    layers = (merger.cells(), merger.landuse())
    with target.staged() as staging:
        for layer in layers:
            path = staging.place(target.format.layer_path(output, layer.name))
            target.format.write(layer, path, provenance)
        if target.format.multilayer:
            present = [entry for entry in classes if entry.name in merger.present]
            describe_geopackage(
                staging.place(output), layers, classes=present, provenance=provenance
            )
    return _merged_files(output)


class _Merger:
    def __init__(self, parts: Sequence[Part], *, rule: str, classes: Sequence[SceneClass]) -> None:
        self._parts, self._rule = parts, rule
        infos = [_info(part.path) for part in parts]
        bounds = np.array([info["total_bounds"] for info in infos])
        self._places = shapely.STRtree(shapely.box(*bounds.T))
        self._crs = CRS.from_user_input(infos[0]["crs"])
        self._probabilities = tuple(
            field
            for field in probability_fields(classes)
            if all(field.name in info["fields"] for info in infos)
        )
        self._lost = [_Lost() for _ in parts]
        self.present: set[str] = set()

    def cells(self) -> Layer:
        """The cells of all scenes, each without what belongs to another."""
        fields = (*CELL_FIELDS, *self._probabilities)
        about = "Grid cells of several scenes."
        return self._layer("cells", "Cells", about, fields, self._cut_cells)

    def landuse(self) -> Layer:
        """The regions of all scenes, without the cells that another scene has taken."""
        about = "Land use of several scenes."
        return self._layer("landuse", "Land use", about, LANDUSE_FIELDS, self._cut_regions)

    def _layer(
        self,
        name: str,
        title: str,
        about: str,
        fields: Sequence[Field],
        cut: Callable[[int, pa.Table, pa.Schema], pa.RecordBatch],
    ) -> Layer:
        def batches() -> Iterator[pa.RecordBatch]:
            yield from _gathered(
                cut(number, table, layer.schema)
                for number, part in enumerate(self._parts)
                for table in _read(part.path, name, fields)
            )

        layer = Layer(name, title, about, (_SCENE, *fields), "MultiPolygon", self._crs, batches)
        return layer

    def _cut_cells(self, number: int, table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
        cells = shapely.from_wkb(table.column(GEOMETRY).to_numpy())
        confidence = table.column("confidence").to_numpy()
        others, other_confidence, other_scene = self._others(number, shapely.total_bounds(cells))
        cell, other = shapely.STRtree(others).query(cells, predicate="intersects")
        if self._rule == "most-confident":
            mine, theirs = confidence[cell], other_confidence[other]
            stronger = (theirs > mine) | ((theirs == mine) & (other_scene[other] < number))
            cell, other = cell[stronger], other[stronger]
        lost = self._lost[number]
        for index in np.unique(cell):
            taken = shapely.intersection(
                cells[index], shapely.union_all(others[other[cell == index]])
            )
            size = shapely.area(cells[index])
            if shapely.area(taken) <= _NOTHING * size:
                continue
            rest = _above_rounding(shapely.difference(cells[index], taken), _NOTHING * size)
            lost.pieces.append(cells[index] if rest is None else taken)
            lost.confidence.append(confidence[index])
            lost.whole.append(rest is None)
            cells[index] = rest
        pieces = np.array(lost.pieces[len(lost.areas_m2) :], object)
        lost.areas_m2.extend(geodesic_area_m2(pieces, self._crs).tolist() if len(pieces) else [])
        self.present.update(table.column("class").unique().to_pylist())
        return _batch(table, self._parts[number].name, cells, schema)

    def _others(
        self, number: int, bounds: NDArray[np.float64]
    ) -> tuple[NDArray[np.object_], NDArray[np.float64], NDArray[np.int_]]:
        """The cells within the bounds that may prevail over those of a scene.

        Their polygons, confidence and scene numbers. ``bounds``: min x, min y, max x, max y.
        """
        near = np.sort(self._places.query(shapely.box(*bounds), predicate="intersects"))
        rivals = {"first": near[near < number], "last": near[near > number]}.get(
            self._rule, near[near != number]
        )
        found = [(n, _within(self._parts[n].path, bounds)) for n in rivals.tolist()]
        polygons = [
            np.empty(0, object),
            *(shapely.from_wkb(table.column(GEOMETRY).to_numpy()) for _, table in found),
        ]
        confidence = [np.empty(0), *(table.column("confidence").to_numpy() for _, table in found)]
        scene = [np.empty(0, int), *(np.full(len(table), n) for n, table in found)]
        return np.concatenate(polygons), np.concatenate(confidence), np.concatenate(scene)

    def _cut_regions(self, number: int, table: pa.Table, schema: pa.Schema) -> pa.RecordBatch:
        regions = shapely.from_wkb(table.column(GEOMETRY).to_numpy())
        confidence, area, cells = (
            table.column(name).to_numpy().copy() for name in ("confidence", "area_m2", "cells")
        )
        lost = self._lost[number]
        pieces = np.array(lost.pieces, object)
        points = shapely.point_on_surface(pieces) if len(pieces) else pieces
        region, piece = shapely.STRtree(points).query(regions, predicate="contains")
        lost_area, lost_confidence, whole = (
            np.array(values) for values in (lost.areas_m2, lost.confidence, lost.whole)
        )
        for index in np.unique(region):
            mine = piece[region == index]
            gone = lost_area[mine].sum()
            smallest = shapely.area(pieces[mine]).min()
            regions[index] = _above_rounding(
                shapely.difference(regions[index], shapely.union_all(pieces[mine])),
                _NOTHING * smallest,
            )
            rest = max(area[index] - gone, 1e-9)
            confidence[index] = np.clip(
                (confidence[index] * area[index] - (lost_confidence[mine] * lost_area[mine]).sum())
                / rest,
                0.0,
                1.0,
            )
            area[index] = rest
            cells[index] -= whole[mine].sum()
        columns = {"confidence": confidence.round(6), "area_m2": area.round(4), "cells": cells}
        for name, values in columns.items():
            place = table.column_names.index(name)
            table = table.set_column(place, name, pa.array(values, schema.field(name).type))
        return _batch(table, self._parts[number].name, regions, schema)


def _batch(
    table: pa.Table, scene: str, geometries: NDArray[np.object_], schema: pa.Schema
) -> pa.RecordBatch:
    """The features that are not empty, as multipolygons, under the scene's name."""
    kept = np.flatnonzero(~shapely.is_missing(geometries))
    left = as_multipolygons(geometries[kept])
    columns: Mapping[str, Any] = {
        _SCENE.name: pa.array([scene] * len(kept), pa.string()),
        GEOMETRY: pa.array(shapely.to_wkb(left), pa.binary()),
    }
    rows = table.take(pa.array(kept))
    arrays = [
        columns[name] if name in columns else rows.column(name).combine_chunks()
        for name in schema.names
    ]
    return pa.record_batch(
        [array.cast(kind) for array, kind in zip(arrays, schema.types, strict=True)], schema=schema
    )


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same features in fewer batches: GDAL waits for the disk after each."""
    held: list[pa.RecordBatch] = []
    features = 0
    for batch in batches:
        held.append(batch)
        features += len(batch)
        if features >= _BATCH:
            yield from pa.Table.from_batches(held).combine_chunks().to_batches()
            held, features = [], 0
    if held:
        yield from pa.Table.from_batches(held).combine_chunks().to_batches()


def _above_rounding(geometry: shapely.Geometry, at_least: float) -> shapely.Geometry | None:
    """The polygons of a difference that are larger than rounding; None where there is none."""
    parts = [
        p
        for p in shapely.get_parts(geometry)
        if isinstance(p, shapely.Polygon) and p.area > at_least
    ]
    return shapely.MultiPolygon(parts) if parts else None


def _info(path: Path) -> dict[str, Any]:
    try:
        info: dict[str, Any] = pyogrio.read_info(path, layer="cells", force_total_bounds=True)
    except (RuntimeError, OSError) as error:
        raise _unreadable(path, error) from error
    return info


def _read(path: Path, layer: str, fields: Sequence[Field]) -> Iterator[pa.Table]:
    names = [field.name for field in fields]
    try:
        with pyogrio.open_arrow(
            path, layer=layer, columns=names, batch_size=_BATCH, use_pyarrow=True
        ) as (meta, reader):
            for batch in reader:
                table = pa.Table.from_batches([batch])
                yield table.rename_columns(
                    [GEOMETRY if n == meta["geometry_name"] else n for n in table.column_names]
                )
    except (RuntimeError, OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _within(path: Path, bounds: NDArray[np.float64]) -> pa.Table:
    """Confidence and polygons of the cells that meet the bounds."""
    try:
        meta, table = pyogrio.read_arrow(
            path, layer="cells", columns=["confidence"], bbox=tuple(bounds)
        )
    except (RuntimeError, OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return table.rename_columns(
        [GEOMETRY if name == meta["geometry_name"] else name for name in table.column_names]
    )


def _unreadable(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path} cannot be merged ({one_line(error)}): delete it, and the next run makes it again"
    )
