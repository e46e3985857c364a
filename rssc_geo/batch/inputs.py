"""Which scenes a batch is made of, and where their maps go.

Files, globs, folders, manifests, STAC and tile indexes become a list of jobs.
"""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import functools
import glob
import io
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Formatter
from typing import Any, TypeVar

import pyogrio

from rssc_geo.batch.job import WRITTEN, Job
from rssc_geo.batch.stac import read_items
from rssc_geo.errors import (
    InputError,
    RsscGeoError,
    UsageError,
    check_utf8,
    escaped,
    one_line,
    shortened,
)
from rssc_geo.files import check_name, real_place
from rssc_geo.geometry import check_size, parse_crs
from rssc_geo.models import ClassWords
from rssc_geo.options import (
    BatchOptions,
    BatchSceneOptions,
    Option,
    check_suffixes,
    narrowed,
    options_of,
)
from rssc_geo.output import parse_date
from rssc_geo.pipelines import read_classes
from rssc_geo.raster import (
    check_area_file,
    check_bounds,
    check_no_view,
    check_stretch,
    is_remote,
)
from rssc_geo.texts import read_lines, read_text

T = TypeVar("T")

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
"""Suffixes of files that are scenes of a folder."""
MERGED_CRS = "EPSG:4326"
_MERGED_SUFFIXES = (".gpkg", ".parquet")
_INDEX_SUFFIXES = (".gpkg", ".shp", ".fgb", ".geojson")
_LOCATION = "location"  # the column that gdaltindex writes
_COLUMNS = ("input", "id", "output")  # of a manifest, beside the options
_UNSAFE = re.compile(r"[^\w.\-]+")
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)
"""Names that Windows keeps for devices."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An input that gives no map, and why; it never stops the others.

    ``known``: it gave none in an earlier run either.
    """

    label: str
    message: str
    known: bool = False

    def __str__(self) -> str:
        """One line; most messages start with the input."""
        message = " ".join(self.message.split())
        return message if message.startswith(self.label) else f"{self.label}: {message}"


@dataclass(frozen=True, slots=True)
class Jobs:
    """The inputs, output and options of a command."""

    jobs: tuple[Job, ...]
    problems: tuple[Problem, ...]


def output_template(output: str, options: BatchOptions) -> str:
    """The template of the scenes' own outputs; those of a merged one lie in a folder beside it.

    ``output``: a template with ``{stem}`` or ``{id}``, a folder (for ``{id}.gpkg`` in it), or with
    ``merge`` the one file of all. Raises ``UsageError`` for one that does not fit.
    """
    if options.merge is None:
        named = "{" in output or Path(output).suffix
        return output if named else str(Path(output) / "{id}.gpkg")
    if "{" in output:
        raise UsageError(f"--merge makes one file: --output {output!r} must have no placeholder")
    if Path(output).suffix.lower() not in _MERGED_SUFFIXES:
        raise UsageError(f"--merge writes .gpkg or .parquet, not {Path(output).name}")
    return str(Path(output).with_suffix(".parts") / "{id}.gpkg")


def output_folder(output: str, options: BatchOptions) -> Path:
    """The folder of the journal: the last folder of the output that is the same for all scenes."""
    place = output if options.merge is not None else output_template(output, options)
    if "{" in place:
        return Path(re.split(r"[^/\\]*\{", place, maxsplit=1)[0])
    return Path(place).parent


def collect_jobs(inputs: Sequence[str], output: str, options: BatchOptions) -> Jobs:
    """Turn inputs into jobs, in their order.

    Parameters
    ----------
    inputs : rasters (paths, URLs), globs, folders, ``.txt`` or ``.csv`` manifests, ``.json`` STAC
        (path or URL) and vector files with a column ``location``
    output : see ``output_template``
    options : of every scene; a manifest's row may change some of them
    """
    template = output_template(output, options)
    every = _every_scene(options)
    words_of = functools.cache(_class_words)  # a file of classes is read once, not for each scene
    jobs: list[Job] = []
    problems: list[Problem] = []
    taken: dict[str, Job] = {}
    place_of = functools.cache(os.path.realpath)  # asked for folders, which many outputs share
    for name in inputs:
        try:
            for entry in _entries(name, options.asset):
                try:
                    job = _make_job(entry, template, every, words_of)
                except RsscGeoError as error:
                    label = entry.id if entry.error else ", ".join(entry.source)
                    problems.append(Problem(escaped(label), str(error)))
                    continue
                places = {real_place(path, place_of): path for path in job.results}
                twice = next((place for place in places if place in taken), None)
                if twice is not None:
                    if _is_same(job, taken[twice], place_of):
                        continue
                    other = taken[twice].label
                    hint = "put {id} into its name and give each an id of its own in a CSV manifest"
                    words = f"its output {places[twice]} is that of {other} already: {hint}"
                    problems.append(Problem(job.label, words))
                    continue
                taken |= dict.fromkeys(places, job)
                jobs.append(job)
        except RsscGeoError as error:
            problems.append(Problem(name, str(error)))
    return Jobs(tuple(jobs), tuple(problems))


