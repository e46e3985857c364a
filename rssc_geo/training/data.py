"""An image-folder data set in memory, and its stratified split."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from rssc_geo.errors import InputError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class SceneImages:
    """Labelled scene images, all of one size.

    ``pixels`` is uint8 ``(N, H, W, 3)`` RGB, ``labels`` int64 ``(N,)`` into ``classes``, ``names`` the path
    of each image below the data set's folder, ``captions`` the sentences that people wrote for it.
    """

    pixels: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...]
    classes: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.pixels) == len(self.labels) == len(self.names) == len(self.captions):
            raise ValueError("pixels, labels, names and captions differ in length")


def load_image_folder(folder: str | Path, *, size: int) -> SceneImages:
    """Read ``folder/<class>/*`` (or ``folder/images/<class>/*``) and ``folder/captions.jsonl`` where there is one.

    ``size``: every image is resized to ``size × size`` pixels (bilinear, antialiased).
    Raises ``InputError`` when the folder holds no class folder with images.
    """
    root = Path(folder)
    images = root / "images" if (root / "images").is_dir() else root
    if not images.is_dir():
        raise InputError(f"{root}: no such folder; give an image folder with one folder a class")
    classes = tuple(sorted(p.name for p in images.iterdir() if p.is_dir()))
    paths = [
        (index, path)
        for index, name in enumerate(classes)
        for path in sorted((images / name).iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not paths:
        raise InputError(f"{root}: no images found; expected {images}/<class>/*.jpg")
    written = _read_captions(root / "captions.jsonl")
    pixels = np.empty((len(paths), size, size, 3), np.uint8)
    for row, (_, path) in enumerate(paths):
        with Image.open(path) as image:
            pixels[row] = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))
    names = tuple(path.relative_to(images).as_posix() for _, path in paths)
    return SceneImages(
        pixels=pixels,
        labels=np.array([index for index, _ in paths], np.int64),
        names=names,
        classes=classes,
        captions=tuple(written.get(name, ()) for name in names),
    )


def _read_captions(path: Path) -> dict[str, tuple[str, ...]]:
    if not path.is_file():
        return {}
    lines = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return {line["image"]: tuple(line["captions"]) for line in lines}


def stratified_split(data: SceneImages, *, seed: int, fractions: tuple[float, float] = (0.8, 0.1)) -> dict[str, np.ndarray]:
    """Indices of ``train``, ``val`` and ``test``: each class is divided alike, identical images stay together.

    ``fractions`` are the shares of train and val; test takes the rest. An image equal to another one byte by
    byte always goes to ``train``, so that no pair sits on both sides.
    """
    digests = [hashlib.sha256(image.tobytes()).digest() for image in data.pixels]
    counts: dict[bytes, int] = {}
    for digest in digests:
        counts[digest] = counts.get(digest, 0) + 1
    repeated = np.array([counts[digest] > 1 for digest in digests])
    generator = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {"train": [], "val": [], "test": []}
    for label in range(len(data.classes)):
        indices = generator.permutation(np.flatnonzero(data.labels == label))
        indices = np.concatenate([indices[repeated[indices]], indices[~repeated[indices]]])
        first, second = (round(len(indices) * f) for f in (fractions[0], sum(fractions)))
        for name, part in zip(parts, np.split(indices, [first, second]), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(pieces)) for name, pieces in parts.items()}
