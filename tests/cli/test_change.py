"""change from the shell: what is printed, the page, the one line of a mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.factories import texture, write_map, write_raster

from .conftest import Rssc

NAMES = ("Forest", "Farmland", "Town <b>")


@pytest.fixture
def dates(tmp_path: Path) -> tuple[Path, Path]:
    grid = np.array([[0, 0, 1, 1]] * 3)
    return (
        write_map(tmp_path / "m_2019.gpkg", grid, NAMES),
        write_map(tmp_path / "m_2024.gpkg", np.where(grid == 1, 2, grid), NAMES),
    )


def test_people_read_what_became_what(rssc: Rssc, dates: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "change.gpkg"
    done = rssc("change", *dates, "-o", out)
    assert done.code == 0
    first, *lines = done.out.splitlines()
    assert first.startswith("6 of 12 cells changed their class, in 1 region, 6.0 ha (50.0%); ")
    assert lines[0].split() == ["Farmland", "→", "Town", "<b>", "6.0", "ha", "50.0%"]
    assert lines[1:] == [str(out)]


def test_a_change_within_a_group_is_told_apart(rssc: Rssc, tmp_path: Path) -> None:
    names = ("Lake", "Pond", "Forest")
    before = write_map(tmp_path / "m_2019.gpkg", np.array([[0, 0, 0, 2]] * 3), names)
    after = write_map(tmp_path / "m_2024.gpkg", np.array([[0, 1, 2, 2]] * 3), names)
    table, page = tmp_path / "t.csv", tmp_path / "p.html"
    more = ("--areas", table, "--report", page)
    done = rssc("change", before, after, "-o", tmp_path / "c.gpkg", *more)
    first = done.out.splitlines()[0]
    assert "6 of 12 cells changed their class, in 2 regions, 6.0 ha (50.0%)" in first
    assert ", 3.0 ha of it within a group; " in first
    rows = table.read_text(encoding="utf-8").splitlines()
    assert rows[0].startswith("from_class,to_class,from_group,to_group,cells,area_m2,area,unit")
    assert {tuple(row.split(",")[:5]) for row in rows[1:3]} == {
        ("Lake", "Pond", "Water", "Water", "3"),
        ("Lake", "Forest", "Water", "Forest", "3"),
    }
    text = page.read_text(encoding="utf-8")
    assert "ha of it within a group of classes" in text
    assert text.count("same group") == 1


def test_programs_read_json(rssc: Rssc, dates: tuple[Path, Path], tmp_path: Path) -> None:
    out, table = tmp_path / "change.fgb", tmp_path / "matrix.csv"
    done = rssc("change", *dates, "-o", out, "--areas", table, "--json")
    told = json.loads(done.out)
    assert told["outputs"] == [str(out), str(tmp_path / "change_cells.fgb"), str(table)]
    assert told["dates"] == ["2019", "2024"]
    assert told["transitions"][0]["name"] == "Farmland → Town <b>"
    assert (told["changed_cells"], told["regions"], told["accuracy"]) == (6, 1, None)
    found = told["class_change"]
    assert (found["cells"], found["regions"], found["within_group_m2"]) == (6, 1, 0)
    assert found["area_m2"] == pytest.approx(told["changed_m2"])


def test_the_page_is_escaped(rssc: Rssc, dates: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    names = ("--dates", "<i>then</i>,now & here")
    assert rssc("change", *dates, "-o", tmp_path / "c.gpkg", "--report", page, *names).code == 0
    text = page.read_text(encoding="utf-8")
    assert "Change from &lt;i&gt;then&lt;/i&gt; to now &amp; here" in text
    assert "Town &lt;b&gt;" in text
    assert "<i>" not in text
    assert "Town <b>" not in text


def test_mistakes_end_in_one_line(rssc: Rssc, dates: tuple[Path, Path], tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "scene.tif", texture(64, 64))
    out = tmp_path / "c.gpkg"
    for arguments, code, message in (
        ((dates[0], "-o", out), 2, "give OLD and NEW"),
        ((raster, dates[0], "-o", out), 2, "is a map"),
        ((*dates, "-o", dates[0], "--overwrite"), 2, "is the input itself"),
        ((*dates, "-o", tmp_path / "c.xyz"), 2, "unknown output format"),
        ((raster, tmp_path / "none.tif", "-o", out), 1, "none.tif does not exist"),
        ((*dates, "-o", out, "--least-probability", "2"), 2, "is not a share from 0 to 1"),
        ((*dates, "-o", out, "--reference", raster), 1, "scene.tif"),
        ((raster, raster, "-o", out, "--model", "none-such"), 1, "none-such"),
    ):
        done = rssc("change", *arguments)
        assert done.code == code, done.err
        assert message in done.message
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))
