"""The site builds without a warning, fetches nothing, and names all that is public."""

from __future__ import annotations

import ast
import importlib
import logging
import re
from pathlib import Path

import click
import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config

import rssc_geo
from rssc_geo_cli.main import cli

from .conftest import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as ``mkdocs build --strict`` writes it: a warning is an error."""
    target = tmp_path_factory.mktemp("site")
    counter = _Warnings()
    logging.getLogger("mkdocs").addHandler(counter)
    try:
        build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(target)))
    finally:
        logging.getLogger("mkdocs").removeHandler(counter)
    assert not counter.messages
    return target


class _Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.mark.slow
def test_pages_fetch_nothing(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(
            r"<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>",
            text,
        )
        assert not [tag for tag in fetched if "canonical" not in tag], page.name


@pytest.mark.slow
def test_every_command_and_option_is_there(site: Path) -> None:
    text = (site / "cli.html").read_text(encoding="utf-8")
    for path, command in _walk("rssc-geo", cli):
        assert f">{path}" in text, path
        for parameter in command.params:
            for name in parameter.opts if isinstance(parameter, click.Option) else []:
                assert name in text, f"{path} {name}"


def _walk(path: str, command: click.Command) -> list[tuple[str, click.Command]]:
    found = [(path, command)]
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            found += _walk(f"{path} {name}", child)
    return found


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    text = (site / "api.html").read_text(encoding="utf-8")
    for name in rssc_geo.__all__:
        assert re.search(rf'id="rssc_geo\.[\w.]+\.{name}"', text), name


def test_the_reference_names_what_can_be_imported() -> None:
    """From the program itself, or from the package that the page names before it."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: (rssc_geo\.\S+)$", text, re.MULTILINE)
    assert len(listed) == len(set(listed)) > 80
    (block, *_) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    imported = {
        f"{node.module}.{name.name}"
        for node in ast.parse(block).body
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }
    own = {path for path in listed if path.rsplit(".", 1)[1] not in rssc_geo.__all__}
    for path in own - {"rssc_geo.errors"}:
        package, name = ".".join(path.split(".")[:2]), path.rsplit(".", 1)[1]
        assert name in importlib.import_module(package).__all__, path
        assert f"{package}.{name}" in imported, path


def test_docstrings_become_tables_of_parameters(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text(encoding="utf-8"))
    assert "path, URL or /vsi path of a raster" in text
    assert ":func:" not in text
