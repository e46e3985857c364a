"""Every option is declared once and reaches every interface."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyproj
import pytest
import torch

from rssc_geo.errors import UsageError
from rssc_geo.options import (
    COMMANDS,
    GROUPS,
    SHARED,
    ClassifyOptions,
    ExplainOptions,
    Option,
    TilingOptions,
    TrainOnPolygonsOptions,
    TrainOptions,
    all_options,
    describe_options,
    narrowed,
    options_of,
    values_of,
)
from rssc_geo_cli.main import cli

ROOT = Path(__file__).parents[1]

SAMPLES: dict[str, tuple[str, Any]] = {
    "TEXT": ("some text", "some text"),
    "FILE": ("a.tif", "a.tif"),
    "DIR": ("folder", "folder"),
    "NAME": ("name", "name"),
    "TIF": ("x.tif", "x.tif"),
    "PNG": ("x.png", "x.png"),
    "HTML": ("x.html", "x.html"),
    "CSV": ("x.csv", "x.csv"),
    "JSON": ("x.json", "x.json"),
    "PARQUET": ("x.parquet", "x.parquet"),
    "DATE": ("2024-06-01", "2024-06-01"),
    "CRS": ("EPSG:4326", "EPSG:4326"),
    "SIZE": ("400m", "400m"),
    "LOW,HIGH": ("2%,98%", "2%,98%"),
    "A,B,…|FILE": ("a,b", "a,b"),
    "DEVICE": ("cpu", "cpu"),
    "WHEN": ("uncertain:0.7", "uncertain:0.7"),
    "FILTER": ("confidence < 0.5", "confidence < 0.5"),
    "ADDRESS": ("tcp://host:8786", "tcp://host:8786"),
    "true|false": ("true", True),
    "N": ("3", 3),
    "NUMBER": ("2.5", 2.5),
    "M2": ("2.5", 2.5),
    "SHARE": ("0.75", 0.75),
    "R,G,B": ("4,3,2", (4, 3, 2)),
    "X,Y": ("1.5,2", (1.5, 2.0)),
    "MIN,MAX": ("1,2", (1.0, 2.0)),
    "MIN,PREFERRED,MAX": ("1,2,3", (1.0, 2.0, 3.0)),
    "STAGE,WIDTH": ("1,2", (1, 2)),
    "MINX,MINY,MAXX,MAXY": ("0,1,2,3", (0.0, 1.0, 2.0, 3.0)),
    "EPOCHSxPIXELS,…": ("1x64,2x96", ((1, 64), (2, 96))),
    "none|N|all": ("2", 2),
    "NAME,…": ("Port, Lake", ("Port", "Lake")),
    "NAME|FILE": ("corine-1", "corine-1"),
}
REQUIRED = {
    "zero-shot": ["--classes", "a,b"],
    "models import": ["--classes", "a,b", "--levels", "2"],
    "assess accuracy": ["--reference", "points.gpkg"],
}
ARGUMENTS = {
    "batch run": ["scene.tif"],
    "embed": ["scene.tif"],
    "index": ["scene.tif"],
    "search": ["archive", "river"],
    "models import": ["best.pth"],
    "evaluate": ["compact"],
    "batch areas": ["maps"],
    "refine": ["map.gpkg"],
    "areas": ["map.gpkg"],
    "assess sample": ["map.gpkg"],
    "assess accuracy": ["map.gpkg"],
    "change": ["old.tif", "new.tif"],
}


def sample(option: Option) -> tuple[str, Any]:
    """A text of the option that is not its default, and its value."""
    kind = option.declaration.kind
    if kind.choices:
        text = next(name for name in kind.choices if name not in {option.default, ""})
        return text, text
    return SAMPLES[kind.name]


def parse(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of a command's options on a command line."""
    words = name.split(" --", maxsplit=1)[0].split()
    key = " ".join(words)
    command: click.Command = cli
    context = cli.make_context("rssc-geo", list(words))
    for word in words[:-1]:
        command = _member(command, context, word)
        context = command.make_context(word, list(words[1:]), parent=context)
    line = [*REQUIRED.get(key, []), *ARGUMENTS.get(key, []), *arguments]
    leaf = _member(command, context, words[-1])
    return leaf.make_context(words[-1], line, parent=context).params


def _member(command: click.Command, context: click.Context, word: str) -> click.Command:
    assert isinstance(command, click.Group)
    found = command.get_command(context, word)
    assert found is not None
    return found


def output_of(name: str) -> list[str]:
    return [] if name.endswith("info") or name.startswith("evaluate") else ["-o", "out"]


