"""What the provider lists, and what it says when a run is not possible."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm, look_at_backend, script, whole_tiles
from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingParameterRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize
from rssc_geo_qgis import backend as backends
from rssc_geo_qgis import settings

ROOT = Path(__file__).resolve().parents[2]
NAMES = [
    *("areas", "assessaccuracy", "assesssample", "caption", "change", "classify", "embed"),
    *("explain", "index", "info", "refine", "search", "train", "zeroshot"),
]
SHOWN = {
    *{"INPUT", "CLASSES", "AT", "LABELS", "FIELD", "OUTPUT"},
    *{"EXTENT", "AOI", "CELL_SIZE", "MODEL", "LEGEND"},
}
SHOWN_OF = {
    "areas": {"REFERENCE", "ZONES"},
    "assessaccuracy": {"REFERENCE"},
    "assesssample": {"SAMPLE_SIZE"},
    "change": {"LATER", "MORE", "DATES"},
    "search": {"WORDS", "LIKE", "LIKE_AREA"},
}
FILES = {"REPORT", "CLASS_RASTER", "PREVIEW", "AREAS", "EMBEDDINGS", "STAC_ITEM"}
TILING = {
    *{"TILE_SIZE", "CELL_SIZE", "MIN_VALID", "AOI", "EXTENT", "RESOLUTION"},
    *{"BANDS", "STRETCH", "NODATA"},
}
MAP = TILING | {
    *{"MODEL", "REVISION", "BATCH_SIZE", "DEVICE", "DTYPE"},
    *{"AOI_CLIP", "MIN_AREA", "PROBABILITIES", "ADAPT_SHARES", "NO_SMOOTH", "CRS", "REVIEW"},
    *{"ZONES", "ZONE_FIELD", "FULL_PROVENANCE", "SNAP", "DATE"},
}
CHOICE = {"ONLY_CLASSES", "EXCLUDE_CLASSES"}
CAPTIONS = {
    *{"CAPTIONER", "CAPTION_WHEN", "CAPTION_BEAM", "PROMPT", "CAPTION_TOKENS", "SHARE_CAPTIONS"},
    *{"CAPTION_CACHE", "CAPTION_REQUESTS", "CAPTION_TIMEOUT", "CAPTION_BATCH_SIZE", "QUANTIZE"},
}


def chosen(program):
    settings.put(settings.PROGRAM, str(program))
    backends.forget()
    look_at_backend()


def test_all_algorithms_are_listed(application):
    assert sorted(found.name() for found in application.provider.algorithms()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_algorithm_describes_itself(name):
    found = algorithm(name)
    assert found.displayName()
    assert found.group() in ("Land use", "Models", "Archive")
    assert found.tags()
    assert len(found.shortHelpString()) > 80
    assert found.helpUrl().endswith("/docs/qgis.md")  # what the Help button opens
    assert not found.icon().pixmap(QSize(24, 24)).toImage().allGray()
    for definition in found.parameterDefinitions():
        assert definition.help() or definition.name() == "OUTPUT", definition.name()
        own = SHOWN_OF.get(name, set())
        seen = SHOWN - {"FIELD"} if "REFERENCE" in own else SHOWN
        hidden = bool(definition.flags() & definition.Flag.FlagAdvanced)
        assert hidden == (definition.name() not in seen | own | FILES | {"SHEET"}), (
            definition.name()
        )


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("classify", CAPTIONS | CHOICE | {"NO_UNKNOWN"}),
        ("zeroshot", {"CLASSES", "NO_OTHER", "REFINE"}),
    ],
)
def test_a_map_has_the_contract_s_names(name, own):
    found = algorithm(name)
    names = [definition.name() for definition in found.parameterDefinitions()]
    assert set(names) == MAP | own | FILES | {"INPUT", "OUTPUT"}
    assert names[0] == "INPUT"
    outputs = {output.name() for output in found.outputDefinitions()}
    assert outputs == FILES | {"OUTPUT", "CELLS", "REVIEW_LAYER", "AREAS_PAGE"}
    assert found.outputDefinition("REPORT").type() == "outputHtml"  # the results viewer shows it
    for optional in FILES:
        assert not found.parameterDefinition(optional).createByDefault()


@pytest.mark.parametrize(
    ("name", "own"),
    [
        (
            "caption",
            (CAPTIONS | MAP)
            - {"AOI_CLIP", "MIN_AREA", "PROBABILITIES", "ADAPT_SHARES", "NO_SMOOTH", "REVIEW"}
            - {"ZONES", "ZONE_FIELD", "FULL_PROVENANCE", "SNAP", "DATE"},
        ),
        ("info", TILING | {"MODEL", "REVISION"}),
        (
            "explain",
            TILING - {"AOI", "EXTENT", "RESOLUTION"}
            | CHOICE
            | {"AT", "MODEL", "REVISION", "CAPTIONER", "DEVICE"},
        ),
        (
            "train",
            TILING - {"AOI", "EXTENT", "RESOLUTION", "CELL_SIZE"}
            | {"LABELS", "FIELD", "PURITY", "CLASS_WORDS", "FINE_TUNE", "MODEL", "DEVICE"}
            | {"GROUP_FIELD", "TEST_LABELS"}
            | {"NAME", "REPORT", "BUNDLE_VERSION", "DESCRIPTION", "LICENSE", "DATA"},
        ),
    ],
)
def test_the_others_have_the_contract_s_names(name, own):
    found = algorithm(name)
    names = {definition.name() for definition in found.parameterDefinitions()}
    assert names == own | {"INPUT", "OUTPUT"}


def test_the_help_says_what_the_embedded_model_knows():
    card = json.loads((ROOT / "rssc_geo/models/bundles/compact/config.json").read_text("utf-8"))
    finest, coarsest = card["gsd_range_m"]
    told = algorithm("classify").shortHelpString()
    assert f"knows {len(card['classes'])} classes" in told
    assert f"pictures of {finest:g} to {coarsest:g} m a pixel" in told


@pytest.mark.cold
def test_can_execute_with_the_backend(backend):
    look_at_backend()
    assert algorithm("classify").canExecute() == (True, "")
    listed = subprocess.run(
        [str(backend), "--help"], capture_output=True, text=True, check=True
    ).stdout
    for name, command in {
        "zeroshot": "zero-shot",
        "caption": "caption",
        "train": "train",
        "explain": "explain",
    }.items():
        good, message = algorithm(name).canExecute()
        if re.search(rf"^(?:│ |  ){command} ", listed, flags=re.MULTILINE):
            assert good or f"has no option --raster of '{command}' yet" in message
        else:
            assert not good
            assert f"no command '{command}' yet" in message
        assert good or (str(backend) in message and "Install backend" in message)


def test_a_command_without_the_options_that_are_needed(backend, tmp_path):
    """A backend whose train takes folders of pictures only.

    The real one under a name that hides the options.
    """
    program = script(
        tmp_path / "older", f'{backend} "$@" | sed -e "s/ info  / train /" -e s/--raster/--other/'
    )
    chosen(program)
    good, message = algorithm("train").canExecute()
    assert not good
    assert "has no option --raster of 'train' yet" in message


def test_a_run_without_the_command_fails_with_the_same_line(backend, scene, tmp_path):
    """The real backend under another name, as if it were of a time before zero-shot."""
    chosen(script(tmp_path / "older", f"{backend} \"$@\" | sed -e 's/ zero-shot / zero-sort /'"))
    good, message = algorithm("zeroshot").canExecute()
    assert not good
    assert "has no command 'zero-shot' yet" in message
    with pytest.raises(QgsProcessingException, match="has no command 'zero-shot' yet"):
        processing.run(
            "rsscgeo:zeroshot",
            {"INPUT": str(scene), "CLASSES": "a,b", "OUTPUT": str(tmp_path / "x.gpkg")},
        )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("echo rssc-geo 0.0.9", "version 0.0.9, this plugin needs 0.1 or newer"),
        ("echo GNU nano 7.2", "is not rssc-geo: it calls itself 'GNU nano 7.2'"),
        ("echo 'No module named torch' >&2; exit 3", "does not run (No module named torch)"),
        ("exit 4", "does not run (it ended with code 4)"),
    ],
)
def test_a_program_that_is_no_backend(tmp_path, text, words):
    program = script(tmp_path / "my backend", text)
    chosen(program)
    good, message = algorithm("classify").canExecute()
    assert not good
    assert words in message
    assert str(program) in message
    assert "Install backend" in message


def test_a_broken_environment(tmp_path):
    program = tmp_path / "rssc-geo"
    program.write_text("#!/nowhere/venv/bin/python\n")
    program.chmod(0o755)
    chosen(program)
    good, message = algorithm("classify").canExecute()
    assert not good
    assert "does not run (No such file or directory)" in message


def test_a_chosen_program_that_is_not_there(tmp_path):
    chosen(tmp_path / "gone" / "rssc-geo")
    good, message = algorithm("classify").canExecute()
    assert not good
    assert f"{tmp_path}/gone/rssc-geo" in message
    assert "does not exist" in message


def test_no_backend_at_all(tmp_path, monkeypatch):
    chosen("")
    monkeypatch.setenv("PATH", str(tmp_path))
    good, message = algorithm("classify").canExecute()
    assert not good
    assert "is not installed" in message
    assert "Install backend" in message


def test_the_backend_on_path_is_found(backend, monkeypatch):
    chosen("")
    monkeypatch.setenv("PATH", f"{backend.parent}{os.pathsep}{os.environ['PATH']}")
    assert backends.find_backend().program == str(backend)


@pytest.mark.cold
def test_the_child_gets_nothing_of_qgis(backend, monkeypatch):
    from rssc_geo_qgis.child import ask, clean_environment

    for name in (
        "PYTHONHOME",
        "PYTHONPATH",
        "GDAL_DATA",
        "PROJ_LIB",
        "LD_LIBRARY_PATH",
        "QT_PLUGIN_PATH",
    ):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    assert ask([str(backend), "--version"]).startswith("rssc-geo ")
    assert "/nowhere" not in clean_environment().values()
    assert clean_environment()["HTTPS_PROXY"] == "http://proxy:1"


def test_a_model_chains_the_regions_into_another_algorithm(scene, tmp_path):
    """As the designer makes it: classify, then the centroids of its regions."""
    model = QgsProcessingModelAlgorithm("towns", "test")
    model.addModelParameter(
        QgsProcessingParameterRasterLayer("picture"), QgsProcessingModelParameter("picture")
    )
    first = QgsProcessingModelChildAlgorithm("rsscgeo:classify")
    first.setChildId("map")
    first.addParameterSources(
        "INPUT", [QgsProcessingModelChildParameterSource.fromModelParameter("picture")]
    )
    for name, size in whole_tiles("100px").items():
        first.addParameterSources(
            name, [QgsProcessingModelChildParameterSource.fromStaticValue(size)]
        )
    second = QgsProcessingModelChildAlgorithm("native:centroids")
    second.setChildId("points")
    second.addParameterSources(
        "INPUT", [QgsProcessingModelChildParameterSource.fromChildOutput("map", "OUTPUT")]
    )
    result = QgsProcessingModelOutput("points")
    result.setChildOutputName("OUTPUT")
    second.setModelOutputs({"points": result})
    model.addChildAlgorithm(first)
    model.addChildAlgorithm(second)

    saved = tmp_path / "towns.model3"
    assert model.toFile(str(saved))
    again = QgsProcessingModelAlgorithm()
    assert again.fromFile(str(saved))
    again.initAlgorithm()
    context, feedback = QgsProcessingContext(), QgsProcessingFeedback(False)
    points = tmp_path / "points.gpkg"
    found, good = again.run(
        {"picture": str(scene), "points:points": str(points)}, context, feedback
    )
    assert good, feedback.textLog()
    layer = QgsVectorLayer(found["points:points"])
    assert layer.featureCount() > 0
    assert "class" in layer.fields().names()
