"""Pages of training and search, and the pictures that several pages have."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rssc_geo.models import load_card, scene_classes
from rssc_geo.reports.hits import _MARKER, _apart
from rssc_geo.reports.matrix import matrix_picture
from rssc_geo.reports.training import write_training_page

LONG = "Discontinuous very low density urban fabric (< 10 %)"


def test_a_matrix_has_its_counts_in_place() -> None:
    counts = [[3, 1], [0, 0]]
    found = matrix_picture(counts, ["a", LONG], rows="label", cols="model")
    assert [cell["count"] for cell in found["cells"]] == ["3", "1", "", ""]
    places = [(cell["x"], cell["y"]) for cell in found["cells"]]
    assert places[1][0] - places[0][0] == places[2][1] - places[0][1] == found["side"]
    assert found["cells"][1]["title"] == f"label a, model {LONG}: 1"
    assert len(found["names"][1]["text"]) < len(LONG)
    assert found["cells"][0]["fill"] != found["cells"][1]["fill"] != found["cells"][2]["fill"]
    assert max(x for x, _ in places) + found["side"] <= found["width"]


@given(
    places=st.lists(st.tuples(st.floats(20, 980), st.floats(20, 380)), min_size=1, max_size=40),
    crowded=st.booleans(),
)
def test_markers_do_not_cover_each_other(
    places: list[tuple[float, float]], *, crowded: bool
) -> None:
    there = np.array(places[:1] * len(places) if crowded else places)
    found = _apart(there, (1000.0, 400.0))
    np.testing.assert_array_equal(found[0], there[0])
    gaps = np.abs(found[:, None] - found[None]).max(2)[~np.eye(len(found), dtype=bool)]
    assert (gaps >= 2 * _MARKER - 1e-6).all()
    assert (found >= _MARKER).all()
    assert (found <= np.array([1000, 400]) - _MARKER).all()


@pytest.mark.parametrize("apart", [False, True])
def test_a_training_page(tmp_path: Path, apart: bool) -> None:
    names = ["Field", LONG, "Town"]
    card = dataclasses.replace(
        load_card("compact"),
        name="mine",
        classes=scene_classes(names),
        training={"sources": [{"raster": "scene.tif", "labels": "labels.gpkg"}]},
    )
    row = {"precision": 0.5, "recall": 0.25, "f1": 1 / 3, "support": 4}
    values = {
        "patches": dict.fromkeys(names, 5),
        "scores": {
            "overall_accuracy": 0.75,
            "average_accuracy": 0.6,
            "kappa": 0.4,
            "confusion": [[4, 1, 0], [2, 2, 0], [0, 0, 0]],
            "per_class": dict.fromkeys(names, row),
        },
        "interval": [0.5, 0.9],
        "tested": {
            "patches": 9,
            "of": 15,
            "classes": {
                name: {"tested": n, "of": 5} for name, n in zip(names, (5, 4, 0), strict=True)
            },
        },
        "by_labels_apart": apart,
        "warnings": ["<b>weak</b>"],
    }
    write_training_page(tmp_path / "page.html", card, values, overwrite=False)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>Training of mine</h1>" in page
    assert "75.0 %</b> (95 % interval: 50.0 % to 90.0 %)" in page
    assert ("cross-validation" in page) is not apart
    assert ("of the test labels" in page) is apart
    assert "&lt;b&gt;weak" in page
    rows = re.findall(r"<tr><td><label>.*?</tr>", page, re.DOTALL)
    assert [row.count("–</td>") for row in rows] == [0, 0, 3]
    assert page.count("<rect") == 9
    nothing = values | {"scores": None, "interval": None, "tested": None}
    write_training_page(tmp_path / "none.html", card, nothing, overwrite=False)
    page = (tmp_path / "none.html").read_text(encoding="utf-8")
    assert "accuracy is not known" in page
    assert "<rect" not in page
