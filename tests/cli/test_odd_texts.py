"""Random manifests and configuration files: what they ask for is done, or one line says why not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.factories import texture, write_raster

from .conftest import Rssc, whole_tiles

MANIFEST = b"""\
input,id,output,tile-size,cell-size,bands,nodata,date,areas,classes,aoi,stretch
a.tif,one,,64px,64px,"1,2,3",0,2024-06-01,one.csv,"river,town",,"0,255"
b.tif,2,sub/b.gpkg,64px,,,,,,,,
"""
CONFIG = b"""\
tile-size = "64px"
min-valid = 0.5
bands = [1, 2, 3]
verbose = 1
[info]
cell-size = "64px"
nodata = 0
"""
ODD = (
    *(b"\0", b"\r", b"\n", b"\xff", b"\xef\xbb\xbf", b'"', b"'", b",", b";", b"[", b"]", b"{id}"),
    *(b"{", b"=", b"#", b"..", b"/", b"~", b"*", b"%s", b"nan", b"-inf", b"1e999", b"-1", b"0"),
    *(b"9" * 400, b"0x" + b"f" * 5000, b"x" * 300, b"px", b"km", b"EPSG:0", b"/dev/zero"),
    *("١", "½", "🌲", "\u2028", "\x85", "\u202e"),
)


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content with some places replaced, doubled, left out or followed by something odd."""
    made = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(made) + 1)
        end = min(len(made), start + chance.choice((0, 0, 1, 3, 12, 40)))
        piece = chance.choice((*ODD, bytes(made[start:end]) * 3))
        made[start:end] = piece.encode() if isinstance(piece, str) else piece
    return bytes(made)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two rasters in the working folder."""
    for name in "ab":
        write_raster(tmp_path / f"{name}.tif", texture(64, 64))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("seed", range(6))
def test_a_manifest_costs_its_scenes_at_most(seed: int, rssc: Rssc, folder: Path) -> None:
    chance = random.Random(seed)
    for _ in range(10):
        content = damaged(MANIFEST, chance)
        (folder / "in.csv").write_bytes(content)
        before = files(folder)
        done = rssc("batch", "run", "in.csv", "-o", "maps", *whole_tiles("64px"), "--dry-run")
        assert done.code in (0, 1, 2, 4), content
        lines = done.err.splitlines()
        assert all(
            line.startswith(("error: ", "warning: ", "rssc-geo: error: ")) and len(line) < 20_000
            for line in lines
        ), (content, lines)
        assert (done.code == 0) == (not any("error: " in line for line in lines)), content
        assert files(folder) == before, content


@pytest.mark.parametrize("seed", range(6))
def test_a_configuration_is_used_or_refused(seed: int, rssc: Rssc, folder: Path) -> None:
    chance = random.Random(seed)
    for _ in range(12):
        content = damaged(CONFIG, chance)
        (folder / "own.toml").write_bytes(content)
        done = rssc("info", "a.tif", "--config", "own.toml")
        assert done.code in (0, 1, 2), content
        failures = [line for line in done.err.splitlines() if line.startswith("rssc-geo: error: ")]
        assert len(failures) == (done.code != 0), content
        assert all(len(line) < 20_000 for line in failures), content
