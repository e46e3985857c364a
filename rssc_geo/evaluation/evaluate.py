"""How good a bundle is on labeled pictures: ``rssc-geo evaluate`` and ``rssc_geo.evaluate``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from rssc_geo.captioning import CaptionBatch, CompactCaptioner
from rssc_geo.errors import InputError, UsageError
from rssc_geo.evaluation.caption_metrics import caption_scores
from rssc_geo.evaluation.corruptions import Corruption, corruptions
from rssc_geo.evaluation.plots import confusion_png, mistakes_png, tsne_png
from rssc_geo.models import CaptionSource, Model
from rssc_geo.training import SceneImages, Scores, score

Words = Literal["own", "none", "human"]
_BATCH = 64
_MISTAKES = 24


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says of N pictures.

    ``probabilities``: float32 ``(N, C)``; ``captions``: its own, empty where it has no captioner;
    ``embedding``: float32 ``(N, D)``, the joint embedding that the class was read from.
    """

    probabilities: np.ndarray
    captions: list[str]
    embedding: np.ndarray


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one model on one data set, and what they were computed from."""

    scores: Scores
    captions: Mapping[str, float]
    robustness: Mapping[str, float]
    answers: Answers
    data: SceneImages

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        values: dict[str, Any] = {"images": len(self.data.labels), **self.scores.to_dict()}
        if self.captions:
            values["captions"] = {name: round(value, 4) for name, value in self.captions.items()}
        if self.robustness:
            values["robustness"] = {
                name: round(value, 4) for name, value in self.robustness.items()
            }
        return values


def evaluate(
    model: Model,
    data: SceneImages,
    *,
    words: Words = "own",
    class_map: Mapping[str, str] | None = None,
    robustness: bool = False,
    beam: int = 1,
    device: torch.device | None = None,
) -> Evaluation:
    """Classify every picture and compare.

    Parameters
    ----------
    data : pictures of the model's input size
    words : which captions the classifier may read: its own (where its card says that this helps),
        none, or all that people wrote about the picture
    class_map : the model's class for a class of the data set, where the names differ; classes that
        are mapped to "" or unknown to the model are left out
    robustness : also the overall accuracy under each of :func:`corruptions`
    beam : sentences that its captioner follows at a time (``CaptionDecoder.beam``)
    device : default the CPU

    Raises ``InputError`` when no class of the data set is one of the model's, ``UsageError`` for
    unknown names.
    """
    data = match_classes(data, model, class_map or {})
    device = device or torch.device("cpu")
    if words == "human" and not any(data.captions):
        raise UsageError("--words human needs captions, and the data set has none (captions.jsonl)")
    found = answer(model, data.pixels, words=words, written=data.captions, beam=beam, device=device)
    under = {}
    if robustness:
        for name, corrupt in corruptions().items():
            predicted = answer(
                model,
                data.pixels,
                words=words,
                written=data.captions,
                beam=beam,
                device=device,
                corrupt=corrupt,
            )
            under[name] = float((predicted.probabilities.argmax(1) == data.labels).mean())
    told = [place for place, texts in enumerate(data.captions) if texts]
    captions = {}
    if told and model.decoder is not None:
        captions = caption_scores(
            [found.captions[k] for k in told], [data.captions[k] for k in told]
        )
    return Evaluation(
        score(found.probabilities, data.labels, class_names=data.classes),
        captions,
        under,
        found,
        data,
    )


def match_classes(data: SceneImages, model: Model, class_map: Mapping[str, str]) -> SceneImages:
    """The pictures whose class the model knows, labeled with the model's class ids (any case, spaces ignored)."""
    known = {_plain(c.name): c.id for c in model.card.classes}
    unknown = [name for name in class_map if name not in data.classes]
    missing = [name for name in class_map.values() if name and _plain(name) not in known]
    if unknown or missing:
        raise UsageError(
            f"the class map names classes that are not there: {', '.join([*unknown, *missing])}"
        )
    targets = np.array([known.get(_plain(class_map.get(name, name)), -1) for name in data.classes])
    kept = np.flatnonzero(targets[data.labels] >= 0)
    if not len(kept):
        raise InputError(
            f"none of the data set's classes ({', '.join(data.classes[:8])}, …) is one of the"
            f" model's ({', '.join(c.name for c in model.card.classes[:8])}, …); --class-map says"
            " which is which"
        )
    return SceneImages(
        pixels=data.pixels[kept],
        labels=targets[data.labels[kept]],
        names=tuple(data.names[k] for k in kept.tolist()),
        classes=tuple(c.name for c in model.card.classes),
        captions=tuple(data.captions[k] for k in kept.tolist()),
    )


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


