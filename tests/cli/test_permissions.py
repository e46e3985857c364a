"""Files and folders that the user may not read or write: one line, and nothing is lost.

Nor is anything read without what lies beside it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from rasterio.shutil import copy as copy_raster

from tests.factories import texture, write_raster
from tests.programs import Program

from .conftest import whole_tiles

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="permissions of POSIX")
Start = Callable[..., Program]
Prepare = Callable[[Path], None]

USER = """
import os
from tests.users import give_up_privileges
give_up_privileges()
os.chdir({folder!r})
"""
FAST = (*whole_tiles("64px"), "--captioner", "none", "--device", "cpu", "-q")
MAP = ("classify", "scene.tif", "-o", "m.gpkg", *FAST)
BATCH = ("batch", "run", "scene.tif", "-o", "maps", *FAST)


def closed(name: str, mode: int = 0) -> Prepare:
    """What is there, or a file of that name, without permissions."""

    def prepare(home: Path) -> None:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(b"of others")
        path.chmod(mode)

    return prepare


def folder(name: str, mode: int = 0o555) -> Prepare:
    def prepare(home: Path) -> None:
        (home / name).mkdir(parents=True)
        (home / name).chmod(mode)

    return prepare


def behind(name: str) -> Prepare:
    """The raster in a folder that cannot be entered."""

    def prepare(home: Path) -> None:
        (home / name).mkdir()
        (home / "scene.tif").rename(home / name / "scene.tif")
        (home / name).chmod(0)

    return prepare


def virtual(home: Path) -> None:
    copy_raster(home / "scene.tif", home / "v.vrt", driver="VRT")
    (home / "scene.tif").chmod(0)


def database(name: str) -> Prepare:
    def prepare(home: Path) -> None:
        with closing(sqlite3.connect(home / name)) as connection, connection:
            connection.execute("CREATE TABLE mine (a)")
        (home / name).chmod(0)

    return prepare


CASES: dict[str, tuple[Prepare, tuple[object, ...], str]] = {
    "output": (folder("r"), (*MAP[:3], "r/m.gpkg", *FAST), "cannot write in r (Permission denied)"),
    "no entry": (folder("r", 0o600), (*MAP[:3], "r/m.gpkg", *FAST), "Permission denied"),
    "parent": (folder("r"), (*BATCH[:4], "r/maps", *FAST), "cannot make the folder r/maps"),
    "part": (database("m.gpkg.part"), MAP, "cannot write m.gpkg.part"),
    "staging": (folder(".m.gpkg.rssc-geo", 0), MAP, ".m.gpkg.rssc-geo is in the way"),
    "marker": (closed(".m.gpkg.rssc-geo/staging.rssc-geo"), MAP, "is in the way"),
    "another map": (database("m.gpkg"), (*MAP, "--overwrite"), "m.gpkg cannot be read (no perm"),
    "raster": (closed("scene.tif"), MAP, "'scene.tif' is not readable"),
    "raster's folder": (
        behind("in"),
        ("classify", "in/scene.tif", *MAP[2:]),
        "in/scene.tif cannot be read as a raster: Permission denied",
    ),
    "source": (virtual, ("classify", "v.vrt", *MAP[2:]), "Permission denied"),
    "mask": (closed("scene.tif.msk"), MAP, "scene.tif.msk lies beside scene.tif and cannot be"),
    "metadata": (closed("scene.tif.aux.xml"), MAP, "scene.tif.aux.xml lies beside scene.tif"),
    "world file": (closed("scene.tfw"), MAP, "scene.tfw lies beside scene.tif and cannot be read"),
    "area": (closed("aoi.gpkg"), (*MAP, "--aoi", "aoi.gpkg"), "aoi.gpkg"),
    "bundle": (closed("bundle"), (*MAP, "--model", "bundle"), "Permission denied"),
    "weights": (closed("bundle/model.safetensors"), (*MAP, "--model", "bundle"), "Permission den"),
    "tokenizer": (closed("bundle/tokenizer.json"), (*MAP, "--model", "bundle"), "Permission den"),
    "lock": (closed("maps/.rssc-geo-batch.lock"), BATCH, ".rssc-geo-batch.lock is in the way"),
    "journal": (closed("maps/rssc-geo-batch.sqlite"), BATCH, "cannot write maps/rssc-geo-batch"),
    "glob": (folder("in", 0), ("batch", "run", "in/*.tif", *BATCH[3:]), "Permission denied"),
    "archive": (folder("a", 0), ("index", "scene.tif", "-o", "a", *FAST), "Permission denied"),
    "old tiles": (folder("t", 0), ("tile", "scene.tif", "-o", "t", "--overwrite"), "Permission"),
    "caption cache": (folder("c", 0), ("models", "cache"), "Permission denied"),
    "log": (closed("x.log"), (*MAP, "--log-file", "x.log"), "--log-file x.log cannot be written"),
}


def contents(home: Path) -> dict[str, bytes]:
    """All files, also those without permissions, as root or owner may open them again."""
    for place, folders, _ in os.walk(home):
        for name in folders:
            Path(place, name).chmod(0o755)
    found = {}
    for path in home.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            found[str(path.relative_to(home))] = path.read_bytes()
    return found


@pytest.fixture
def home(tmp_path: Path, bundle: Path) -> Path:
    write_raster(tmp_path / "scene.tif", texture(128, 96), photometric="rgb")
    assert bundle.parent == tmp_path
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_lost(start: Start, home: Path, name: str) -> None:
    prepare, arguments, words = CASES[name]
    shutil.copytree(home, home.parent / f"{home.name}-before")
    prepare(home.parent / f"{home.name}-before")
    prepare(home)
    before = contents(home.parent / f"{home.name}-before")
    program = start(
        *arguments, before=USER.format(folder=str(home)) + "\nos.environ.update(RSSC_GEO_CACHE='c')"
    )
    code, _, err = program.finish()
    after = contents(home)
    assert code in (1, 2), err
    (line,) = err.splitlines()
    assert line.startswith("rssc-geo: error: ")
    assert words in line
    assert after == before


def test_folders_of_the_environment_are_not_needed(start: Start, home: Path) -> None:
    """A home and a folder for temporary files that are not there, or cannot be written."""
    (home / "locked").mkdir(mode=0o555)
    for number, place in enumerate(("/nonexistent", str(home / "locked"))):
        before = USER.format(folder=str(home)) + (
            f"os.environ.update(HOME={place!r}, TMPDIR={place!r})\n"
            "os.environ.pop('XDG_CACHE_HOME', None)\nimport tempfile\ntempfile.tempdir = None\n"
        )
        results = [f"{number}.{end}" for end in ("gpkg", "tif", "png", "html")]
        path, raster, preview, report = results
        program = start(
            *("classify", "scene.tif", "-o", path, "--class-raster", raster, *FAST),
            *("--preview", preview, "--report", report),
            before=before,
        )
        code, _, err = program.finish()
        assert (code, err) == (0, "")
        assert all((home / result).exists() for result in results)


def test_a_map_in_a_folder_that_cannot_be_listed_is_put_in_place(start: Start, home: Path) -> None:
    (home / "drop").mkdir()
    (home / "drop").chmod(0o300)
    program = start(*MAP[:3], "drop/m.gpkg", *FAST, before=USER.format(folder=str(home)))
    code, _, err = program.finish()
    assert (code, err) == (0, "")
    (home / "drop").chmod(0o755)
    assert [path.name for path in (home / "drop").iterdir()] == ["m.gpkg"]


def test_gdal_prints_nothing_itself(start: Start, home: Path) -> None:
    """Where no library has asked it to report: beside our line, or without one."""
    program = start(
        *("classify", "scene.tif", "-o", "m.gpkg", "--crs", "EPSG:1", "-q"),
        before=USER.format(folder=str(home))
        + """
import rasterio
from rssc_geo_cli import main as program
inner = program.cli.main
def noisy(*arguments, **more):
    try:
        rasterio.crs.CRS.from_epsg(1)
    except rasterio.errors.CRSError:
        pass
    return inner(*arguments, **more)
program.cli.main = noisy
""",
    )
    code, _, err = program.finish()
    assert code == 2
    assert err.startswith("rssc-geo: error: --crs 'EPSG:1' is not a CRS")
    assert len(err.splitlines()) == 1