def _is_same(job: Job, other: Job, place_of: Callable[[str], str]) -> bool:
    """Whether an input was listed twice, perhaps by two names: one map is all that is asked for."""
    sources = [tuple(map(place_of, each.source)) for each in (job, other)]
    return sources[0] == sources[1] and replace(job, source=other.source, id=other.id) == other


def check_not_listed(inputs: Sequence[str], results: Sequence[Path]) -> None:
    """Refuse with ``UsageError`` results that the next run of the command would take for scenes.

    Those in a folder, or of names, that ``inputs`` list.
    """
    place_of = functools.cache(os.path.realpath)
    for name in inputs:
        is_folder = os.path.isdir(name)
        if is_remote(name) or not (is_folder or _is_pattern(name)):
            continue
        folder, pattern = (Path(name), ("*",)) if is_folder else _split_pattern(name)
        root = Path(place_of(str(folder)))
        for path in results:
            if is_folder and path.suffix.lower() not in RASTER_SUFFIXES:
                continue
            place = Path(real_place(path, place_of))
            if place.is_relative_to(root) and _fits(place.relative_to(root).parts, pattern):
                raise UsageError(
                    f"{path} would be an input of the next run, by {name}: choose another folder or"
                    " name for it"
                )


def _is_pattern(name: str) -> bool:
    return glob.has_magic(name) and not Path(name).exists()


def _split_pattern(name: str) -> tuple[Path, tuple[str, ...]]:
    """The folder in which a glob looks, and the parts of what it looks for there."""
    parts = Path(name).parts
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:first]), parts[first:]


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether ``glob`` with ``recursive`` would find a file, by the parts of its path."""
    if not pattern:
        return not parts
    first, *rest = pattern
    if first == "**" and _fits(parts, rest):
        return True
    if not parts or (parts[0].startswith(".") and not first.startswith(".")):
        return False
    if first == "**":
        return _fits(parts[1:], pattern) or not rest
    return fnmatch.fnmatch(parts[0], first) and _fits(parts[1:], rest)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A scene as an input lists it.

    ``source``: one raster, or three single-band ones; ``row``: texts of options by their keys;
    ``error``: why it cannot be used.
    """

    source: tuple[str, ...]
    id: str = ""
    output: str = ""
    row: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


def _entries(name: str, asset: str | None) -> Iterator[_Entry]:
    suffix = Path(name.split("?", maxsplit=1)[0]).suffix.lower()
    if suffix == ".json":
        items = (
            _Entry(source=item.files, id=item.id, error=item.error, row={"date": item.date})
            for item in read_items(name, asset)
        )
        yield from _some(items, name, "no STAC item")
    elif is_remote(name):
        yield _Entry(source=(name,))
    elif Path(name).is_dir():
        files = sorted(
            str(path) for path in Path(name).iterdir() if path.suffix.lower() in RASTER_SUFFIXES
        )
        yield from _some(_files(files), name, f"no raster ({' '.join(RASTER_SUFFIXES)})")
    elif _is_pattern(name):
        yield from _some(_files(sorted(glob.glob(name, recursive=True))), name, "no file")
    elif suffix == ".txt":
        yield from _read_list(name)
    elif suffix == ".csv":
        yield from _read_csv(name)
    elif suffix in _INDEX_SUFFIXES and (locations := _read_index(name)):
        yield from _files(_beside(location, Path(name).parent) for location in locations)
    else:
        yield _Entry(source=(name,))


def _files(paths: Iterable[str]) -> list[_Entry]:
    return [_Entry(source=(path,)) for path in paths]


def _some(entries: Iterable[_Entry], name: str, what: str) -> Iterator[_Entry]:
    empty = True
    for entry in entries:
        empty = False
        yield entry
    if empty:
        raise InputError(f"{name}: no match ({what} there)")


