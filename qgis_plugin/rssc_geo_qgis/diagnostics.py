"""Facts of a user's computer for an issue, without secrets."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator

from qgis.core import Qgis
from qgis.PyQt.QtCore import PYQT_VERSION_STR, QT_VERSION_STR

from . import settings
from .backend import BackendError, find_backend
from .check import versions_beside
from .child import clean_environment
from .metadata import metadata
from .place import bundled_wheel, folder, log_path
from .torch_build import read_cards

_LOG_LINES = 200
# Of the variables only these, and of these none that is named as a secret is.
_SHOWN = re.compile(
    r"PATH|PIP_.*|SSL_.*|.*_CA_BUNDLE|.*_PROXY|RSSC_.*|HF_.*|CUDA_.*|GDAL_.*|PROJ_.*|PYTHON.*"
    r"|QT_.*|QGIS_.*|LANG|LC_.*|LD_.*|DYLD_.*|XDG_.*|OMP_.*|MKL_.*|TORCH_.*|HOME|TEMP|TMP|TMPDIR",
    re.IGNORECASE,
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|AUTH|CREDENTIAL|COOKIE|SIGNATURE", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/\s]+@")
_IN_QUERY = re.compile(r"(?<=[?&])([^=&\s]*)=[^&\s'\"]+")


def describe() -> Iterator[str]:
    """The lines: versions, paths, settings, environment, the last installation.

    Starts the backend and asks the graphics card's driver: not for the main thread.
    """
    for line in _lines():
        yield hide_secrets(line)


def hide_secrets(text: str) -> str:
    """The text without names and passwords in addresses, without the user's folder and name."""
    text = _IN_QUERY.sub(r"\1=…", _IN_URL.sub("…@", text))
    home = os.path.expanduser("~")
    return text.replace(home, "~") if len(home) > 1 else text


def _lines() -> Iterator[str]:
    yield f"plugin: {metadata('version')} in {os.path.dirname(__file__)}"
    yield f"wheel: {bundled_wheel() or 'none'}"
    yield f"QGIS: {Qgis.QGIS_VERSION}, Qt {QT_VERSION_STR}, PyQt {PYQT_VERSION_STR}"
    yield f"Python: {platform.python_version()}, {sys.executable}, prefix {sys.prefix}"
    yield f"system: {platform.platform()}, {platform.machine()}, {os.cpu_count()} processors"
    yield f"cards: {'; '.join(map(str, read_cards())) or 'none by nvidia-smi'}"
    yield f"environment's folder: {folder()}, {'there' if os.path.isdir(folder()) else 'not there'}"
    try:
        backend = find_backend()
        yield f"backend: {backend.version}, {backend.program}"
        yield from versions_beside(backend.program).splitlines()
    except BackendError as error:
        yield f"backend: {error}"
    yield "settings:"
    for name in settings.ALL:
        yield f"  {name}={settings.get(name)}"
    yield "environment of a run (names of secrets are left out):"
    for name, value in sorted(clean_environment(settings.environment()).items()):
        if _SHOWN.fullmatch(name):
            yield f"  {name}={'…' if _SECRET.search(name) else value}"
    yield "last installation:"
    yield from _last_installation()


def _last_installation() -> Iterator[str]:
    try:
        with open(log_path(), encoding="utf-8", errors="replace") as file:
            yield from (f"  {line.rstrip()}" for line in file.readlines()[-_LOG_LINES:])
    except OSError:
        yield "  none"
