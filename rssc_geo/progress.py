"""Progress of runs, and times as text."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[str, int, int], None]
"""Called with a stage's name ("classify"), how much of it is done, and its total."""


_STEP = 0.01
"""Share done between two events, at least; a stage's start and end are reported, too."""


class ProgressEvents:
    """Progress as plain data: ``{"event": "progress", "stage": …, "done": …, "total": …}``.

    With ``seconds_left`` of the stage, by the rate so far.
    """

    def __init__(self, send: Callable[[dict[str, object]], None]) -> None:
        self._send = send
        self._stage, self._last = "", -1
        self._first, self._started = 0, 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Send how much of a stage is done, unless it changed too little."""
        if stage != self._stage:
            self._first, self._started = done, time.monotonic()
        step = done - self._last >= max(1, total * _STEP)
        if stage != self._stage or done == total or step:
            event = {"event": "progress", "stage": stage, "done": done, "total": total}
            self._send({**event, "seconds_left": self._left(done, total)})
            self._last = done
        self._stage = stage

    def _left(self, done: int, total: int) -> float | None:
        """None at the start; work of an earlier run does not count for the rate."""
        if done <= self._first:
            return None
        pace = (time.monotonic() - self._started) / (done - self._first)
        return round(pace * (total - done), 1)


class ProgressBar:
    """A bar on stderr, one stage after another; to be closed."""

    def __init__(self) -> None:
        self._bar: tqdm[None] | None = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how much of a stage is done."""
        from tqdm import tqdm  # --help does not need it

        if stage != self._stage:
            self.close()
            unit = "tile" if stage == "classify" else "step"
            self._bar = tqdm(total=total, initial=done, desc=stage, unit=unit, file=sys.stderr)
        elif self._bar is not None:
            self._bar.update(done - self._bar.n)
        self._stage = stage

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def reporting(progress: Progress | bool | None) -> Iterator[Progress]:  # noqa: FBT001 -- as tqdm's
    """The function for a public function's ``progress``: True is a bar, False or None nothing."""
    if callable(progress):
        yield progress
    elif progress:
        bar = ProgressBar()
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield _silent


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Nobody watches."""


def duration(seconds: float) -> str:
    """A time as text: ``2 h 05 min``, ``3 min 20 s``, ``4.2 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"
