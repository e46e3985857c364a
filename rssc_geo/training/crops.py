"""Batches of augmented crops: of scene pictures, and of windows full of one texture."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rssc_geo.training.augment import augment, drawn, stretched, to_input
from rssc_geo.training.data import SceneImages
from rssc_geo.training.options import CropRecipe
from rssc_geo.training.windows import Windows


@dataclass(frozen=True, slots=True)
class Crops:
    """B crops with their labels.

    Attributes
    ----------
    images : float ``(B, 3, S, S)`` in [0, 1]
    labels : int64 ``(B,)``, places in the labels of ``CropSampler.legend``
    visible : float ``(B,)``, the share of its picture that each shows
    rows : int64 ``(P,)``, the pictures of the first P crops; the rest are windows
    """

    images: torch.Tensor
    labels: torch.Tensor
    visible: torch.Tensor
    rows: NDArray[np.int64]


class CropSampler:
    """Draws batches of crops from pictures and from windows in them.

    Pictures of textures are cropped much closer than others, whose label holds only for the whole.
    Pictures of several data sets are drawn so that each label is equally frequent.

    Parameters
    ----------
    data : all pictures
    rows : those that are drawn from
    windows : windows in them
    recipe : the settings
    batch_size : crops a batch
    generator : of all random choices

    Attributes
    ----------
    legend : of the labels of crops: those of ``data``, then those of the windows
    steps : batches an epoch
    """

    def __init__(
        self,
        data: SceneImages,
        rows: NDArray[np.int64],
        windows: Windows,
        recipe: CropRecipe,
        *,
        batch_size: int,
        generator: torch.Generator,
    ) -> None:
        self._data, self._rows, self._windows = data, rows, windows
        self._recipe, self._generator = recipe, generator
        self._chances = self._window_chances()
        self._count = round(batch_size * recipe.windows) if len(windows) else 0
        self._batch_size = batch_size
        self.legend = windows.legend
        self.steps = max(1, len(rows) // batch_size)
        sets = data.legend.sets
        self._balanced = len(set(sets)) > 1
        self._set_of = np.unique(np.array(sets), return_inverse=True)[1]

    def batches(self, size: int) -> Iterator[Crops]:
        """An epoch of crops of ``size`` pixels a side; each batch is made when it is needed.

        Of one data set each picture is used once, except those that do not fill a batch.
        """
        pictures = self._batch_size - self._count
        wanted = self.steps * pictures
        if self._balanced:
            labels = self._data.labels[self._rows]
            weight = 1 / np.bincount(labels, minlength=len(self._data.legend.labels))[labels]
            order = torch.multinomial(
                torch.from_numpy(weight), wanted, replacement=True, generator=self._generator
            )
        else:
            order = torch.randperm(len(self._rows), generator=self._generator)[:wanted]
        for start in range(0, wanted, pictures):
            yield self._crops(self._rows[order[start : start + pictures].numpy()], size)

    def _crops(self, rows: NDArray[np.int64], size: int) -> Crops:
        """A crop of each of these pictures, then crops of windows."""
        data, recipe = self._data, self._recipe
        labels = torch.from_numpy(data.labels[rows])
        texture = torch.from_numpy(data.legend.texture)[labels]
        closest = torch.where(texture, recipe.closest_texture, recipe.closest)
        images = to_input(data.pixels[rows])
        sets = torch.from_numpy(self._set_of)[labels]
        images = stretched(images, sets, self._generator, share=recipe.stretched)
        images, zoom = self._from_afar(images, texture, closest)
        images, visible = augment(images, self._generator, size=size, zoom=zoom, light=recipe.light)
        if not self._count:
            return Crops(images, labels, visible, rows)
        pieces, theirs = self._window_crops(size)
        return Crops(
            torch.cat([images, pieces]),
            torch.cat([labels, theirs]),
            torch.cat([visible, torch.ones(len(theirs))]),
            rows,
        )

    def _from_afar(
        self, images: torch.Tensor, texture: torch.Tensor, closest: torch.Tensor
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """Some textures reduced as if seen from far away, and each picture's zoom."""
        recipe, generator = self._recipe, self._generator
        widest = torch.full((len(images),), recipe.widest)
        chosen = texture & (torch.rand(len(images), generator=generator) < recipe.wide)
        if not chosen.any():
            return images, (closest, widest)
        images, closest = images.clone(), closest.clone()
        limits = math.log(recipe.widest), math.log(recipe.widest_texture)
        for place in chosen.nonzero().flatten().tolist():
            factor = math.exp(float(drawn(1, *limits, generator)))
            picture = images[place : place + 1]
            small = F.interpolate(picture, scale_factor=1 / factor, mode="area")
            images[place] = F.interpolate(small, size=picture.shape[2:], mode="bilinear")[0]
            closest[place] = widest[place] = factor
        return images, (closest, widest)

    def _window_chances(self) -> torch.Tensor:
        """``(M,)``: textures are drawn by their shares, the pictures' labels equally in each."""
        windows, labels = self._windows, self._data.labels[self._windows.rows]
        shares = np.array([texture.share for texture in windows.textures])
        pairs = np.stack([windows.kinds, labels])
        kinds_of, place, count = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
        alike = np.bincount(kinds_of[0].astype(np.int64), minlength=len(shares))
        return torch.from_numpy(shares[windows.kinds] / alike[windows.kinds] / count[place.ravel()])

    def _window_crops(self, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Crops ``(W, 3, size, size)`` of windows, and the places of their labels, ``(W,)``."""
        windows, generator = self._windows, self._generator
        drawn_windows = torch.multinomial(
            self._chances, self._count, replacement=True, generator=generator
        )
        crops, labels = [], []
        for chosen in drawn_windows.tolist():
            texture = windows.textures[windows.kinds[chosen]]
            piece = self._piece(chosen, size)
            if texture.sunk and float(drawn(1, 0.0, 1.0, generator)) < 0.5:
                share = drawn(1, 0.0, texture.sunk, generator) * drawn(3, 0.8, 1.0, generator)
                piece = piece - piece.mean((2, 3), keepdim=True) * share.view(1, 3, 1, 1)
            if texture.ripples and float(drawn(1, 0.0, 1.0, generator)) < 0.5:
                deviation = drawn(1, 0.0, texture.ripples, generator)
                piece = piece + deviation * torch.randn(piece[:, :1].shape, generator=generator)
            low, high = texture.gain
            gain = math.exp(float(drawn(1, math.log(low), math.log(high), generator)))
            crop, _ = augment(
                (piece * gain).clamp_(0, 1),
                generator,
                size=size,
                zoom=(1.0, 1.0),
                light=self._recipe.light * texture.light,
            )
            crops.append(crop)
            labels.append(int(windows.labels[chosen]))
        return torch.cat(crops), torch.tensor(labels)

    def _piece(self, place: int, size: int) -> torch.Tensor:
        """The pixels of a window, at most enlarged to ``size``, ``(1, 3, size, size)``."""
        windows, generator = self._windows, self._generator
        top, left, side = windows.boxes[place].tolist()
        picture = self._data.pixels[windows.rows[place]]
        piece = to_input(picture[None, top : top + side, left : left + side])
        factor = math.exp(float(drawn(1, 0.0, math.log(max(1.0, size / side)), generator)))
        return _filled(piece, max(side, round(side * factor)), size, generator)


def _filled(piece: torch.Tensor, side: int, size: int, generator: torch.Generator) -> torch.Tensor:
    """A piece ``(1, 3, S, S)`` resampled to ``side`` pixels, mirrored until it fills ``size``."""
    piece = F.interpolate(piece, size=(side, side), mode="bilinear", align_corners=False)
    while piece.shape[-1] < size:
        piece = torch.cat([piece, piece.flip(3)], 3)
        piece = torch.cat([piece, piece.flip(2)], 2)
    room = piece.shape[-1] - size + 1
    top, left = torch.randint(room, (2,), generator=generator).tolist()
    return piece[:, :, top : top + size, left : left + size]
