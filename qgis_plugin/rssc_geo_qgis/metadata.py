"""The plugin's description: metadata.txt."""

from __future__ import annotations

import configparser
import os


def metadata(key: str) -> str:
    """An entry; in the source tree, where no zip was built, some are the names of placeholders."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(os.path.join(os.path.dirname(__file__), "metadata.txt"), encoding="utf-8")
    return parser["general"][key]


def help_page() -> str:
    """The address of the documentation."""
    return f"{metadata('repository')}/blob/main/docs/qgis.md"