def _beside(path: str, folder: Path) -> str:
    """A relative path in a list starts from the folder of that list."""
    return path if is_remote(path) or os.path.isabs(path) else str(folder / path)


# From an entry to its job.


def _make_job(
    entry: _Entry,
    template: str,
    every: BatchSceneOptions,
    words_of: Callable[[str, bool], ClassWords],
) -> Job:
    if entry.error:
        raise InputError(entry.error)
    for file in entry.source:  # a folder may list what no journal and no map can name
        check_utf8(file)
    stem = Path(entry.source[0].split("?", maxsplit=1)[0]).stem
    name = entry.id or stem
    own = _changed(every, _row_values(entry.row))
    if own is not every:
        check_values(own)
    templates = {key: template_of for key in WRITTEN if (template_of := getattr(own, key))}
    own = _changed(own, {key: _fill(templates[key], stem=stem, id=name) for key in templates})
    output = Path(entry.output or _fill(template, stem=stem, id=name))
    words = None if own.classes is None else words_of(own.classes, own.other)
    job = Job(id=name, source=entry.source, output=output, options=own, words=words)
    for path in job.results:
        check_name(path)
    return job


def check_values(options: BatchSceneOptions) -> None:
    """Refuse with ``UsageError`` or ``InputError`` values that suit no raster, before any is read.

    Else each scene would be refused for them.
    """
    check_suffixes(options)
    for name, check in _CHECKS.items():
        value = getattr(options, name)
        if value is not None:
            check(value)


@functools.lru_cache(maxsize=1024)  # of a manifest, each row may name one
def _check_crs(text: str, *, option: str) -> None:
    parse_crs(text, option=option)


_CHECKS: Mapping[str, Callable[[Any], object]] = {
    "stretch": check_stretch,
    "tile_size": functools.partial(check_size, option="--tile-size"),
    "cell_size": functools.partial(check_size, option="--cell-size"),
    "bounds": check_bounds,
    "aoi": check_area_file,
    "crs": functools.partial(_check_crs, option="--crs"),
    "assume_crs": functools.partial(_check_crs, option="--assume-crs"),
    "date": functools.partial(parse_date, option="--date"),
}


def _class_words(classes: str, other: bool) -> ClassWords:  # noqa: FBT001 -- a key of a cache
    return ClassWords.of(read_classes(classes), other=other)


@functools.cache
def row_options() -> dict[str, Option]:
    """The options that a row of a manifest may set, by the names of their columns."""
    return {
        found.key: found
        for found in options_of(BatchSceneOptions)
        if found.declaration.row and not found.declaration.commandline_only
    }


def _every_scene(options: BatchOptions) -> BatchSceneOptions:
    """What a batch's options say of every scene; all scenes of a merged map have one CRS."""
    every = narrowed(options, BatchSceneOptions)
    return every if options.merge is None else replace(every, crs=options.crs or MERGED_CRS)


def _row_values(row: Mapping[str, str]) -> dict[str, Any]:
    """Options that a row gives, by name; empty texts are none.

    Raises ``UsageError`` that names an invalid text.
    """
    known = row_options()
    return {
        known[key].name: known[key].parse(text.strip()) for key, text in row.items() if text.strip()
    }


def _changed(options: BatchSceneOptions, values: Mapping[str, Any]) -> BatchSceneOptions:
    return replace(options, **values) if values else options


def _fill(template: str, *, stem: str, id: str) -> str:  # noqa: A002 -- the template's own word
    """The template with ``{stem}`` and ``{id}`` filled in.

    Letters, digits and ``._-`` only, so that no path is left by them.
    """
    values = {"stem": stem, "id": id}
    plain = {name: _UNSAFE.sub("_", value).lstrip(".") or "scene" for name, value in values.items()}
    plain = {name: f"_{text}" if _DEVICE.match(text) else text for name, text in plain.items()}
    with contextlib.suppress(ValueError):
        parts = [found[1:] for found in Formatter().parse(template) if found[1] is not None]
        # No form of a value either: its width may exceed the memory.
        if all(name in plain and not form and kind is None for name, form, kind in parts):
            return template.format(**plain)
    raise UsageError(f"{template!r} is no template: use {{stem}} and {{id}}, and {{{{ for a brace")


