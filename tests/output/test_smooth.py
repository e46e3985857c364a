"""Smoothing with neighbors: the algorithm, and the step over the cells of a map."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import CRS

from rssc_geo.geometry import TileGrid
from rssc_geo.models import scene_classes
from rssc_geo.output import GridRow, PartFile, UnknownRule, read_provenance, smoothed
from rssc_geo.output.smoothing import CONTRAST, ROUNDS, STRENGTH
from tests.factories import read_cells

from .conftest import NORTH_UP, Case


def rows_of(
    probabilities: np.ndarray, colors: np.ndarray, there: np.ndarray, told: np.ndarray
) -> Iterator[GridRow]:
    """Rows of a whole grid (R, M, …) as they come from a part file: without empty ones."""
    for number in np.flatnonzero(there.any(1)).tolist():
        cols = np.flatnonzero(there[number]).astype(np.int32)
        yield GridRow(
            number,
            cols,
            probabilities[number, cols],
            colors[number, cols],
            told[number, cols],
        )


def dense(
    probabilities: np.ndarray, colors: np.ndarray, there: np.ndarray, told: np.ndarray
) -> np.ndarray:
    """The same rounds, cell by cell, over a whole grid in float64."""
    own = np.log(np.maximum(probabilities.astype(float), 1e-6))
    x, linked = own.copy(), there & told
    for step in range(ROUNDS):
        after = own.copy()
        for row, col in np.argwhere(linked):
            total, weight = own[row, col].copy(), 1.0
            for r, c in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                if 0 <= r < len(own) and 0 <= c < len(own[0]) and linked[r, c]:
                    difference = ((colors[row, col].astype(float) - colors[r, c]) ** 2).sum()
                    w = STRENGTH * np.exp(-difference / (2 * CONTRAST**2))
                    total += w * x[r, c]
                    weight += w
            after[row, col] = total / weight
        x = after if step < ROUNDS - 1 else (x + after) / 2
    likely = np.exp(x) * (probabilities > 0)
    likely /= likely.sum(-1, keepdims=True)
    return np.where(linked[..., None], likely, probabilities)


def test_no_chessboard_is_left() -> None:
    side = 24
    odd = np.indices((side, side)).sum(0) % 2
    probabilities = np.where(odd[..., None], (0.7, 0.3), (0.3, 0.7)).astype(np.float32)
    everywhere = np.ones((side, side), bool)
    colors = np.full((side, side, 3), 80, np.float32)
    found = np.stack(list(smoothed(rows_of(probabilities, colors, everywhere, everywhere))))
    inner = found[ROUNDS:-ROUNDS, ROUNDS:-ROUNDS, 0]
    np.testing.assert_allclose(inner, 0.5, atol=0.02)


def test_rows_one_after_another_give_what_the_whole_grid_gives() -> None:
    random = np.random.default_rng(3)
    probabilities = random.dirichlet(np.full(4, 0.4), (17, 9)).astype(np.float32)
    probabilities[..., 2] = 0  # a class that cannot be chosen
    probabilities /= probabilities.sum(-1, keepdims=True)
    colors = random.uniform(60, 130, (17, 9, 3)).astype(np.float32)
    there = random.random((17, 9)) < 0.85
    there[6] = False
    told = random.random((17, 9)) < 0.9
    found = list(smoothed(rows_of(probabilities, colors, there, told)))
    expected = dense(probabilities, colors, there, told)
    assert len(found) == 16
    np.testing.assert_allclose(np.concatenate(found), expected[there], atol=2e-5)
    assert (np.concatenate(found)[:, 2] == 0).all()
    assert np.abs(expected[there] - probabilities[there]).max() > 0.2
    untold = there & ~told
    np.testing.assert_array_equal(np.concatenate(found)[~told[there]], probabilities[untold])


def lone_cell(color: float, *, told: bool = True) -> np.ndarray:
    """Probabilities of the middle one of 3 x 3 cells, which alone doubts that it is of class 0."""
    probabilities = np.full((3, 3, 2), (0.9, 0.1), np.float32)
    probabilities[1, 1] = 0.4, 0.6
    colors = np.full((3, 3, 3), 100, np.float32)
    colors[1, 1] += color
    known = np.ones((3, 3), bool)
    known[1, 1] = told
    found = list(smoothed(rows_of(probabilities, colors, np.ones((3, 3), bool), known)))
    return np.asarray(found[1][1])


def test_a_cell_is_told_by_neighbors_of_its_color_alone() -> None:
    assert lone_cell(0)[0] > 0.7
    assert lone_cell(CONTRAST / 2)[0] > 0.5
    np.testing.assert_allclose(lone_cell(150), (0.4, 0.6), atol=1e-4)
    np.testing.assert_array_equal(lone_cell(0, told=False), np.float32((0.4, 0.6)))
    # An unknown color does not reduce the weight of neighbors.
    np.testing.assert_array_equal(lone_cell(np.nan), lone_cell(0))


def test_confidence_is_that_of_the_cells_and_not_more() -> None:
    """Neighbors with the same probabilities do not increase the confidence."""
    probabilities = np.full((20, 20, 3), (0.6, 0.3, 0.1), np.float32)
    whole = np.ones((20, 20), bool)
    found = smoothed(rows_of(probabilities, np.zeros((20, 20, 3), np.float32), whole, whole))
    np.testing.assert_allclose(np.array(list(found)), probabilities, atol=1e-5)


@pytest.fixture(scope="module")
def noisy() -> tuple[Case, np.ndarray]:
    """40 × 30 cells of two halves of four classes, seen with noise; and their true classes.

    Some cells are missing.
    """
    random = np.random.default_rng(4)
    rows, cols = (axis.ravel().astype(np.int32) for axis in np.indices((40, 30)))
    kept = random.random(1200) < 0.95
    rows, cols = rows[kept], cols[kept]
    truth = np.where(cols < 15, 1, 3)
    logits = random.normal(0, 1, (len(rows), 4))
    logits[np.arange(len(rows)), truth] += 1
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(1, keepdims=True)
    case = Case(
        TileGrid((320, 240), (16, 16), (8, 8)),
        NORTH_UP,
        CRS(32632),
        scene_classes(["Farmland", "Forest", "River", "Port"]),
        rows,
        cols,
        probabilities.astype(np.float32),
        [f"cell {number}" for number in range(len(rows))],
        np.full(len(rows), np.nan, np.float32),
    )
    return case, truth


def test_noise_goes_and_the_map_tells_of_it(noisy: tuple[Case, np.ndarray], tmp_path: Path) -> None:
    case, truth = noisy
    plain = case.write(tmp_path / "plain.gpkg", probabilities=True, smooth=False)
    calm = case.write(tmp_path / "calm.gpkg", probabilities=True, smooth=True)
    before, after = read_cells(tmp_path / "plain.gpkg"), read_cells(tmp_path / "calm.gpkg")
    assert (after["class_id"] == truth).mean() > (before["class_id"] == truth).mean() + 0.3
    assert calm.regions < plain.regions / 4
    assert after["caption"].tolist() == before["caption"].tolist()
    columns = [name for name in after.columns if name.startswith("p_")]
    np.testing.assert_allclose(after[columns].max(axis=1), after["confidence"], atol=1e-6)
    record = read_provenance(tmp_path / "calm.gpkg")["steps"]
    assert record == {
        "smooth": {
            "cells": len(truth),
            "done": True,
            "strength": STRENGTH,
            "contrast": CONTRAST,
            "rounds": ROUNDS,
        }
    }


def test_neither_order_nor_batches_nor_a_stop_change_it(
    noisy: tuple[Case, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, _ = noisy
    count = len(case.rows)
    order = np.random.default_rng(0).permutation(count)
    maps = {"straight": (np.arange(count), 3000), "mixed": (order, 7), "back": (order[::-1], 256)}
    for fetched, (name, (places, size)) in zip((8192, 100, 17), maps.items(), strict=True):
        monkeypatch.setattr("rssc_geo.output.partfile._FETCH", fetched)
        path = tmp_path / f"{name}.gpkg"
        with case.writer(path, smooth=True) as writer:
            case.fill(writer, places[:500], size)
        with case.writer(path, smooth=True) as writer:
            assert len(writer) == 500
            case.fill(writer, places[500:], size)
            writer.make()
            writer.discard()
    straight = read_cells(tmp_path / "straight.gpkg")
    assert not [name for name in straight.columns if name.startswith("p_")]
    for name in ("mixed", "back"):
        assert read_cells(tmp_path / f"{name}.gpkg").equals(straight)


def test_shares_come_first_and_nothing_is_done_twice(
    noisy: tuple[Case, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, _ = noisy
    asked = {"smooth": True, "adapt_shares": True}
    case.write(tmp_path / "straight.gpkg", **asked)
    path, take = tmp_path / "map.gpkg", PartFile.take_step

    def stop(self: PartFile, name: str, *arguments: Any) -> None:
        if name == "smooth":
            raise KeyboardInterrupt
        take(self, name, *arguments)

    with case.writer(path, **asked) as writer:
        case.fill(writer, np.arange(len(case.rows)), 500)
        monkeypatch.setattr(PartFile, "take_step", stop)
        with pytest.raises(KeyboardInterrupt):
            writer.make()
    monkeypatch.undo()
    with case.writer(path, **asked) as writer:
        assert list(writer._part.steps) == ["adapt_shares"]
        monkeypatch.setattr("rssc_geo.output.layers.shapely.to_wkb", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            writer.make()
    monkeypatch.undo()
    with case.writer(path, **asked) as writer:
        assert list(writer._part.steps) == ["adapt_shares", "smooth"]
        writer.make()
        writer.discard()
    assert read_cells(path).equals(read_cells(tmp_path / "straight.gpkg"))


def test_what_is_unknown_stays_so_and_tells_nothing(
    noisy: tuple[Case, np.ndarray], tmp_path: Path
) -> None:
    case, _ = noisy
    unknown = dataclasses.replace(scene_classes(["Unknown"])[0], id=4)
    strange = case.cols >= 15
    familiarity = np.where(strange, 0.01, 0.5).astype(np.float32)
    case = dataclasses.replace(
        case, classes=(*case.classes, unknown), familiarity=familiarity, unknown=UnknownRule(0.02)
    )
    case.write(tmp_path / "map.gpkg", smooth=True)
    with_strange = read_cells(tmp_path / "map.gpkg")
    assert with_strange["class"].eq("Unknown").tolist() == strange.tolist()
    assert read_provenance(tmp_path / "map.gpkg")["steps"]["smooth"]["cells"] == (~strange).sum()
    rest = case.take(np.flatnonzero(~strange))
    rest.write(tmp_path / "rest.gpkg", smooth=True)
    columns = ["class", "confidence", "margin"]
    alone = read_cells(tmp_path / "rest.gpkg")[columns]
    assert with_strange.loc[alone.index, columns].equals(alone)


def test_cells_that_are_tiles_are_left_alone(
    noisy: tuple[Case, np.ndarray], tmp_path: Path
) -> None:
    case, _ = noisy
    case = dataclasses.replace(case, grid=TileGrid((320, 240), (8, 8)))
    case.write(tmp_path / "map.gpkg", smooth=True)
    cells = read_cells(tmp_path / "map.gpkg")
    assert cells["class_id"].tolist() == case.probabilities.argmax(1).tolist()
    assert "steps" not in read_provenance(tmp_path / "map.gpkg")
