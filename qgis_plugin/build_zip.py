"""Make the zip that QGIS installs and plugins.qgis.org takes.

    python qgis_plugin/build_zip.py [FILE.zip]      (default: dist/rssc_geo_qgis-<version>.zip)
    python qgis_plugin/build_zip.py --release       (refuses what may not be published)
    python qgis_plugin/build_zip.py --options       (options.json alone, to run from the source)
    python qgis_plugin/build_zip.py --texts FILE.py (what options say of themselves, to translate)

The zip carries rssc-geo itself as a wheel, since its name on the Python Package Index is not
reserved. Building that needs setuptools 77 (``make plugin`` has it); ``--options`` needs Python
3.11 and nothing else, as ``--texts`` does. The options of rssc-geo, from which the plugin makes
its parameters, are written to ``rssc_geo_qgis/options.json`` first.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import string
import subprocess
import sys
import tempfile
import types
import zipfile
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
PLUGIN = ROOT / "qgis_plugin" / "rssc_geo_qgis"
OPTIONS = PLUGIN / "options.json"
MOST_ZIP_BYTES = 24_000_000
"""Largest size of the zip; the plugin repository accepts 25,000,000."""
MOST_BUNDLE_BYTES = 20_000_000
"""Largest size of the embedded model, so that the wheel always fits."""
_SUFFIXES = {".py", ".svg", ".json", ".qm"}
_TIMESTAMP = (2020, 1, 1, 0, 0, 0)  # the same files make the same zip, whenever it is built
_EPOCH_S = "1577836800"  # the same moment, for the wheel
_RESERVED = ("example.org", "example.com", "example.net")  # RFC 2606: reserved names


def write_options() -> Path:
    """Write the version of rssc-geo and the options of its commands where the plugin reads them.

    It is what ``rssc-geo info --json`` prints.
    """
    # The package's own __init__ needs lazy_loader, which a plain Python has not; options/ needs
    # the standard library and errors.py alone.
    if "rssc_geo" not in sys.modules:
        package = types.ModuleType("rssc_geo")
        package.__path__ = [str(ROOT / "rssc_geo")]
        sys.modules["rssc_geo"] = package
    options = importlib.import_module("rssc_geo.options").describe_options()
    described = {"version": _pyproject()["project"]["version"], "options": options}
    text = json.dumps(described, ensure_ascii=False, allow_nan=False, indent=1) + "\n"
    # Another process may be reading it.
    if not OPTIONS.is_file() or OPTIONS.read_text(encoding="utf-8") != text:
        OPTIONS.write_text(text, encoding="utf-8")
    return OPTIONS


def write_texts(path: Path) -> Path:
    """Write the titles and help of the options' parameters as calls of ``tr``, for pylupdate."""
    write_options()
    sys.path.insert(0, str(PLUGIN.parent))
    options = importlib.import_module(f"{PLUGIN.name}.options")
    found = [option for known in options.shipped().options.values() for option in known]
    shown = [option for option in found if not option.commandline_only]
    texts = {text for option in shown for text in (option.title, option.help)}
    lines = (f"tr({json.dumps(text, ensure_ascii=False)})\n" for text in sorted(texts))
    path.write_text("".join(lines), encoding="utf-8")
    return path


def placeholders(publication: dict[str, str]) -> list[str]:
    """The values of ``publication`` that are still placeholders."""
    return [key for key, value in publication.items() if any(host in value for host in _RESERVED)]


def metadata() -> str:
    """The text of metadata.txt, with version and authors as pyproject.toml has them."""
    project = _pyproject()
    known = {"version": project["project"]["version"], **publication(project)}
    return string.Template((PLUGIN / "metadata.txt").read_text("utf-8")).substitute(known)


def build_wheel(folder: Path) -> Path:
    """Build rssc-geo as a wheel in ``folder``, from a copy: a build leaves files in its source."""
    copy = folder / "source"
    for name in ("rssc_geo", "cli"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    wheel = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *wheel, str(copy)],
        check=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": _EPOCH_S, "PIP_NO_INDEX": "1"},
    )
    return next(folder.glob("rssc_geo-*.whl"))


def build(target: Path) -> Path:
    """Write the zip with the plugin's folder at its top; returns its path.

    Raises ``SystemExit`` when it, or the embedded model, is larger than may be.
    """
    write_options()
    bundle = ROOT / "rssc_geo" / "models" / "bundles" / "compact"
    _check_size("The embedded model", _size(bundle), MOST_BUNDLE_BYTES)
    contents = {
        file.relative_to(PLUGIN.parent).as_posix(): file.read_bytes()
        for file in PLUGIN.rglob("*")
        if file.suffix in _SUFFIXES or file.name == "LICENSE"
    }
    contents[f"{PLUGIN.name}/metadata.txt"] = metadata().encode()
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        contents[f"{PLUGIN.name}/wheels/{wheel.name}"] = wheel.read_bytes()
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(contents):
            entry = zipfile.ZipInfo(name, _TIMESTAMP)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, contents[name])
    _check_size(str(target), target.stat().st_size, MOST_ZIP_BYTES)
    return target


def check_release() -> None:
    """Raise ``SystemExit`` when values of pyproject.toml are not fit to be published."""
    unset = placeholders(publication(_pyproject()))
    if unset:
        raise SystemExit(
            f"build_zip.py: {', '.join(unset)} of pyproject.toml (authors, [project.urls]) are"
            " placeholders; set them before a release is built"
        )


def _check_size(what: str, size: int, most: int) -> None:
    if size > most:
        raise SystemExit(f"build_zip.py: {what} has {size:,} bytes, at most {most:,} may be")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _pyproject() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def publication(project: dict[str, object]) -> dict[str, str]:
    """Author and addresses, as metadata.txt calls them."""
    told = project["project"]
    author, urls = told["authors"][0], told["urls"]
    return {
        "author": author["name"],
        "email": author["email"],
        "homepage": urls["Homepage"],
        "repository": urls["Repository"],
        "tracker": urls["Issues"],
    }


def main() -> None:
    """Build what the command line asks for, and print its path."""
    parser = argparse.ArgumentParser(description="Build the zip of the QGIS plugin.")
    parser.add_argument("target", nargs="?", type=Path, help="the zip to write")
    parser.add_argument("--options", action="store_true", help="write options.json alone")
    parser.add_argument("--texts", type=Path, help="write the options' texts alone")
    parser.add_argument("--release", action="store_true", help="refuse what may not be published")
    arguments = parser.parse_args()
    if arguments.options:
        print(write_options())
        return
    if arguments.texts:
        print(write_texts(arguments.texts))
        return
    if arguments.release:
        check_release()
    version = _pyproject()["project"]["version"]
    print(build(arguments.target or ROOT / "dist" / f"rssc_geo_qgis-{version}.zip"))


if __name__ == "__main__":
    main()
