"""The result of an evaluation: predictions, figures, and the files that show them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import OutputError
from rssc_geo.evaluation.plots import confusion_png, mistakes_png, require_plots, tsne_png
from rssc_geo.files import StagingFolder, check_writable, make_folders, remove_empty
from rssc_geo.models import ModelCard
from rssc_geo.training import SceneImages, Scores, accuracy_interval, score

if TYPE_CHECKING:
    import pandas as pd

_MISTAKES = 24
_FILES = ("evaluation.json", "confusion.png", "embedding.png", "mistakes.png")


@dataclass(frozen=True, slots=True)
class Predictions:
    """The results of a model for N pictures.

    Attributes
    ----------
    probabilities : float32 (N, C)
    captions : its own, empty where it has no captioner
    embedding : float32 (N, D), the joint embedding that the class was read from
    """

    probabilities: NDArray[np.float32]
    captions: list[str]
    embedding: NDArray[np.float32]

    @property
    def classes(self) -> NDArray[np.int64]:
        """The most likely class of each picture, (N,)."""
        return np.asarray(self.probabilities.argmax(1), np.int64)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one model on one data set, and what they were computed from.

    Attributes
    ----------
    card : of the model
    data : the pictures, with the model's classes
    predictions : the model's results for them
    scores : of its classes
    captions : of its captions, where people have written some (see ``caption_scores``)
    robustness : overall accuracy under each of ``corruptions``, if asked for
    choice : ids of the classes that were allowed; None: all
    blocks : integers (N,), which pictures lie together; None: each is for itself
    warnings : limits of the figures
    files : what was written
    """

    card: ModelCard
    data: SceneImages
    predictions: Predictions
    scores: Scores
    captions: Mapping[str, float]
    robustness: Mapping[str, float]
    choice: tuple[int, ...] | None = None
    blocks: NDArray[np.int64] | None = None
    warnings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """Bounds of a 95 % interval of the overall accuracy, see ``accuracy_interval``."""
        right = self.predictions.classes == self.truth
        blocks = np.arange(len(right)) if self.blocks is None else self.blocks
        return accuracy_interval(right, blocks)

    @property
    def truth(self) -> NDArray[np.int64]:
        """The class that each picture counts as, (N,), see ``Legend.truth``."""
        return self.data.truth(self.predictions.probabilities)

    def by_set(self) -> dict[str, dict[str, float]]:
        """Pictures, accuracy and calibration error of each of several data sets."""
        legend, probabilities, truth = self.data.legend, self.predictions.probabilities, self.truth
        of = np.array(legend.sets, object)[self.data.labels]
        figures = {}
        for name in dict.fromkeys(legend.sets) if any(legend.sets) else ():
            mine = np.flatnonzero(of == name)
            scores = score(probabilities[mine], truth[mine], class_names=legend.classes)
            figures[name] = {"images": len(mine), **scores.figures()}
        return figures

    def as_dict(self) -> dict[str, Any]:
        """Everything but the pictures, ready for JSON."""
        values: dict[str, Any] = {"images": len(self.data.labels), **self.scores.as_dict()}
        values["interval"] = [round(bound, 4) for bound in self.interval]
        if self.warnings:
            values["warnings"] = list(self.warnings)
        if self.choice is not None:
            values["class_choice"] = self.card.names(self.choice)
        if sets := self.by_set():
            values["sets"] = sets
        for name, figures in (("captions", self.captions), ("robustness", self.robustness)):
            if figures:
                values[name] = {key: round(value, 4) for key, value in figures.items()}
        if self.files:
            values["files"] = [str(path) for path in self.files]
        return values

    def to_pandas(self) -> pd.DataFrame:
        """One row a picture: name, class, predicted class, confidence and caption."""
        import pandas as pd

        names = np.array(self.data.classes, object)
        return pd.DataFrame(
            {
                "name": self.data.names,
                "class": names[self.truth],
                "predicted": names[self.predictions.classes],
                "confidence": self.predictions.probabilities.max(1),
                "caption": self.predictions.captions,
            }
        )

    def written(self, folder: str | Path) -> Evaluation:
        """The same with the files that ``write`` made of it."""
        return dataclasses.replace(self, files=tuple(self.write(folder)))

    def write(self, folder: str | Path) -> list[Path]:
        """Write figures, confusion matrix, a map of the embedding, and the most confident mistakes.

        ``evaluation.json``, ``confusion.png``, ``embedding.png`` (t-SNE) and, where there are
        mistakes, ``mistakes.png``. Raises ``OutputError`` where they cannot be written.
        """
        target = Path(folder)
        _make_folder(target)
        files = [target / name for name in _FILES]
        figures, confusion, embedding, mistakes = files
        data, found = self.data, self.predictions
        titles = tuple(known.title for known in self.card.classes)
        colors = [c.color for c in self.card.classes]
        predicted, confidence = found.classes, found.probabilities.max(1)
        wrong = np.flatnonzero(predicted != self.truth)
        worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]
        told = [
            f"{data.legend.labels[data.labels[k]]} → {titles[predicted[k]]}, {confidence[k]:.2f}"
            for k in worst.tolist()
        ]
        captions = [found.captions[k] for k in worst.tolist()]
        with StagingFolder(figures) as staging:
            text = json.dumps(self.as_dict(), indent=2) + "\n"
            staging.place(figures).write_text(text, encoding="utf-8")
            confusion_png(self.scores.confusion, titles, path=staging.place(confusion))
            tsne_png(
                found.embedding,
                self.truth,
                names=titles,
                colors=colors,
                path=staging.place(embedding),
            )
            if len(worst):
                place = staging.place(mistakes)
                mistakes_png(data.pixels[worst], told, captions=captions, path=place)
            else:
                files.remove(mistakes)
            staging.publish(files[::-1], overwrite=True, obsolete=[mistakes])
        return files


def check_evaluation_folder(folder: str | Path | None) -> None:
    """Refuse at the start a folder that could not be written into at the end."""
    if folder is not None:
        require_plots()
        remove_empty(_make_folder(Path(folder)))


def _make_folder(target: Path) -> list[Path]:
    """Make the folder if need be; the folders made. One that cannot be written is refused.

    Also one where other files have our names. Raises ``OutputError``.
    """
    there = [name for name in _FILES if (target / name).exists()]
    if there and not _is_evaluation(target / _FILES[0]):
        raise OutputError(
            f"{target} holds {there[0]}, which is of no earlier evaluation: choose another folder"
        )
    made = make_folders(target)
    check_writable(target / _FILES[0], overwrite=True)
    return made


def _is_evaluation(path: Path) -> bool:
    try:
        return "overall_accuracy" in json.loads(path.read_bytes())
    except (OSError, ValueError, TypeError):
        return False
