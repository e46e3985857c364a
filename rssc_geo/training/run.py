"""What every training run does before and after it learns."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rssc_geo.errors import InputError
from rssc_geo.training.data import SceneImages, Split
from rssc_geo.training.metrics import score
from rssc_geo.training.options import TrainOptions, card_options

_PARTS = ("seed", "val", "test", "folds", "views")


def spare_bundle(output: Path) -> None:
    """``InputError`` where a bundle would be overwritten."""
    if (output / "config.json").exists():
        raise InputError(f"{output} holds a bundle already; choose another folder or remove it")


def open_work(work: Path, *, dataset: Path, options: TrainOptions) -> None:
    """Make the work folder, once all is known to be right.

    What lies in it must come from the same data and options.
    """
    work.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps(
        {"dataset": str(dataset.resolve()), **dataclasses.asdict(options)}, default=str, indent=1
    )
    file = work / "options.json"
    if file.is_file() and file.read_text(encoding="utf-8") != wanted:
        raise InputError(
            f"{work} holds a run of other options; choose another --work folder or remove it"
        )
    file.write_text(wanted, encoding="utf-8")


def share_work(work: Path, *, options: TrainOptions) -> None:
    """Make the work folder for what is learned on a trained encoder, or go on in that of its
    training.

    ``InputError`` where what lies in it was made for other parts of the data.
    """
    work.mkdir(parents=True, exist_ok=True)
    file = work / "options.json"
    wanted = {name: getattr(options, name) for name in _PARTS}
    if not file.is_file():
        file.write_text(json.dumps(wanted), encoding="utf-8")
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        wrong = [name for name, value in wanted.items() if told[name] != value]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} does not tell what {work} was made with; choose another --work folder"
        ) from error
    if wrong:
        name = wrong[0]
        raise InputError(
            f"{work} was made with {name} {told[name]}, not {wanted[name]}; choose another --work"
            " folder"
        )


def figures(
    logits: np.ndarray, labels: np.ndarray, data: SceneImages, *, temperature: float
) -> dict[str, float]:
    """The single numbers of a part, for the card."""
    probabilities = torch.from_numpy(logits / temperature).softmax(1).numpy()
    found = score(probabilities, labels, class_names=data.classes).as_dict()
    return {name: value for name, value in found.items() if isinstance(value, float)}


class Clock:
    """How long a training took, all of its runs together; the work folder remembers.

    Starts when it is made.
    """

    def __init__(self, work: Path) -> None:
        self._work, self._started, self._before = work, time.monotonic(), 0.0

    def go_on(self) -> None:
        """Count what earlier runs in this work folder took."""
        file = self._work / "seconds.txt"
        self._before = float(file.read_text(encoding="utf-8")) if file.is_file() else 0.0

    def keep(self) -> float:
        """Write down, and return, the seconds so far."""
        seconds = self._before + time.monotonic() - self._started
        part = self._work / "seconds.part"
        part.write_text(f"{seconds:.1f}", encoding="utf-8")
        part.replace(self._work / "seconds.txt")
        return seconds


def describe(
    options: TrainOptions, split: Split, *, seconds: float, device: torch.device, command: str
) -> Mapping[str, Any]:
    """What the card says about the training; ``seconds``: what it took."""
    return {
        "data": options.data or "not described",
        "images": {name: len(rows) for name, rows in split.items()},
        "seed": options.seed,
        "minutes": round(seconds / 60, 1),
        "device": str(device),
        "command": command,
        "options": card_options(options),
    }
