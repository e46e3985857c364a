"""The output of a map: checked once, before any work; its files are put in place together."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import shapely
from pyproj import CRS

from rssc_geo.errors import OutputError, UsageError
from rssc_geo.files import (
    StagingFolder,
    check_distinct,
    check_name,
    check_not_input,
    check_writable,
    followed,
)
from rssc_geo.geometry import parse_crs
from rssc_geo.options import OutputOptions, check_suffixes
from rssc_geo.output.class_raster import legend_path
from rssc_geo.output.dates import parse_date
from rssc_geo.output.formats import WGS84, Format, format_of
from rssc_geo.output.geopackage import check_no_other_layers, describe_geopackage
from rssc_geo.output.layers import CELL_FIELDS, Layer
from rssc_geo.output.partfile import is_announced
from rssc_geo.output.styles import LayerStyle

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

_RASTER_CLASSES = 255  # uint8, of which 255 is nodata
_SEPARATORS = frozenset(";!")  # pyogrio cuts the name of a file there
# QGIS opens a GeoPackage by a URI that GDAL does not escape (NOLOCK): SQLite decodes it.
_ESCAPE = re.compile("%[0-9A-Fa-f]{2}")


@dataclass(frozen=True, slots=True)
class OutputTarget:
    """The files of a map; made and checked by ``make_target``.

    Attributes
    ----------
    path : the main file; its suffix chooses the format
    crs : of the result; None: that of the raster (GeoJSON: WGS84)
    min_area : m²; smaller regions join a neighbor in the ``landuse`` layer, 0: none do
    probabilities : one ``p_<class>`` field a class in the ``cells`` layer
    adapt_shares : the probabilities are adapted to the shares of the classes among all cells
    smooth : cells are smoothed with their neighbors, where cells are smaller than tiles
    snap : regions end where the picture changes, not at the sides of cells
    overwrite : whether files that are there are replaced
    clip : polygon or multipolygon in the raster's CRS to which the polygons are cut, or None
    class_raster : path of a COG of the cells' classes, or None
    full_provenance : whether map and report name the folders of local files
    unknown : whether cells unlike the training pictures are ``Unknown``
    embeds : whether the part file keeps each cell's embedding
    embeddings : path of a table of the cells with their embeddings, or None
    date : date of the scene given by the user; None: by its tags
    """

    path: Path
    crs: CRS | None = None
    min_area: float = 0.0
    probabilities: bool = False
    adapt_shares: bool = False
    smooth: bool = True
    snap: bool = False
    overwrite: bool = False
    clip: shapely.Geometry | None = None
    class_raster: Path | None = None
    full_provenance: bool = False
    unknown: bool = True
    embeds: bool = False
    embeddings: Path | None = None
    date: datetime | None = None

    @property
    def format(self) -> Format:
        """By the suffix; ``UsageError`` for an unknown one."""
        return format_of(self.path)

    def crs_of(self, raster: CRS) -> CRS:
        """The CRS of the layers of a raster in the CRS ``raster``.

        Raises ``UsageError`` where the format cannot hold it.
        """
        crs = self.crs or (WGS84 if self.format.wgs84 else raster)
        self.format.check_crs(crs)
        return crs

    @property
    def part_path(self) -> Path:
        """The resumable state of the run."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def is_announced(self) -> bool:
        """Whether the results that are there were put in place by a run killed before its end.

        Files beside them may exist then, too.
        """
        return is_announced(self.part_path, self.results)

    @property
    def layer_paths(self) -> tuple[Path, ...]:
        """The files of the layers, ``path`` last: it shows that the result is complete."""
        layers = ("cells", "landuse")
        return tuple(dict.fromkeys(self.format.layer_path(self.path, layer) for layer in layers))

    @property
    def results(self) -> tuple[Path, ...]:
        """All results without their sidecars, ``path`` last."""
        return (*self._beside, *self.layer_paths)

    @property
    def _beside(self) -> tuple[Path, ...]:
        """The results that are no layers of the map."""
        return tuple(path for path in (self.class_raster, self.embeddings) if path is not None)

    @property
    def files(self) -> tuple[Path, ...]:
        """The results, and their sidecars."""
        return tuple(dict.fromkeys([*self.results, *self._files_of(self.results)]))

    def check_free(self) -> None:
        """Raise ``OutputError`` for results that cannot be written, or must not be replaced."""
        for path in self.layer_paths:
            beside = [*self.format.files_of(path)[:-1], *self.format.remains_of(path)]
            foreign = next((file for file in beside if os.path.lexists(file)), None)
            if foreign is not None and not os.path.lexists(path):
                raise OutputError(
                    f"{foreign} would be taken for a part of {path.name}, which is not there: move"
                    " it away, or choose another name"
                )
        for result in self.files:
            check_writable(result, overwrite=self.overwrite)
            check_no_other_layers(result)

    def check_classes(self, count: int) -> None:
        """Refuse, with ``UsageError``, more classes than the formats asked for can hold."""
        if self.probabilities and self.format.max_fields is not None:
            room = self.format.max_fields - len(CELL_FIELDS)
            if count > room:
                raise UsageError(
                    f"--probabilities: {count} classes, but a {self.format.name} holds at most"
                    f" {room}"
                )
        if self.class_raster is not None and count > _RASTER_CLASSES:
            raise UsageError(
                f"--class-raster holds at most {_RASTER_CLASSES} classes, the model has {count}:"
                " leave it out"
            )

    @contextmanager
    def staged(
        self, results: Sequence[Path] | None = None, *, overwrite: bool | None = None
    ) -> Iterator[StagingFolder]:
        """Yield a folder to make files in; they replace the results when the block ends well.

        ``results``: those that are made, the main one last; by default all. Files that belong to
        one go with it. ``overwrite``: by default the target's. Raises ``OutputError`` when they
        cannot be written, a GeoPackage was opened elsewhere meanwhile, another process is writing
        them, or has made them and they must not be replaced; nothing is replaced then.
        """
        overwrite = self.overwrite if overwrite is None else overwrite
        results = self.results if results is None else results
        layers = [path for path in results if path not in self._beside]
        with StagingFolder(self.path) as staging:
            yield staging
            for path in layers:
                check_closed(path)
            replaced = [path for path in layers if path.exists()]
            remains = [file for path in replaced for file in self.format.remains_of(path)]
            staging.publish(self._files_of(results), overwrite=overwrite, obsolete=remains)

    def write_layers(
        self,
        staging: StagingFolder,
        layers: Sequence[Layer],
        *,
        classes: Sequence[SceneClass],
        provenance: Mapping[str, object],
        style: LayerStyle | None = None,
    ) -> None:
        """Make the files of the layers in a folder that ``staged`` gave.

        A GeoPackage also gets styles, aliases and provenance: ``classes`` and ``style`` as for
        :func:`describe_geopackage`. Raises ``OutputError`` where they cannot be written.
        """
        for layer in layers:
            path = staging.place(self.format.layer_path(self.path, layer.name))
            self.format.write(layer, path, provenance)
        if self.format.multilayer:
            made = staging.place(self.path)
            describe_geopackage(made, layers, classes=classes, provenance=provenance, style=style)

    def _files_of(self, results: Sequence[Path]) -> list[Path]:
        """The results, each after the files that belong to it."""
        found: list[Path] = []
        for path in results:
            if path == self.class_raster:
                found += [legend_path(path), path]
            elif path == self.embeddings:
                found.append(path)
            else:
                found += self.format.files_of(path)
        return found


