"""What is seen of a batch while it runs and at its end.

Progress over all scenes, figures, a file for Prometheus.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssc_geo.errors import OutputError

if TYPE_CHECKING:
    from rssc_geo.batch.inputs import Job

_STAGES = ("reading", "model", "writing")


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a batch is.

    ``done`` scenes include those of earlier runs; ``done_share`` (0–1) also counts what is done of
    scenes in progress; ``tiles`` are those of this run; ``seconds_left`` is None before anything is
    known of them.
    """

    scenes: int
    done: int
    failed: int
    done_share: float
    tiles: int
    tiles_per_s: float
    seconds_left: float | None


OnProgress = Callable[[BatchProgress], None]


class Watch:
    """Counts what a run does, and shows it to ``progress`` at every tick.

    Scenes weigh the same: how many tiles one has is not known before it is opened.
    """

    def __init__(
        self, scenes: int, *, progress: Callable[[BatchProgress, Watch], None] | None = None
    ) -> None:
        self.scenes = scenes
        self.finished = self.left_out = 0
        self.failures: list[tuple[str, str]] = []
        self.tiles = self.looked = self.cells = 0
        self.areas_m2: dict[str, float] = {}
        self.workers: set[str] = set()  # devices of this machine, or addresses
        self.dtype: str | None = None
        self.stages = dict.fromkeys(_STAGES, 0.0)
        self._progress = progress
        self._shares: dict[
            str, tuple[float, float]
        ] = {}  # scenes in progress: share at the beginning and now
        self._sizes: dict[str, int] = {}
        self._started = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def skipped(self, row: Mapping[str, Any]) -> None:
        """A scene that an earlier run has done."""
        self.left_out += 1
        self._add(row)

    def opened(self, key: str, *, tiles: int, done: int) -> None:
        """A scene is begun, or gone on with."""
        self._sizes[key] = max(1, tiles)
        self._shares[key] = (done / self._sizes[key],) * 2

    def classified(self, key: str, *, done: int, tiles: int, looked: int) -> None:
        """So many tiles of a scene are written, ``tiles`` of them now."""
        self.tiles += tiles
        self.looked += looked
        self._shares[key] = (self._shares[key][0], done / self._sizes[key])

    def done(self, key: str, values: Mapping[str, Any]) -> None:
        """A scene is finished; ``values`` as the journal has them."""
        self.finished += 1
        self._shares[key] = (self._shares[key][0], 1.0)
        for stage in _STAGES:
            self.stages[stage] += values[f"{stage}_s"]
        self._add(values)

    def failed(self, job: Job, message: str, *, key: str = "") -> None:
        """A scene has failed, now or (without key) before."""
        self.failures.append((job.label, message))
        self._shares.pop(key, None)

    def _add(self, row: Mapping[str, Any]) -> None:
        self.cells += row["cells"]
        for entry in row["classes"]:
            self.areas_m2[entry["name"]] = self.areas_m2.get(entry["name"], 0.0) + entry["area_m2"]

    def tick(self, seconds: float) -> bool:
        """Show progress when that long has passed since it was last shown; whether it was."""
        if time.monotonic() - self._told < seconds:
            return False
        self._told = time.monotonic()
        if self._progress is not None:
            self._progress(self.now(), self)
        return True

    def now(self) -> BatchProgress:
        """How far the run is."""
        over = self.left_out + len(self.failures)
        share = over + sum(now for _, now in self._shares.values())
        gained = sum(now - first for first, now in self._shares.values())
        left = (self.scenes - share) * self.seconds / gained if gained > 0 else None
        done = self.left_out + self.finished
        rate = self.tiles / max(self.seconds, 1e-3)
        return BatchProgress(
            self.scenes,
            done,
            len(self.failures),
            share / max(1, self.scenes),
            self.tiles,
            rate,
            left,
        )

    def as_dict(self) -> dict[str, Any]:
        """The summary at the end, as plain data."""
        spent = sum(self.stages.values()) or 1.0
        return {
            "scenes": self.scenes,
            "done": self.left_out + self.finished,
            "done_before": self.left_out,
            "failed": [{"input": label, "error": message} for label, message in self.failures],
            "tiles": self.tiles,
            "tiles_classified": self.looked,
            "tiles_per_s": round(self.tiles / max(self.seconds, 1e-3), 2),
            "cells": self.cells,
            "area_m2": {
                name: round(area, 1)
                for name, area in sorted(self.areas_m2.items(), key=lambda item: -item[1])
            },
            "seconds": round(self.seconds, 3),
            "workers": sorted(self.workers),
            "dtype": self.dtype,
            "time_share": {
                name: round(seconds / spent, 4) for name, seconds in self.stages.items()
            },
        }


def write_prometheus(path: Path, progress: BatchProgress, stages: Mapping[str, float]) -> None:
    """Figures in Prometheus' text format, for node_exporter's textfile collector; replaced whole.

    Raises ``OutputError`` when it cannot be written.
    """
    figures: list[tuple[str, str, str, float | None]] = [
        ("rssc_geo_batch_scenes", "gauge", 'state="all"', progress.scenes),
        ("rssc_geo_batch_scenes", "gauge", 'state="done"', progress.done),
        ("rssc_geo_batch_scenes", "gauge", 'state="failed"', progress.failed),
        ("rssc_geo_batch_done_ratio", "gauge", "", round(progress.done_share, 6)),
        ("rssc_geo_batch_tiles_total", "counter", "", progress.tiles),
        ("rssc_geo_batch_tiles_per_second", "gauge", "", round(progress.tiles_per_s, 3)),
        ("rssc_geo_batch_seconds_left", "gauge", "", progress.seconds_left),
        *(
            ("rssc_geo_batch_stage_seconds_total", "counter", f'stage="{name}"', round(s, 3))
            for name, s in stages.items()
        ),
    ]
    lines: list[str] = []
    for name, kind, labels, value in figures:
        if value is None:
            continue
        if f"# TYPE {name} {kind}" not in lines:
            lines.append(f"# TYPE {name} {kind}")
        lines.append(f"{name}{{{labels}}} {value}" if labels else f"{name} {value}")
    beside = path.with_name(f".{path.name}.tmp")
    try:
        beside.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path} ({error.strerror}): choose another --prometheus file"
        ) from error
