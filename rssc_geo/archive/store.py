"""The vector database of an archive, LanceDB (https://lancedb.com), and all queries to it.

A row is a cell: the columns of the table of embeddings and the box of its outline. A second table
has a row for each scene, written when all of its cells are there: a scene without one is added
again, so that after a killed process no cell is there twice and none is missing. LanceDB's files
have no checksums: each cell has one of its own, which is compared when the cell is found.
"""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rssc_geo.errors import InputError, OutputError, UsageError, one_line
from rssc_geo.files import atomic_write
from rssc_geo.output import EMBEDDING, GEOMETRY, date_text, embedding_schema
from rssc_geo.texts import parse_json

NAME = "archive.json"
SCENES = "scenes"
"""The folder of the maps in an archive."""
_DATABASE = "cells.lancedb"
_FORMAT = 3
_CELLS, _SCENES = "cells", "scenes"
_BOX = ("west", "south", "east", "north")
_CHECKSUM = "checksum"
_CHUNK = 8192
APPROXIMATE_FROM = 100_000
"""Number of cells from which an index is used; with fewer all are compared."""
_PARTITION_ROWS = 8192
"""LanceDB splits partitions with some times as many, which takes long where all are too large."""
_PROBES = 2.5
"""Partitions that a search looks at, by the square root of their number: of vectors that form no
clusters it finds 0.99 of the best ten among a million, 0.98 among ten million."""
_LOOKS, _PAUSE_S = 5, 0.2
_WIDEST = 1 << 16
"""Numbers of an embedding at most."""
_BANDS = 3
"""Files of a scene whose bands lie in a file each."""
_SCENES_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class ArchiveCard:
    """The description of an archive.

    Attributes
    ----------
    model, version, identity, width : of the bundle whose embeddings its cells have
    tile_size, cell_size : as asked for when it was last indexed; None: by the model's card
    indexed_rows : cells that there were when the index was made; 0: there is none
    """

    model: str
    version: str
    identity: str
    width: int
    tile_size: str | None = None
    cell_size: str | None = None
    indexed_rows: int = 0

    def __post_init__(self) -> None:
        texts = (
            self.model,
            self.version,
            self.identity,
            self.tile_size or "",
            self.cell_size or "",
        )
        if not all(isinstance(text, str) for text in texts):
            raise TypeError("model, version, identity and sizes are texts")
        if type(self.width) is not int or not 1 <= self.width <= _WIDEST:
            raise TypeError(f"width is a whole number from 1 to {_WIDEST}")
        if type(self.indexed_rows) is not int or self.indexed_rows < 0:
            raise TypeError("indexed_rows is a whole number from 0")


@dataclass(frozen=True, slots=True)
class SceneEntry:
    """A scene to be added.

    ``scene``: its name in the archive; ``source``: its raster, or three with ``;`` between them;
    ``table``: the cells with their embeddings (GeoParquet); ``mark``: the hash of its content.
    """

    scene: str
    source: str
    mark: str
    table: Path


@dataclass(frozen=True, slots=True)
class CellFilter:
    """Which cells may be found; empty and None: all.

    ``only``, ``exclude``: names of classes; ``since`` and ``until``: from when on and before when
    the scene was taken; ``bounds``: west, south, east, north in degrees.
    """

    only: Sequence[str] = ()
    exclude: Sequence[str] = ()
    since: datetime | None = None
    until: datetime | None = None
    bounds: tuple[float, float, float, float] | None = None

    def sql(self) -> str:
        """As a condition of the database; "" where all may be found."""
        conditions = []
        if self.only:
            conditions.append(f"`class` IN ({_texts(self.only)})")
        if self.exclude:
            conditions.append(f"`class` NOT IN ({_texts(self.exclude)})")
        if self.since is not None:
            conditions.append(f"`date` >= timestamp '{date_text(self.since)}'")
        if self.until is not None:
            conditions.append(f"`date` < timestamp '{date_text(self.until)}'")
        if self.bounds is not None:
            west, south, east, north = map(float, self.bounds)
            conditions.append(
                f"`west` <= {east!r} AND `east` >= {west!r}"
                f" AND `south` <= {north!r} AND `north` >= {south!r}"
            )
        return " AND ".join(conditions)


