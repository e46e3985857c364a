"""Make the embedded model again, from the four data sets of its card.

    python benchmarks/embedded_model.py ../shared/data -o my-compact

Takes some two hours on two processor cores; a run that was stopped continues. UC Merced's sentences
are known by class, not by picture: each picture of the training part gets five of those of its
class, the others none, so that no figure is computed on them. Half of EuroSAT's training pictures
are learned without their haze, as the model's default scaling of rasters subtracts it. The image
encoder starts from the embedded one (--model), whose word vectors are kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from pathlib import Path

import numpy as np
from common import DATA_SETS
from PIL import Image

from rssc_geo import TrainOptions, train
from rssc_geo.models import load_card
from rssc_geo.raster import without_haze
from rssc_geo.training import load_image_folder, stratified_split

SENTENCES, SIZE, SEED = 5, 192, 0
HAZY_SIZE = 64
"""Pixels a side of EuroSAT's pictures, which show the air."""
DESCRIPTION = (
    "MobileNetV1 with scene and ground features at 192 px, 27,000 static word vectors, dual"
    " cross-attention, a two-layer captioner; 41 classes in 11 groups."
)
DATA = (
    "AID (Xia et al., 2017) at 150 px with RSICD's captions (Lu et al., 2017), UC Merced (Yang and"
    " Newsam, 2010) with UCM-Captions' sentences by class (Qu et al., 2016), 14 classes of"
    " NWPU-RESISC45 (Cheng et al., 2017) at 160 px, EuroSAT (Helber et al., 2019; MIT); all but"
    " EuroSAT for research, no license stated; started from {start}, whose word vectors come from"
    " all-MiniLM-L6-v2 (Apache-2.0) and initial image weights from MobileNetV1, ImageNet-1k"
    " (Apache-2.0)"
)


def with_sentences(source: Path, folder: Path) -> Path:
    """UC Merced as a data set with captions in its training part; pictures stay where they are."""
    made = folder / source.name
    made.mkdir(parents=True, exist_ok=True)
    if not (made / "images").exists():
        (made / "images").symlink_to((source / "images").resolve())
    by_class = json.loads((source / "captions_by_class.json").read_text(encoding="utf-8"))
    data = load_image_folder(source, size=SIZE)
    draw, lines = random.Random(0), []
    for row in stratified_split(data, seed=SEED)["train"].tolist():
        label = data.classes[data.labels[row]]
        chosen = draw.sample(by_class[label], min(SENTENCES, len(by_class[label])))
        lines.append(json.dumps({"image": data.names[row], "label": label, "captions": chosen}))
    (made / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made


def half_clear(source: Path, folder: Path) -> Path:
    """EuroSAT with the haze of half of its training part subtracted, as ``--stretch dos`` does."""
    made = folder / source.name
    data = load_image_folder(source, size=HAZY_SIZE)
    scaling = without_haze(data.pixels[:, ::4, ::4].reshape(-1, 3))
    rows = stratified_split(data, seed=SEED)["train"]
    clear = set(np.random.default_rng(SEED).permutation(rows)[: len(rows) // 2].tolist())
    for row, name in enumerate(data.names):
        path, origin = made / "images" / name, source / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if row in clear:
            with Image.open(origin) as picture:
                pixels = np.array(picture.convert("RGB"))
            Image.fromarray(scaling.apply(pixels)).save(path.with_suffix(".png"))
        elif not path.exists():
            path.symlink_to(origin.resolve())
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of the four data sets and taxonomy.json")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--model", default="compact", help="bundle to start from")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work, start = Path(f"{options.output}.work"), load_card(options.model)
    folders = [options.data / name for name in DATA_SETS]
    folders[1] = with_sentences(folders[1], work / "data")
    folders[3] = half_clear(folders[3], work / "data")
    card = train(
        folders,
        options.output,
        TrainOptions(
            model=options.model,
            taxonomy=str(options.data / "taxonomy.json"),
            work=str(work),
            ground_features=(2, 256),
            schedule=((1, 160), (3, SIZE)),
            swa_epochs=3,
            trainings=2,
            start_share=1 / 3,
            learning_rate=1.0e-3,
            seed=SEED,
            views=2,
            caption_epochs=10,
            fusion_epochs=6,
            footprint=(60, 160, 4800),
            gsd_range=(0.3, 10),
            stretch="dos",
            name="compact",
            bundle_version="1.5.1",
            license="Apache-2.0",
            description=DESCRIPTION,
            data=DATA.format(start=f"{start.name} {start.version}"),
        ),
        command=" ".join(["python benchmarks/embedded_model.py", *sys.argv[1:]]),
        progress=True,
    )
    print(json.dumps(dict(card.accuracy), indent=1))


if __name__ == "__main__":
    main()
