"""Captions of a folder of pictures, for training on them: ``rssc-geo caption --pictures``."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from rssc_geo.captioning import check_captioner
from rssc_geo.errors import UsageError
from rssc_geo.files import atomic_write, check_not_input, check_writable
from rssc_geo.models import load_card
from rssc_geo.options import CaptionOptions
from rssc_geo.pipelines import CaptionResult
from rssc_geo.progress import Progress, reporting
from rssc_geo.training.data import find_pictures, load_image_folder


def caption_pictures(
    folder: str | Path,
    output: str | Path,
    options: CaptionOptions | None = None,
    *,
    progress: Progress | bool | None = None,
) -> CaptionResult:
    """Describe the pictures of a data set and write ``captions.jsonl`` for ``train --captions``.

    Parameters
    ----------
    folder : one folder a class, see ``load_image_folder``
    output : a .jsonl with a line a picture, ``{"image": "<class>/<file>", "captions": ["…"]}``,
        which appears whole or not at all
    options : those of model, computing and captions, and ``overwrite``; what a large captioner has
        written stays in its cache
    progress : as for ``classify``

    Raises ``RsscGeoError``, one clear line.
    """
    started = time.monotonic()
    options = options or CaptionOptions()
    target = Path(output)
    if target.suffix.lower() != ".jsonl":
        raise UsageError(f"{target.name}: captions of pictures are written as .jsonl")
    if options.captioner == "none":
        raise UsageError("--captioner none writes no captions; name one that does")
    check_writable(target, overwrite=options.overwrite)
    if target.exists():
        pictures = find_pictures(folder)
        check_not_input(
            [target], [Path(folder) / "captions.jsonl", *(path for _, path in pictures.paths)]
        )
    card = load_card(options.model, revision=options.revision)
    check_captioner(options, card)
    data = load_image_folder(folder, size=card.input_size[0])

    from rssc_geo.captioning import NoCaptioner
    from rssc_geo.inference import load_predictor

    predictor = load_predictor(options)
    if isinstance(predictor.captioner, NoCaptioner):
        raise UsageError("the model brings no captioner of its own; name one with --captioner")
    count = len(data.names)
    with (
        atomic_write(target) as made,
        made.open("w", encoding="utf-8") as file,
        reporting(progress) as report,
    ):
        for start in range(0, count, predictor.compute.batch_size):
            pixels = data.pixels[start : start + predictor.compute.batch_size]
            captions = predictor(pixels, np.ones(pixels.shape[:3], bool)).captions
            for name, text in zip(data.names[start:], captions, strict=False):
                line = {"image": name, "captions": [text] if text else []}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            report("caption", start + len(captions), count)
    seconds = time.monotonic() - started
    return CaptionResult(target, count, seconds, str(predictor.compute.device), ())
