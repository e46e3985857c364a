"""Which scenes a batch is made of.

Files, globs, folders, manifests, STAC and tile indexes become a list of jobs.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyogrio

from rssc_geo.batch.manifest import read_csv, read_list
from rssc_geo.batch.options import ROW_FILES, SceneOptions
from rssc_geo.batch.stac import read_stac
from rssc_geo.errors import InputError, RsscGeoError, UsageError, one_line
from rssc_geo.raster import is_remote

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
"""What counts as a scene in a folder."""
_INDEX_SUFFIXES = (".gpkg", ".shp", ".fgb", ".geojson")
_LOCATION = "location"  # the column that gdaltindex writes
_UNSAFE = re.compile(r"[^\w.\-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A scene as an input lists it: files, and what that input says of it.

    ``error``: why it cannot be used.
    """

    source: tuple[str, ...]
    id: str = ""
    output: str = ""
    row: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A scene to map: ``source`` has one raster, or three single-band ones.

    ``output`` is the file to write.
    """

    id: str
    source: tuple[str, ...]
    output: Path
    options: SceneOptions

    @property
    def label(self) -> str:
        """The input as people know it."""
        return ", ".join(self.source)


@dataclass(frozen=True, slots=True)
class Problem:
    """An input that gives no job, and why; it never stops the others."""

    label: str
    message: str


@dataclass(frozen=True, slots=True)
class Jobs:
    """What a command asks for."""

    jobs: tuple[Job, ...]
    problems: tuple[Problem, ...]


def collect_jobs(
    inputs: Sequence[str], template: str, options: SceneOptions, *, asset: str | None = None
) -> Jobs:
    """Turn inputs into jobs, in their order.

    Parameters
    ----------
    inputs : rasters (paths, URLs), globs, folders, ``.txt`` or ``.csv`` manifests, ``.json`` STAC
        (path or URL) and vector files with a column ``location``
    template : output file, with ``{stem}`` or ``{id}`` where there are several scenes
    options : of every scene; a manifest's row may change them
    asset : key or role of the STAC asset to use, or three keys "red,green,blue"; default: visual,
        data, image
    """
    jobs: list[Job] = []
    problems: list[Problem] = []
    taken: dict[Path, str] = {}
    for name in inputs:
        try:
            for entry in _entries(name, asset):
                label = entry.id if entry.error else ", ".join(entry.source)
                try:
                    job = _job(entry, template, options)
                except RsscGeoError as error:
                    problems.append(Problem(label, str(error)))
                    continue
                key = job.output.absolute()
                if key in taken:
                    hint = "put {id} into --output and give each an id of its own in a CSV manifest"
                    problems.append(
                        Problem(
                            label,
                            f"its output {job.output} is that of {taken[key]} already: {hint}",
                        )
                    )
                    continue
                taken[key] = job.label
                jobs.append(job)
        except RsscGeoError as error:
            problems.append(Problem(name, str(error)))
    return Jobs(tuple(jobs), tuple(problems))


def fill(template: str, *, stem: str, id: str) -> str:
    """The template with ``{stem}`` and ``{id}`` filled in.

    Letters, digits and ``._-`` only, so that no path is left by them.
    """
    values = {"stem": stem, "id": id}
    plain = {name: _UNSAFE.sub("_", value).lstrip(".") or "scene" for name, value in values.items()}
    try:
        return template.format(**plain)
    except (KeyError, IndexError, ValueError, AttributeError):
        raise UsageError(
            f"{template!r} is no template: use {{stem}} and {{id}}, and {{{{ for a brace"
        ) from None


def _job(entry: Entry, template: str, options: SceneOptions) -> Job:
    if entry.error:
        raise InputError(entry.error)
    stem = _stem(entry.source[0])
    name = entry.id or stem
    own = options.with_row(entry.row)
    rasters, previews = (
        text and fill(text, stem=stem, id=name) for text in (own.class_raster, own.preview)
    )
    output = Path(entry.output or fill(template, stem=stem, id=name))
    own = replace(own, class_raster=rasters, preview=previews)
    return Job(id=name, source=entry.source, output=output, options=own)


def _stem(source: str) -> str:
    return Path(source.split("?", maxsplit=1)[0]).stem


def _entries(name: str, asset: str | None) -> Iterator[Entry]:
    suffix = Path(name.split("?", maxsplit=1)[0]).suffix.lower()
    if suffix == ".json":
        entries = [
            Entry(source=item.source, id=item.id, error=item.error)
            for item in read_stac(name, asset=asset)
        ]
        yield from _some(entries, name, "no STAC item")
    elif is_remote(name):
        yield Entry(source=(name,))
    elif Path(name).is_dir():
        files = sorted(
            str(path) for path in Path(name).iterdir() if path.suffix.lower() in RASTER_SUFFIXES
        )
        yield from _some(_files(files), name, f"no raster ({' '.join(RASTER_SUFFIXES)})")
    elif glob.has_magic(name) and not Path(name).exists():
        yield from _some(_files(sorted(glob.glob(name, recursive=True))), name, "no file")
    elif suffix in (".txt", ".csv"):
        rows = read_list(name) if suffix == ".txt" else read_csv(name)
        beside = Path(name).parent
        for row in rows:
            source = tuple(_beside(part, beside) for part in row.source)
            values = {
                key: _beside(text, beside) if key in ROW_FILES and text else text
                for key, text in row.options.items()
            }
            yield Entry(
                source=source,
                id=row.id,
                output=row.output and _beside(row.output, beside),
                row=values,
            )
    elif suffix in _INDEX_SUFFIXES and (locations := _locations(name)):
        yield from _files(_beside(location, Path(name).parent) for location in locations)
    else:
        yield Entry(source=(name,))


def _files(paths: Iterable[str]) -> list[Entry]:
    return [Entry(source=(path,)) for path in paths]


def _some(entries: Sequence[Entry], name: str, what: str) -> Sequence[Entry]:
    if not entries:
        raise InputError(f"{name}: {what} there")
    return entries


def _beside(path: str, folder: Path) -> str:
    """A relative path in a list is meant from the folder of that list."""
    return path if is_remote(path) or os.path.isabs(path) else str(folder / path)


def _locations(name: str) -> list[str]:
    """Rasters of a tile index; none for a file that is no index (a GeoPackage may hold a raster).

    ``InputError`` if damaged.
    """
    if not Path(name).is_file():
        raise InputError(f"{name} does not exist")
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
    if len(layers) and not Path(name).suffix.lower() == ".gpkg":
        raise InputError(
            f"{name} is no tile index: it has no column {_LOCATION!r} (gdaltindex makes one)"
        )
    return []
