"""The parameters and the command line follow the program's options: none is declared here."""

from __future__ import annotations

import json

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm
from qgis.core import (
    QgsProcessingException,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterNumber,
)
from rssc_geo_qgis import options

ALGORITHMS = {
    "classify": "classify",
    "zeroshot": "zero-shot",
    "caption": "caption",
    "explain": "explain",
    "info": "info",
    "change": "change",
    "embed": "embed",
    "index": "index",
    "search": "search",
    "train": "train --raster",
    "assesssample": "assess sample",
    "assessaccuracy": "assess accuracy",
    "areas": "areas",
    "refine": "refine",
}


LAYERS = {
    *("reference", "zones", "field"),
    *("like", "at", "like_area", "unlike", "unlike_at", "bounds"),
}


@pytest.fixture
def declare(tmp_path, monkeypatch):
    """Add options to a copy of options.json, each like another but for what is said."""

    def add(*changes, command="classify", like="review"):
        with open(options.FILE, encoding="utf-8") as file:
            described = json.load(file)
        entries = described["options"][command]
        pattern = next(entry for entry in entries if entry["name"] == like)
        for change in changes:
            name = change["name"]
            new = {"flag": f"--{name.replace('_', '-')}", "group": "Novelties", **change}
            entries.append({**pattern, **new})
        copy = tmp_path / f"{like}-options.json"
        copy.write_text(json.dumps(described), encoding="utf-8")
        monkeypatch.setattr(options, "FILE", str(copy))

    return add


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("classify", ["INPUT", "EXTENT", "AOI", "CELL_SIZE", "MODEL", "OUTPUT"]),
        ("zeroshot", ["INPUT", "CLASSES", "EXTENT", "AOI", "CELL_SIZE", "MODEL", "OUTPUT"]),
        ("explain", ["INPUT", "AT", "CELL_SIZE", "MODEL"]),
    ],
)
def test_what_matters_comes_first(name, first):
    advanced, found = QgsProcessingParameterDefinition.Flag.FlagAdvanced, algorithm(name)
    shown = [
        parameter.name()
        for parameter in found.parameterDefinitions()
        if not parameter.flags() & advanced
    ]
    assert shown[: len(first)] == first


@pytest.mark.parametrize(("name", "command"), ALGORITHMS.items())
def test_every_option_is_a_parameter(name, command):
    found = algorithm(name)
    names = {definition.name() for definition in found.parameterDefinitions()}
    decided = found.LEFT_OUT | {"assume_crs"}
    layers = LAYERS & found.LEFT_OUT  # parameters of another kind
    for option in options.options_of(command):
        if option.name in layers:
            continue
        name_here = {"bounds": "EXTENT"}.get(option.name, option.parameter)
        assert (name_here in names) == (
            option.name not in decided and not option.commandline_only
        ), option.name


def test_what_destroys_or_runs_code_is_no_parameter():
    found = algorithm("classify")
    names = {definition.name() for definition in found.parameterDefinitions()}
    assert not names & {"OVERWRITE", "TRUST_REMOTE_CODE"}


def test_parameters_say_what_the_program_says():
    found = algorithm("classify")
    described = {option.name: option for option in options.options_of("classify")}
    share = found.parameterDefinition("MIN_VALID")
    assert (share.minimum(), share.maximum(), share.defaultValue()) == (0, 1, 0.5)
    assert share.dataType() == QgsProcessingParameterNumber.Type.Double
    assert share.help() == described["min_valid"].help
    assert found.parameterDefinition("CAPTION_TIMEOUT").description() == "Caption timeout (s)"
    assert found.parameterDefinition("DTYPE").options() == described["dtype"].choices
    assert found.parameterDefinition("PROBABILITIES").help().startswith("A column p_&lt;class&gt; ")
    whole = found.parameterDefinition("CAPTION_BEAM")
    assert whole.dataType() == QgsProcessingParameterNumber.Type.Integer
    assert (whole.minimum(), whole.defaultValue()) == (1, 1)


