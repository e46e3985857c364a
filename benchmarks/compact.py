"""Tiles/s of the embedded model end to end, against the published network's forward pass alone.

    python benchmarks/compact.py [--side 4096] [--tile 128] [--repeats 3]

End to end: raster in, GeoPackage with captions out, as `rssc-geo classify` with cells as large as
tiles does it on the processor. Published: the same network class with the paper's encoders
(ViT-B/16 at 224 px, CLIP's text encoder on 77 tokens), random weights, float32, batches of 8, on
pictures that are in memory already; no captions are written. Repeats are interleaved.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from common import dense_scene, median_rates, rate_options, verdict

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the program does, before torch is loaded

import torch

from rssc_geo import ClassifyOptions, load_model
from rssc_geo.models import DualAttentionClassifier
from rssc_geo.pipelines.classify import classify

BATCH, WORDS, BATCHES = 8, 77, 4


def published() -> DualAttentionClassifier:
    """The paper's network at its full size, without learned queries and gate."""
    return DualAttentionClassifier(
        classes=30,
        image_encoder={"architecture": "vit_base_patch16_224"},
        text_encoder={
            "model_type": "clip_text_model",
            "vocab_size": 49408,
            "hidden_size": 512,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 8,
            "max_position_embeddings": WORDS,
        },
        learned_queries=0,
        gate=False,
    ).eval()


def main() -> int:
    options = rate_options(__doc__)
    path = dense_scene(options.side)
    predictor, network = load_model("compact", device="cpu"), published()
    size = f"{options.tile}px"
    choices = ClassifyOptions(tile_size=size, cell_size=size, no_unknown=True)  # cell = tile
    images = torch.randn(BATCH, 3, 224, 224)
    ids, mask = torch.randint(1, 49408, (BATCH, WORDS)), torch.ones(BATCH, WORDS, dtype=torch.bool)

    @torch.inference_mode()
    def forward() -> float:
        started = time.perf_counter()
        for _ in range(BATCHES):
            network(images, ids, mask)
        return BATCH * BATCHES / (time.perf_counter() - started)

    def end_to_end() -> float:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            result = classify(path, Path(folder) / "map.gpkg", choices, model=predictor)
            return result.as_dict()["tiles"] / (time.perf_counter() - started)

    forward()
    rates: dict[str, list[float]] = {
        "published network, forward pass": [],
        "compact, end to end": [],
    }
    for _ in range(options.repeats):
        rates["published network, forward pass"].append(forward())
        rates["compact, end to end"].append(end_to_end())
    medians = median_rates(rates)
    print(f"{torch.get_num_threads()} threads")
    ours = medians["compact, end to end"]
    met = [
        verdict("tiles/s, compact end to end", ours, at_least=50),
        verdict(
            "compact / published", ours / medians["published network, forward pass"], at_least=15
        ),
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
