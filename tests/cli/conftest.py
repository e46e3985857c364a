from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rssc_geo_cli.main import run
from tests.factories import texture, write_raster


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The error's one line: the last of stderr.

        All of stderr is lines that start with a level.
        """
        lines = self.err.strip().splitlines()
        assert lines, "nothing on stderr"
        assert all(
            line.startswith(("warning: ", "info: ", "rssc-geo: error: ")) for line in lines
        ), self.err
        return lines[-1]


Rssc = Callable[..., Outcome]
"""The fixture ``rssc``."""


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV table."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def whole_tiles(size: str) -> tuple[str, ...]:
    """Arguments for tiles of a size that are one cell each, also of models that map fine cells."""
    return ("--tile-size", size, "--cell-size", size)


@pytest.fixture
def rssc(capfd: pytest.CaptureFixture[str]) -> Rssc:
    """Run a command line in this process: exit code, stdout, stderr."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        assert "Traceback" not in captured.err
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """800 × 600 pixels of 2 m."""
    return write_raster(tmp_path / "scene.tif", texture(800, 600), photometric="rgb")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """Folder of two scenes of 4 × 4 cells of 64 px."""
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        write_raster(folder / f"{name}.tif", texture(256, 256, seed), photometric="rgb")
    return folder
