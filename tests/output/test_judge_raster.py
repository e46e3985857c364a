"""A raster that as a whole is unlike what the model has learned."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rssc_geo.models import load_card, scene_classes
from rssc_geo.output import UnknownRule, read_provenance
from tests.factories import read_cells

from .conftest import Case

GREEN = (60.0, 90.0, 40.0)


def _case(make_case: Callable[..., Case], strange: float) -> Case:
    """A map of which this share of the cells is somewhat unfamiliar, and its first cell very."""
    case = make_case()
    unknown = dataclasses.replace(scene_classes(["Unknown"])[0], id=len(case.classes))
    familiarity = np.full(len(case.rows), 0.5, np.float32)
    familiarity[: round(strange * len(case.rows))] = 0.05
    familiarity[0] = 0.001
    return dataclasses.replace(
        case,
        classes=(*case.classes, unknown),
        familiarity=familiarity,
        unknown=UnknownRule(cell=0.01, raster=0.1),
        color=GREEN,
    )


@pytest.mark.parametrize("options", [{}, {"probabilities": True}, {"smooth": True}])
def test_all_is_unknown_where_most_of_it_is_unfamiliar(
    make_case: Callable[..., Case],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, bool],
) -> None:
    case = _case(make_case, 0.45)
    with caplog.at_level(logging.WARNING, logger="rssc_geo"):
        summary = case.write(tmp_path / "map.gpkg", **options)
    assert "all cells are Unknown (--no-unknown" in caplog.text
    assert [total.name for total in summary.classes if total.cells] == ["Unknown"]
    cells = read_cells(tmp_path / "map.gpkg")
    assert set(cells["class"]) == {"Unknown"}
    assert not cells[["familiarity", "confidence", "margin"]].to_numpy().any()
    named = [case.classes[place].name for place in case.probabilities.argmax(1)]
    assert cells["runner_up"].tolist() == named
    record = read_provenance(tmp_path / "map.gpkg")["steps"]["judge_raster"]
    assert record == {
        "cells": len(case.rows),
        "unfamiliar": pytest.approx(0.45, abs=0.02),
        "gray": False,
        "done": True,
    }


def test_little_of_it_is_judged_cell_by_cell(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    case = _case(make_case, 0.15)
    case.write(tmp_path / "map.gpkg")
    cells = read_cells(tmp_path / "map.gpkg")
    assert (cells["class"] == "Unknown").tolist() == [True] + [False] * (len(cells) - 1)
    assert not read_provenance(tmp_path / "map.gpkg")["steps"]["judge_raster"]["done"]


@pytest.mark.parametrize(
    ("confidence", "least", "named"),
    [(0.9, 0.6, True), (0.55, 0.6, False), (0.92, 0.9, True), (0.85, 0.9, False)],
)
def test_confident_plain_water_does_not_count(
    make_case: Callable[..., Case], tmp_path: Path, confidence: float, least: float, named: bool
) -> None:
    """Hazy sea is unfamiliar, and told from land all the same."""
    case = _case(make_case, 0.45)
    places = case.familiarity < 0.1
    others = (1 - confidence) / (case.probabilities.shape[1] - 1)
    probabilities = case.probabilities.copy()
    probabilities[places] = others
    probabilities[places, 1] = confidence
    case = dataclasses.replace(
        case,
        probabilities=probabilities,
        unknown=UnknownRule(cell=0.0005, raster=0.1, plain=1, plain_confidence=least),
    )
    case.write(tmp_path / "map.gpkg")
    cells = read_cells(tmp_path / "map.gpkg")
    assert (set(cells["class"]) == {"Unknown"}) == (not named)
    judged = read_provenance(tmp_path / "map.gpkg")["steps"]["judge_raster"]
    assert judged["unfamiliar"] == (0 if named else pytest.approx(0.45, abs=0.02))


def test_the_confidence_of_plain_water_follows_the_temperature() -> None:
    card = load_card("compact")
    sea = next(known.id for known in card.classes if known.name == "OpenWater")
    limits = card.unknown_below, card.unknown_raster_below, sea
    assert UnknownRule.of_card(card, windows=False) == UnknownRule(*limits, 0.6)
    assert UnknownRule.of_card(card, windows=True) == UnknownRule(*limits, 0.9)
    one = dataclasses.replace(card, window_temperature=None)
    assert UnknownRule.of_card(one, windows=True) == UnknownRule(*limits, 0.6)


@pytest.mark.parametrize(("color", "gray"), [((90, 90, 89.5), True), ((90, 90, 88), False)])
def test_a_raster_without_colors_is_unknown(
    make_case: Callable[..., Case],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    color: tuple[float, float, float],
    gray: bool,
) -> None:
    case = dataclasses.replace(_case(make_case, 0.0), color=color)
    with caplog.at_level(logging.WARNING, logger="rssc_geo"):
        case.write(tmp_path / "map.gpkg")
    assert read_cells(tmp_path / "map.gpkg")["class"].eq("Unknown").all() == gray
    assert ("the raster has no colors" in caplog.text) == gray


def test_a_model_that_names_all_judges_no_raster(
    make_case: Callable[..., Case], tmp_path: Path
) -> None:
    case = dataclasses.replace(
        _case(make_case, 1.0), unknown=UnknownRule(), color=(0, 0, 0), classes=make_case().classes
    )
    case.write(tmp_path / "map.gpkg")
    assert "Unknown" not in set(read_cells(tmp_path / "map.gpkg")["class"])
    assert "steps" not in read_provenance(tmp_path / "map.gpkg")
