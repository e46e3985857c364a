"""The code blocks of a page, and the running of them as a reader would."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rssc_geo_cli.main import run

ROOT = Path(__file__).parents[2]
_PACKAGES = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "cli")])}
_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, the file it is said to be (or ""), its text."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return [Block(*found) for found in _FENCE.findall(page.read_text(encoding="utf-8"))]


def commands(text: str) -> Iterator[list[str]]:
    """The commands of shell lines, as words.

    Lines that end with a backslash go on, comments are left out.
    """
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r"(^|\s)#\s.*", "", line))
        if words:
            yield words


def run_block(block: Block, namespace: dict[str, object]) -> None:
    """Type a block.

    ``bash``: our program and Python scripts, in this process, which spares the loading of torch;
    ``python``: in one session for the page; blocks with a title are saved under it first; ``sh``
    blocks are for readers who have what they need: not run.
    """
    if block.title:
        Path(block.title).write_text(block.text, encoding="utf-8")
    if block.language == "bash":
        for words in commands(block.text):
            type_command(words)
    elif block.language == "python":
        exec(compile(block.text, block.title or "<page>", "exec"), namespace)


def type_command(words: list[str]) -> None:
    """Run one command of a page; ``make demo`` with this Python in place of a new one."""
    program, *arguments = words
    if program == "rssc-geo":
        assert run(arguments) == 0, shlex.join(words)
        assert all(Path(file).exists() for file in _written(arguments)), (
            f"{shlex.join(words)} did not write what it says"
        )
    elif program == "python":
        with _command_line(arguments):
            runpy.run_path(arguments[0], run_name="__main__")
    elif words == ["make", "demo"]:
        if os.name == "nt":  # its recipe is for a POSIX shell
            return
        here = f"BIN={Path(sys.executable).parent}"
        made = [*words, here, "--old-file", ".venv/.dev", "--file", str(ROOT / "Makefile")]
        subprocess.run(made, check=True, capture_output=True, env={**os.environ, **_PACKAGES})
    else:
        raise AssertionError(f"the tests do not run {shlex.join(words)}: mark its block as sh")


def _written(arguments: list[str]) -> list[str]:
    """Files that a command line promises, but templates and dry runs."""
    if "--dry-run" in arguments:
        return []
    pairs = itertools.pairwise(arguments)
    return [
        value
        for name, value in pairs
        if name in ("-o", "--preview", "--report", "--areas", "--class-raster", "--stac-item")
        and "{" not in value
    ]


@contextlib.contextmanager
def _command_line(arguments: list[str]) -> Iterator[None]:
    """``sys.argv`` and ``sys.path`` as a script finds them."""
    before = sys.argv, list(sys.path)
    sys.argv = arguments
    sys.path.insert(0, str(Path(arguments[0]).parent.resolve()))
    try:
        yield
    finally:
        sys.argv, sys.path[:] = before
