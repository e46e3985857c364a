"""Captions of a folder of pictures, for training on them: ``rssc-geo caption --pictures``."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from rssc_geo.captioning import CaptionOptions, NoCaptioner, make_captioner
from rssc_geo.errors import UsageError
from rssc_geo.files import atomic_write, check_writable
from rssc_geo.inference import TileClassifier, choose_compute
from rssc_geo.models import load_bundle
from rssc_geo.pipelines import CaptionResult
from rssc_geo.progress import Progress
from rssc_geo.training.data import load_image_folder


def caption_pictures(
    folder: str | Path,
    output: str | Path,
    *,
    model: str | Path = "compact",
    revision: str | None = None,
    captioner: str | None = None,
    caption_options: CaptionOptions | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> CaptionResult:
    """Describe the pictures of a data set and write ``captions.jsonl`` for ``train --captions``.

    ``folder``: one folder a class (:func:`load_image_folder`); ``output``: a .jsonl with a line a
    picture, ``{"image": "<class>/<file>", "captions": ["…"]}``, which appears whole or not at all.
    The other arguments are those of ``rssc_geo.caption``; what a large captioner has written stays
    in its cache.

    Raises ``RsscGeoError``, one clear line.
    """
    started = time.monotonic()
    target = Path(output)
    if target.suffix.lower() != ".jsonl":
        raise UsageError(f"{target.name}: captions of pictures are written as .jsonl")
    check_writable(target, overwrite=overwrite)
    compute = choose_compute(device, dtype=dtype, batch_size=batch_size)
    loaded = load_bundle(model, revision=revision)
    writes = make_captioner(
        captioner,
        loaded,
        caption_options or CaptionOptions(),
        device=compute.device,
        dtype=compute.dtype,
    )
    if isinstance(writes, NoCaptioner):
        raise UsageError("--captioner none writes no captions; name one that does")
    data = load_image_folder(folder, size=loaded.card.input_size[0])
    classifier = TileClassifier(loaded, writes, compute)
    with atomic_write(target) as made, made.open("w", encoding="utf-8") as file:
        for start in range(0, len(data.names), compute.batch_size):
            pixels = data.pixels[start : start + compute.batch_size]
            found = classifier(pixels, np.ones(pixels.shape[:3], bool)).captions
            for name, text in zip(data.names[start:], found, strict=False):
                line = {"image": name, "captions": [text] if text else []}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            if progress is not None:
                progress("caption", start + len(found), len(data.names))
    return CaptionResult(
        target, len(data.names), time.monotonic() - started, str(compute.device), ()
    )
