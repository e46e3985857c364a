"""What the user chose for the plugin; kept in the QGIS profile."""

from __future__ import annotations

from qgis.core import QgsSettings

PROGRAM = "program"
DEVICE = "device"
CACHE = "cache"
INSTALL_FROM = "install_from"

_GROUP = "rssc_geo"


def get(name: str) -> str:
    """The value, empty when nothing was chosen."""
    return str(QgsSettings().value(f"{_GROUP}/{name}", "") or "").strip()


def put(name: str, value: str) -> None:
    """Keep a value; an empty one means the default."""
    QgsSettings().setValue(f"{_GROUP}/{name}", value.strip())


def environment() -> dict[str, str]:
    """Variables that tell the backend where to keep downloaded models and captions."""
    folder = get(CACHE)
    return {"XDG_CACHE_HOME": folder, "HF_HOME": f"{folder}/huggingface"} if folder else {}
