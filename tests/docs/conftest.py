from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .blocks import type_command

ROOT = Path(__file__).parents[2]
Draw = Callable[[list[str]], None]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Draw:
    """``python examples/make_demo_scene.py FILE …``, but each scene is drawn once for all tests."""
    folder = tmp_path_factory.mktemp("drawn")

    def draw(words: list[str]) -> None:
        kept = folder / ("scene" + "".join(words[3:]) + ".tif")
        if not kept.exists():
            type_command(["python", words[1], str(kept), *words[3:]])
        target = Path(words[2])
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(kept.read_bytes())

    return draw


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder: one that looks like the project's."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSSC_GEO_CACHE", str(tmp_path / "cache"))
    handlers = list(logging.getLogger().handlers)  # our commands set their own
    yield tmp_path
    logging.getLogger().handlers = handlers
