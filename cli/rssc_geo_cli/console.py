"""Output of the commands: messages on stderr, progress, results on stdout."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from rssc_geo.errors import UsageError, escaped
from rssc_geo.options import PrintOptions, RunOptions
from rssc_geo.progress import Progress, ProgressEvents, reporting

_SHORT = "%(levelname)s: %(message)s"
_DATED = f"%(asctime)s {_SHORT}"
_TIMED = "%(asctime)s %(name)s %(levelname)s: %(message)s"
_LOG = re.compile(rb'\Z|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,|\{"time": "')
"""The start of a log file of this program; empty files count too."""
_LOG_BYTES = 64
FAILURES = "rssc_geo_cli.failures"
"""The logger of the last line of a command that failed."""
_OWN = ("rssc_geo", "rssc_geo_cli")
_FOREIGN = ("rasterio", "pyogrio", "huggingface_hub", "transformers", "timm", "py.warnings")
"""Libraries whose messages repeat what our errors state in one line, or are for programmers."""


def start_logging(*, as_json: bool) -> None:
    """Messages on stderr until a command's options are known: warnings, in the form asked for."""
    root = logging.getLogger()
    for earlier in root.handlers:
        if isinstance(earlier, logging.FileHandler):
            earlier.close()
    root.handlers = [_on_stderr(_JsonLine() if as_json else _OneLine(_SHORT))]
    root.setLevel(logging.WARNING)
    for name in _OWN:
        logging.getLogger(name).setLevel(logging.WARNING)


def set_up_logging(options: PrintOptions, *, least: int = 0) -> None:
    """Messages of the program on stderr: warnings by default; -v adds information, -vv everything.

    Of libraries only warnings, and only with -vv. ``least``: the level of --verbose that a long
    command has unless it is to be quiet.
    """
    verbose = max(options.verbose, 0 if options.quiet else least)
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    level = logging.ERROR if options.quiet else level
    start_logging(as_json=options.log_json)
    root = logging.getLogger()
    (handler,) = root.handlers
    handler.setLevel(level)
    if not options.log_json:
        handler.setFormatter(_OneLine((_SHORT, _DATED, _TIMED)[min(verbose, 2)]))
    if options.log_file is not None:
        file = _log_file(options.log_file)
        file.setFormatter(_JsonLine() if options.log_json else _OneLine(_TIMED))
        root.addHandler(file)
        level = min(level, logging.INFO)
    for name in _OWN:
        logging.getLogger(name).setLevel(level)
    for name in _FOREIGN:
        logging.getLogger(name).setLevel(logging.WARNING if verbose >= 2 else logging.CRITICAL)


def tell_more(options: PrintOptions) -> None:
    """The messages of a long command, as with -v, unless it is to be quiet."""
    set_up_logging(options, least=1)


def _on_stderr(formatter: logging.Formatter) -> logging.Handler:
    """A handler; outside JSON the last line of a command that failed has its own format."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    if not isinstance(formatter, _JsonLine):
        handler.addFilter(lambda record: record.name != FAILURES)
    return handler


def _log_file(path: str) -> logging.Handler:
    """A handler that appends to a log file, never to another file such as a raster or a map."""
    try:
        if os.path.isfile(path):
            with open(path, "rb") as earlier:
                if not _LOG.match(earlier.read(_LOG_BYTES)):
                    raise UsageError(
                        f"--log-file {path} is not a log of this program: name another file"
                    )
        return logging.FileHandler(path, encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"--log-file {path} cannot be written ({reason}): name another file"
        ) from error


def log_failure(line: str) -> bool:
    """Log the last line of a command that failed; returns whether stderr has it already.

    Does nothing before logging is set up.
    """
    handlers = logging.getLogger().handlers
    if not handlers:
        return False
    logging.getLogger(FAILURES).error("%s", line)
    return isinstance(handlers[0].formatter, _JsonLine)


class _OneLine(logging.Formatter):
    """``warning: …``, in lower case as the errors are."""

    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)  # other handlers see the record too
        shown.levelname = record.levelname.lower()
        shown.msg, shown.args = escaped(record.getMessage()), ()
        return super().format(shown)


class _JsonLine(logging.Formatter):
    """One JSON object a message."""

    def format(self, record: logging.LogRecord) -> str:
        values = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": escaped(record.getMessage()),
        }
        return json.dumps(values, ensure_ascii=False)


def print_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


@contextmanager
def running(options: RunOptions) -> Iterator[Progress]:
    """Progress of a long run, as the options state; ends when the parent is gone, if asked to."""
    end_with_parent(options)
    shown = ProgressEvents(print_json) if options.progress == "json" else wants_bar(options)
    with reporting(shown) as progress:
        yield progress


def end_with_parent(options: RunOptions) -> None:
    """End the run, as SIGTERM does, when the program at the other end of stdin is gone, if asked.

    ``os.read`` on the descriptor, not ``sys.stdin``: a thread blocked in the buffered reader aborts
    the interpreter.
    """
    if not options.exit_on_stdin_eof:
        return

    def watch() -> None:
        while os.read(0, 4096):
            pass
        # Python does not see a signal that comes just as its main thread begins to wait, until the
        # next one; and a library may lose one. Those soon after one that was seen are ignored.
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    threading.Thread(target=watch, name="rssc-geo stdin", daemon=True).start()


def wants_bar(options: RunOptions) -> bool:
    """Whether a bar is drawn: where it is asked for, or on a terminal."""
    automatic = options.progress == "auto" and not options.quiet
    return options.progress == "bar" or (automatic and sys.stderr.isatty())


def show_result(
    values: Mapping[str, Any], options: PrintOptions, tell: Callable[[Mapping[str, Any]], None]
) -> None:
    """What a command ends with.

    The last event of JSON Lines, one JSON object, a few lines for people, or nothing.
    """
    if isinstance(options, RunOptions) and options.progress == "json":
        print_json({"event": "result", **values})
    elif options.json:
        print_json(values)
    elif not options.quiet:
        tell(values)


def say(line: str) -> None:
    """A line for people on stdout; control characters of foreign names are written out."""
    click.echo(escaped(line))


def echo_areas(areas_m2: Mapping[str, float]) -> None:
    """Every class, the largest first, a line each, in the unit that fits."""
    from rssc_geo.output import area_in_words

    total = sum(areas_m2.values()) or 1.0
    width = max(map(len, areas_m2), default=0)
    for name, area_m2 in sorted(areas_m2.items(), key=lambda item: -item[1]):
        area, unit = area_in_words(area_m2)
        say(f"  {name:<{width}} {area:>12,.1f} {unit:<3} {area_m2 / total:>6.1%}")
