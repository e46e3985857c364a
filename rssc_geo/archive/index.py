"""``index``: make an archive of scenes that can be searched."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rssc_geo.archive.store import (
    NAME,
    SCENES,
    ArchiveCard,
    ArchiveStore,
    SceneEntry,
    check_installed,
    files_of,
    make_store,
    read_card,
)
from rssc_geo.batch import NAME as JOURNAL
from rssc_geo.batch import (
    BatchResult,
    OnProgress,
    check_batch,
    collect_jobs,
    read_status,
    run_batch,
)
from rssc_geo.errors import OutputError, UsageError
from rssc_geo.files import make_folders, paths_of, remove_empty, write_error
from rssc_geo.locks import FileLock
from rssc_geo.models import ModelCard, check_embeddings, load_card
from rssc_geo.options import BatchOptions, IndexOptions, values_of
from rssc_geo.raster import is_remote

log = logging.getLogger(__name__)

_LOCK = ".rssc-geo-index.lock"


@dataclass(frozen=True, slots=True)
class IndexResult:
    """The result of an indexing.

    Attributes
    ----------
    archive : its folder
    scenes, cells : how many it holds now
    added : scenes that were added now, new or changed
    forgotten : scenes that were removed: empty now, or pruned
    batch : result of the batch that made the maps of the cells
    """

    archive: Path
    scenes: int
    cells: int
    added: int
    forgotten: int
    batch: BatchResult

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``--json`` prints it."""
        return {
            "outputs": [str(self.archive)],
            "archive": {
                "scenes": self.scenes,
                "cells": self.cells,
                "added": self.added,
                "forgotten": self.forgotten,
            },
            **self.batch.as_dict(),
        }


def index(
    inputs: Sequence[str | Path],
    archive: str | Path,
    options: IndexOptions | None = None,
    *,
    progress: OnProgress | bool | None = None,
) -> IndexResult:
    """Make an archive of scenes that :func:`rssc_geo.search` looks through, or add to it.

    Each scene is mapped into ``scenes`` of the folder, with the embeddings of its cells, which then
    go into a vector database beside it. Only scenes that are new, or whose files have changed, are
    processed; running the same again continues where it stopped. A scene's failure never stops the
    others. With ``options.prune`` what is not among the inputs is removed at the end, where all of
    these name scenes.

    Parameters
    ----------
    inputs : as of :func:`rssc_geo.run_batch`
    archive : folder; made where it is not there
    options : all that the command line has; its defaults
    progress : as of :func:`rssc_geo.run_batch`

    Raises
    ------
    UsageError
        For a model without a space of pictures and words, or another than the archive's, for two
        scenes of one name, and where LanceDB is not installed.
    OutputError
        For a folder that holds something else, or cannot be written.

    Examples
    --------
    >>> from rssc_geo import IndexOptions, index
    >>> made = index(["scene.tif"], "archive", IndexOptions(tile_size="900m"))
    >>> made.scenes, made.added
    (1, 1)
    """
    options, folder = options or IndexOptions(), Path(archive)
    check_installed()
    model = load_card(options.model, revision=options.revision)
    _archive_card(model, folder, options)
    scenes = folder / SCENES
    values = values_of(options, IndexOptions)
    prune = values.pop("prune")
    # A map that the journal does not know, because it was lost, is made again.
    batch = BatchOptions(**values, embeddings=str(scenes / "{id}.parquet"), overwrite=True)
    check_batch(batch, model)
    template = str(scenes / "{id}.gpkg")
    names = paths_of(inputs)
    listed = collect_jobs(names, template, batch)
    sources = {
        job.output.name: _source(job.source)
        for job in listed.jobs
        if _is_own(job.output, job.options.embeddings, scenes)
    }
    made = make_folders(scenes)
    try:
        with FileLock(folder / _LOCK, taken=folder):
            card = _archive_card(model, folder, options)
            store: ArchiveStore | None = None
            known: dict[str, dict[str, Any]] = {}
            if (folder / NAME).exists():
                store = ArchiveStore(folder, read_card(folder))
                store.mend()
                known = store.scenes()
            _check_sources(sources, known)
            result = run_batch(names, template, batch, progress=progress)
            if store is None:  # not before: wrong options leave no archive
                store = make_store(folder, card)
            elif store.card != card:
                store.describe(card)
            rows = read_status(scenes)["scenes"] if (scenes / JOURNAL).is_file() else []
            added, forgotten = _take_in(store, rows, sources, known)
            unnamed = len(listed.problems) + _count_absent(sources, known)
            if prune and unnamed:
                log.warning(
                    "nothing is pruned: %d of the inputs name no scene, and may have named those"
                    " that would go; correct or leave out these inputs, then index again",
                    unnamed,
                )
            elif prune:
                forgotten += _prune(store, rows, {Path(output).stem for output in sources})
            held = store.scenes()
    except BaseException:
        remove_empty(made)
        raise
    return IndexResult(folder, len(held), len(store), added, forgotten, result)