def test_a_new_option_is_a_parameter_and_reaches_the_program(declare, scene, tmp_path, feedback):
    text = {"type": "string", "form": "TEXT", "minimum": None, "default": None}
    declare(
        {
            "name": "sharpen_by",
            "type": "number",
            "form": "NUMBER",
            "help": "How much to sharpen < 9.",
            "minimum": 1,
            "maximum": 9,
            "default": 2.5,
            "unit": "px",
        },
        {"name": "rounds", "default": 3},
        {"name": "flatten", "type": "boolean", "form": "true|false", "default": False},
        {"name": "polish", "type": "boolean", "default": True, "negative": "--no-polish"},
        {**text, "name": "mood", "form": "blue|green", "choices": ["blue", "green"]},
        {**text, "name": "note", "default": "none"},
        {**text, "name": "spot", "type": "array", "form": "X,Y", "multiple": True, "default": []},
        {**text, "name": "other_crs", "form": "CRS"},
        {**text, "name": "table", "form": "FILE", "path": True},
        {**text, "name": "sketch", "form": "PNG", "path": True, "group": "Output"},
        {**text, "name": "seen", "form": "TEXT", "group": "Input"},
        {**text, "name": "force_it", "commandline_only": True},
    )
    found = algorithm("classify")
    kinds = {
        "SHARPEN_BY": "number",
        "ROUNDS": "number",
        "FLATTEN": "boolean",
        "NO_POLISH": "boolean",
        "MOOD": "enum",
        "NOTE": "string",
        "SPOT": "string",
        "OTHER_CRS": "crs",
        "TABLE": "file",
        "SKETCH": "fileDestination",
        "SEEN": "string",
    }
    for name, kind in kinds.items():
        definition = found.parameterDefinition(name)
        assert definition.type() == kind
        hidden = bool(definition.flags() & definition.Flag.FlagAdvanced)
        assert hidden == (name not in {"SKETCH", "SEEN"}), name
    sharpen = found.parameterDefinition("SHARPEN_BY")
    assert sharpen.description() == "Sharpen by (px)"
    assert sharpen.help() == "How much to sharpen &lt; 9."
    assert (sharpen.minimum(), sharpen.maximum(), sharpen.defaultValue()) == (1, 9, 2.5)
    assert found.parameterDefinition("MOOD").options() == ["blue", "green"]
    assert found.parameterDefinition("FORCE_IT") is None

    output = {"INPUT": str(scene), "OUTPUT": str(tmp_path / "map.gpkg")}
    given = {
        "SHARPEN_BY": 3,
        "ROUNDS": 7,
        "FLATTEN": True,
        "NO_POLISH": True,
        "MOOD": "green",
        "NOTE": "a b",
        "SPOT": "1,2\n3,4",
        "OTHER_CRS": "EPSG:4326",
        "TABLE": "/nowhere/table.csv",
        "SKETCH": str(tmp_path / "sketch.png"),
        "SEEN": "yes",
    }
    with pytest.raises(QgsProcessingException, match="'Sharpen by \\(px\\)'"):  # no such option
        processing.run("rsscgeo:classify", {**output, **given}, feedback=feedback)
    (line,) = (line for line in feedback.lines if " classify " in line)
    for argument in (
        "--sharpen-by=3",
        "--rounds=7",
        "--flatten",
        "--no-polish",
        "--mood=green",
        "'--note=a b'",
        "--spot=1,2 --spot=3,4",
        "--other-crs=EPSG:4326",
        "--table=/nowhere/table.csv",
        f"--sketch={tmp_path}/sketch.png",
        "--seen=yes",
    ):
        assert f" {argument} " in line, argument

    again = type(feedback)()
    with pytest.raises(QgsProcessingException, match="Incorrect parameter value for SHARPEN_BY"):
        processing.run("rsscgeo:classify", {**output, "SHARPEN_BY": 10}, feedback=again)
    with pytest.raises(QgsProcessingException, match=r"is not a file ending in \.png"):
        processing.run("rsscgeo:classify", {**output, "SKETCH": "a.gif"}, feedback=again)


def test_the_program_s_defaults_are_left_to_it(write_raster, tmp_path, feedback):
    raster = write_raster(tmp_path / "small.tif", columns=100, rows=100)
    run = {"INPUT": str(raster), "OUTPUT": "TEMPORARY_OUTPUT"}
    processing.run("rsscgeo:classify", run, feedback=feedback)
    (line,) = (line for line in feedback.lines if " classify " in line)
    given = {word.partition("=")[0] for word in line.split() if word.startswith("-")}
    assert given <= {"-o", "--progress", "--overwrite", "--exit-on-stdin-eof"}
