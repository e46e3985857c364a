"""One scene of a batch while it is worked on.

Opened, cut into blocks, its results put back in order, finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rssc_geo.batch.blocks import BATCHES, Block, BlockResult, blocks_of, maker_key, unpack
from rssc_geo.batch.inputs import Job
from rssc_geo.batch.stamps import Stamps, home_of, stamp
from rssc_geo.inference import Maker, SceneJob, make_plan, output_options
from rssc_geo.output import LandUseSummary
from rssc_geo.reports import check_extra, draw_preview


@dataclass(slots=True)
class SceneRun:
    """A scene that is open. Blocks are numbered; their results may come in any order and are
    written in theirs.

    ``arrived`` holds results that wait for an earlier block; ``cancels`` the blocks that are
    somewhere at work.
    """

    job: Job
    scene: SceneJob
    blocks: list[Block]
    input_files: Stamps
    started: float
    next_submit: int = 0
    next_write: int = 0
    again: list[int] = field(default_factory=list)
    arrived: dict[int, BlockResult] = field(default_factory=dict)
    cancels: dict[int, Callable[[], None]] = field(default_factory=dict)
    attempts: dict[int, int] = field(default_factory=dict)
    busy: bool = False
    over: bool = False
    reading_s: float = 0.0
    model_s: float = 0.0
    writing_s: float = 0.0
    looked: int = 0

    @property
    def done(self) -> int:
        """Tiles that are written, those of earlier runs included."""
        written = self.blocks[: self.next_write]
        return (
            len(self.scene.tiles)
            - len(self.scene.todo)
            + sum(len(block.tiles) for block in written)
        )

    def next_block(self) -> int | None:
        """The block to start next, those that failed before first; None when all are under way."""
        if self.again:
            return self.again.pop(0)
        if self.next_submit < len(self.blocks):
            self.next_submit += 1
            return self.next_submit - 1
        return None

    def ready(self) -> list[BlockResult]:
        """Results that can be written now, in order; they are no longer held."""
        results: list[BlockResult] = []
        while (number := self.next_write + len(results)) in self.arrived:
            results.append(self.arrived.pop(number))
        return results

    def write(self, results: list[BlockResult]) -> float:
        """Put results into the part file; the seconds it took.

        ``OutputError`` when that cannot be written.
        """
        started = time.monotonic()
        for result in results:
            self.scene.take(unpack(result, self.scene.plan.grid))
        return time.monotonic() - started

    def finish(self) -> tuple[LandUseSummary, float]:
        """Make the map; see ``SceneJob.finish``. Also the seconds it took."""
        started, options = time.monotonic(), self.job.options
        summary = self.scene.finish(
            {"seconds": round(started - self.started, 1), "tiles_classified": self.looked}
        )
        if options.preview is not None:
            plan, radiometry, classes = self.scene.plan, self.scene.radiometry, self.scene.classes
            draw_preview(
                Path(options.preview),
                plan=plan,
                radiometry=radiometry,
                class_grid=summary.class_grid,
                classes=classes,
            )
        return summary, time.monotonic() - started


def open_scene_run(
    job: Job, maker: Maker, *, batch_size: int, overwrite: bool, crs: str | None
) -> SceneRun:
    """Plan a scene, fit its scaling and open its part file. ``crs`` prevails over the job's own.

    Raises the ``RsscGeoError`` of whatever does not fit.
    """
    started, options = time.monotonic(), job.options
    files = [*job.source, *([] if options.tiling.aoi is None else [options.tiling.aoi])]
    plan = make_plan(
        job.source[0] if len(job.source) == 1 else job.source, maker.card, options.tiling
    )
    for path in (
        job.output,
        *(Path(name) for name in (options.class_raster, options.preview) if name is not None),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
    result: Mapping[str, Any] = {
        name: getattr(options, name)
        for name in ("aoi_clip", "min_area_m2", "probabilities", "class_raster")
    }
    wanted = output_options(plan, job.output, crs=crs or options.crs, overwrite=overwrite, **result)
    if options.preview is not None:
        check_extra("--preview", Path(options.preview), plan=plan, overwrite=overwrite)
    stamps = stamp({*files, *plan.scene.files}, home_of(job.source))
    scene = SceneJob(plan, options.tiling, wanted, maker)
    blocks = blocks_of(
        scene,
        min_valid=options.tiling.min_valid,
        maker=maker_key(maker),
        tiles=BATCHES * batch_size,
    )
    return SceneRun(job, scene, blocks, stamps, started)
