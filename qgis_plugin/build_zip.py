"""Make the zip that QGIS installs and plugins.qgis.org takes.

    python3 qgis_plugin/build_zip.py [FILE.zip]      (default: dist/rssc_geo_qgis-<version>.zip)
    python3 qgis_plugin/build_zip.py --options       (options.json alone, to run from the source)

Needs Python 3.11 and nothing else. The options of rssc-geo, from which the plugin makes its
parameters, are written to ``rssc_geo_qgis/options.json`` first.
"""

from __future__ import annotations

import argparse
import configparser
import importlib
import json
import sys
import types
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "qgis_plugin" / "rssc_geo_qgis"
OPTIONS = PLUGIN / "options.json"
_SUFFIXES = {".py", ".svg", ".txt", ".json"}
_TIMESTAMP = (2020, 1, 1, 0, 0, 0)  # the same files make the same zip, whenever it is built


def write_options() -> Path:
    """Write the options of each command of rssc-geo where the plugin reads them."""
    # The package's own __init__ needs lazy_loader, which a plain Python has not; options.py needs
    # the standard library and errors.py alone.
    package = types.ModuleType("rssc_geo")
    package.__path__ = [str(ROOT / "rssc_geo")]
    sys.modules["rssc_geo"] = package
    described = importlib.import_module("rssc_geo.options").describe_options()
    text = json.dumps(described, ensure_ascii=False, allow_nan=False, indent=1)
    OPTIONS.write_text(text + "\n", encoding="utf-8")
    return OPTIONS


def build(target: Path) -> Path:
    """Write the zip with the plugin's folder at its top; returns its path."""
    write_options()
    files = sorted(
        file for file in PLUGIN.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            if file.suffix in _SUFFIXES or file.name == "LICENSE":
                entry = zipfile.ZipInfo(file.relative_to(PLUGIN.parent).as_posix(), _TIMESTAMP)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, file.read_bytes())
    return target


def version() -> str:
    """The plugin's version, from its metadata."""
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(PLUGIN / "metadata.txt", encoding="utf-8")
    return metadata["general"]["version"]


def main() -> None:
    """Build what the command line asks for, and print its path."""
    parser = argparse.ArgumentParser(description="Build the zip of the QGIS plugin.")
    parser.add_argument("target", nargs="?", type=Path, help="the zip to write")
    parser.add_argument("--options", action="store_true", help="write options.json alone")
    arguments = parser.parse_args()
    default = ROOT / "dist" / f"rssc_geo_qgis-{version()}.zip"
    print(write_options() if arguments.options else build(arguments.target or default))


if __name__ == "__main__":
    main()
