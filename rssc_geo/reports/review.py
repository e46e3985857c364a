"""The cells most worth labeling next: uncertain ones that differ from each other.

The rule combines two known methods, both deterministic. *Margin sampling* (Scheffer, Decomain and
Wrobel, Active Hidden Markov Models for Information Extraction, IDA 2001) takes cells whose two most
probable classes are closest. Alone it selects similar cells repeatedly, so the cells of small
margin are only the pool, as in Cluster-Margin (Citovsky et al., Batch Active Learning at Scale,
NeurIPS 2021). From the pool cells are picked one by one, each the one with the largest uncertainty
times distance from those picked before, the farthest-first order of k-center selection (Sener and
Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from rssc_geo.files import check_writable, write_error
from rssc_geo.geometry import as_one_type
from rssc_geo.models import UNKNOWN_CLASS, SceneClass
from rssc_geo.output import (
    CELL_FIELDS,
    GEOMETRY,
    Field,
    Layer,
    LayerStyle,
    OutputTarget,
    describe_layer,
    provenance_document,
    read_cells,
    review_qml,
)

POOL_FACTOR = 20  # cells of small margin a cell wanted

_CELL = {field.name: field for field in CELL_FIELDS}
REVIEW_FIELDS: tuple[Field, ...] = (
    Field("rank", "Rank", "integer", "Order in which the cells are worth a look, from 1"),
    *(_CELL[name] for name in ("class", "runner_up", "confidence", "margin", "caption")),
    Field("reason", "Reason", "text", "Between which classes the model hesitates"),
    Field(
        "label",
        "Your label",
        "text",
        "To be filled in: what is really there; empty cells are not learned from",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Data of n cells.

    Attributes
    ----------
    first, second : (n,), the two most probable classes, as any distinct values
    confidence : (n,), the probability of the first
    margin : (n,), how much that of the second is below it
    places : (n, 2), where they lie, in units of the scene's diagonal
    """

    first: NDArray[Any]
    second: NDArray[Any]
    confidence: NDArray[np.floating[Any]]
    margin: NDArray[np.floating[Any]]
    places: NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        shapes = [
            values.shape
            for values in (self.first, self.second, self.confidence, self.margin, self.places)
        ]
        if shapes[0] != (len(self.first),) or shapes != [shapes[0]] * 4 + [(len(self.first), 2)]:
            raise ValueError(f"not n cells: {shapes}")


def choose_cells(cells: Candidates, count: int) -> NDArray[np.intp]:
    """Indices of the ``count`` cells to look at, or of all; the most useful first.

    The first is the one of the smallest margin. Each further one has the largest (1 − margin) · d,
    d being its distance to the nearest one picked: half the squared distance between their class
    probabilities, of which only the two largest are known, plus the squared distance between their
    places. The earlier of equals goes first.
    """
    pool = np.argsort(cells.margin, kind="stable")[: POOL_FACTOR * count]
    names, ids = np.unique(
        np.concatenate([cells.first[pool], cells.second[pool]]), return_inverse=True
    )
    first, second = np.split(ids, 2)
    top = cells.confidence[pool]
    # A model of one class has no second.
    runner = np.where(first == second, 0.0, top - cells.margin[pool])
    squares, places = top**2 + runner**2, cells.places[pool]

    def apart(at: int) -> NDArray[np.float64]:
        belief = np.zeros(len(names))
        belief[first[at]] += top[at]
        belief[second[at]] += runner[at]
        beliefs = squares + squares[at] - 2 * (top * belief[first] + runner * belief[second])
        return np.asarray(beliefs / 2 + ((places - places[at]) ** 2).sum(axis=1))

    return np.asarray(pool[farthest_first(1.0 - cells.margin[pool], apart, count)])


def farthest_first(
    weight: NDArray[np.floating[Any]], apart: Callable[[int], NDArray[np.float64]], count: int
) -> list[int]:
    """Indices of ``count`` points, or all: the first, then the largest weight × distance each time.

    ``weight`` (n,), above 0; ``apart(i)`` gives the squared distances (n,) to point ``i``; distance
    means that to the nearest point picked. The first of equals is taken.
    """
    chosen: list[int] = []
    nearest = np.full(len(weight), np.inf)
    left = np.ones(len(weight), bool)
    while len(chosen) < min(count, len(weight)):
        at = int(np.argmax(np.where(left, weight * np.sqrt(nearest), -1.0))) if chosen else 0
        chosen.append(at)
        left[at] = False
        nearest = np.minimum(nearest, np.maximum(apart(at), 0.0))
    return chosen


def check_review(target: OutputTarget) -> list[Path]:
    """The files of a review that lies beside its map; none where it is a layer of that.

    Raises ``UsageError`` and ``OutputError``, before the work starts, for a review that could not
    be written.
    """
    path = _review_path(target)
    if path == target.path:
        return []
    files = target.format.files_of(path)
    for file in files:
        check_writable(file, overwrite=target.overwrite or target.is_announced)
    return files


