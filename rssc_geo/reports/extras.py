"""Files made beside a finished map: a picture, a layer to review, a page, a table.

Their errors never affect the map.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rssc_geo.errors import OutputError, RsscGeoError, UsageError, one_line
from rssc_geo.files import check_distinct, check_not_input, check_writable
from rssc_geo.inference import Plan, PredictorSpec, SceneRun
from rssc_geo.models import legend_of
from rssc_geo.options import SceneOptions, check_suffixes, files_read
from rssc_geo.output import (
    FinishedMap,
    LandUseSummary,
    OutputTarget,
    area_table,
    read_zones,
    write_area_table,
)
from rssc_geo.raster import footprint, moved_bounds
from rssc_geo.reports.preview import draw_preview
from rssc_geo.reports.report import write_report
from rssc_geo.reports.review import add_review, check_review
from rssc_geo.reports.stac_item import MapItem

log = logging.getLogger(__name__)


class Extras:
    """The files asked for beside the map of a scene; checked when made, written after the map.

    Parameters
    ----------
    options : ``preview``, ``report``, ``review``, ``areas`` with ``zones``, ``stac_item``
    target : of the map
    plan : of the scene

    Raises ``UsageError`` and ``OutputError`` for files that could not be written at the end.
    """

    def __init__(self, options: SceneOptions, target: OutputTarget, plan: Plan) -> None:
        self._target, self._plan = target, plan
        self._overwrite = target.overwrite or target.is_announced
        self._read = [*plan.inputs(), *files_read(options)]
        self._preview, self._report = options.preview, options.report
        self._review, self._areas = options.review, options.areas
        self._zones: tuple[str, str | None] | None = None
        check_suffixes(options)
        named = [self._preview, self._report, self._areas, options.stac_item]
        paths = [Path(path) for path in named if path is not None]
        review = [] if self._review is None else check_review(target)
        check_distinct([*target.files, *review, *paths])
        check_not_input([*review, *paths], self._read)
        for path in paths:
            check_writable(path, overwrite=self._overwrite)
        if options.zones is not None:
            if self._areas is None:
                raise UsageError("--zones needs --areas, the table that has them")
            scene, crs = plan.scene, target.crs or plan.scene.crs
            near = moved_bounds(footprint(scene.transform, scene.shape).bounds, scene.crs, crs)
            read_zones(options.zones, crs, near, field=options.zone_field)
            self._zones = options.zones, options.zone_field
        self._item: MapItem | None = None
        if options.stac_item is not None:
            self._item = MapItem(Path(options.stac_item), target, plan)

    def write(self, summary: LandUseSummary, run: SceneRun) -> list[Path]:
        """Write all files that can be made of the finished map, and end its run.

        Returns the files that belong to the results. A run that is killed here is continued by the
        same command. Raises ``OutputError`` that names the missing files, and states that the map
        is complete.
        """
        files, missing = [], []
        for name, make in self._tasks(summary, run.spec).items():
            started = time.monotonic()
            try:
                files.append(make())
                run.announce()
                log.info("%s made in %.1f s", name, time.monotonic() - started)
            except (RsscGeoError, OSError) as error:
                log.debug("traceback", exc_info=error)
                missing.append(f"{name} could not be made ({_reason(error)})")
        run.discard()
        if missing:
            raise OutputError(
                f"{self._target.path} is complete, but {' and '.join(missing)}: fix that, then"
                " run again with --overwrite"
            )
        return files

    def _tasks(self, summary: LandUseSummary, spec: PredictorSpec) -> dict[str, Callable[[], Path]]:
        """The function that makes each, by its name in messages."""
        tasks: dict[str, Callable[[], Path]] = {}
        plan, target = self._plan, self._target
        if self._preview is not None:
            tasks["the preview"] = partial(
                draw_preview,
                Path(self._preview),
                plan,
                summary,
                legend_of(spec.card),
                overwrite=self._overwrite,
            )
        if self._review is not None:
            tasks["the review"] = partial(
                add_review,
                target,
                self._review,
                cells_shape=plan.grid.cells_shape,
                classes=legend_of(spec.card),
            )
        if self._report is not None:
            tasks["the report"] = partial(
                write_report,
                Path(self._report),
                plan,
                summary,
                spec,
                full_provenance=target.full_provenance,
                overwrite=self._overwrite,
            )
        if self._areas is not None:
            tasks["the table of areas"] = partial(self._write_areas, Path(self._areas))
        if self._item is not None:  # last: it links the others
            tasks["the STAC item"] = partial(self._item.write, summary, spec, self._beside())
        return tasks

    def _beside(self) -> dict[str, Path]:
        """The files that are made beside the map, by type."""
        named = {"preview": self._preview, "report": self._report, "areas": self._areas}
        return {name: Path(path) for name, path in named.items() if path is not None}

    def _write_areas(self, path: Path) -> Path:
        finished, zones = FinishedMap(self._target.path), None
        if self._zones is not None:
            path_of_zones, field = self._zones
            zones = read_zones(path_of_zones, finished.crs, finished.bounds(), field=field)
        table = area_table(finished, zones=zones)
        write_area_table(path, table, {}, overwrite=self._overwrite)
        return path


def _reason(error: BaseException) -> str:
    """The reason, without an ``OutputError``'s advice on how to continue.

    That advice is for a map that does not exist yet.
    """
    if isinstance(error, OutputError) and error.__cause__ is not None:
        error = error.__cause__
    return (isinstance(error, OSError) and error.strerror) or one_line(error)
