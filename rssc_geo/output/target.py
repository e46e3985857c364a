"""The place of the result.

Checked before any work, written under temporary names, put in place at the end.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import shapely
from pyproj import CRS

from rssc_geo.errors import OutputError, UsageError
from rssc_geo.output.formats import format_of
from typing import Self

_RASTER_CLASSES = 255  # uint8, of which 255 says nodata
_SEPARATORS = frozenset(";!")  # pyogrio cuts the name of a file there
_ESCAPE = re.compile(
    "%[0-9A-Fa-f]{2}"
)  # QGIS opens a GeoPackage by a URI that GDAL does not escape (NOLOCK): SQLite decodes it
_CELL_FIELDS = 8  # fields that the cells have without probabilities


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What is written and where.

    ``crs`` None: that of the raster (GeoJSON: WGS84). ``min_area_m2`` 0: no region is merged away.
    ``probabilities``: one ``p_<class>`` field a class in the cells. ``aoi_clip``: polygon or
    multipolygon in the raster's CRS to which the polygons are cut. ``class_raster``: path of a COG
    of the cells' classes.
    """

    path: Path
    crs: CRS | None = None
    min_area_m2: float = 0.0
    probabilities: bool = False
    overwrite: bool = False
    aoi_clip: shapely.Geometry | None = None
    class_raster: Path | None = None

    @property
    def part_path(self) -> Path:
        """The resumable state of the run."""
        return self.path.with_name(self.path.name + ".part")

    @property
    def layer_paths(self) -> tuple[Path, ...]:
        """The files of the layers, ``path`` last: it shows that the result is complete."""
        output_format = format_of(self.path)
        return tuple(
            dict.fromkeys(
                output_format.layer_path(self.path, layer) for layer in ("cells", "landuse")
            )
        )

    @property
    def results(self) -> tuple[Path, ...]:
        """All that is put in place, ``path`` last."""
        return (*(() if self.class_raster is None else (self.class_raster,)), *self.layer_paths)


def check_output(options: OutputOptions, *, class_count: int | None = None) -> None:
    """Refuse at once what would fail at the end.

    Raises ``UsageError`` for an unknown suffix or too many probability fields, ``OutputError`` when
    the target exists without ``overwrite``, is a folder, is open elsewhere, or lies where nothing
    can be written.
    """
    output_format = format_of(options.path)
    if class_count is not None and options.probabilities and output_format.max_fields is not None:
        room = output_format.max_fields - _CELL_FIELDS
        if class_count > room:
            raise UsageError(
                f"--probabilities: {class_count} classes, but a {output_format.name} holds at most"
                f" {room}"
            )
    raster = options.class_raster
    if raster is not None and raster.suffix.lower() not in (".tif", ".tiff"):
        raise UsageError(
            f"--class-raster {raster.name}: the class raster is a GeoTIFF, name it .tif"
        )
    if raster is not None and class_count is not None and class_count > _RASTER_CLASSES:
        raise UsageError(
            f"--class-raster holds at most {_RASTER_CLASSES} classes, the model has {class_count}:"
            " leave it out"
        )
    for path in options.results:
        if set(path.name) & _SEPARATORS:
            raise UsageError(
                f"{path.name!r}: ';' and '!' in a name mean something else to the writer, choose"
                " another name"
            )
        if path.suffix.lower() == ".gpkg" and (escape := _ESCAPE.search(path.name)):
            raise UsageError(
                f"{path.name!r}: QGIS cannot open a GeoPackage with {escape[0]!r} in its name,"
                " choose another name"
            )
        _check_free(path, overwrite=options.overwrite)
    refuse_if_open(options.path)
    for folder in dict.fromkeys(path.parent for path in options.results):
        _check_folder(folder)


def refuse_if_open(path: Path) -> None:
    """Raise ``OutputError`` when a GeoPackage has a journal beside it.

    It is open, and replacing it would ruin it.
    """
    for journal in (path.with_name(f"{path.name}{end}") for end in ("-wal", "-journal")):
        if path.suffix.lower() == ".gpkg" and journal.exists():
            raise OutputError(
                f"{path} is open in another program ({journal.name} lies beside it): close it there"
                f" (in QGIS, remove its layers) and try again; delete {journal.name} only if it was"
                " left by a crash"
            )


def _check_free(path: Path, *, overwrite: bool) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: choose another name, or replace it with --overwrite")


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise OutputError(f"{folder} is not an existing folder: create it first")
    probe = folder / f".rssc-geo-{os.getpid()}.probe"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write in {folder} ({error.strerror}): choose a folder that is writable"
        ) from error


class Workshop:
    """A hidden folder beside the target in which the result is made; gone when the block ends."""

    def __init__(self, options: OutputOptions) -> None:
        self._options = options
        self.folder = options.path.with_name(f".{options.path.name}.tmp")

    def __enter__(self) -> Self:
        # A killed run may have left one; the part file's lock says that nobody works in it.
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self.folder.mkdir()
        except OSError as error:
            raise OutputError(
                f"cannot write in {self.folder.parent} ({error.strerror}): make it writable"
            ) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def temporary(self, path: Path) -> Path:
        """Where a result that will be ``path`` is made."""
        return self.folder / path.name

    def publish(self) -> None:
        """Sync everything made and move it to its final names, the main file last."""
        options = self._options
        output_format = format_of(options.path)
        moves = [
            (self.temporary(path), path) for path in options.results if path == options.class_raster
        ]
        for path in options.layer_paths:
            siblings = [path.with_name(path.stem + suffix) for suffix in output_format.files[:-1]]
            moves += [(self.temporary(sibling), sibling) for sibling in siblings]
            moves.append((self.temporary(path), path))
        refuse_if_open(options.path)
        try:
            for made, _ in moves:
                _sync(made)
            for path in options.layer_paths:
                for suffix in output_format.remains:
                    path.with_name(path.stem + suffix).unlink(missing_ok=True)
            for made, path in moves:
                _move(made, path)
            for folder in dict.fromkeys(path.parent for path in options.results):
                _sync_folder(folder)
        except OSError as error:
            raise OutputError(
                f"cannot write {options.path} ({error.strerror}): make it writable, then run the"
                " same command again to go on"
            ) from error


def _move(made: Path, path: Path) -> None:
    """Rename; across file systems (a class raster elsewhere) copy beside the target first."""
    if made.stat().st_dev == path.parent.stat().st_dev:
        made.replace(path)
        return
    beside = path.with_name(f".{path.name}.tmp")
    try:
        shutil.copyfile(made, beside)
        _sync(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames durable where folders can be opened (not on Windows)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_file(path: Path, *, overwrite: bool) -> None:
    """Refuse before the work starts a single file that could not be written at its end.

    ``OutputError``.
    """
    _check_free(path, overwrite=overwrite)
    _check_folder(path.parent)
