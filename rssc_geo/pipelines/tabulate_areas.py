"""A table of the areas of a finished map's classes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rssc_geo.errors import UsageError
from rssc_geo.files import check_not_input
from rssc_geo.options import AccuracyOptions, AreasOptions, files_read
from rssc_geo.output import (
    AreaRow,
    FinishedMap,
    area_table,
    check_table,
    map_files,
    read_legend,
    read_zones,
    write_area_table,
)
from rssc_geo.pipelines.accuracy import MapAccuracy, adjusted_area
from rssc_geo.pipelines.assess_accuracy import assess_accuracy


@dataclass(frozen=True, slots=True)
class AreaTable:
    """A table that was written.

    ``rows``: of the whole map, then of each zone; ``accuracy``: of the map, where a reference was
    given, with the adjusted areas and their intervals.
    """

    output: Path
    rows: tuple[AreaRow, ...]
    accuracy: MapAccuracy | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "outputs": [str(self.output)],
            "areas": [asdict(row) for row in self.rows],
            "accuracy": None if self.accuracy is None else self.accuracy.as_dict(),
        }


def tabulate_areas(
    map_path: str | Path, output: str | Path, options: AreasOptions | None = None
) -> AreaTable:
    """Write the areas of a map's classes as CSV: as a whole, in zones, adjusted for its errors.

    Areas in zones are those of the map; the adjusted ones, by a sample of reference labels, are of
    the whole map (see :func:`rssc_geo.assess_accuracy`), since the sample is too small for its
    parts.

    Parameters
    ----------
    map_path : a map by :func:`rssc_geo.classify`, in any format
    output : a .csv
    options : all that the command line has; its defaults

    Raises ``InputError`` where map, zones or reference cannot be read or used, ``UsageError`` for
    invalid options, ``OutputError`` where the table cannot be written.

    Examples
    --------
    >>> from rssc_geo import AreasOptions, classify, tabulate_areas
    >>> _ = classify("scene.tif", "map.gpkg")
    >>> table = tabulate_areas("map.gpkg", "areas.csv", AreasOptions(legend="groups"))
    >>> round(sum(row.share for row in table.rows), 6)
    1.0
    """
    options = options or AreasOptions()
    path = Path(output)
    check_table(path, overwrite=options.overwrite)
    if options.zone_field is not None and options.zones is None:
        raise UsageError("--zone-field names a column of --zones")
    check_not_input([path], [*map_files(map_path), *files_read(options)])
    legend = None if options.legend is None else read_legend(options.legend)
    finished = FinishedMap(map_path)
    zones = None
    if options.zones is not None:
        zones = read_zones(options.zones, finished.crs, finished.bounds(), field=options.zone_field)
    rows = area_table(finished, legend=legend, zones=zones)
    accuracy, adjusted = None, {}
    if options.reference is not None:
        settings = AccuracyOptions(legend=options.legend, field=options.field)
        (accuracy,) = assess_accuracy(map_path, options.reference, settings).maps
        adjusted = {entry["name"]: adjusted_area(entry) for entry in accuracy.as_dict()["classes"]}
    write_area_table(path, rows, adjusted, overwrite=options.overwrite)
    return AreaTable(path, tuple(rows), accuracy)
