"""Progress for people (a bar on a terminal) and for programs (JSON Lines)."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from rssc_geo_cli.options import print_json

if TYPE_CHECKING:
    from tqdm import tqdm

_SHOWN = 10  # classes, the largest first
_STEP = 0.01  # JSON events come when at least this share was done since the last one, and at each stage's ends


class Reporter(AbstractContextManager["Reporter"]):
    """Called as ``progress(stage, done, total)`` by the pipeline."""

    def __init__(self, kind: str, *, quiet: bool) -> None:
        self._json = kind == "json"
        self._bar_wanted = kind == "bar" or (kind == "auto" and not quiet and sys.stderr.isatty())
        self._bar: tqdm[None] | None = None
        self._stage = ""
        self._last = -1

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show how much of a stage is done."""
        if self._json:
            if stage != self._stage or done == total or done - self._last >= max(1, total * _STEP):
                print_json({"event": "progress", "stage": stage, "done": done, "total": total})
                self._last = done
        elif self._bar_wanted:
            self._draw(stage, done, total)
        self._stage = stage

    def _draw(self, stage: str, done: int, total: int) -> None:
        from tqdm import tqdm  # after start-up: --help does not need it

        if stage != self._stage:
            self._close()
            self._bar = tqdm(
                total=total,
                initial=done,
                desc=stage,
                unit="tile" if stage == "classify" else "step",
                file=sys.stderr,
            )
        elif self._bar is not None:
            self._bar.update(done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()


def show_result(
    values: dict[str, Any],
    *,
    progress: str,
    as_json: bool,
    quiet: bool,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    """What a run with progress ends with.

    The last event, one JSON object, a few lines for people, or nothing.
    """
    if progress == "json":
        print_json({"event": "result", **values})
    elif as_json:
        print_json(values)
    elif not quiet:
        tell(values)


def echo_areas(areas_m2: Mapping[str, float]) -> None:
    """What covers most, a line a class."""
    total = sum(areas_m2.values()) or 1.0
    largest = sorted(areas_m2.items(), key=lambda item: -item[1])
    for name, area in largest[:_SHOWN]:
        click.echo(f"  {name:<20} {area / 1e4:>12,.1f} ha {area / total:>6.1%}")
    if others := largest[_SHOWN:]:
        area = sum(area for _, area in others)
        click.echo(
            f"  {f'{len(others)} other classes':<20} {area / 1e4:>12,.1f} ha {area / total:>6.1%}"
        )


def exit_on_stdin_eof() -> None:
    """End the run, as SIGTERM does, when the program at the other end of stdin is gone.

    ``os.read`` on the descriptor, not ``sys.stdin``: a thread blocked in the buffered reader aborts
    the interpreter.
    """

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="rssc-geo-stdin", daemon=True).start()
