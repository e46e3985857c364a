"""Cached tokens of a trained image encoder for every picture, which later stages read."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from rssc_geo.models import Model
from rssc_geo.training.augment import augment, normalize, to_input
from rssc_geo.training.data import SceneImages
from rssc_geo.training.kept import identity, is_kept, keeping

log = logging.getLogger(__name__)

_BATCH = 64
_BLOCK = 1 << 20
_ZOOM = (0.75, 1.3)
"""Views stay wide enough for the captions, which describe the whole picture, to hold."""


@dataclass(frozen=True, slots=True)
class Features:
    """Image tokens of V views of N pictures; view 0 is the picture as it is, the others augmented.

    Attributes
    ----------
    tokens : float16 ``(V, N, T, I)``; of the other views only training pictures are filled
    visible : float32 ``(V, N)``, the share of the picture in a view
    made_of : hash of the pictures, the network and the views
    """

    tokens: NDArray[np.float16]
    visible: NDArray[np.float32]
    made_of: str = ""


def mean_tokens(tokens: NDArray[np.float16], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Float32 ``(len(rows), I)``: the mean token of each of those pictures, of ``(N, T, I)``."""
    return np.stack([tokens[row].mean(0, dtype=np.float32) for row in rows.tolist()])


@torch.inference_mode()
def cache_features(
    model: Model,
    data: SceneImages,
    rows: NDArray[np.int64],
    *,
    views: int,
    seed: int,
    work: Path,
) -> Features:
    """Tokens of every picture, and of ``views − 1`` augmented copies of the pictures ``rows``.

    Kept in ``work``, and read from there if they are of the same pictures, network and views.

    Parameters
    ----------
    model : its network is in evaluation mode, on the device where the tokens are computed
    data : all pictures
    rows : int64, pictures that are augmented too
    views : of each picture
    seed : of the augmentation
    work : folder
    """
    network, card = model.network, model.card
    tokens_file, visible_file = work / "tokens.npy", work / "visible.npy"
    made_of = identity(
        pictures=data.fingerprint(),
        rows=rows,
        weights=network.image_encoder.state_dict(),
        reading=(card.input_size, card.mean, card.std, views, seed),
    )
    if not (is_kept(tokens_file, made_of) and is_kept(visible_file, made_of)):
        generator = torch.Generator().manual_seed(seed)
        size, device = card.input_size[0], network.queries.device
        shape = network.encode_image(torch.zeros(1, 3, *card.input_size, device=device)).shape[1:]
        with keeping(tokens_file, made_of) as made:
            _allocate(made, (views, len(data.pixels), *shape))
            tokens = np.lib.format.open_memmap(made, mode="r+")
            visible = np.ones((views, len(data.pixels)), np.float32)
            for view in range(views):
                chosen = rows if view else np.arange(len(data.pixels))
                for part in np.array_split(chosen, -(-len(chosen) // _BATCH)):
                    images = to_input(data.pixels[part])
                    if view:
                        images, shown = augment(images, generator, size=size, zoom=_ZOOM)
                        visible[view, part] = shown.numpy()
                    batch = normalize(images, card.mean, card.std).to(device)
                    tokens[view, part] = network.encode_image(batch).cpu().numpy()
                log.info("features: view %d of %d", view + 1, views)
            tokens.flush()
            del tokens  # Windows cannot rename a mapped file
            with keeping(visible_file, made_of) as file, file.open("wb") as stream:
                np.save(stream, visible)
    return Features(np.load(tokens_file, mmap_mode="r"), np.load(visible_file), made_of)


def _allocate(path: Path, shape: tuple[int, ...]) -> None:
    """Write an array of zeros, float16, so that the disk has room for all of it.

    A full disk raises ``OSError`` here; the system ends a process that meets it in a mapped file.
    """
    header = {"descr": np.dtype(np.float16).str, "fortran_order": False, "shape": shape}
    left = math.prod(shape) * np.dtype(np.float16).itemsize
    block = bytes(min(left, _BLOCK))
    with path.open("wb") as file:
        np.lib.format.write_array_header_2_0(file, header)
        while left:
            left -= file.write(memoryview(block)[:left])
