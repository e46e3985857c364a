"""Tutorials are run as written; command lines of all pages are ones that the program takes."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from rssc_geo_cli.main import cli

from .blocks import blocks, commands, run_block
from .conftest import ROOT, Draw

DOCS = ROOT / "docs"
TUTORIALS = sorted(path.stem for path in (DOCS / "tutorials").glob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "qgis_plugin" / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_works_as_written(
    name: str, desk: Path, drawn: Draw, request: pytest.FixtureRequest
) -> None:
    if "rasters/" in (DOCS / "tutorials" / f"{name}.md").read_text(encoding="utf-8"):
        (desk / "rasters").symlink_to(request.getfixturevalue("rasters"))
    namespace: dict[str, object] = {}
    for block in blocks(DOCS / "tutorials" / f"{name}.md"):
        run_block(block, namespace, draw=drawn)


def test_command_lines_of_all_pages_are_understood() -> None:
    seen = [words for page in PAGES for words in _command_lines(page)]
    assert len(seen) > 40
    for words in seen:
        _parse(words)


def _command_lines(page: Path) -> list[list[str]]:
    """Lines of code blocks that start with our name, but for those that leave something out (…)."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?: {4})?(rssc-geo [^…\n]+)$", text, re.MULTILINE)
    return [words for line in lines for words in commands(line)]


def _parse(words: list[str]) -> None:
    """Parse as click does, without running anything."""
    command: click.Command = cli
    context = click.Context(cli, info_name="rssc-geo")
    arguments = words[1:]
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(context, arguments)
        assert found is not None, " ".join(words)
        command = found
        if isinstance(command, click.Group):
            context = click.Context(command, info_name=name, parent=context)
    try:
        command.make_context(command.name, list(arguments), parent=context)
    except click.ClickException as error:
        raise AssertionError(f"{' '.join(words)}: {error.format_message()}") from error
