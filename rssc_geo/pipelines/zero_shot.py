"""Maps of classes that are named by words."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import InputError, NothingToClassifyError
from rssc_geo.inference import Plan, Source
from rssc_geo.models import load_card
from rssc_geo.options import (
    ComputeOptions,
    ModelOptions,
    PredictorOptions,
    ZeroShotOptions,
    values_of,
)
from rssc_geo.pipelines.classify import ClassifyResult, map_scene
from rssc_geo.progress import Progress, reporting
from rssc_geo.texts import parse_json, read_lines, read_text

if TYPE_CHECKING:
    import torch

    from rssc_geo.inference import CellMap, Compute, Predictor
    from rssc_geo.models import Model
    from rssc_geo.raster import TileReader

log = logging.getLogger(__name__)

_SAMPLE = 4096
"""Largest number of tiles on which classes are refined."""
_BATCH = 32


def zero_shot(
    source: Source,
    output: str | Path,
    classes: str | Sequence[str] | Mapping[str, str | Sequence[str]],
    options: ZeroShotOptions | None = None,
    *,
    model: Predictor | None = None,
    progress: Progress | bool | None = None,
) -> ClassifyResult:
    """Map a raster into classes that are named by words.

    Parameters
    ----------
    source, output, progress : as for :func:`rssc_geo.classify`
    classes : names ("solar park"), or names with the words and sentences that stand for them, whose
        vectors are averaged: ``{"water": ["lake", "river", "sea"]}``; a text is read as
        ``--classes`` is (:func:`read_classes`)
    options : all that the command line has; its defaults
    model : a loaded one, whose options of model and computing then have no effect; it must have
        been trained with captions

    Raises ``UsageError`` for classes without a word that the model knows,
    ``NothingToClassifyError`` where no tile has data, and what ``classify`` does.

    Examples
    --------
    >>> from rssc_geo import zero_shot
    >>> result = zero_shot("scene.tif", "water.gpkg", ["water", "forest", "houses"])
    >>> [total.name for total in result.summary.classes]
    ['water', 'forest', 'houses', 'other']
    """
    options = options or ZeroShotOptions()
    named_classes = read_classes(classes) if isinstance(classes, str) else classes
    card = model.card if model else load_card(options.model, revision=options.revision)

    def load(plan: Plan) -> Predictor:
        from rssc_geo.inference import Predictor, load_predictor
        from rssc_geo.models import name_classes, with_vectors

        loaded = model or load_predictor(
            PredictorOptions(
                **values_of(options, ModelOptions), **values_of(options, ComputeOptions)
            )
        )
        named = name_classes(loaded.model, named_classes, other=options.other)
        if options.refine:
            tiles = sample_tiles(plan).tolist()
            with plan.reader(tiles, out_size=named.card.input_size) as reader:
                vectors = refined_vectors(
                    named,
                    reader,
                    source=plan.scene.source,
                    cells=plan.cells,
                    compute=loaded.compute,
                )
            named = with_vectors(named, vectors)
        return Predictor(named, loaded.captioner, loaded.compute)

    with reporting(progress) as report:
        return map_scene(source, output, options, card, load, report)


def read_classes(text: str) -> list[str] | dict[str, list[str]]:
    """Classes as ``--classes`` has them.

    ``a,b,c``; a JSON file of names and their words (:func:`read_class_words`); or another file, a
    name a line. Raises ``InputError`` for a file that cannot be read.
    """
    if text.lower().endswith(".json"):
        return read_class_words(text)
    names = text.split(",")
    if os.path.isfile(text):  # False, too, for what is too long for a name
        try:
            names = read_lines(text)
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{text} cannot be read as text: {error}") from error
    return [name.strip() for name in names if name.strip()]


def read_class_words(path: str | Path) -> dict[str, list[str]]:
    """The words of classes: a JSON file ``{"class": ["word or phrase", …], …}``.

    Raises ``InputError`` for a file that is no such thing.
    """
    try:
        values = parse_json(read_text(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(values, dict) or not all(
        isinstance(words, list) and all(isinstance(word, str) for word in words)
        for words in values.values()
    ):
        raise InputError(f'{path}: expected {{"class": ["word or phrase", …], …}}')
    return {str(name): words for name, words in values.items()}


def sample_tiles(plan: Plan) -> NDArray[np.int64]:
    """Indices (n,) of the tiles that classes are refined on: some 4,000, spread evenly."""
    tiles = plan.cells.tiles()
    count = min(len(tiles), _SAMPLE)
    return tiles[np.unique(np.linspace(0, len(tiles) - 1, count).astype(np.int64))]


def refined_vectors(
    named: Model, reader: TileReader, *, source: str, cells: CellMap, compute: Compute
) -> torch.Tensor:
    """The vectors (C, X) of named classes, moved towards the clusters that tiles form.

    They are float32, on the CPU, whatever the network computes in. What a tile is called then
    depends on the raster too, but not on its batch.

    Parameters
    ----------
    named : as :func:`rssc_geo.models.name_classes` makes it
    reader : of the tiles, open, in the size that the model reads
    source : what the tiles are of, for messages
    cells : of the grid of tiles: those that it wants classified are used
    compute : the device and dtype of the model's network

    Raises ``NothingToClassifyError`` when no tile has data.
    """
    from rssc_geo.models import refine_texts, vectors_of

    log.info("%s: reading tiles to refine the classes on", source)
    pooled = _pooled_tokens(named, reader, cells, compute)
    if not len(pooled):
        raise NothingToClassifyError(f"{source} has no tile with data to refine the classes on")
    log.info("classes refined on %d tiles", len(pooled))
    assert named.alignment is not None  # noqa: S101 -- name_classes refuses models without
    return refine_texts(named.alignment, vectors_of(named).float().cpu(), pooled)


def _pooled_tokens(
    model: Model, reader: TileReader, cells: CellMap, compute: Compute
) -> torch.Tensor:
    """Mean image tokens (N, I) of the tiles that have data: float32, on the CPU."""
    import torch

    found: list[torch.Tensor] = []
    with torch.inference_mode():
        valid = (
            data
            for data in reader
            if cells.wanted(data.tile, data.valid_fraction, data.cell_fractions)
        )
        while batch := list(itertools.islice(valid, _BATCH)):
            images = model.preprocess(
                np.stack([tile.pixels for tile in batch]), np.stack([tile.mask for tile in batch])
            )
            images = images.to(device=compute.device, dtype=compute.dtype)
            found.append(model.network.encode_image(images).mean(1).float().cpu())
    return torch.cat(found) if found else torch.empty(0)