@torch.inference_mode()
def answer(
    model: Model,
    pixels: np.ndarray,
    *,
    words: Words,
    written: Sequence[Sequence[str]],
    beam: int = 1,
    device: torch.device,
    corrupt: Corruption | None = None,
) -> Answers:
    """Run the model over pictures uint8 ``(N, H, W, 3)``, after ``corrupt`` where one is given.

    Corrupted pictures are described only where the classifier reads that.
    """
    network = model.network.to(device).eval()
    captioner = None
    reads = words == "own" and model.card.reads_own_captions
    if model.decoder is not None and model.vocabulary is not None and (reads or corrupt is None):
        captioner = CompactCaptioner(model.decoder.to(device), model.vocabulary, beam=beam)
    source: CaptionSource = "written" if words == "human" else "generated"
    probabilities, captions, embedding = [], [], []
    for start in range(0, len(pixels), _BATCH):
        part = pixels[start : start + _BATCH]
        part = corrupt(part) if corrupt is not None else part
        mask = np.ones(part.shape[:3], bool)
        tokens = network.encode_image(model.preprocess(part, mask).to(device))
        own = (
            captioner.caption(CaptionBatch(part, mask, tokens))
            if captioner is not None
            else [""] * len(part)
        )
        read = [""] * len(part)
        if words == "human":
            read = [" ".join(texts) for texts in written[start : start + _BATCH]]
        elif reads:
            read = own
        ids, present = (values.to(device) for values in model.tokenize(read, source=source))
        fused = network.fuse(tokens, ids, present)
        logits = network.classifier(fused).float() / model.card.temperature
        probabilities.append(logits.softmax(1).cpu().numpy())
        embedding.append(fused.float().cpu().numpy())
        captions += own
    return Answers(np.concatenate(probabilities), captions, np.concatenate(embedding))


def write_report(evaluation: Evaluation, folder: str | Path, *, model: Model) -> list[Path]:
    """Write ``evaluation.json``, ``confusion.png``, ``embedding.png`` (t-SNE) and ``mistakes.png`` (the surest ones)."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / name for name in ("evaluation.json", "confusion.png", "embedding.png")]
    paths[0].write_text(json.dumps(evaluation.to_dict(), indent=2) + "\n", encoding="utf-8")
    data, answers = evaluation.data, evaluation.answers
    confusion_png(evaluation.scores.confusion, data.classes, path=paths[1])
    colors = [c.color for c in model.card.classes]
    tsne_png(answers.embedding, data.labels, names=data.classes, colors=colors, path=paths[2])
    predicted, sure = answers.probabilities.argmax(1), answers.probabilities.max(1)
    wrong = np.flatnonzero(predicted != data.labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:_MISTAKES]
    if len(worst):
        paths.append(target / "mistakes.png")
        titles = [
            f"{data.classes[data.labels[k]]} → {data.classes[predicted[k]]}, {sure[k]:.2f}"
            for k in worst.tolist()
        ]
        mistakes_png(
            data.pixels[worst],
            titles,
            captions=[answers.captions[k] for k in worst.tolist()],
            path=paths[-1],
        )
    return paths
