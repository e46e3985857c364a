"""One legend for several data sets: which classes each of their labels allows. No torch here.

Data sets use different names, and some labels are less specific than others: EuroSAT's
"Residential" is any density of houses. A taxonomy file (docs/training.md) lists for each label the
classes that it allows: a *partial label* where there are several.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rssc_geo.errors import InputError, escaped
from rssc_geo.models import read_json
from rssc_geo.texts import read_text

_LARGEST = 4_000_000  # bytes of a file; the four data sets of the embedded model need 4,000
_KEYS = ("about", "groups", "sets", "texture")


@dataclass(frozen=True, slots=True, eq=False)
class Legend:
    """Which of C classes each of L labels allows.

    Attributes
    ----------
    classes : names of the classes
    labels : names of the labels; of several data sets "<set>/<label>"
    allowed : bool ``(L, C)``, the classes that a label allows
    weights : float32 ``(L, C)``, the share of each class in a label's pictures, rows summing to 1;
        zeros where the label allows several and the shares are unknown
    texture : bool ``(L,)``, labels that hold for any part of their pictures: their classes are
        textures, those of more than half of the pictures where the shares are known
    groups : class → its group; classes of none are left out
    """

    classes: tuple[str, ...]
    labels: tuple[str, ...]
    allowed: NDArray[np.bool_]
    weights: NDArray[np.float32]
    texture: NDArray[np.bool_]
    groups: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.labels), len(self.classes))
        if self.allowed.shape != shape or self.weights.shape != shape:
            raise ValueError(f"allowed classes and weights are not {shape}")
        if not self.allowed.any(1).all() or (self.weights[~self.allowed] != 0).any():
            raise ValueError("a label allows no class, or weighs one that it does not allow")

    @classmethod
    def of_classes(cls, classes: Sequence[str]) -> Legend:
        """The legend of a data set whose labels are the classes."""
        count = len(classes)
        names = tuple(classes)
        alone = np.eye(count, dtype=bool)
        return cls(names, names, alone, alone.astype(np.float32), np.zeros(count, bool))

    @classmethod
    def joined(cls, legends: Sequence[Legend]) -> Legend:
        """The labels of several legends of the same classes, one after the other."""
        return cls(
            legends[0].classes,
            tuple(label for legend in legends for label in legend.labels),
            np.concatenate([legend.allowed for legend in legends]),
            np.concatenate([legend.weights for legend in legends]),
            np.concatenate([legend.texture for legend in legends]),
            legends[0].groups,
        )

    @property
    def sets(self) -> tuple[str, ...]:
        """The data set of each label; of a single one "" throughout."""
        return tuple(label.rpartition("/")[0] for label in self.labels)

    def truth(self, scores: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.int64]:
        """The class that each picture counts as: of those that its label allows, the best scored.

        A partial label is right wherever the best of all classes is one that it allows; this is
        then that class. ``scores``: ``(N, C)``; ``labels``: ``(N,)``. Returns int64 ``(N,)``.
        """
        allowed = np.where(self.allowed[labels], scores, -np.inf)
        return np.asarray(allowed.argmax(1), np.int64)

    def as_dict(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        return {
            "classes": self.classes,
            "labels": self.labels,
            "allowed": [np.flatnonzero(row).tolist() for row in self.allowed],
            "weights": self.weights.tolist(),
            "texture": self.texture.tolist(),
        }


@dataclass(frozen=True, slots=True)
class Taxonomy:
    """A legend of grouped classes, and the classes in it that the labels of each data set allow.

    Attributes
    ----------
    groups : group → its classes, in the order of the legend
    texture : classes whose label also holds for a part of a picture
    sets : data set → label → class → weight; weights are all 0 where the label allows several
        classes with unknown shares
    """

    groups: Mapping[str, tuple[str, ...]]
    texture: frozenset[str]
    sets: Mapping[str, Mapping[str, Mapping[str, float]]]

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, group by group."""
        return tuple(name for group in self.groups.values() for name in group)

    def group_of(self, name: str) -> str:
        """The group of a class."""
        return next(group for group, classes in self.groups.items() if name in classes)

    def legend(self, data_set: str, labels: Sequence[str]) -> Legend:
        """The legend of the labels (class folders) of a data set.

        A label that the taxonomy does not list has the name of its class. Raises ``InputError`` for
        one that is no class either, and for a listed label that the data set does not have.
        """
        classes, listed = self.classes, self.sets.get(data_set, {})
        absent = [name for name in listed if name not in labels]
        if absent:
            raise InputError(
                f"the taxonomy lists {_quoted(absent)} for {data_set!r}, which has no such class"
                " folder"
            )
        nameless = [name for name in labels if name not in listed and name not in classes]
        if nameless:
            raise InputError(
                f"{data_set!r} has class folders that are no class of the taxonomy:"
                f" {_quoted(nameless)}; list them under sets.{data_set} with the classes that they"
                " allow"
            )
        allowed = np.zeros((len(labels), len(classes)), bool)
        weights = np.zeros((len(labels), len(classes)), np.float32)
        for row, label in enumerate(labels):
            for name, weight in listed.get(label, {label: 1.0}).items():
                allowed[row, classes.index(name)] = True
                weights[row, classes.index(name)] = weight
        textured = np.array([name in self.texture for name in classes])
        texture = np.where(
            weights.any(1), weights[:, textured].sum(1) > 0.5, ~(allowed & ~textured).any(1)
        )
        names = tuple(f"{data_set}/{label}" for label in labels)
        groups = {name: group for name in classes if (group := self.group_of(name))}
        return Legend(classes, names, allowed, weights, texture, groups)