class ArchiveStore:
    """The cells and scenes of an archive; made by ``open_store`` and ``make_store``.

    Raises ``InputError`` for a database that cannot be opened, ``UsageError`` where LanceDB is not
    installed.
    """

    def __init__(self, folder: Path, card: ArchiveCard) -> None:
        self.folder, self.card = folder, card
        check_installed()
        import lancedb

        try:
            database = lancedb.connect(folder / _DATABASE)
            self._cells, self._scenes = (
                database.create_table(name, schema=schema, exist_ok=True)
                for name, schema in ((_CELLS, _cell_schema(card.width)), (_SCENES, _SCENE_SCHEMA))
            )
        except _ERRORS as error:
            raise _damaged(folder, error) from error

    def __len__(self) -> int:
        with _translated(self.folder, _damaged):
            return int(self._cells.count_rows())

    def count(self, cells: CellFilter) -> int:
        """How many cells may be found."""
        with _translated(self.folder, _damaged):
            return int(self._cells.count_rows(cells.sql() or None))

    def scenes(self) -> dict[str, dict[str, Any]]:
        """The scenes by their names, each with ``source``, ``mark`` and ``cells``.

        Raises ``InputError`` for a row that the program has not written.
        """
        with _translated(self.folder, _damaged):
            rows = self._scenes.to_arrow().to_pylist()
            _check_names(row["scene"] for row in rows)
            if any(None in row.values() for row in rows):
                raise ValueError("a scene lacks its source or number of cells")
        return {row.pop("scene"): row for row in rows}

    def lost(self) -> int:
        """How many cells of its scenes it lacks: also while another process changes them."""
        return max(0, sum(self._added().values()) - len(self))

    def mend(self) -> None:
        """Forget scenes that have more or fewer cells than were added, and cells of no scene."""
        added = self._added()
        if sum(added.values()) == len(self):
            return
        with _translated(self.folder, _damaged):
            names = self._cells.search().select(["scene"]).limit(len(self)).to_arrow()["scene"]
            there = Counter(names.to_pylist())
            _check_names(there)
        self.forget([name for name in added.keys() | there if added.get(name, 0) != there[name]])

    def _added(self) -> dict[str, int]:
        """How many cells of each scene were added."""
        return {name: int(row["cells"]) for name, row in self.scenes().items()}

    def put(self, entries: Sequence[SceneEntry]) -> int:
        """Add scenes, in place of their earlier cells; how many cells they have.

        Raises ``InputError`` for a table that cannot be read, ``OutputError`` where the database
        cannot be written.
        """
        total = 0
        for start in range(0, len(entries), _SCENES_AT_ONCE):
            total += self._put(entries[start : start + _SCENES_AT_ONCE])
        return total

    def _put(self, entries: Sequence[SceneEntry]) -> int:
        schema = self._cells.schema
        for entry in entries:
            _check_table(entry, schema)
        self.forget([entry.scene for entry in entries])
        counts = dict.fromkeys((entry.scene for entry in entries), 0)
        unread: list[InputError] = []

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for entry in entries:
                    for batch in _read_table(entry, schema):
                        counts[entry.scene] += len(batch)
                        yield batch
            except InputError as error:
                unread.append(error)  # the database turns it into an error of its own
                raise

        rows = [
            {"scene": entry.scene, "source": entry.source, "mark": entry.mark, "cells": 0}
            for entry in entries
        ]
        try:
            with _translated(self.folder, _unwritable):
                self._cells.add(pa.RecordBatchReader.from_batches(schema, batches()))
                for row in rows:
                    row["cells"] = counts[str(row["scene"])]
                self._scenes.add(pa.Table.from_pylist(rows, schema=_SCENE_SCHEMA))
        except OutputError as error:
            raise next(iter(unread), error) from error
        return sum(counts.values())

    def forget(self, scenes: Sequence[str]) -> None:
        """Remove scenes, first from the table of scenes. Raises ``OutputError``."""
        if scenes:
            which = f"`scene` IN ({_texts(scenes)})"
            with _translated(self.folder, _unwritable):
                self._scenes.delete(which)
                self._cells.delete(which)

    def tidy(self) -> None:
        """Compact small files, and index new cells where there are enough for an index.

        The index is rebuilt when there are twice as many cells as it was built for: until then new
        cells are added to its nearest partitions.
        """
        from lancedb.index import IvfFlat

        count = len(self)
        with _translated(self.folder, _unwritable):
            self._cells.optimize()
            self._scenes.optimize()
            if count >= max(APPROXIMATE_FROM, 2 * self.card.indexed_rows):
                config = IvfFlat(distance_type="dot", num_partitions=_partitions(count))
                self._cells.create_index(EMBEDDING, config=config, name=EMBEDDING)
                self.describe(replace(self.card, indexed_rows=count))

    def describe(self, card: ArchiveCard) -> None:
        """Write the archive's description."""
        self.card = card
        _write_card(self.folder, card)

    def nearest(
        self,
        vector: NDArray[np.float32],
        count: int,
        cells: CellFilter,
        *,
        exact: bool = False,
    ) -> pa.Table:
        """The cells with the largest inner products with a vector (D,), the best first.

        The columns of the database but for the embedding, and ``score``, the inner product.
        ``exact``: compare all cells, however many they are. Raises ``InputError`` for cells that
        are not as they were written.
        """
        where = cells.sql()
        count = min(count, len(self))
        with _translated(self.folder, _damaged):
            query: Any = self._cells.search(vector, vector_column_name=EMBEDDING)
            query = query.distance_type("dot")
            if where:
                query = query.where(where, prefilter=True)
            query = query.select([*self._cells.schema.names, _DISTANCE]).limit(count)
            indexed = self.card.indexed_rows
            if exact or not indexed or self.count(cells) < APPROXIMATE_FROM:
                found = query.bypass_vector_index().to_arrow()
            else:
                probes = math.ceil(_PROBES * math.sqrt(_partitions(indexed)))
                found = query.minimum_nprobes(probes).maximum_nprobes(probes).to_arrow()
                if len(found) < count:  # those that pass the filter lie elsewhere
                    found = query.maximum_nprobes(0).to_arrow()
            _check_names(found["scene"].to_pylist())
            changed = int((_checksums(found) != found[_CHECKSUM].to_numpy()).sum())
            if changed:
                raise ValueError(f"{changed} cells are not as they were written")
        scores = 1.0 - found[_DISTANCE].to_numpy().astype(np.float64)  # Lance's distance is 1 - dot
        rest = found.drop_columns([_DISTANCE, _CHECKSUM, EMBEDDING])
        return rest.append_column("score", pa.array(scores))


