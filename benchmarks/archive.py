"""Latency of searches in an archive, and recall of its index.

    python benchmarks/archive.py [--rows 1000000] [--queries 100] [--seed 0] [--work FOLDER]

The cells are synthetic: unit vectors spread over a subspace of 24 dimensions, with noise around it,
in scenes of 1000 cells each, with as many numbers as the embedded model's. They form no clusters,
which an index would find more easily. Queries are drawn alike; no row equals them. Printed: seconds
to add the scenes and to build the index, bytes a cell, seconds to add one more scene, then of
searches for 10 cells the recall and the latency: through the index, behind a filter of dates, and
by comparing all. Behind a filter that leaves fewer than 100 000 cells the index is not used. With
--work the archive is kept there: a run that was stopped continues, a finished one only searches.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import shapely
from numpy.typing import NDArray

from rssc_geo.archive import (
    ArchiveCard,
    ArchiveStore,
    CellFilter,
    SceneEntry,
    make_store,
    open_store,
)
from rssc_geo.models import check_embeddings, load_card
from rssc_geo.output import embedding_schema

SCENE_CELLS, DIMENSIONS, NOISE, FOUND = 1000, 24, 0.02, 10
START = datetime(2020, 1, 1, tzinfo=UTC)


class Cells:
    """Scenes of synthetic cells, each as a table that is read like any."""

    def __init__(self, folder: Path, width: int, seed: int) -> None:
        self._folder, self._width, self._seed = folder, width, seed
        self._plane = self.unit(np.random.default_rng(seed).normal(size=(DIMENSIONS, width)))

    @staticmethod
    def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def draw(self, count: int, number: int) -> NDArray[np.float32]:
        """Vectors (count, width), the same for a number whatever was drawn before."""
        random = np.random.default_rng((self._seed, number))
        inside = self.unit(random.normal(size=(count, DIMENSIONS)) @ self._plane)
        noise = NOISE * random.normal(size=(count, self._width))
        return self.unit(inside + noise).astype(np.float32)

    def scene(self, number: int) -> SceneEntry:
        schema, count = embedding_schema(self._width), SCENE_CELLS
        west, south = number % 300, number // 300 % 150 - 75
        values = {
            "scene": ["scene"] * count,
            "date": [START + timedelta(days=number)] * count,
            "class": ["Forest"] * count,
            "group": ["Forest"] * count,
            "confidence": np.random.default_rng((self._seed, number, 1)).random(count),
            "caption": ["many green trees are in a piece of forest ."] * count,
            "row": np.arange(count) // 40,
            "col": np.arange(count) % 40,
            "model": ["compact"] * count,
            "version": ["1"] * count,
            "geom": shapely.to_wkb(
                shapely.box(
                    west + np.arange(count) % 40 / 40,
                    south + np.arange(count) // 40 / 40,
                    west + np.arange(count) % 40 / 40 + 1 / 40,
                    south + np.arange(count) // 40 / 40 + 1 / 40,
                )
            ),
        }
        columns = {name: pa.array(value, schema.field(name).type) for name, value in values.items()}
        halves = pa.array(self.draw(count, number).astype(np.float16).ravel())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(halves, self._width)
        table = self._folder / f"{number}.parquet"
        pq.write_table(pa.table([columns[n] for n in schema.names], schema=schema), table)
        return SceneEntry(f"scene_{number}", f"scene_{number}.tif", "mark", table)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--queries", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--work", type=Path, help="folder of the archive, which is kept")
    asked = arguments.parse_args()
    if asked.work is not None:
        measure(asked.work, asked.rows, asked.queries, asked.seed)
        return
    with tempfile.TemporaryDirectory(prefix="rssc-geo-archive-") as folder:
        measure(Path(folder), asked.rows, asked.queries, asked.seed)


def measure(folder: Path, rows: int, queries: int, seed: int) -> None:
    width = check_embeddings(load_card("compact"))
    cells = Cells(folder, width, seed)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        store = open_store(folder)
        store.mend()
    else:
        store = make_store(folder, ArchiveCard("compact", "1", "made up", width))
    taken, last = 0.0, rows // SCENE_CELLS
    for start in range(len(store.scenes()), last, 100):
        scenes = [cells.scene(n) for n in range(start, min(start + 100, last))]
        taken += seconds(lambda scenes=scenes: store.put(scenes))
        for scene in scenes:
            scene.table.unlink()
    print(f"{len(store):,} cells: taken in now in {taken:.1f} s, index {seconds(store.tidy):.1f} s")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    one = cells.scene(last)
    table = one.table.stat().st_size / SCENE_CELLS
    print(f"bytes a cell: {size / len(store):.0f} in the database, {table:.0f} in its table")

    def add() -> None:
        store.put([one])
        store.tidy()

    print(f"one scene of {SCENE_CELLS} cells more: {seconds(add):.2f} s")
    asked = cells.draw(queries, rows)
    recent = CellFilter(since=START + timedelta(days=last // 2))
    for label, cell_filter in (("all", CellFilter()), ("half, by date", recent)):
        tell(label, store, asked, cell_filter)


def tell(label: str, store: ArchiveStore, asked: NDArray[np.float32], cells: CellFilter) -> None:
    """Recall of the index against comparing all, and milliseconds of both, one row a search."""
    recalls, times = [], {"index": [], "exact": []}
    for vector in asked:
        found = {}
        for how, exact in (("index", False), ("exact", True)):
            started = time.perf_counter()
            rows = store.nearest(vector, FOUND, cells, exact=exact)
            times[how].append(1000 * (time.perf_counter() - started))
            keys = (rows[name].to_pylist() for name in ("scene", "row", "col"))
            found[how] = set(zip(*keys, strict=True))
        recalls.append(len(found["index"] & found["exact"]) / FOUND)
    print(
        f"{label} ({store.count(cells):,} cells): recall@{FOUND} {np.mean(recalls):.3f};"
        + ";".join(
            f" {how} {np.median(took):.0f} ms, of 20 the slowest {np.percentile(took, 95):.0f} ms"
            for how, took in times.items()
        )
    )


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
