"""What the user chose for the plugin; kept in the QGIS profile."""

from __future__ import annotations

from qgis.core import QgsSettings

from . import network

PROGRAM = "program"
DEVICE = "device"
CACHE = "cache"
PLACE = "place"
INSTALL_FROM = "install_from"
BUILD = "build"
INDEX = "index"
WHEELS = "wheels"
CONSTRAINTS = "constraints"
ARCHIVE = "archive"
"""The one that was made or searched last."""
ALL = (
    *(PROGRAM, DEVICE, CACHE, PLACE, INSTALL_FROM, BUILD, INDEX, WHEELS, CONSTRAINTS),
    ARCHIVE,
)

_GROUP = "rssc_geo"


def get(name: str) -> str:
    """The value, empty when nothing was chosen."""
    return str(QgsSettings().value(f"{_GROUP}/{name}", "") or "").strip()


def put(name: str, value: str) -> None:
    """Keep a value; an empty one means the default."""
    QgsSettings().setValue(f"{_GROUP}/{name}", value.strip())


def environment() -> dict[str, str]:
    """Variables for the backend.

    Where it keeps downloaded models and captions, and how it reaches the network.
    """
    folder = get(CACHE)
    caches = {"XDG_CACHE_HOME": folder, "HF_HOME": f"{folder}/huggingface"} if folder else {}
    return {**network.environment(), **caches}
