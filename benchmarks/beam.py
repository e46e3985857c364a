"""Benefit and cost of beam search for the embedded captioner.

    python benchmarks/beam.py AID_FOLDER [--model compact] [--part test] [--widths 1,2,4,8]
    [--repeats 3]

Captions of a part of the data set (as in training) by beams of several widths; 1 is greedy. The
figures are those of `rssc-geo evaluate MODEL AID_FOLDER --part test --caption-beam WIDTH`; tiles/s
are of encoder and captioner together, without the reading of pictures, the median of the repeats.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch

from rssc_geo.captioning import CaptionBatch, CompactCaptioner
from rssc_geo.evaluation import caption_scores
from rssc_geo.models import load_bundle
from rssc_geo.training import load_image_folder, stratified_split

BATCH = 64
FIGURES = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--part", choices=["train", "val", "test"], default="test")
    parser.add_argument("--widths", default="1,2,4,8")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()

    model = load_bundle(options.model)
    data = load_image_folder(options.dataset, size=model.card.input_size[0])
    data = data.take(stratified_split(data, seed=0)[options.part])
    told = [place for place, texts in enumerate(data.captions) if texts]
    print(f"{len(told)} pictures, {torch.get_num_threads()} threads, {options.repeats} repeats")
    print(f"| beam | {' | '.join(FIGURES)} | words | tiles/s |")
    print("|---" * (len(FIGURES) + 3) + "|")
    for width in map(int, options.widths.split(",")):
        captioner = CompactCaptioner(model.decoder, model.vocabulary, beam=width)
        rates = []
        for _ in range(options.repeats):
            started, written = time.monotonic(), []
            for start in range(0, len(data.pixels), BATCH):
                pixels = data.pixels[start : start + BATCH]
                mask = np.ones(pixels.shape[:3], bool)
                with torch.inference_mode():
                    tokens = model.network.encode_image(model.preprocess(pixels, mask))
                written += captioner.caption(CaptionBatch(pixels, mask, tokens))
            rates.append(len(data.pixels) / (time.monotonic() - started))
        scores = caption_scores([written[k] for k in told], [data.captions[k] for k in told])
        words = np.mean([len(text.split()) for text in written])
        cells = [f"{scores[name]:.3f}" for name in FIGURES]
        print(
            f"| {width} | {' | '.join(cells)} | {words:.1f} | {np.median(rates):.0f} |", flush=True
        )


if __name__ == "__main__":
    main()
