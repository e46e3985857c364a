"""Options that several commands share, and the values they turn into."""

from __future__ import annotations

import copy
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class Numbers(click.ParamType[tuple[float, ...]]):
    """Comma-separated numbers, ``count`` of them if given."""

    def __init__(self, kind: type[int | float], *, count: int | None = None, metavar: str) -> None:
        self._kind = kind
        self._count = count
        self.name = metavar

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Text such as ``4,3,2`` → numbers."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(self._kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not {self.name}", param, ctx)
        if self._count is not None and len(numbers) != self._count:
            self.fail(
                f"{value!r} has {len(numbers)} numbers, wanted {self._count} ({self.name})",
                param,
                ctx,
            )
        return numbers


_READING = [
    click.option(
        "--bands",
        type=Numbers(int, metavar="R,G,B"),
        help="Bands to use as red, green, blue, counted from 1.",
    ),
    click.option(
        "--nodata", type=float, help="A value that counts as nodata, with or without a tag."
    ),
    click.option(
        "--assume-crs", metavar="CRS", help="The raster's CRS, where it says none or a wrong one."
    ),
    click.option(
        "--tile-size",
        metavar="SIZE",
        help="Side of a tile: 256px, 400m. Default: by the model card.",
    ),
]
_SCENE = [
    click.argument("raster", required=False),
    click.option(
        "--bands-from",
        nargs=3,
        metavar="RED GREEN BLUE",
        help="Three single-band rasters as one scene.",
    ),
    *_READING,
    click.option(
        "--cell-size",
        metavar="SIZE",
        help="Side of a cell, at most the tile's. Default: the tile's.",
    ),
    click.option(
        "--aoi",
        metavar="FILE",
        help="Vector file of polygons: only cells with their center inside.",
    ),
    click.option(
        "--bounds",
        type=Numbers(float, count=4, metavar="MINX,MINY,MAXX,MAXY"),
        help="The same, a box in its CRS.",
    ),
]
_STRETCH = [
    click.option(
        "--stretch",
        metavar="LOW,HIGH",
        help="Scaling to 8 bit: '2%,98%' (default beyond 8 bit), '0,3000', 'minmax'.",
    ),
    click.option(
        "--min-valid",
        type=float,
        default=0.5,
        show_default=True,
        help="Share of valid pixels a cell needs.",
    ),
]
_MODEL = [
    click.option(
        "--model",
        default="compact",
        show_default=True,
        help="Embedded name, bundle folder or hub id.",
    ),
    click.option("--revision", help="Revision of a hub id."),
]
_LOGS = [
    click.option("-v", "--verbose", count=True, help="More messages; -vv: all of them."),
    click.option("-q", "--quiet", is_flag=True, help="Errors only."),
]


def apply_options(*options: Callable[[F], F]) -> Callable[[F], F]:
    """One decorator for several, in the order of the help."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


reading_options = apply_options(*_READING)
scene_options = apply_options(*_SCENE)
stretch_options = apply_options(*_STRETCH)
model_options = apply_options(*_MODEL)
log_options = apply_options(*_LOGS)
progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "json", "none"]),
    default="auto",
    show_default=True,
    help="json: JSON Lines on stdout.",
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout."
)
run_options = apply_options(
    progress_option,
    click.option(
        "--exit-on-stdin-eof",
        "watch_stdin",
        is_flag=True,
        help="Stop when standard input closes (for parents).",
    ),
    json_option,
    log_options,
)


def source_of(raster: str | None, bands_from: tuple[str, str, str] | None) -> str | tuple[str, ...]:
    """The one raster or the three files, exactly one of which must be given."""
    if bool(raster) == bool(bands_from):
        raise click.UsageError(
            "give a raster, or three single-band ones with --bands-from RED GREEN BLUE"
        )
    return bands_from or str(raster)


def set_up_logging(*, verbose: int, quiet: bool) -> None:
    """Messages of the program on stderr: warnings by default.

    -v adds information, -vv everything.
    """
    level = (
        logging.ERROR if quiet else (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _OneLine(
            "%(levelname)s: %(message)s"
            if verbose < 2
            else "%(asctime)s %(name)s %(levelname)s: %(message)s"
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level if verbose >= 2 else max(level, logging.WARNING))
    logging.getLogger("rssc_geo").setLevel(level)
    if verbose < 2:
        # GDAL's and the hub's own messages repeat what our errors say in one line.
        for name in ("rasterio", "pyogrio", "huggingface_hub", "transformers", "timm"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


class _OneLine(logging.Formatter):
    """``warning: …``, in lower case as the errors are."""

    def format(self, record: logging.LogRecord) -> str:
        shown = copy.copy(record)  # other handlers see the record too
        shown.levelname = record.levelname.lower()
        return super().format(shown)


def print_json(value: object) -> None:
    """One JSON object on one line of stdout."""
    click.echo(json.dumps(value, ensure_ascii=False, allow_nan=False))


def read_words(path: str) -> dict[str, list[str]]:
    """The words of classes: a JSON file ``{"class": ["word or phrase", …], …}``."""
    from rssc_geo.errors import InputError

    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    alike = isinstance(values, dict) and all(
        isinstance(words, list) and all(isinstance(word, str) for word in words)
        for words in values.values()
    )
    if not alike:
        raise InputError(f'{path}: expected {{"class": ["word or phrase", …], …}}')
    return {str(name): words for name, words in values.items()}
