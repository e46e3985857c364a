"""Tutorials are run as written; command lines of all pages are ones that the program takes."""

from __future__ import annotations

import contextlib
import logging
import re
from pathlib import Path

import click
import pytest

from rssc_geo_cli.main import cli

from .blocks import ROOT, Block, blocks, commands
from .newcomer import Shown, alike, follow, other_versions, pages, prepare
from .stand_ins import PAGE

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "qgis_plugin" / "README.md", *sorted(DOCS.rglob("*.md"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one folder in which a newcomer works."""
    folder = tmp_path_factory.mktemp("newcomer")
    with contextlib.chdir(folder):
        prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)  # on a busy machine README takes over five minutes
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_a_page_works_as_written_after_those_before_it(
    page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "rasters/" in page.read_text(encoding="utf-8"):
        request.getfixturevalue("rasters")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RSSC_GEO_CACHE", str(folder / "cache"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # our commands set their own
    exact = not other_versions()
    differences = [line for shown in follow(page) for line in shown.differences(exact=exact)]
    assert not differences, (
        f"{page.name} shows / the commands print; python -m tests.docs.newcomer --update:\n"
        + "\n".join(differences)
    )


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("3600 cells in 64 regions, 9.6 s", "3600 cells in 64 regions, 1 min 02 s", True),
        ("3600 cells in 64 regions, 9.6 s", "3601 cells in 64 regions, 9.6 s", False),
        ("  Forest  219.0 ha  11.0%", "  Forest   219.0 ha   11.0%", True),
        ("  Forest  219.0 ha   1.6%", "  Forest  219.0 ha   1.7%", False),
        ("  Forest  219.0 ha  11.0%", "  Forest  219.1 ha  11.0%", False),
        ("  Forest  219.0 ha  11.0%", "  Beach   219.0 ha  11.0%", False),
        ("0.3697 ± 0.0977", "0.3698 ± 0.0977", False),
        ("/home/me/map.gpkg", "/tmp/map.gpkg", True),
        ("work/map.gpkg", "work/maps.gpkg", False),
        ("work/map.gpkg", "work\\map.gpkg", True),
        ("estimated seconds on cpu  5.6", "estimated seconds on cpu  12", True),
        ("2312 cells, 1.9 MB in, about 4 s", "2312 cells, 2.1 MB in, about 7 s", True),
        ("2312 cells, 1.9 MB in, about 4 s", "2313 cells, 1.9 MB in, about 4 s", False),
        ("among 444 cells, 10 ms", "among 443 cells, 10 ms", False),
        ("run of 2026-11-29T13:21:52Z to 2026-11-29T13:22:00Z: done", "run of 1 to 2: done", True),
        ("2024-06-01 10:30:00+00:00 EPSG:32632", "2024-06-01 10:31:00+00:00 EPSG:32632", False),
        (
            "2 tiles or blocks now, 0.1 a second; reading 5%",
            "2 tiles or blocks now, 9 a second; reading 7%",
            True,
        ),
        ("done   1/1  1  8.2  8.9 s", "done   1/1  1  40.9  1 min 08 s", True),
        ("done   1/1  1  8.2  8.9 s", "done   1/1  2  8.2  8.9 s", False),
        ("done   1/1  1  8.2  8.9 s", "done   2/2  1  0.2  1.1 s", False),
    ],
)
def test_what_counts_as_the_same_line(shown: str, printed: str, *, same: bool) -> None:
    assert alike(shown, printed, exact=True) == same


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("3600 cells in 64 regions, 9.6 s", "3610 cells in 66 regions, 8.1 s", True),
        ("3600 cells in 64 regions, 9.6 s", "3600 cells in 80 regions, 9.6 s", False),
        ("  Forest  219.0 ha   1.6%", "  Forest  223.0 ha   1.7%", True),
        ("  Forest  219.0 ha   1.6%", "  Forest  249.0 ha   1.8%", False),
        ("  Forest  219.0 ha   1.6%", "  Beach   219.0 ha   1.6%", False),
    ],
)
def test_what_counts_as_the_same_line_with_other_versions(
    shown: str, printed: str, *, same: bool
) -> None:
    assert alike(shown, printed, exact=False) == same


def test_with_other_versions_lines_may_change_places() -> None:
    page = Block("text", "", "  Bridge  10.0 ha\n  Beach   9.9 ha\n")
    shown = Shown(page, "  Beach   10.1 ha\n  Bridge  10.0 ha\n")
    assert shown.differences(exact=False) == []
    assert len(shown.differences(exact=True)) == 2


def test_every_tutorial_has_a_picture_and_shows_what_is_printed() -> None:
    for page in pages():
        text = page.read_text(encoding="utf-8")
        assert re.search(r"^!\[[^\]]+\]\(", text, re.MULTILINE), page
        languages = {block.language for block in blocks(page)}
        assert "text" in languages or page.stem == PAGE, page


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