def read_taxonomy(path: str | Path) -> Taxonomy:
    """Read a taxonomy file.

    Raises ``InputError`` that names the first mistake: a class in two groups, a label without a
    class, weights that do not sum to 1, …

    Examples
    --------
    >>> from rssc_geo.training import read_taxonomy
    >>> taxonomy = read_taxonomy("taxonomy.json")
    >>> taxonomy.classes
    ('River', 'Forest', 'Beach')
    """
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise InputError(f"{file}: no taxonomy has more than {_LARGEST:,} bytes")
        found = read_json(read_text(file))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{file} is no JSON: {escaped(str(error))}") from error
    try:
        return _taxonomy(found)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error


def _taxonomy(found: Any) -> Taxonomy:
    """The taxonomy of a JSON value; ``ValueError`` names the first mistake."""
    if not isinstance(found, dict) or "groups" not in found:
        raise ValueError('a taxonomy is an object with "groups": {"<group>": ["<class>", …]}')
    unknown = [key for key in found if key not in _KEYS]
    if unknown:
        raise ValueError(f"{_quoted(unknown)}: a taxonomy has only {', '.join(_KEYS)}")
    groups = {
        group: _names(names, f"group {group!r}")
        for group, names in _object(found["groups"], "groups").items()
    }
    classes = [name for names in groups.values() for name in names]
    twice = sorted(name for name, count in Counter(classes).items() if count > 1)
    if twice:
        raise ValueError(f"{_quoted(twice)} stands in two groups")
    if len(classes) < 2:
        raise ValueError("fewer than two classes: there is nothing to tell apart")
    texture = _names(found["texture"], "texture") if found.get("texture") else ()
    _check_known(texture, classes, "texture")
    sets = {}
    for data_set, labels in _object(found.get("sets", {}), "sets").items():
        place = f"sets.{data_set}"
        sets[data_set] = {
            label: _weights(value, classes, f"{place}.{label}")
            for label, value in _object(labels, place).items()
        }
    return Taxonomy(groups, frozenset(texture), sets)


def _weights(value: Any, classes: Sequence[str], place: str) -> dict[str, float]:
    """Class → weight of one label."""
    if not isinstance(value, dict):
        names = _names(value, place)
        _check_known(names, classes, place)
        return dict.fromkeys(names, 1.0 if len(names) == 1 else 0.0)
    _check_known(list(value), classes, place)
    for name, weight in value.items():
        number = isinstance(weight, (int, float)) and not isinstance(weight, bool)
        if not number or not 0 < weight <= 1:
            raise ValueError(f"{place}: the weight of {name!r} is {json.dumps(weight)}, not in 0–1")
    if not value or not math.isclose(sum(value.values()), 1, abs_tol=1e-3):
        raise ValueError(f"{place}: the weights sum to {sum(value.values()):g}, not to 1")
    return {name: float(weight) for name, weight in value.items()}


def _check_known(names: Sequence[str], classes: Sequence[str], place: str) -> None:
    unknown = [name for name in names if name not in classes]
    if unknown:
        raise ValueError(f"{place} names {_quoted(unknown)}, which stands in no group")


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{place} is no object")  # noqa: TRY004 -- a mistake in the file
    return value


def _names(value: Any, place: str) -> tuple[str, ...]:
    """A list of names, each once and at least one."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v for v in value):
        raise ValueError(f'{place} is no list of names such as ["Forest"]')
    if len(set(value)) < len(value):
        raise ValueError(f"{place} names a class twice")
    return tuple(value)


def _quoted(names: Sequence[str]) -> str:
    """The first few names."""
    told = ", ".join(repr(name) for name in names[:5])
    return told if len(names) <= 5 else f"{told} and {len(names) - 5} more"
