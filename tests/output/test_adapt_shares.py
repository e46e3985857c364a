"""The shares of a scene: the EM algorithm, and the step that it is over the cells of a map."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyproj import CRS

from rssc_geo.errors import OutputError
from rssc_geo.geometry import TileGrid
from rssc_geo.models import scene_classes
from rssc_geo.output import (
    LEAST_CELLS,
    PartFile,
    Row,
    Shares,
    UnknownRule,
    estimate_shares,
    read_provenance,
)
from tests.factories import read_cells

from .conftest import NORTH_UP, Case

TRUE = np.array([0.7, 0.2, 0.08, 0.02])


def shares_of(table: list[list[float]] | np.ndarray, chunk: int = 1000) -> Shares:
    values = np.asarray(table, np.float32)
    return estimate_shares(
        lambda: (values[start : start + chunk] for start in range(0, len(values), chunk)),
        classes=values.shape[1],
    )


def test_shares_are_those_computed_by_hand() -> None:
    """Two cells of one kind and one of another.

    The likelihood (0.1 + 0.8 s)² (0.8 − 0.6 s) of the share s of the first class is largest where
    2 · 0.8 (0.8 − 0.6 s) = 0.6 (0.1 + 0.8 s), at s = 61/72.
    """
    found = shares_of([[0.9, 0.1], [0.9, 0.1], [0.2, 0.8]])
    assert 1 < found.rounds < 100
    np.testing.assert_allclose(found.values, [61 / 72, 11 / 72], atol=1e-4)
    by_hand = Shares(np.array([61 / 72, 11 / 72]), 1)
    np.testing.assert_allclose(
        by_hand.adapt(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)),
        [[549 / 560, 11 / 560], [122 / 210, 88 / 210]],
        rtol=1e-6,
    )


def test_one_round_is_the_mean_and_even_shares_stay() -> None:
    even = shares_of([[0.7, 0.3], [0.3, 0.7]])
    assert even.rounds == 1
    assert even.values.tolist() == [0.5, 0.5]


def test_no_class_is_driven_to_nothing_but_one_that_cannot_be() -> None:
    found = shares_of([[0.6, 0.4, 0.0]] * 60)
    assert found.rounds <= 100
    np.testing.assert_allclose(found.values, [1, 1e-4, 0], atol=1e-3)
    assert found.values[1] >= 0.99e-4
    assert found.values[2] == 0
    assert found.values.sum() == pytest.approx(1)
    sure = shares_of([[1.0, 0.0]] * 60)
    assert sure.values.tolist() == [1, 0]


@pytest.fixture(scope="module")
def simulated() -> tuple[Case, np.ndarray]:
    """60 × 50 cells of four classes, unevenly many, as seen by a model that learned from even ones.

    What it sees is one number, normal around 0, 1, 2 or 3; its probabilities are exact for even
    shares. With the cells' true classes.
    """
    random = np.random.default_rng(2)
    truth = random.choice(4, 3000, p=TRUE)
    seen = truth + 0.8 * random.standard_normal(3000)
    density = np.exp(-((seen[:, None] - np.arange(4)) ** 2) / (2 * 0.8**2))
    probabilities = (density / density.sum(1, keepdims=True)).astype(np.float32)
    rows, cols = (axis.ravel().astype(np.int32) for axis in np.indices((60, 50)))
    classes = scene_classes(["Farmland", "Forest", "River", "Port"])
    return (
        Case(
            TileGrid((480, 400), (8, 8)),
            NORTH_UP,
            CRS(32632),
            classes,
            rows,
            cols,
            probabilities,
            [f"cell {number}" for number in range(3000)],
            np.full(3000, np.nan, np.float32),
        ),
        truth,
    )


def test_a_scene_of_uneven_shares_gains(simulated: tuple[Case, np.ndarray], tmp_path: Path) -> None:
    case, truth = simulated
    case.write(tmp_path / "even.gpkg", probabilities=True)
    case.write(tmp_path / "own.gpkg", probabilities=True, adapt_shares=True)
    even, own = read_cells(tmp_path / "even.gpkg"), read_cells(tmp_path / "own.gpkg")
    right = {
        name: (table["class_id"] == truth).mean() for name, table in (("even", even), ("own", own))
    }
    assert right["own"] > right["even"] + 0.05, right
    # Confidence is honest again.
    assert abs(own["confidence"].mean() - right["own"]) < 0.02
    record = read_provenance(tmp_path / "own.gpkg")["steps"]["adapt_shares"]
    assert (record["cells"], record["done"]) == (3000, True)
    assert 1 < record["rounds"] <= 100
    assert list(record["shares"]) == [known.name for known in case.classes]
    np.testing.assert_allclose(list(record["shares"].values()), TRUE, atol=0.05)
    assert "steps" not in read_provenance(tmp_path / "even.gpkg")

    columns = [name for name in own.columns if name.startswith("p_")]
    weighted = case.probabilities * np.array(list(record["shares"].values()))
    expected = weighted / weighted.sum(1, keepdims=True)
    np.testing.assert_allclose(own[columns], expected, atol=2e-6)
    ordered = np.sort(expected, 1)
    np.testing.assert_allclose(own["confidence"], ordered[:, 3], atol=2e-6)
    np.testing.assert_allclose(own["margin"], ordered[:, 3] - ordered[:, 2], atol=2e-6)
    assert own["caption"].tolist() == case.captions


def test_what_is_unknown_says_nothing_of_shares(
    simulated: tuple[Case, np.ndarray], tmp_path: Path
) -> None:
    case, _ = simulated
    unknown = dataclasses.replace(scene_classes(["Unknown"])[0], id=4)
    strange = case.cols >= 25
    familiarity = np.where(strange, 0.01, 0.5).astype(np.float32)
    case = dataclasses.replace(
        case, classes=(*case.classes, unknown), familiarity=familiarity, unknown=UnknownRule(0.02)
    )
    case.write(tmp_path / "map.gpkg", adapt_shares=True)
    record = read_provenance(tmp_path / "map.gpkg")["steps"]["adapt_shares"]
    assert record["cells"] == (~strange).sum()
    expected = shares_of(case.probabilities[~strange].tolist())
    np.testing.assert_allclose(list(record["shares"].values()), expected.values, rtol=1e-6)
    cells = read_cells(tmp_path / "map.gpkg")
    assert (cells["class"] == "Unknown").sum() == strange.sum()


def test_neither_order_nor_batches_nor_a_stop_change_it(
    simulated: tuple[Case, np.ndarray], tmp_path: Path
) -> None:
    case, _ = simulated
    order = np.random.default_rng(0).permutation(3000)
    maps = {"straight": (np.arange(3000), 3000), "mixed": (order, 7), "stopped": (order[::-1], 256)}
    for name, (places, size) in maps.items():
        path = tmp_path / f"{name}.gpkg"
        with case.writer(path, adapt_shares=True) as writer:
            case.fill(writer, places[:1000], size)
        with case.writer(path, adapt_shares=True) as writer:
            assert len(writer) == 1000
            case.fill(writer, places[1000:], size)
            writer.make()
            writer.discard()
    straight = read_cells(tmp_path / "straight.gpkg")
    told = read_provenance(tmp_path / "straight.gpkg")["steps"]
    for name in ("mixed", "stopped"):
        assert read_cells(tmp_path / f"{name}.gpkg").equals(straight)
        assert read_provenance(tmp_path / f"{name}.gpkg")["steps"] == told
    assert not [name for name in straight.columns if name.startswith("p_")]


def test_it_is_done_once_whatever_happens_after_it(
    simulated: tuple[Case, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, _ = simulated

    def fail(*_arguments: object) -> None:
        raise OSError("no place")

    case.write(tmp_path / "straight.gpkg", adapt_shares=True)
    path = tmp_path / "map.gpkg"
    with case.writer(path, adapt_shares=True) as writer:
        case.fill(writer, np.arange(3000), 500)
        monkeypatch.setattr("rssc_geo.output.layers.shapely.to_wkb", fail)
        with pytest.raises(OSError, match="no place"):
            writer.make()
    monkeypatch.undo()
    with case.writer(path, adapt_shares=True) as writer:
        assert len(writer) == 3000
        writer.make()
        writer.discard()
    assert read_cells(path).equals(read_cells(tmp_path / "straight.gpkg"))
    assert read_provenance(path)["steps"] == read_provenance(tmp_path / "straight.gpkg")["steps"]


def test_a_step_that_fails_changes_nothing(
    simulated: tuple[Case, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, _ = simulated
    path, calls = tmp_path / "map.gpkg", 0
    adapt: Callable[..., Any] = Shares.adapt

    def stop(self: Shares, table: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return adapt(self, table)

    monkeypatch.setattr("rssc_geo.output.partfile._FETCH", 1000)
    monkeypatch.setattr(Shares, "adapt", stop)
    with case.writer(path, adapt_shares=True) as writer:
        case.fill(writer, np.arange(3000), 500)
        before = [row for chunk in writer._part.read("*") for row in chunk]
        with pytest.raises(KeyboardInterrupt):
            writer.make()
        assert [row for chunk in writer._part.read("*") for row in chunk] == before
        assert writer._part.steps == {}
        writer.make()
        writer.discard()
    case.write(tmp_path / "straight.gpkg", adapt_shares=True)
    assert read_cells(path).equals(read_cells(tmp_path / "straight.gpkg"))


def test_few_cells_stay_as_they_are(
    make_case: Callable[..., Case], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case = make_case(cells=(7, 7), void=0)
    assert len(case.rows) == LEAST_CELLS - 1
    case.write(tmp_path / "plain.gpkg")
    case.write(tmp_path / "map.gpkg", adapt_shares=True)
    assert "--adapt-shares: 49 cells are too few" in caplog.text
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1
    assert read_cells(tmp_path / "map.gpkg").equals(read_cells(tmp_path / "plain.gpkg"))
    told = read_provenance(tmp_path / "map.gpkg")["steps"]
    assert told == {"adapt_shares": {"cells": 49, "done": False}}


def test_another_run_does_not_go_on_with_it(
    simulated: tuple[Case, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    case, _ = simulated
    for first, second in ((True, False), (False, True)):
        with case.writer(tmp_path / "map.gpkg", adapt_shares=first) as writer:
            case.fill(writer, np.arange(100), 50)
        caplog.clear()
        with case.writer(tmp_path / "map.gpkg", adapt_shares=second) as writer:
            assert len(writer) == 0
        assert "starting again" in caplog.text


def test_steps_are_kept_with_the_cells(tmp_path: Path) -> None:
    path = tmp_path / "x.part"

    def change(chunks: Iterator[list[Row]]) -> Iterator[list[Row]]:
        for rows in chunks:
            yield [(*row[:6], "b", None, None, None, None) for row in rows]

    with PartFile(path, {}) as part:
        part.append([(row, 3, 1, 0.5, 0, 0.25, "a", None, None, None, None) for row in range(5)], 5)
        part.take_step("first", {"cells": 5})
        part.take_step("second", {}, change)
        assert part.is_whole()
    with PartFile(path, {}) as part:
        assert json.loads(json.dumps(dict(part.steps))) == {"first": {"cells": 5}, "second": {}}
        assert (len(part), part.watermark) == (5, 5)
        assert [row[6] for chunk in part.read("*") for row in chunk] == ["b"] * 5
        with pytest.raises(OutputError, match="cannot write"):
            part._connection.execute("PRAGMA query_only = ON")
            part.take_step("third", {})
        assert "third" not in part.steps