def every_option() -> Iterator[Any]:
    for name, group in COMMANDS.items():
        for option in options_of(group):
            yield pytest.param(name, option, id=f"{name} {option.flag}")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith("RSSC_GEO_"):
            monkeypatch.delenv(variable)


def on_command_line(option: Option, text: str) -> list[str]:
    if option.declaration.negative:
        return [option.declaration.negative]
    if isinstance(option.default, bool):
        return [option.flag]
    return [option.flag, text]


def wanted(option: Option, value: Any) -> Any:
    if option.declaration.negative:
        return False
    return (value,) if option.declaration.multiple else value


@pytest.mark.parametrize(("name", "option"), list(every_option()))
def test_every_option_is_set_by_every_door(
    name: str, option: Option, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text, value = sample(option)
    if option.declaration.negative:
        text = "false"
    expected = wanted(option, value)
    plain = output_of(name)

    def value_of(*arguments: str) -> Any:
        return parse(name, [*plain, *arguments])[option.name]

    if option.declaration.required:
        return  # given in every call of this test
    assert value_of(*on_command_line(option, text)) == expected
    config = tmp_path / "options.toml"
    table = name.split(maxsplit=1)[0]
    config.write_text(f"[{table}]\n{option.key} = {json.dumps(text)}\n", encoding="utf-8")
    if option.declaration.commandline_only:
        monkeypatch.setenv(f"RSSC_GEO_{option.key.replace('-', '_').upper()}", text)
        with pytest.raises(UsageError, match="given on the command line alone"):
            value_of()
        monkeypatch.undo()
        with pytest.raises(UsageError, match="given on the command line alone"):
            value_of("--config", str(config))
        return
    assert value_of("--config", str(config)) == expected
    config.write_text(f"{option.key.replace('-', '_')} = {json.dumps(text)}\n", encoding="utf-8")
    assert value_of("--config", str(config)) == expected
    assert option.variable is not None
    monkeypatch.setenv(option.variable, text)
    assert value_of() == expected


def test_command_line_before_environment_before_file_before_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tmp_path / "options.toml"
    config.write_text('tile_size = "1m"\n[classify]\ntile-size = "2m"\n', encoding="utf-8")
    line = ["-o", "out", "--config", str(config)]
    assert parse("classify", ["-o", "out"])["tile_size"] is None
    assert parse("classify", line)["tile_size"] == "2m"
    assert parse("info", line[2:])["tile_size"] == "1m"
    monkeypatch.setenv("RSSC_GEO_TILE_SIZE", "3m")
    assert parse("classify", line)["tile_size"] == "3m"
    assert parse("classify", [*line, "--tile-size", "4m"])["tile_size"] == "4m"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("tile-sise = '1m'", "tile-sise is unknown; did you mean tile-size?"),
        ("[clasify]\ntile-size = '1m'", "[clasify] is unknown; did you mean classify?"),
        ("[classify]\nchunk = 1", "chunk in [classify] is unknown"),
        ("[classify]\nmin-valid = 3", "--min-valid '3' is not a share from 0 to 1"),
        ("bands = [1, 2]", "--bands '1,2' is not 3 numbers, R,G,B"),
        (f"tile-size = {'[' * 340}1{']' * 340}", "--tile-size holds a list in a list"),
        ("bands = [[1, 2, 3]]", "--bands holds a list in a list, or a table"),
        ("bands = [{a = 1}, 2, 3]", "--bands holds a list in a list, or a table"),
        ("x = = 1", "is no TOML"),
        ("config = 'other.toml'", "--config is given on the command line alone"),
    ],
)
def test_mistakes_in_a_file_are_one_line(content: str, message: str, tmp_path: Path) -> None:
    config = tmp_path / "options.toml"
    config.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError) as told:
        parse("classify", ["-o", "out", "--config", str(config)])
    assert message in str(told.value)
    assert str(config) in str(told.value)


def test_a_misspelt_variable_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RSSC_GEO_TILESIZE", "1m")
    parse("classify", ["-o", "out"])
    assert "RSSC_GEO_TILESIZE is no option; RSSC_GEO_TILE_SIZE is" in caplog.text


