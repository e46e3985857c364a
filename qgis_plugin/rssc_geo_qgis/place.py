"""Path of the backend's environment: one for all profiles of a user, beside QGIS's own files."""

from __future__ import annotations

import os
from glob import glob

from qgis.PyQt.QtCore import QStandardPaths

from . import settings


def home() -> str:
    """The folder of all that the plugin writes.

    In the place that was chosen, else in the user's folder for programs' data that stays on this
    computer: on Windows it is not the one that roams.
    """
    local = QStandardPaths.StandardLocation.GenericDataLocation
    chosen = settings.get(settings.PLACE) or QStandardPaths.writableLocation(local)
    return os.path.join(chosen, "rssc-geo")


def folder() -> str:
    """The environment's folder."""
    return os.path.join(home(), "qgis-backend")


def program_path() -> str:
    """Where the installed program is, or would be."""
    return _in_environment("rssc-geo")


def python_path() -> str:
    """The environment's own Python."""
    return _in_environment("python")


def log_path() -> str:
    """The log of the last installation."""
    return os.path.join(home(), "install.log")


def bundled_wheel() -> str:
    """The wheel of rssc-geo that came with the plugin; ``''`` where it runs from the source."""
    return next(iter(glob(os.path.join(os.path.dirname(__file__), "wheels", "*.whl"))), "")


def _in_environment(name: str) -> str:
    parts = ("Scripts", f"{name}.exe") if os.name == "nt" else ("bin", name)
    return os.path.join(folder(), *parts)
