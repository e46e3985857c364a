"""The included crosswalks, and the user's own."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rssc_geo.errors import InputError, UsageError
from rssc_geo.models import GROUPS, known_names, load_card, scene_classes
from rssc_geo.output import UNMAPPED, legend_names, read_legend, translate_classes


@pytest.mark.parametrize("name", legend_names())
def test_every_class_has_a_place_or_a_reason(name: str) -> None:
    legend = read_legend(name)
    assert legend.source
    assert legend.title
    classes = {known.name for known in load_card("compact").classes} | set(known_names())
    for scene_class in scene_classes(sorted(classes)):
        target = legend.translate(scene_class.name, scene_class.group)
        assert (target == UNMAPPED) == (scene_class.name in legend.unmapped), scene_class.name
        assert target == UNMAPPED or target in legend.colors
    assert set(legend.crosswalk) | set(legend.unmapped) <= classes | set(GROUPS)
    assert set(legend.colors) == set(legend.crosswalk.values())


def test_groups_are_those_of_the_palette() -> None:
    legend = read_legend("groups")
    assert legend.colors == {name: color for name, color in GROUPS.items() if name != "Unknown"}
    assert legend.translate("Peat", "Bogs of my own") == "Bogs of my own"


def test_levels_agree() -> None:
    """A class of level 2 is one of the class of level 1 that begins alike."""
    for system in ("anderson", "corine"):
        coarse, fine = read_legend(f"{system}-1"), read_legend(f"{system}-2")
        for name, target in fine.crosswalk.items():
            assert coarse.crosswalk[name][0] == target[0], name
        assert set(coarse.unmapped) <= set(fine.unmapped)


def test_a_file_of_one_s_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "mine.json"
    text = {
        "classes": [{"name": "Wet", "color": "#0000ff"}, {"name": "Dry", "color": "#ff0000"}],
        "crosswalk": {"Water": "Wet", "Forest": "Dry", "Pond": "Dry"},
        "unmapped": {"Lake": "too deep"},
    }
    file.write_text(json.dumps(text), encoding="utf-8")
    legend = read_legend(str(file))
    classes = [
        ("River", "Water"), ("Pond", "Water"), ("Lake", "Water"), ("Forest", "Forest"),
        ("Moor", ""), ("Unknown", "Unknown"),
    ]  # fmt: skip
    with caplog.at_level(logging.WARNING):
        names, places = translate_classes(classes, legend)
    assert names == ("Wet", "Dry", UNMAPPED, "Unknown")
    assert places.tolist() == [0, 1, 2, 1, 2, 3]
    assert "Lake has no class in the legend" in caplog.text
    assert "(too deep)" in caplog.text
    assert "Moor has no class in the legend" in caplog.text
    made = legend.classes(names)
    assert [(known.id, known.color) for known in made[:2]] == [(0, "#0000ff"), (1, "#ff0000")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a JSON object"),
        ("{", "is no crosswalk"),
        ("[" * 100_000, "is no crosswalk: it is nested too deeply"),
        ('{"crosswalk": {"A": "\\ud800"}}', "is no crosswalk: it holds half"),
        ('{"crosswalk": {}}', "at least one"),
        ('{"crosswalk": {"A": 1}}', "are texts"),
        ('{"crosswalk": {"A": "Unknown"}}', "is no name for a class"),
        ('{"crosswalk": {"A": "B"}, "colours": 1}', "'colours' is none of"),
        ('{"crosswalk": {"A": "B"}, "classes": [{"name": "B", "color": "red"}]}', "#287aba"),
        ('{"crosswalk": {"A": "B"}, "classes": ["B"]}', "a name and a color"),
        ('{"crosswalk": {"A": "", "B": "C"}}', "has an empty name"),
        ('{"crosswalk": {"A": " "}}', "has an empty name"),
        (
            '{"crosswalk": {"A": "B"}, "classes": [{"name": "", "color": "#000000"}]}',
            "has an empty name",
        ),
    ],
)
def test_what_is_no_crosswalk(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message):
        read_legend(str(file))


def test_a_name_that_is_none() -> None:
    with pytest.raises(UsageError, match="no file, nor one of anderson-1"):
        read_legend("anderson-3")