def add_review(
    target: OutputTarget,
    count: int,
    *,
    cells_shape: tuple[int, int],
    classes: Sequence[SceneClass],
) -> Path:
    """Choose ``count`` cells of the finished map and add them to it as the layer ``review``.

    Returns the file that holds the layer. Memory is bounded by ``count``, whatever the size of the
    map.

    Parameters
    ----------
    target : of the map
    count : cells to choose, at most
    cells_shape : (rows, columns) of the grid
    classes : those of the map, whose titles the reasons tell, and which the form offers for the
        field ``label``

    Raises ``OutputError`` when it cannot be written, or the map was opened elsewhere meanwhile; the
    map stays as it was.
    """
    cells = read_cells(target.path)
    pool = cells.schema.empty_table()
    for batch in cells.batches():
        pool = least_certain(pa.concat_tables([pool, pa.Table.from_batches([batch])]), count)
    chosen = pool.take(choose_cells(candidates_of(pool, cells_shape), count))
    values = chosen.select(["class", "runner_up", "confidence", "margin"]).to_pylist()
    titles = {known.name: known.title for known in classes}
    columns = {
        "rank": pa.array(range(1, len(chosen) + 1), pa.int32()),
        "reason": pa.array([_reason(cell, titles) for cell in values], pa.string()),
        "label": pa.nulls(len(chosen), pa.string()),
    }
    for name, column in columns.items():
        chosen = chosen.append_column(name, column)
    names = [known.name for known in classes if known.name != UNKNOWN_CLASS]
    return _write_review(target, chosen, crs=cells.crs, classes=names)


def least_certain(cells: pa.Table, count: int) -> pa.Table:
    """The pool from which ``count`` cells are chosen: those of the smallest margins.

    Of equals by place: the order in a file differs between formats.
    """
    order = np.lexsort([cells.column(name).to_numpy() for name in ("col", "row", "margin")])
    return cells.take(order[: POOL_FACTOR * count])


def candidates_of(cells: pa.Table, cells_shape: tuple[int, int]) -> Candidates:
    """A table with the cells' fields as candidates; ``cells_shape`` (rows, columns) of the grid."""
    classes = cells.column("class").to_pylist()
    runners = cells.column("runner_up").to_pylist()
    seconds = [runner or own for own, runner in zip(classes, runners, strict=True)]
    places = np.stack([cells.column(name).to_numpy() for name in ("row", "col")], axis=1)
    return Candidates(
        first=np.array(classes, object),
        second=np.array(seconds, object),
        confidence=cells.column("confidence").to_numpy(),
        margin=cells.column("margin").to_numpy(),
        places=places / np.hypot(*cells_shape),
    )


def _reason(cell: Mapping[str, object], titles: Mapping[str, str]) -> str:
    """For example ``41 % Farmland or 38 % Meadow``."""
    confidence, margin = float(str(cell["confidence"])), float(str(cell["margin"]))
    first, second = (
        None if name is None else titles.get(str(name), str(name))
        for name in (cell["class"], cell["runner_up"])
    )
    own = f"{100 * confidence:.0f} % {first}"
    if second is None:
        return own
    return f"{own} or {100 * (confidence - margin):.0f} % {second}"


def _review_path(target: OutputTarget) -> Path:
    """The path of a map's review: the map itself, or for one-layer formats ``x_review.ext``."""
    return target.format.layer_path(target.path, "review")


def _write_review(
    target: OutputTarget, cells: pa.Table, *, crs: CRS, classes: Sequence[str]
) -> Path:
    """Add the layer; ``cells`` has a column each of ``REVIEW_FIELDS``, and WKB in ``crs``."""
    _, kind = as_one_type(shapely.from_wkb(cells.column(GEOMETRY).to_numpy()))

    def batches() -> Iterator[pa.RecordBatch]:
        yield from cells.select(layer.schema.names).cast(layer.schema).to_batches()

    layer = Layer(
        "review",
        "Review",
        "Cells worth a look, the most useful first: fill in the field label.",
        REVIEW_FIELDS,
        kind,
        crs,
        batches,
    )
    path = _review_path(target)
    with target.staged([path], overwrite=True) as staging:
        made = staging.place(path)
        if target.format.multilayer:
            try:
                shutil.copyfile(path, made)
            except OSError as error:
                raise write_error(made, error) from error
        target.format.write(layer, made, provenance_document({"review_of": target.path.name}))
        if target.format.multilayer:
            looks = "Outlines, green once a cell is labeled"
            style = LayerStyle("review", looks, review_qml(REVIEW_FIELDS, classes), default=True)
            describe_layer(made, layer, style)
    return path
