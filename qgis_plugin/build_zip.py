"""Make the zip that QGIS installs (Plugins ▸ Manage and Install Plugins ▸ Install from ZIP) and
plugins.qgis.org takes.

python3 qgis_plugin/build_zip.py [FILE.zip]      (default: dist/rssc_geo_qgis-<version>.zip)
"""

from __future__ import annotations

import configparser
import sys
import zipfile
from pathlib import Path

PLUGIN = Path(__file__).parent / "rssc_geo_qgis"
_KINDS = {".py", ".svg", ".txt"}
_MOMENT = (2020, 1, 1, 0, 0, 0)  # the same files make the same zip, whenever it is built


def build(target: Path) -> Path:
    """Write the zip with the plugin's folder at its top; returns its path."""
    files = sorted(
        file for file in PLUGIN.rglob("*") if file.is_file() and "__pycache__" not in file.parts
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            if file.suffix in _KINDS or file.name == "LICENSE":
                entry = zipfile.ZipInfo(file.relative_to(PLUGIN.parent).as_posix(), _MOMENT)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, file.read_bytes())
    return target


def version() -> str:
    """The plugin's version, from its metadata."""
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(PLUGIN / "metadata.txt", encoding="utf-8")
    return metadata["general"]["version"]


if __name__ == "__main__":
    default = PLUGIN.parents[1] / "dist" / f"rssc_geo_qgis-{version()}.zip"
    print(build(Path(sys.argv[1]) if len(sys.argv) > 1 else default))
