"""Shell completion of an unfinished command line, in the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CASES = [
    ("rssc-geo cl", {"classify"}),
    ("rssc-geo batch ", {"run", "status", "areas"}),
    ("rssc-geo classify --cell", {"--cell-size"}),
    ("rssc-geo classify --dtype b", {"bfloat16"}),
    ("rssc-geo batch run --merge ", {"first", "last", "most-confident"}),
    ("rssc-geo classify sce", {"scene.tif"}),
    ("rssc-geo classify scene.tif --aoi par", {"parcels.gpkg"}),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of files, with the program on the path."""
    for name in ("scene.tif", "parcels.gpkg"):
        (tmp_path / name).touch()
    program = tmp_path / "bin" / "rssc-geo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rssc_geo_cli.main "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'cli'}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(shell: str, script: str) -> set[str]:
    done = subprocess.run(
        [shell, *(["-f"] if shell == "zsh" else ["--norc"]), "-c", script],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.split())


def bash(line: str) -> set[str]:
    """As Bash does at the tab key: the function that was registered, then what files it leaves."""
    words = line.split(" ")
    return asked(
        "bash",
        'eval "$(_RSSC_GEO_COMPLETE=bash_source rssc-geo)"\n'
        'compopt() { [ "$2" = default ] && COMPREPLY=($(compgen -f -- "$last")); }\n'
        f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}\n"
        'last="${COMP_WORDS[$COMP_CWORD]}"\n'
        '_rssc_geo_completion rssc-geo\nprintf "%s\\n" "${COMPREPLY[@]}"',
    )


def zsh(line: str) -> set[str]:
    """With stand-ins for what belongs to the line editor of zsh."""
    words = line.split(" ")
    return asked(
        "zsh",
        "compdef() { :; }\n"
        '_describe() { local name=$3 got; got=("${(@P)name}"); print -l -- ${got%%:*}; }\n'
        '_path_files() { print -l -- "$words[CURRENT]"*(N); }\n'
        'compadd() { local name=$5; print -l -- "${(@P)name}"; }\n'
        'eval "$(_RSSC_GEO_COMPLETE=zsh_source rssc-geo)"\n'
        f"words=({' '.join(repr(word) for word in words)}); CURRENT={len(words)}\n"
        "_rssc_geo_completion || true",
    )


@pytest.mark.parametrize("ask", [bash, zsh])
@pytest.mark.parametrize(("line", "offered"), CASES)
def test_shells_offer_what_fits(
    home: Path, ask: Callable[[str], set[str]], line: str, offered: set[str]
) -> None:
    if shutil.which(ask.__name__) is None:
        pytest.skip(f"no {ask.__name__} on PATH")
    assert offered <= ask(line)
    if offered & {"--cell-size", "bfloat16", "classify"}:
        assert len(ask(line)) <= 2