def commands_of(group: click.Group, above: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(above):
        found = group.get_command(above, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands_of(found, above)
        else:
            yield found


def test_what_is_an_option_of_another_command_alone_is_known_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One file and one environment serve all commands."""
    known = {option.flag for option in all_options()}
    for found in commands_of(cli, click.Context(cli)):
        declared = [getattr(param, "declaration", None) for param in found.params]
        assert {option.flag for option in declared if option} <= known, found.name
    config = tmp_path / "options.toml"
    config.write_text("fail-on = 'new'\nprogress = 'none'\nlabels = 'a.gpkg'\n", encoding="utf-8")
    monkeypatch.setenv("RSSC_GEO_PROGRESS", "none")
    monkeypatch.setenv("RSSC_GEO_FAIL_ON", "new")
    assert "fail_on" not in parse("info", ["scene.tif", "--config", str(config)])
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("9007199254740993", 2**53 + 1),
        ("-9007199254740993.0", -(2**53) - 1),
        ("18446744073709551615", 2**64 - 1),
        ("9.007199254740993e15", 2**53 + 1),
        ("9007199254740992", 2.0**53),
        ("-3.4028235e+38", -3.4028235e38),
        ("1" * 5000, float("inf")),
        ("1e999999999", float("inf")),
        ("7", 7.0),
    ],
)
def test_whole_numbers_of_64_bits_are_not_rounded(
    text: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = next(found for found in options_of(TilingOptions) if found.name == "nodata")
    assert option.parse(text) == value
    assert type(option.parse(text)) is type(value)
    assert option.from_plain(value) == value
    output = output_of("classify")
    assert parse("classify", [*output, "--nodata", text])["nodata"] == value
    config = tmp_path / "options.toml"
    config.write_text(f"nodata = {value}\n", encoding="utf-8")
    assert parse("classify", [*output, "--config", str(config)])["nodata"] == value
    monkeypatch.setenv("RSSC_GEO_NODATA", text)
    assert parse("classify", output)["nodata"] == value


@pytest.mark.parametrize("name", ["assess sample", "train", "evaluate"])
@pytest.mark.parametrize("seed", ["-1", "2147483648", "1.5"])
def test_a_seed_that_none_of_the_libraries_takes(name: str, seed: str) -> None:
    with pytest.raises(UsageError, match=r"--seed .* is not a whole number from 0 to 2147483647"):
        parse(name, [*output_of(name), f"--seed={seed}"])
    with pytest.raises(UsageError, match="--workers '-1' is not a whole number; give 0 or more"):
        parse("train", ["-o", "out", "data", "--workers=-1"])


class Named:
    """A path as other libraries have them."""

    def __fspath__(self) -> str:
        return "a.gpkg"


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("aoi", Path("a.gpkg"), "a.gpkg"),
        ("aoi", Named(), "a.gpkg"),
        ("bands", np.array([3, 2, 1]), (3, 2, 1)),
        ("bands", [3, 2, 1], (3, 2, 1)),
        ("bands", "3,2,1", (3, 2, 1)),
        ("bounds", np.arange(4.0), (0.0, 1.0, 2.0, 3.0)),
        ("nodata", np.uint8(7), 7.0),
        ("nodata", float("-inf"), float("-inf")),
        ("nodata", 2.0**64, 2.0**64),
        ("nodata", 2**64 - 1, 2**64 - 1),
        ("min_valid", np.float64(0.25), 0.25),
        ("review", np.int64(3), 3),
        ("smooth", np.bool_(False), False),
        ("stretch", (0, 3000), "0,3000"),
        ("date", date(2024, 6, 1), "2024-06-01"),
        ("date", datetime(2024, 6, 1, 12, tzinfo=UTC), "2024-06-01 12:00:00+00:00"),
        ("crs", pyproj.CRS(32632), "EPSG:32632"),
        ("crs", 4326, "4326"),
        ("device", torch.device("cuda", 1), "cuda:1"),
        ("dtype", torch.float16, "float16"),
        ("only_classes", ["Port", "Pier, or quay"], ("Port", "Pier, or quay")),
        ("only_classes", "Port,Lake", ("Port", "Lake")),
    ],
)
def test_pythons_own_types_are_those_of_the_option(name: str, value: Any, wanted: Any) -> None:
    found = getattr(ClassifyOptions(**{name: value}), name)
    assert found == wanted
    assert type(found) is type(wanted)
    if isinstance(found, tuple):
        assert list(map(type, found)) == list(map(type, wanted))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("min_area", -5, "--min-area '-5' is not an area of 0 or more"),
        ("min_area", float("nan"), "--min-area 'nan' is not an area of 0 or more"),
        ("review", True, "--review 'true' is not a whole number; give 1 or more"),
        ("caption_beam", 0, "--caption-beam '0' is not a whole number; give 1 or more"),
        ("dtype", "f32", "--dtype 'f32' is not one of float32, bfloat16, float16"),
        ("review", 0, "--review '0' is not a whole number; give 1 or more"),
        ("caption_timeout", float("nan"), "--caption-timeout 'nan' is not a number above 0"),
        ("bands", [3, 2], "--bands '3,2' is not 3 numbers, R,G,B"),
        ("smooth", None, "--smooth cannot be of Python's type NoneType: give true or false"),
        ("aoi", b"a.gpkg", "--aoi cannot be of Python's type bytes: give the path of a file"),
    ],
)
def test_a_wrong_value_fails_in_python_in_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as told:
        ClassifyOptions(**{name: value})
    assert str(told.value) == message


def test_values_of_python_that_no_text_has_stay_as_they_are() -> None:
    assert TrainOptions(schedule=((6, 128),)).schedule == ((6, 128),)
    assert TrainOptions(schedule="6x128").schedule == ((6, 128),)  # type: ignore[arg-type]
    words = {"Port": ["ships"]}
    assert TrainOnPolygonsOptions(class_words=words).class_words == words
    assert ExplainOptions(at=np.array([[1.5, 2]])).at == ((1.5, 2.0),)  # type: ignore[arg-type]


def test_a_wrong_name_fails_in_python() -> None:
    with pytest.raises(TypeError, match="tile_sice"):
        ClassifyOptions(tile_sice="400m")  # type: ignore[call-arg]


def test_options_of_a_group() -> None:
    options = ClassifyOptions(tile_size="400m", device="cpu")
    assert narrowed(options, TilingOptions) == TilingOptions(tile_size="400m")
    assert values_of(options, TilingOptions)["tile_size"] == "400m"
    assert "device" not in values_of(options, TilingOptions)


def test_one_name_means_one_thing() -> None:
    """Variables and general keys of a file hold for every command that has the option."""
    kinds: dict[str, str] = {}
    for group in COMMANDS.values():
        for option in options_of(group):
            assert kinds.setdefault(option.flag, option.declaration.kind.name) == (
                option.declaration.kind.name
            )
            assert option.declaration.group in GROUPS
            assert option.declaration.help.endswith("."), option.flag


def test_described_as_plain_data() -> None:
    described = json.loads(json.dumps(describe_options()))
    assert set(described) == set(COMMANDS)
    flags = {entry["flag"] for entries in described.values() for entry in entries}
    shared = {option.flag for group in SHARED.values() for option in options_of(group)}
    assert sorted(flags | shared) == sorted(option.flag for option in all_options())


NEW = """
    smoothness: float = option(
        "How smooth it should be.", OUTPUT, Kind("M2", float), default=0.25, unit="m", row=True
    )
"""
INTERFACES = """
import json, os, sys
from pathlib import Path
import rssc_geo.pipelines.classify as pipeline
from rssc_geo.batch import collect_jobs
from rssc_geo.options import BatchOptions, describe_options
from rssc_geo_cli.main import run
sys.path.insert(0, "docs")
import site_hooks

found = {}
class Caught(Exception): pass
def classify(source, output, options, *, progress): raise Caught(options.smoothness)
pipeline.classify = classify
def value(*arguments):
    try:
        from rssc_geo_cli.main import cli
        cli.main(["classify", "scene.tif", "-o", "x.gpkg", *arguments], standalone_mode=False)
    except Caught as caught:
        return caught.args[0]
found["default"] = value()
found["line"] = value("--smoothness", "1.5")
Path("options.toml").write_text("smoothness = 2.5")
found["file"] = value("--config", "options.toml")
os.environ["RSSC_GEO_SMOOTHNESS"] = "3.5"
found["environment"] = value()
del os.environ["RSSC_GEO_SMOOTHNESS"]
Path("scenes.csv").write_text("input,smoothness\\nscene.tif,4.5\\n")
jobs = collect_jobs(["scenes.csv"], "maps/{id}.gpkg", BatchOptions())
found["manifest"] = jobs.jobs[0].options.smoothness
found["json"] = [e["default"] for e in describe_options()["classify"] if e["name"] == "smoothness"]
found["docs"] = "--smoothness" in site_hooks.options_page()
run(["classify", "--help"])
print(json.dumps(found))
"""


def test_a_new_option_is_one_declaration(tmp_path: Path) -> None:
    """A line added to a copy of the options is found at every interface of that copy."""
    for folder in ("rssc_geo", "cli", "docs"):
        ignored = shutil.ignore_patterns("bundles", "__pycache__", "images")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    file = tmp_path / "rssc_geo" / "options" / "maps.py"
    text = file.read_text(encoding="utf-8")
    start = text.index("class OutputOptions(")
    place = text.index("\n\n", start) + 1
    file.write_text(text[:place] + NEW + text[place:], encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", INTERFACES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{tmp_path / 'cli'}"},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    *help_lines, last = done.stdout.splitlines()
    assert any("--smoothness" in line for line in help_lines)
    assert json.loads(last) == {
        "default": 0.25,
        "line": 1.5,
        "file": 2.5,
        "environment": 3.5,
        "manifest": 4.5,
        "json": [0.25],
        "docs": True,
    }