def make_target(
    path: str | Path,
    options: OutputOptions,
    *,
    overwrite: bool,
    area: shapely.Geometry | None = None,
    inputs: Iterable[str | Path] = (),
) -> OutputTarget:
    """Make the target of a map; refuse at the start what would fail at the end.

    Parameters
    ----------
    path : .gpkg, .fgb, .geojson, .parquet or .shp
    options : CRS, layers and files of the result
    overwrite : whether results that are there may be replaced
    area : the area of interest, in the raster's CRS, or None
    inputs : files that must not be replaced, whatever ``overwrite`` says

    Raises
    ------
    UsageError
        An unknown suffix, an invalid name or CRS, ``aoi_clip`` without an area, a
        result that is an input.
    OutputError
        A result that is there without ``overwrite``, is a folder, is open elsewhere, holds layers
        of others, or lies where nothing can be written.
    """
    if options.aoi_clip and area is None:
        raise UsageError("--aoi-clip needs --aoi or --bounds to clip to")
    check_suffixes(options)
    target = OutputTarget(
        path=Path(path),
        crs=None if options.crs is None else parse_crs(options.crs, option="--crs"),
        min_area=options.min_area,
        probabilities=options.probabilities,
        adapt_shares=options.adapt_shares,
        smooth=options.smooth,
        snap=options.snap,
        overwrite=overwrite,
        clip=area if options.aoi_clip else None,
        class_raster=None if options.class_raster is None else Path(options.class_raster),
        full_provenance=options.full_provenance,
        unknown=not options.no_unknown,
        embeds=options.embeddings is not None,
        embeddings=None if options.embeddings is None else Path(options.embeddings),
        date=None if options.date is None else parse_date(options.date, "--date"),
    )
    check_distinct(target.results)
    for result in target.files:
        _check_name(result)
    check_not_input(target.files, inputs)
    if not target.is_announced:
        target.check_free()
    check_closed(target.path)
    StagingFolder(target.path).check()
    return target


def check_closed(path: Path) -> None:
    """Raise ``OutputError`` for a GeoPackage that another program has open.

    A journal lies beside it then; replacing the file would ruin it.
    """
    place = followed(path)
    for journal in (place.with_name(f"{place.name}{end}") for end in ("-wal", "-journal")):
        if path.suffix.lower() == ".gpkg" and journal.exists():
            raise OutputError(
                f"{path} is open in another program ({journal.name} lies beside it): close it there"
                f" (in QGIS, remove its layers) and try again; delete {journal.name} only if it was"
                " left by a crash"
            )


def _check_name(path: Path) -> None:
    check_name(path)
    if set(path.name) & _SEPARATORS:
        raise UsageError(
            f"{path.name!r}: ';' and '!' in a name mean something else to the writer, choose"
            " another name"
        )
    if path.suffix.lower() == ".gpkg" and (escape := _ESCAPE.search(path.name)):
        raise UsageError(
            f"{path.name!r}: QGIS cannot open a GeoPackage with {escape[0]!r} in its name,"
            " choose another name"
        )
