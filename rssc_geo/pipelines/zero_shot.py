"""Zero-shot maps: classes named by words, moved towards the tiles of a raster if wanted."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from typing import Any

import numpy as np
import torch

from rssc_geo.errors import UsageError
from rssc_geo.inference import CellMap, Source, TilingOptions, make_plan
from rssc_geo.models import Model, ZeroShotHead, refine_texts
from rssc_geo.raster import TileReader, fit_radiometry

log = logging.getLogger(__name__)

_SAMPLE = 4096
_BATCH = 32


def refine_classes(named: Model, source: Source, **tiling: Any) -> Model:
    """The named classes, moved towards the clusters that the tiles of a raster form
    (:func:`refine_texts`).

    Up to some 4,000 tiles are looked at, spread evenly; what a tile is called then depends on that
    raster too, but not on its batch. ``tiling``: the fields of ``TilingOptions``. Raises
    ``UsageError`` when no tile has data.
    """
    network = named.network
    assert isinstance(network, ZeroShotHead)
    pooled = _sample(named, source, TilingOptions(**tiling))
    vectors = (
        network.texts
        if network.background is None
        else torch.cat([network.texts, network.background])
    )
    moved = refine_texts(network.alignment, vectors, pooled)  # type: ignore[arg-type]
    count = len(network.texts)
    background = None if network.background is None else moved[count:]
    refined = ZeroShotHead(
        dataclasses.replace(named, network=network.network), moved[:count], background
    )
    card = dataclasses.replace(
        named.card, name=f"{named.card.name}, refined"
    )  # part of what tells runs apart
    return dataclasses.replace(named, card=card, network=refined)  # type: ignore[arg-type]


def _sample(model: Model, source: Source, options: TilingOptions) -> torch.Tensor:
    """Mean image tokens ``(N, I)`` of the selected tiles of a raster, some thousands at most."""
    plan = make_plan(source, model.card, options)
    tiles = CellMap(plan.grid, plan.selected, min_valid=options.min_valid).tiles()
    tiles = tiles[
        np.unique(np.linspace(0, len(tiles) - 1, min(len(tiles), _SAMPLE)).astype(np.int64))
    ]
    radiometry = fit_radiometry(plan.scene, stretch=options.stretch)
    found: list[torch.Tensor] = []
    with (
        TileReader(
            plan.scene, plan.grid, radiometry, out_size=model.card.input_size, tiles=tiles.tolist()
        ) as reader,
        torch.inference_mode(),
    ):
        valid = (tile for tile in reader if tile.valid_fraction >= options.min_valid)
        while batch := list(itertools.islice(valid, _BATCH)):
            images = model.preprocess(
                np.stack([tile.pixels for tile in batch]), np.stack([tile.mask for tile in batch])
            )
            found.append(model.network.encode_image(images).mean(1))
    if not found:
        raise UsageError(f"{plan.scene.source} has no tile with data to refine the classes on")
    log.info("classes refined on %d tiles", sum(len(part) for part in found))
    return torch.cat(found)
