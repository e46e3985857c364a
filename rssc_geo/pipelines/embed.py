"""Embeddings as data: the cells of scenes as a table that any tool reads."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from rssc_geo.captioning import check_captioner
from rssc_geo.errors import UsageError
from rssc_geo.files import atomic_write, check_not_input, check_writable
from rssc_geo.inference import (
    Plan,
    PredictorSpec,
    SceneRun,
    Source,
    make_plan,
    nothing_to_classify,
)
from rssc_geo.models import ModelCard, check_class_choice, check_embeddings, load_card
from rssc_geo.options import PARQUET, EmbedOptions, files_read
from rssc_geo.output import (
    WGS84,
    EmbeddingLayer,
    OutputTarget,
    delete_part_file,
    embedding_schema,
    parse_date,
    provenance_document,
    read_geoparquet,
    write_geoparquet,
)
from rssc_geo.progress import Progress, reporting

if TYPE_CHECKING:
    import geopandas as gpd

    from rssc_geo.inference import Predictor

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """The table, its rows, numbers an embedding, and tiles that the network processed."""

    path: Path
    rows: int
    width: int
    scenes: int
    tiles_classified: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "outputs": [str(self.path)],
            "rows": self.rows,
            "width": self.width,
            "scenes": self.scenes,
            "tiles_classified": self.tiles_classified,
            "seconds": round(self.seconds, 3),
        }

    def to_geopandas(self) -> gpd.GeoDataFrame:
        """The table, read back; an embedding is an array of float16."""
        return read_geoparquet(self.path)


def embed(
    sources: Source | Sequence[Source],
    output: str | Path,
    options: EmbedOptions | None = None,
    *,
    model: Predictor | None = None,
    progress: Progress | bool | None = None,
) -> EmbedResult:
    """Write the cells of scenes with their embeddings as GeoParquet.

    One row a cell: scene, date, class, group, confidence, caption, row, col, model, version,
    embedding and its outline in longitude and latitude. Embeddings are unit vectors in the space
    that the model's pictures and texts share, as float16: their inner products rank cells by
    similarity.

    Parameters
    ----------
    sources : rasters, each as for :func:`rssc_geo.classify`
    output : .parquet
    options : all that the command line has; its defaults
    model : a loaded one, whose options of model, computing and captions then have no effect
    progress : as for :func:`rssc_geo.classify`

    Raises ``UsageError`` for a model without such a space, what :func:`rssc_geo.classify` raises
    for a scene, and ``NothingToClassifyError`` where no scene has a valid cell. The same call
    continues where a stopped one was.

    Examples
    --------
    >>> from rssc_geo import EmbedOptions, embed
    >>> made = embed(["scene.tif"], "cells.parquet", EmbedOptions(tile_size="900m"))
    >>> made.width, len(made.to_geopandas()) == made.rows
    (192, True)
    """
    started = time.monotonic()
    options = options or EmbedOptions()
    card = model.card if model else load_card(options.model, revision=options.revision)
    width = check_embeddings(card)
    choice = check_class_choice(card, options)
    if model is None:
        check_captioner(options, card)
    path = Path(output)
    PARQUET.check_suffix("--output", path)
    date = None if options.date is None else parse_date(options.date, "--date")
    listed = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    plans = _plans(listed, card, options)
    read = [file for plan in plans for file in plan.inputs()]
    check_not_input([path], [*read, *files_read(options)])
    check_writable(path, overwrite=options.overwrite)
    for plan in plans:
        for warning in plan.warnings:
            log.warning("%s: %s", plan.scene.name, warning)

    from rssc_geo.inference import load_predictor

    predictor = model.choosing(choice) if model else load_predictor(options)
    scenes = [
        _EmbeddedScene(plan, _part_target(path, number, date), predictor.spec)
        for number, plan in enumerate(plans)
    ]
    with reporting(progress) as report:
        looked = sum(scene.look(predictor, report) for scene in scenes)
        full = [scene for scene in scenes if scene.rows]
        if not full:
            raise nothing_to_classify(plans[0])
        report("write", 0, 1)
        layer = EmbeddingLayer(
            embedding_schema(width), WGS84, lambda: (b for scene in full for b in scene.batches())
        )
        with atomic_write(path, overwrite=options.overwrite) as made:
            write_geoparquet(layer, made, _provenance(full, predictor.spec))
        for scene in scenes:
            scene.forget()
        report("write", 1, 1)
    return EmbedResult(
        path,
        rows=sum(scene.rows for scene in full),
        width=width,
        scenes=len(full),
        tiles_classified=looked,
        seconds=time.monotonic() - started,
    )


def _plans(sources: Sequence[Source], card: ModelCard, options: EmbedOptions) -> list[Plan]:
    """The plan of each scene; ``UsageError`` for one that is given twice."""
    plans = [make_plan(source, card, options) for source in sources]
    names = [plan.scene.source for plan in plans]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise UsageError(f"{twice[0]} is given twice: a table holds a scene once")
    return plans


def _part_target(table: Path, number: int, date: datetime | None) -> OutputTarget:
    """The target of a scene's cells. No map is written: only the name of its part file counts."""
    path = table.with_name(f"{table.stem}.{number}{table.suffix}")
    return OutputTarget(path, overwrite=True, embeds=True, date=date)


class _EmbeddedScene:
    """A scene whose rows wait in its part file until all scenes are classified.

    ``rows``: how many, once it was classified.
    """

    def __init__(self, plan: Plan, target: OutputTarget, spec: PredictorSpec) -> None:
        self.plan, self._target, self._spec = plan, target, spec
        self.rows = 0
        self._files: str | None = None

    def look(self, predictor: Predictor, progress: Progress) -> int:
        """Classify the remaining tiles; how many the network processed."""
        with self._run() as run:
            looked = run.classify(predictor, progress)
            self.rows, self._files = len(run), run.files
        if not self.rows:
            log.warning("%s", nothing_to_classify(self.plan))
        return looked

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Its rows; ``InputError`` where its files are no longer those that were looked at."""
        with self._run() as run:
            yield from run.embeddings(self.rows).batches()

    def forget(self) -> None:
        """Delete the part file, but for one that another process works on: the table is there."""
        delete_part_file(self._target.part_path)

    def _run(self) -> SceneRun:
        return SceneRun(self.plan, self._target, self._spec, files=self._files)


def _provenance(scenes: Sequence[_EmbeddedScene], spec: PredictorSpec) -> dict[str, object]:
    """The provenance of the table; scenes by their names, without folders."""
    names = [scene.plan.scene.name for scene in scenes]
    return provenance_document({"scenes": names, **spec.as_dict()})
