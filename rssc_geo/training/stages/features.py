"""Stage 2.

What the trained image encoder sees, computed once and kept on disk for all that is learned after
it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rssc_geo.models import DualAttentionClassifier, ModelCard
from rssc_geo.training.augment import augment
from rssc_geo.training.data import SceneImages
from rssc_geo.training.stages.encoder import normalize, to_input

log = logging.getLogger(__name__)

_BATCH = 64
_ZOOM = (0.75, 1.3)
"""Views stay wide enough for the captions, which speak of the whole picture, to hold."""


@dataclass(frozen=True, slots=True)
class Features:
    """Image tokens of V views of N pictures: view 0 as it is, the others augmented, of training
    pictures only.

    ``tokens``: float16 ``(V, N, T, I)``; ``visible``: float32 ``(V, N)``, the share of the picture
    that a view shows.
    """

    tokens: np.ndarray
    visible: np.ndarray


@torch.inference_mode()
def cache_features(
    network: DualAttentionClassifier,
    card: ModelCard,
    data: SceneImages,
    rows: np.ndarray,
    *,
    views: int,
    seed: int,
    work: Path,
    device: torch.device,
) -> Features:
    """Tokens of every picture, and of ``views − 1`` augmented copies of the pictures ``rows``.

    Kept in ``work``.
    """
    tokens_file, visible_file = work / "tokens.npy", work / "visible.npy"
    if not (tokens_file.is_file() and visible_file.is_file()):
        generator = torch.Generator().manual_seed(seed)
        size = card.input_size[0]
        shape = network.encode_image(torch.zeros(1, 3, *card.input_size, device=device)).shape[1:]
        part_file = work / "tokens.part.npy"
        tokens = np.lib.format.open_memmap(
            part_file, mode="w+", dtype=np.float16, shape=(views, len(data.pixels), *shape)
        )
        visible = np.ones((views, len(data.pixels)), np.float32)
        for view in range(views):
            wanted = rows if view else np.arange(len(data.pixels))
            for part in np.array_split(wanted, -(-len(wanted) // _BATCH)):
                images = to_input(data.pixels[part])
                if view:
                    images, shown = augment(images, generator, size=size, zoom=_ZOOM)
                    visible[view, part] = shown.numpy()
                tokens[view, part] = (
                    network.encode_image(normalize(images, card.mean, card.std).to(device))
                    .cpu()
                    .numpy()
                )
            log.info("features: view %d of %d", view + 1, views)
        tokens.flush()
        np.save(visible_file, visible)
        part_file.rename(tokens_file)
    return Features(np.load(tokens_file, mmap_mode="r"), np.load(visible_file))
