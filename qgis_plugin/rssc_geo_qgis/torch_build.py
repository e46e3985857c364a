"""Which build of PyTorch fits the computer: the graphics card and its driver decide."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from .child import ChildError, ask, which
from .i18n import tr

INDEXES = "https://download.pytorch.org/whl/"
"""Where PyTorch keeps its own indexes, one for each build."""


@dataclass(frozen=True)
class Build:
    """A build of PyTorch.

    Attributes
    ----------
    name : as the index of PyTorch calls it; empty where the usual index has it
    title : as people call it
    disk_gb : what everything takes at most
    least, most : compute capabilities (major, minor) of the cards that it has code for
    driver : major version of NVIDIA's oldest driver that runs it: on Linux, on Windows
    """

    name: str
    title: str
    disk_gb: float
    least: tuple[int, int] = (0, 0)
    most: tuple[int, int] = (0, 0)
    driver: tuple[int, int] = (0, 0)

    @property
    def index(self) -> str:
        """Where pip finds it; empty: in the usual index."""
        return f"{INDEXES}{self.name}" if self.name else ""

    def runs(self, card: Card) -> bool:
        """Whether it has code for the card, and the driver is new enough."""
        oldest = self.driver[1 if os.name == "nt" else 0]
        return self.least <= card.capability <= self.most and card.driver >= oldest


@dataclass(frozen=True)
class Card:
    """A graphics card: its name, compute capability (major, minor) and the driver's version."""

    name: str
    capability: tuple[int, int]
    driver: int


CPU = Build("cpu", "CPU", 3.0)
APPLE = Build("", "Apple", 3.0)
# Newest first; the others are for cards and drivers that it does not know. Drivers and capabilities
# are those of NVIDIA's notes on each release of CUDA, narrowed to what PyTorch compiles.
CUDA = (
    Build("cu130", "CUDA 13.0", 12.0, (7, 5), (12, 1), (580, 580)),
    Build("cu126", "CUDA 12.6", 12.0, (5, 0), (9, 0), (525, 528)),
    Build("cu128", "CUDA 12.8", 12.0, (7, 5), (12, 0), (570, 570)),
)
WIDEST = CUDA[1]


def choose_build(wanted: str, log: Callable[[str], None]) -> Build:
    """The build for ``wanted``, which is ``cpu``, ``cuda`` or empty for what fits the computer."""
    if sys.platform == "darwin":
        return APPLE
    if wanted == "cpu":
        return CPU
    cards = read_cards()
    for card in cards:
        fitting = next((build for build in CUDA if build.runs(card)), None)
        if fitting is not None:
            log(f"{_told(card)}: {fitting.title}")
            return fitting
        log(tr("{card}: no build of PyTorch for it").format(card=_told(card)))
    return WIDEST if wanted == "cuda" else CPU


def read_cards() -> list[Card]:
    """NVIDIA's cards, as their driver tells them; none where it does not answer."""
    program = which("nvidia-smi")
    if not program:
        return []
    query = "--query-gpu=name,compute_cap,driver_version"
    try:
        answer = ask([program, query, "--format=csv,noheader"])
    except ChildError:
        return []
    return [card for line in answer.splitlines() if (card := _card(line)) is not None]


def _card(line: str) -> Card | None:
    """From ``NVIDIA A10, 8.6, 570.86.15``; None for what a very old driver tells."""
    try:
        name, capability, driver = line.rsplit(",", 2)
        major, minor = capability.strip().split(".")
        return Card(name.strip(), (int(major), int(minor)), int(driver.strip().split(".")[0]))
    except ValueError:
        return None


def _told(card: Card) -> str:
    major, minor = card.capability
    return f"{card.name} ({major}.{minor}, driver {card.driver})"
