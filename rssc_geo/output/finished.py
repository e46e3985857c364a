"""A finished map, read back as its cells with the classes that the map shows, whatever the format.

The classes are those of the ``landuse`` layer. Where small regions joined their neighbors there
(``--min-area``), cells took the class of most of their neighbors (``--majority``), or regions end
where the picture changes (``--snap``), a cell is of the class of the region in which its middle
lies, not of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rssc_geo.errors import InputError, one_line
from rssc_geo.geometry import label_regions, squeezed
from rssc_geo.models import (
    UNKNOWN_CLASS,
    SceneClass,
    known_groups,
    scene_classes,
    unknown_class,
)
from rssc_geo.output.cells import read_cells, read_layer, read_totals
from rssc_geo.output.geopackage import read_looks, read_provenance
from rssc_geo.output.layers import CELL_FIELDS, GEOMETRY, Field
from rssc_geo.raster import check_latitudes

_NOTHING = -1


@dataclass(frozen=True, slots=True)
class MapCells:
    """The cells of a map, n in the order of its file.

    Attributes
    ----------
    rows, cols : int32 (n,), place in the grid
    codes : int16 (n,), into the map's classes
    confidence : float32 (n,)
    """

    rows: NDArray[np.int32]
    cols: NDArray[np.int32]
    codes: NDArray[np.int16]
    confidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)


class FinishedMap:
    """A map by ``classify`` or ``zero-shot``, opened to be read.

    Attributes
    ----------
    path, crs : where it lies, and the CRS of its layers
    classes : those that the map shows, by name

    Here and while it is read: ``InputError`` for a file that is not there, or no map.
    """

    _fields: Sequence[Field] = CELL_FIELDS

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path} does not exist")
        try:
            self.classes = tuple(read_totals(self.path))
            self.crs: CRS = read_cells(self.path, ("class",)).crs
        except InputError as error:
            if error.__cause__ is None:  # it could be read, and says itself what is wrong with it
                raise
            raise InputError(
                f"{self.path} is no map of rssc-geo that can be read: layers landuse and cells"
                f" with their fields are needed ({one_line(error.__cause__)})"
            ) from error
        if self.crs.ellipsoid is None:
            raise InputError(
                f"{self.path}: its CRS {self.crs.name!r} has no place on Earth: assign the"
                " right one"
            )
        if not self.classes:
            raise InputError(f"{self.path} has no regions in its landuse layer: make the map again")
        self._check_place()

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names."""
        return tuple(known.name for known in self.classes)

    @property
    def named_groups(self) -> list[tuple[str, str]]:
        """The classes' names and groups."""
        return [(known.name, known.group) for known in self.classes]

    @property
    def area_m2(self) -> float:
        """Geodesic area of all regions."""
        return sum(known.area_m2 for known in self.classes)

    def cells(self) -> MapCells:
        """All cells, without their outlines: 14 bytes each."""
        own = self._own_classes()
        if self._shows(own):
            return own
        return MapCells(own.rows, own.cols, self._shown_classes(len(own)), own.confidence)

    def outlines(self) -> Iterator[tuple[int, NDArray[np.object_]]]:
        """Polygons (n,) of the cells, in chunks with the place of their first in ``cells``."""
        start = 0
        for batch in read_cells(self.path, (), fields=self._fields).batches():
            polygons = shapely.from_wkb(batch.column(GEOMETRY).to_numpy(zero_copy_only=False))
            yield start, polygons
            start += len(polygons)

    def bounds(self) -> tuple[float, float, float, float]:
        """Of all cells, in the map's CRS: min x, min y, max x, max y."""
        each = [shapely.total_bounds(polygons) for _, polygons in self.outlines()]
        if not each:
            raise InputError(f"{self.path} has no cells")
        low, high = np.min(each, 0)[:2].tolist(), np.max(each, 0)[2:].tolist()
        return low[0], low[1], high[0], high[1]

    def outlines_of(self, indices: NDArray[np.int64]) -> NDArray[np.object_]:
        """The polygons of some cells, (k,)."""
        found = np.empty(len(indices), object)
        order = np.argsort(indices, kind="stable")
        wanted = indices[order]
        for start, polygons in self.outlines():
            first, last = np.searchsorted(wanted, (start, start + len(polygons)))
            found[order[first:last]] = polygons[wanted[first:last] - start]
        return found

    def regions(self) -> tuple[NDArray[np.object_], NDArray[np.int16]]:
        """The polygons of the regions, (R,), and their codes into the map's classes."""
        regions = read_layer(self.path, "landuse")
        codes = {name: code for code, name in enumerate(self.names)}
        polygons = np.asarray(regions.geometry, object)
        return polygons, np.array([codes[name] for name in regions["class"]], np.int16)

    def _check_place(self) -> None:
        """Refuse cells whose coordinates are not of the CRS that the file states now."""
        for _, polygons in self.outlines():
            check_latitudes(polygons, self.crs, str(self.path))
            return  # the others lie beside them

    def _shows(self, own: MapCells) -> bool:
        """Whether the regions are those of the cells by their own classes.

        Small regions that were merged away are missed in the numbers of regions. Snapping and the
        majority filter of ``refine`` may leave all numbers as they were: only the provenance tells
        that there was neither, and without one the outlines decide.
        """
        made = read_provenance(self.path)
        steps = made.get("steps", {})
        if not made or "refined_by" in made or not isinstance(steps, dict) or "snap" in steps:
            return False
        if (own.codes == _NOTHING).any():
            return False
        places = squeezed(own.rows), squeezed(own.cols)
        grid = np.full([int(axis.max()) + 1 for axis in places], _NOTHING, np.int16)
        grid[places] = own.codes
        labels = label_regions(grid, nothing=_NOTHING)[places]
        class_of = np.zeros(int(labels.max()) + 1, np.int16)
        class_of[labels] = own.codes
        cells, regions = (
            np.bincount(of, minlength=len(self.classes)) for of in (own.codes, class_of)
        )
        found = zip(cells.tolist(), regions.tolist(), strict=True)
        return list(found) == [(known.cells, known.regions) for known in self.classes]

    def _own_classes(self) -> MapCells:
        """The cells with the classes of the ``cells`` layer; -1 for one that the map lacks."""
        codes = {name: code for code, name in enumerate(self.names)}
        parts: list[MapCells] = []
        for batch in read_cells(self.path, ("class", "confidence", "row", "col")).batches():
            words = batch.column("class").dictionary_encode()
            named = [codes.get(name, _NOTHING) for name in words.dictionary.to_pylist()]
            parts.append(
                MapCells(
                    batch.column("row").to_numpy(),
                    batch.column("col").to_numpy(),
                    np.array(named, np.int16)[words.indices.to_numpy()],
                    batch.column("confidence").to_numpy().astype(np.float32),
                )
            )
        if not any(map(len, parts)):
            raise InputError(f"{self.path} has no cells")
        columns = ("rows", "cols", "codes", "confidence")
        return MapCells(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in columns)
        )

    def _shown_classes(self, count: int) -> NDArray[np.int16]:
        """The class of the region in which the middle of each cell lies.

        Where that is nodata, the nearest one in the cell's reach.
        """
        regions, of_region = self.regions()
        shapely.prepare(regions)
        tree = shapely.STRtree(regions)
        shown = np.full(count, _NOTHING, np.int16)
        for start, polygons in self.outlines():
            inner = shapely.point_on_surface(polygons)
            cell, region = tree.query(inner)
            within = shapely.intersects(regions[region], inner[cell])
            shown[start + cell[within]] = of_region[region[within]]
            bare = np.flatnonzero(shown[start : start + len(polygons)] == _NOTHING)
            if len(bare):
                reach = shapely.minimum_bounding_radius(polygons[bare]).max()
                cell, region = tree.query_nearest(
                    inner[bare], max_distance=reach, all_matches=False
                )
                shown[start + bare[cell]] = of_region[region]
        if (shown == _NOTHING).any():
            raise InputError(
                f"{self.path}: {int((shown == _NOTHING).sum())} cells lie in no region of its"
                " landuse layer: its layers are not of one run"
            )
        return shown


def shown_classes(maps: Sequence[FinishedMap], names: Collection[str]) -> tuple[SceneClass, ...]:
    """Classes by their names as maps show them, in that order; ``Unknown``, if asked for, is last.

    Title and color are those of the maps' styles by class, groups those of their regions; of
    several maps the first that tells counts.
    """
    groups = known_groups()
    looks: dict[str, tuple[str, str]] = {}
    for finished in reversed(maps):
        groups |= dict(finished.named_groups)
        looks |= read_looks(finished.path)
    made = []
    for known in scene_classes(sorted(set(names) - {UNKNOWN_CLASS})):
        title, color = looks.get(known.name, (known.title, known.color))
        group = groups.get(known.name, known.group)
        made.append(SceneClass(known.id, known.name, color, known.description, title, group))
    return (*made, unknown_class(len(made))) if UNKNOWN_CLASS in names else tuple(made)
