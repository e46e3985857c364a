"""What may differ from scene to scene, and the texts of a manifest that say so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rssc_geo.batch.stamps import named_from
from rssc_geo.errors import UsageError
from rssc_geo.options import TilingOptions, describe_options


def _numbers(kind: type[int | float]) -> Callable[[str], tuple[float, ...]]:
    return lambda text: tuple(kind(part) for part in text.split(","))


def _flag(text: str) -> bool:
    value = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(
        text.lower()
    )
    if value is None:
        raise ValueError(text)
    return value


_READ: Mapping[str, tuple[str, Callable[[str], Any], str]] = {
    "bands": ("bands", _numbers(int), "numbers such as 4,3,2"),
    "nodata": ("nodata", float, "a number"),
    "assume-crs": ("assume_crs", str, "a CRS"),
    "tile-size": ("tile_size", str, "a size"),
    "cell-size": ("cell_size", str, "a size"),
    "min-valid": ("min_valid", float, "a share"),
    "stretch": ("stretch", str, "a range"),
    "aoi": ("aoi", str, "a file"),
    "bounds": ("bounds", _numbers(float), "four numbers"),
    "crs": ("crs", str, "a CRS"),
    "aoi-clip": ("aoi_clip", _flag, "true or false"),
    "min-area": ("min_area_m2", float, "square metres"),
    "probabilities": ("probabilities", _flag, "true or false"),
    "class-raster": ("class_raster", str, "a file name"),
    "preview": ("preview", str, "a file name"),
}
"""Long option → field, how its text is read, and what it should be."""

ROW_OPTIONS = tuple(_READ)
"""Names of the options that a row of a manifest may set.

Those of the command line without ``--``.
"""
ROW_FILES = ("aoi", "class-raster", "preview")
"""Those that name a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneOptions:
    """How a scene is cut and what is made of it; the fields are those of ``rssc_geo.classify``.

    ``class_raster`` and ``preview`` are templates as the output is (see ``jobs.fill``).
    """

    tiling: TilingOptions = field(default_factory=TilingOptions)
    crs: str | None = None
    aoi_clip: bool = False
    min_area_m2: float = 0.0
    probabilities: bool = False
    class_raster: str | None = None
    preview: str | None = None

    def with_row(self, texts: Mapping[str, str]) -> SceneOptions:
        """These options but for those a manifest's row gives; empty texts say nothing.

        ``UsageError`` names a bad one.
        """
        own: dict[str, Any] = {}
        tiling: dict[str, Any] = {}
        for name, text in texts.items():
            if not text.strip():
                continue
            field_name, read, wanted = _READ[name]
            try:
                value = read(text.strip())
            except ValueError:
                raise UsageError(f"{name} {text!r} is not {wanted}") from None
            (tiling if field_name in TilingOptions.__slots__ else own)[field_name] = value
        return replace(self, tiling=replace(self.tiling, **tiling), **own)

    def named(self, *, from_inputs: Path, from_outputs: Path) -> SceneOptions:
        """The same, its files being named from two folders on, to be compared with those of a run from elsewhere."""
        aoi = self.tiling.aoi
        tiling = (
            self.tiling
            if aoi is None
            else replace(self.tiling, aoi=named_from(str(aoi), from_inputs))
        )
        raster, preview = (
            path and named_from(path, from_outputs) for path in (self.class_raster, self.preview)
        )
        return replace(self, tiling=tiling, class_raster=raster, preview=preview)

    def digest(self, *, source: object, maker: object) -> str:
        """Short hash of all that decides about a scene's result, but the content of its files."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "tiling"}
        everything = {
            "source": source,
            "maker": maker,
            "tiling": dict(describe_options(self.tiling)),
            **values,
        }
        return hashlib.sha256(
            json.dumps(everything, sort_keys=True, default=str).encode()
        ).hexdigest()[:16]
