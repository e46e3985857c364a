"""Make the embedded model anew, from the four data sets of its card.

    python benchmarks/embedded_model.py ../shared/data -o my-compact

Takes some two hours on two processor cores; a run that was stopped goes on. UC Merced's sentences
are known by class, not by picture: each picture gets five of those of its class, for the training
alone. The image encoder starts from the embedded one (--model), whose word vectors are kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from pathlib import Path

from common import DATA_SETS

from rssc_geo import TrainOptions, train
from rssc_geo.models import load_card

SENTENCES = 5
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
    """UC Merced as a data set whose pictures have captions; the pictures stay where they are."""
    made = folder / source.name
    made.mkdir(parents=True, exist_ok=True)
    if not (made / "images").exists():
        (made / "images").symlink_to((source / "images").resolve())
    by_class = json.loads((source / "captions_by_class.json").read_text(encoding="utf-8"))
    draw, lines = random.Random(0), []
    for place in sorted((source / "images").iterdir()):
        for picture in sorted(place.iterdir()):
            sentences = by_class[place.name]
            chosen = draw.sample(sentences, min(SENTENCES, len(sentences)))
            image = f"{place.name}/{picture.name}"
            lines.append(json.dumps({"image": image, "label": place.name, "captions": chosen}))
    (made / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
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
    card = train(
        folders,
        options.output,
        TrainOptions(
            model=options.model,
            taxonomy=str(options.data / "taxonomy.json"),
            work=str(work),
            ground_features=(2, 256),
            schedule=((3, 160), (4, 192)),
            swa_epochs=4,
            learning_rate=1.2e-3,
            views=2,
            caption_epochs=10,
            fusion_epochs=6,
            footprint=(60, 160, 4800),
            gsd_range=(0.3, 10),
            name="compact",
            bundle_version="1.2.0",
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
