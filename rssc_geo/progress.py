"""How a run tells how far it is, and times for people."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

Progress = Callable[[str, int, int], None]
"""Called with a stage's name ("classify"), how much of it is done, and how much there is."""


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
    """What a public function's ``progress`` means: True is a bar, False or None nothing."""
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
    """A time for people: ``2 h 05 min``, ``3 min 20 s``, ``4.2 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"