# Manifests: a text file of one raster a line, or a CSV file with columns for what differs.


def _read_list(path: str) -> list[_Entry]:
    """One raster a line; empty lines and those that start with ``#`` do not count.

    Raises ``InputError`` where there is none.
    """
    lines = [line.strip() for line in _read(path, read_lines)]
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise InputError(f"{path}: no line names a raster")
    return [_Entry(source=_source(line, Path(path).parent)) for line in found]


def _read_csv(path: str) -> list[_Entry]:
    """A table with a column ``input``, and optionally ``id``, ``output`` and options.

    Three single-band rasters (red, green, blue) are separated by ``;``. Raises ``InputError`` that
    names the columns that are missing, unknown or there twice, or the line that is not right.
    """
    table = csv.reader(io.StringIO(_read(path, read_text), newline=""), strict=True)
    try:
        lines = [(table.line_num, values) for values in table]
    except csv.Error as error:
        raise InputError(
            f"{path} cannot be read as a manifest: line {table.line_num}: {one_line(error)}"
        ) from error
    header = [name.strip().removeprefix("--") for name in (lines[0][1] if lines else [])]
    options = row_options()
    if "input" not in header:
        there = shortened(", ".join(header)) or "nothing"
        raise InputError(f"{path}: no column 'input' (there is: {there})")
    if twice := sorted(name for name, count in Counter(header).items() if count > 1):
        raise InputError(f"{path}: the column {shortened(repr(twice[0]))} is there twice")
    if unknown := [name for name in header if name not in (*_COLUMNS, *options)]:
        known = ", ".join((*_COLUMNS, *options))
        raise InputError(
            f"{path}: unknown column(s) {shortened(', '.join(map(repr, unknown)))}; known: {known}"
        )
    entries = []
    for number, values in lines[1:]:
        if not any(value.strip() for value in values):
            continue
        if len(values) != len(header):
            raise InputError(
                f"{path}, line {number}: {len(values)} values for {len(header)} columns"
            )
        row = {name: value.strip() for name, value in zip(header, values, strict=True)}
        if not row["input"]:
            raise InputError(f"{path}, line {number}: no input")
        entries.append(_row_entry(row, options, Path(path).parent))
    if not entries:
        raise InputError(f"{path}: no line names a raster")
    return entries


def _row_entry(row: Mapping[str, str], options: Mapping[str, Option], folder: Path) -> _Entry:
    texts = {key: row[key] for key in row if key in options}
    for key, text in texts.items():
        beside = _beside(text, folder)
        # The classes may be names, or a file of them.
        if text and (
            options[key].declaration.path or (key == "classes" and os.path.isfile(beside))
        ):
            texts[key] = beside
    output = row.get("output", "")
    return _Entry(
        source=_source(row["input"], folder),
        id=row.get("id", ""),
        output=output and _beside(output, folder),
        row=texts,
    )


def _source(text: str, folder: Path) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(";"))
    files = parts if len(parts) == 3 and all(parts) else (text,)
    return tuple(_beside(file, folder) for file in files)


def _read(path: str, read: Callable[[str], T]) -> T:
    """What ``read`` reads of a manifest; ``InputError`` where it cannot be read."""
    try:
        return read(path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InputError(f"{path} cannot be read as a manifest: {reason}") from error


# Tile indexes.


def _read_index(name: str) -> list[str]:
    """Rasters of a tile index; none for a file that is no index (a GeoPackage may hold a raster).

    Raises ``InputError`` for a file that is missing or damaged.
    """
    if not Path(name).is_file():
        raise InputError(f"{name} does not exist")
    check_no_view(name)
    try:
        layers = pyogrio.list_layers(name)
        for layer in layers[:, 0].tolist() if len(layers) else []:
            fields = pyogrio.read_info(name, layer=layer)["fields"].tolist()
            if _LOCATION in fields:
                column = pyogrio.read_dataframe(
                    name, layer=layer, columns=[_LOCATION], read_geometry=False
                )[_LOCATION]
                return [str(value) for value in column.dropna()]
    except (RuntimeError, OSError) as error:  # RuntimeError: base of pyogrio's errors
        raise InputError(f"{name} cannot be read as a tile index: {one_line(error)}") from error
    if len(layers) and Path(name).suffix.lower() != ".gpkg":
        raise InputError(
            f"{name} is no tile index: it has no column {_LOCATION!r} (gdaltindex makes one)"
        )
    return []
