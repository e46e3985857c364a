"""Scan a zip of the plugin like the plugin repository does, a little more strictly.

    python qgis_plugin/scan_zip.py FILE.zip

Prints a line for each finding and ends with 1 if there is any. bandit (all rules), detect-secrets
and flake8 are those of the project's extra ``dev``.
"""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

# Entries of metadata.txt that the plugin repository requires.
_REQUIRED = (
    "name",
    "description",
    "version",
    "qgisMinimumVersion",
    "author",
    "email",
    "about",
    "tracker",
    "repository",
)
_DEPRECATED = ("supportsQt6",)  # qgisMaximumVersion=4.99 says it
_FORBIDDEN = re.compile(
    r"(^|/)(\.|__pycache__|__MACOSX)|\.(pyc|exe|dll|so|dylib|bat|sh|ps1|cmd)$|\.\."
)


def scan(archive: Path) -> list[str]:
    """A line for each finding; none where the zip may be uploaded."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(archive) as files:
        files.extractall(folder)
        return [
            *_names(files),
            *_metadata(files),
            *_bandit(folder),
            *_secrets(folder),
            *_flake8(folder),
        ]


def _names(files: zipfile.ZipFile) -> Iterator[str]:
    for entry in files.infolist():
        if _FORBIDDEN.search(entry.filename):
            yield f"{entry.filename}: hidden, compiled or executable files are not taken"
        if entry.external_attr >> 16 & 0o111:
            yield f"{entry.filename}: has the permission to be executed"


def _metadata(files: zipfile.ZipFile) -> Iterator[str]:
    parser = configparser.ConfigParser()  # with interpolation, as the repository reads it
    name = next(name for name in files.namelist() if name.endswith("/metadata.txt"))
    parser.read_string(files.read(name).decode())
    general = parser["general"]
    yield from (f"{name}: no {key}" for key in _REQUIRED if not general.get(key, "").strip())
    yield from (f"{name}: {key} is deprecated" for key in _DEPRECATED if key in general)


def _bandit(folder: str) -> Iterator[str]:
    for hit in json.loads(_run("bandit", "--recursive", ".", "--format=json", folder))["results"]:
        yield f"{hit['filename']}:{hit['line_number']}: {hit['test_id']} {hit['issue_text']}"


def _secrets(folder: str) -> Iterator[str]:
    found = json.loads(_run("detect_secrets", "scan", "--all-files", ".", folder))["results"]
    for name, hits in found.items():
        yield from (f"{name}:{hit['line_number']}: {hit['type']}" for hit in hits)


def _flake8(folder: str) -> Iterator[str]:
    yield from _run("flake8", "--isolated", "--max-line-length=100", ".", folder).splitlines()


def _run(module: str, *arguments_and_folder: str) -> str:
    """What a scanner prints, run in a folder; findings make it end with 1."""
    *arguments, folder = arguments_and_folder
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=folder,
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    if done.returncode > 1 or (done.returncode == 1 and not done.stdout):
        raise SystemExit(f"scan_zip.py: {module} failed: {done.stderr.strip()}")
    return done.stdout


def main() -> None:
    """Scan the zip that the command line names."""
    found = scan(Path(sys.argv[1]))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
