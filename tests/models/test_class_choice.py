"""Names of classes and groups in free spelling, and the results of a restricted choice."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest
import torch

from rssc_geo.errors import UsageError
from rssc_geo.models import (
    Model,
    ModelCard,
    check_class_choice,
    class_choice,
    load_card,
    scene_classes,
)
from rssc_geo.options import ClassChoiceOptions, options_of

NAMES = [
    "DenseResidential",
    "Industrial",
    "StorageTanks",
    "Forest",
    "SparseResidential",
    "Field, wet",
    "p",
    "P",
    "農地",
]


@pytest.fixture(scope="module")
def card() -> ModelCard:
    return dataclasses.replace(load_card("compact"), name="mine", classes=scene_classes(NAMES))


def parse(flag: str, text: str) -> ClassChoiceOptions:
    (found,) = (option for option in options_of(ClassChoiceOptions) if option.flag == flag)
    return ClassChoiceOptions(**{found.name: found.parse(text)})


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("DenseResidential,Forest", (0, 3)),
        ("forest , dense residential", (0, 3)),
        ("Dense residential", (0,)),
        ("Residential", (0, 4)),
        ("residential,Forest", (0, 3, 4)),
        ("Industrial", (1,)),  # a class before the group of its name
        ("Field, wet", (5,)),
        ("Forest,Field,wet,p", (3, 5, 6)),
        ("P", (7,)),
        ("農地", (8,)),
        (",".join(NAMES), None),
    ],
)
def test_names_of_classes_and_groups(
    card: ModelCard, text: str, ids: tuple[int, ...] | None
) -> None:
    assert class_choice(card, parse("--only-classes", text)) == ids
    if ids is not None:
        rest = tuple(sorted({c.id for c in card.classes} - set(ids)))
        assert class_choice(card, parse("--exclude-classes", text)) == rest


def test_excluded_after_chosen(card: ModelCard, caplog: pytest.LogCaptureFixture) -> None:
    options = ClassChoiceOptions(
        only_classes=("Residential", "Forest"), exclude_classes=("Dense residential",)
    )
    assert check_class_choice(card, options) == (3, 4)
    assert class_choice(card, ClassChoiceOptions()) is None
    assert not caplog.records


def test_one_left_is_said_and_none_left_refused(
    card: ModelCard, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert check_class_choice(card, ClassChoiceOptions(only_classes=("Forest",))) == (3,)
    assert "Forest is the only class left to choose" in caplog.text
    none = ClassChoiceOptions(only_classes=("Forest",), exclude_classes=("Forest", "p"))
    with pytest.raises(UsageError, match=r"--exclude-classes Forest,p leaves no class of mine"):
        class_choice(card, none)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Forrest", "has no class or group 'Forrest'; nearest: Forest"),
        ("Forest,Storage tank", "has no class or group 'Storage tank'; nearest: StorageTanks"),
        ("Resdential", "nearest: Residential"),
        ("***", "has no class or group '***'; it has: DenseResidential, Industrial, StorageTanks"),
    ],
)
def test_unknown_names_are_one_line_with_the_nearest(
    card: ModelCard, text: str, message: str
) -> None:
    for flag in ("--only-classes", "--exclude-classes"):
        with pytest.raises(UsageError) as told:
            class_choice(card, parse(flag, text))
        assert message in str(told.value)
        assert str(told.value).startswith(f"{flag}: ")
        assert "\n" not in str(told.value)


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(UsageError, match="is not names with commas between them"):
        parse("--only-classes", "Forest,,p")


def test_the_softmax_is_over_the_choice_alone(small_model: Model) -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    free = small_model.calibrated(logits).softmax(1)
    model = dataclasses.replace(small_model, choice=(0, 2))
    held = model.calibrated(logits).softmax(1)
    assert (held[:, 1] == 0).all()
    kept = free[:, [0, 2]]
    np.testing.assert_allclose(
        held[:, [0, 2]].detach(), (kept / kept.sum(1, keepdim=True)).detach(), rtol=1e-5
    )
    held[:, 0].sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[:, 1] == 0).all()