def _archive_card(model: ModelCard, folder: Path, options: IndexOptions) -> ArchiveCard:
    """The archive's description from now on.

    Raises ``UsageError`` for another model than its own, ``OutputError`` for a folder that holds
    something else.
    """
    width = check_embeddings(model)
    if (folder / NAME).exists():
        card = read_card(folder)
        if card.identity != model.identity:
            raise UsageError(
                f"{folder} was indexed with the model {card.model} {card.version}, this is"
                f" {model.name} {model.version} (weights or config.json differ): their"
                " embeddings cannot be compared; use that model, or index into another folder"
            )
        return replace(card, tile_size=options.tile_size, cell_size=options.cell_size)
    if folder.exists() and not _is_unused(folder):
        raise OutputError(f"{folder} holds something else than an archive: choose another folder")
    return ArchiveCard(
        model.name, model.version, model.identity, width, options.tile_size, options.cell_size
    )


def _is_unused(folder: Path) -> bool:
    """Whether a folder without a card holds nothing but what a killed indexing leaves."""
    own = {SCENES, _LOCK, f"{_LOCK}-journal"}
    if not folder.is_dir() or set(os.listdir(folder)) - own:
        return False
    scenes = folder / SCENES
    if not os.path.lexists(scenes) or (scenes / JOURNAL).is_file():
        return True
    return scenes.is_dir() and not os.listdir(scenes)


def _is_own(output: Path, embeddings: str | None, scenes: Path) -> bool:
    """Refuse with ``UsageError`` a map that would not be where the archive expects it."""
    if output.parent != scenes or embeddings != str(output.with_suffix(".parquet")):
        raise UsageError(
            f"{output}: an archive keeps its maps itself; leave out the columns output and"
            " embeddings"
        )
    return True


def _source(files: Sequence[str]) -> str:
    return ";".join(file if is_remote(file) else os.path.abspath(file) for file in files)


def _count_absent(sources: dict[str, str], known: Mapping[str, object]) -> int:
    """How many sources are not there and no scenes of the archive: what may have been folders."""
    new = [source for output, source in sources.items() if Path(output).stem not in known]
    firsts = [files_of(source)[0] for source in new]
    return sum(not is_remote(file) and not os.path.exists(file) for file in firsts)


def _check_sources(sources: dict[str, str], known: dict[str, dict[str, Any]]) -> None:
    """Refuse with ``UsageError`` a scene that has the name of another that is still there."""
    for output, source in sources.items():
        before = known.get(Path(output).stem, {}).get("source", source)
        if before != source and os.path.exists(files_of(before)[0]):
            raise UsageError(
                f"{source} has the name of {before}, which is in the archive: give it an id of its"
                " own in a CSV manifest"
            )


def _take_in(
    store: ArchiveStore,
    rows: Sequence[Mapping[str, Any]],
    sources: dict[str, str],
    known: dict[str, dict[str, Any]],
) -> tuple[int, int]:
    """Add new and changed scenes to the store, from their maps; how many were added and removed.

    ``rows``: of the scenes in the journal.
    """
    scenes = store.folder / SCENES
    entries, gone = [], []
    for row in rows:
        output = row["output"]
        scene = Path(output).stem
        if output not in sources:
            continue
        if row["state"] == "empty":
            gone.append(scene)
        if row["state"] != "done":
            continue
        table = Path(output).with_suffix(".parquet").name
        mark = next(str(file.mark) for file in row["output_files"] if file.name == table)
        before = known.get(scene, {})
        if (before.get("mark"), before.get("source")) != (mark, sources[output]):
            entries.append(SceneEntry(scene, sources[output], mark, scenes / table))
    store.forget(gone)
    store.put(entries)
    store.tidy()
    return len(entries), len(known.keys() & gone)


def _prune(store: ArchiveStore, rows: Sequence[Mapping[str, Any]], kept: set[str]) -> int:
    """Remove scenes but those kept, and their maps; how many the store held.

    ``rows``: of the scenes in the journal. The store comes first: maps that a killed process
    leaves are removed by the next one, by the journal.
    """
    scenes = store.folder / SCENES
    gone = sorted(store.scenes().keys() - kept)
    store.forget(gone)
    mapped = {Path(row["output"]).stem for row in rows}
    try:
        for scene in sorted((mapped | set(gone)) - kept):
            for suffix in (".gpkg", ".parquet"):
                (scenes / f"{scene}{suffix}").unlink(missing_ok=True)
    except OSError as error:
        raise write_error(scenes, error) from error
    return len(gone)