def _partitions(rows: int) -> int:
    """How many partitions an index of so many cells has."""
    return max(round(math.sqrt(rows) / 6), math.ceil(rows / _PARTITION_ROWS))


_DISTANCE = "_distance"
_SEPARATORS = "/\\:\0"
"""Characters that part a path, on Windows too, or end it."""
_NOT_PLAIN = (EMBEDDING, GEOMETRY, _DISTANCE, _CHECKSUM)
_ERRORS = (OSError, RuntimeError, ValueError)
"""The exceptions of LanceDB."""
_SCENE_SCHEMA = pa.schema(
    [
        pa.field("scene", pa.string()),
        pa.field("source", pa.string()),
        pa.field("mark", pa.string()),
        pa.field("cells", pa.int64()),
    ]
)


def open_store(folder: str | Path) -> ArchiveStore:
    """The store of an existing archive.

    Raises ``InputError`` for a folder that is none or is damaged, ``UsageError`` where LanceDB is
    not installed.
    """
    folder = Path(folder)
    for look in range(_LOOKS):
        if look:
            time.sleep(_PAUSE_S)  # another process may be indexing
        card = read_card(folder)
        if not (folder / _DATABASE).is_dir():  # else it would be made here, empty
            raise InputError(f"{folder} has lost its database: index its rasters again")
        store = ArchiveStore(folder, card)
        if not (lost := store.lost()):
            return store
    raise _damaged(folder, ValueError(f"it has lost {lost} cells of its scenes"))


def make_store(folder: Path, card: ArchiveCard) -> ArchiveStore:
    """A new, empty store in a folder; raises ``OutputError`` where it cannot be written."""
    _write_card(folder, card)
    return ArchiveStore(folder, card)


def read_card(folder: Path) -> ArchiveCard:
    """The description of an archive; ``InputError`` where there is none, or of another version."""
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder} holds no {NAME}: give a folder that rssc-geo index made")
    try:
        values = parse_json(path.read_bytes())
        if values.pop("format") != _FORMAT:
            raise InputError(f"{path} is of another version of rssc-geo: index into a new folder")
        return ArchiveCard(**values)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({one_line(error)})") from error


def scene_map(archive: Path, scene: str) -> Path:
    """The map that the cells of a scene were taken from."""
    return archive / SCENES / f"{scene}.gpkg"


def files_of(source: str) -> list[str]:
    """The rasters of a scene's source: one, or three with ``;`` between them."""
    files = source.split(";")
    return files if len(files) == _BANDS else [source]


def check_installed() -> None:
    """Raise ``UsageError`` where LanceDB is not installed."""
    # What it logs is raised, too; its lines on stderr would be none of ours.
    os.environ.setdefault("LANCEDB_LOG", "off")
    try:
        import lancedb  # noqa: F401
    except ImportError as error:
        raise UsageError("an archive needs LanceDB; pip install 'rssc-geo[archive]'") from error


