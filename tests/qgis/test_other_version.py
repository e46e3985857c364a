"""A program of another version than the plugin's: its own list of options decides."""

from __future__ import annotations

import json

import pytest

pytest.importorskip(
    "qgis.core", reason="QGIS's Python is not here; run tests/qgis/run where QGIS is installed"
)

import processing
from helpers import algorithm, look_at_backend, script, whole_tiles
from qgis.core import QgsApplication, QgsProcessingException, QgsVectorLayer
from rssc_geo_qgis import backend as backends
from rssc_geo_qgis import options, settings
from rssc_geo_qgis.plugin import RsscGeoPlugin

NEW = {
    "name": "sharpen_by",
    "flag": "--sharpen-by",
    "type": "number",
    "form": "NUMBER",
    "help": "How much to sharpen.",
    "default": 2.5,
    "group": "Input",
    "unit": None,
}


@pytest.fixture
def described():
    with open(options.FILE, encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture
def install(backend, tmp_path):
    """Choose a program that is the real one under another version, with its own list of options."""

    def choose(text, version="0.2.0"):
        (tmp_path / "own.json").write_text(text, encoding="utf-8")
        settings.put(
            settings.PROGRAM,
            str(
                script(
                    tmp_path / "rssc-geo",
                    f"echo \"$*\" >> '{tmp_path}/calls'\n"
                    f'case "$*" in --version) echo rssc-geo {version};;'
                    f" 'info --json') cat '{tmp_path}/own.json';;"
                    f" *) exec '{backend}' \"$@\";; esac",
                )
            ),
        )
        backends.forget()
        return tmp_path / "calls"

    return choose


def changed(described, *, without=(), **defaults):
    """The list of options of a program that lacks some, has a new one, and other defaults."""
    entries = described["options"]["classify"]
    kept = [entry for entry in entries if entry["name"] not in without]
    for entry in kept:
        entry["default"] = defaults.get(entry["name"], entry["default"])
    pattern = next(entry for entry in entries if entry["name"] == "review")
    described["options"]["classify"] = [*kept, {**pattern, **NEW}]
    return json.dumps({**described, "version": "0.2.0"})


def names_of(found):
    return {definition.name() for definition in found.parameterDefinitions()}


def test_what_it_lacks_is_hidden_and_what_is_new_shown(described, install):
    install(changed(described, without=("caption_beam", "snap"), min_valid=0.7))
    assert "CAPTION_BEAM" in names_of(algorithm("classify"))  # it was not asked yet
    look_at_backend()
    found = algorithm("classify")
    assert not names_of(found) & {"CAPTION_BEAM", "SNAP"}
    assert found.parameterDefinition("SHARPEN_BY").defaultValue() == 2.5
    assert found.parameterDefinition("MIN_VALID").defaultValue() == 0.7
    assert "SNAP" in names_of(algorithm("zeroshot"))


def test_a_command_that_it_lacks_keeps_its_parameters(described, install):
    del described["options"]["explain"]
    install(changed(described))
    look_at_backend()
    assert "AT" in names_of(algorithm("explain"))


def test_the_plugin_s_own_version_is_not_asked(described, install):
    calls = install(changed(described, without=("snap",)), version=described["version"])
    look_at_backend()
    assert "SNAP" in names_of(algorithm("classify"))
    assert "info --json" not in calls.read_text()


@pytest.mark.parametrize("text", ["", "Error: give a raster", '{"options": {"classify": [{}]}}'])
def test_without_a_list_that_can_be_read_the_plugin_s_decides(install, text):
    install(text)
    look_at_backend()
    assert "SNAP" in names_of(algorithm("classify"))


def test_the_registered_algorithms_follow(described, install):
    plugin = RsscGeoPlugin(None)
    plugin.provider = QgsApplication.processingRegistry().providerById("rsscgeo")
    install(changed(described, without=("snap",)))
    look_at_backend()
    plugin._follow_program()
    registered = QgsApplication.processingRegistry().algorithmById("rsscgeo:classify")
    assert "SNAP" not in names_of(registered)
    settings.put(settings.PROGRAM, "")
    backends.forget()
    plugin._follow_program()
    registered = QgsApplication.processingRegistry().algorithmById("rsscgeo:classify")
    assert "SNAP" in names_of(registered)


def test_a_run_before_it_was_asked(described, install, scene, feedback):
    """As a script does it: the parameters are those of the plugin's own version."""
    install(changed(described, without=("review",), min_valid=0.7))
    run = {"INPUT": str(scene), **whole_tiles("200px"), "OUTPUT": "TEMPORARY_OUTPUT"}
    with pytest.raises(
        QgsProcessingException, match=r"is version 0\.2\.0 and has no 'Cells to review': leave that"
    ):
        processing.run("rsscgeo:classify", {**run, "REVIEW": 5})
    backends.forget()
    found = processing.run("rsscgeo:classify", {**run, "MIN_VALID": 0.5}, feedback=feedback)
    assert QgsVectorLayer(found["CELLS"]).featureCount() == 12
    (line,) = (line for line in feedback.lines if " classify " in line)
    assert " --min-valid=0.5 " in line  # as asked for, where the program would take 0.7
    assert "--review" not in line