def _write_card(folder: Path, card: ArchiveCard) -> None:
    text = json.dumps({"format": _FORMAT, **asdict(card)}, indent=2)
    with atomic_write(folder / NAME) as made:
        made.write_text(text + "\n", encoding="utf-8")


def _cell_schema(width: int) -> pa.Schema:
    return pa.schema(
        [
            *(field.remove_metadata() for field in embedding_schema(width)),
            *(pa.field(side, pa.float64()) for side in _BOX),
            pa.field(_CHECKSUM, pa.uint32()),
        ]
    )


def _read_table(entry: SceneEntry, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The cells of a scene as rows of the database; ``InputError`` where they cannot be read."""
    try:
        with pq.ParquetFile(entry.table, page_checksum_verification=True) as file:
            for batch in file.iter_batches(_CHUNK):
                yield _with_box(batch, entry.scene, schema)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(entry, error) from error


def _check_table(entry: SceneEntry, schema: pa.Schema) -> None:
    """Refuse with ``InputError`` a table that is none, or of others.

    Before the database takes it, which turns errors of its input into its own.
    """
    try:
        own = pq.read_schema(entry.table)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(entry, error) from error
    made_here = {*_BOX, "scene", _CHECKSUM}
    wrong = [
        field.name
        for field in schema
        if field.name not in made_here
        and (field.name not in own.names or own.field(field.name).type != field.type)
    ]
    if wrong:
        raise _unreadable(entry, f"it has no column {wrong[0]!r} of ours")


def _unreadable(entry: SceneEntry, reason: Exception | str) -> InputError:
    return InputError(
        f"{entry.table} cannot be read ({one_line(reason)}): delete it, then index again"
    )


def _damaged(folder: Path, error: BaseException) -> InputError:
    return InputError(
        f"{folder / _DATABASE} cannot be opened ({one_line(error)}): delete it where it is"
        " damaged, then index again; the maps are kept"
    )


def _unwritable(folder: Path, error: BaseException) -> OutputError:
    return OutputError(
        f"cannot write {folder / _DATABASE} ({one_line(error)}): make room or make the folder"
        " writable, or delete it where it is damaged, then run the same command again"
    )


def _with_box(batch: pa.RecordBatch, scene: str, schema: pa.Schema) -> pa.RecordBatch:
    outlines = shapely.from_wkb(batch.column(GEOMETRY).to_numpy(zero_copy_only=False))
    sides = shapely.bounds(outlines)
    columns: dict[str, pa.Array] = {
        **dict(zip(batch.schema.names, batch.columns, strict=True)),
        "scene": pa.array([scene] * len(batch), pa.string()),
        **{side: pa.array(sides[:, number]) for number, side in enumerate(_BOX)},
    }
    written = [name for name in schema.names if name != _CHECKSUM]
    table = pa.table([columns[name] for name in written], names=written)
    columns[_CHECKSUM] = pa.array(_checksums(table))
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _checksums(cells: pa.Table) -> NDArray[np.uint32]:
    """CRC-32 of each cell (N): of its embedding, outline and all else that was written of it."""
    width = cells.schema.field(EMBEDDING).type.list_size
    halves = cells[EMBEDDING].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = halves.astype(np.float16).reshape(len(cells), width)
    plain = [cells[name] for name in cells.schema.names if name not in _NOT_PLAIN]
    dates = [pa.types.is_timestamp(column.type) for column in plain]
    columns = [
        (column.cast(pa.int64()) if date else column).to_pylist()
        for column, date in zip(plain, dates, strict=True)
    ]
    rows = zip(vectors, cells[GEOMETRY].to_pylist(), *columns, strict=True)
    made = [
        zlib.crc32(repr(rest).encode(), zlib.crc32(outline or b"", zlib.crc32(vector.tobytes())))
        for vector, outline, *rest in rows
    ]
    return np.array(made, np.uint32)


def _check_names(names: Iterable[object]) -> None:
    """Refuse with ``ValueError`` a name of a scene that could lead out of the folder of maps.

    An archive may come from others, and files are read and deleted by these names.
    """
    for name in names:
        if not isinstance(name, str) or not name or any(sign in name for sign in _SEPARATORS):
            raise ValueError(f"{name!r} is no name of a scene")


def _texts(values: Iterable[str]) -> str:
    """Texts as SQL literals with commas between them."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


@contextmanager
def _translated(
    folder: Path, as_ours: Callable[[Path, BaseException], Exception]
) -> Iterator[None]:
    """Turns the database's errors in the block into ours."""
    try:
        yield
    except _ERRORS as error:
        raise as_ours(folder, error) from error
