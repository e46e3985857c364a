"""Scenes of a STAC ItemCollection, item or static catalogue, on disk or by URL (STAC 1.x, https://stacspec.org)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rssc_geo.errors import InputError, UsageError, one_line

if TYPE_CHECKING:
    import pystac

_USUAL = ("visual", "data", "image")  # keys and roles that are tried when none is asked for


@dataclass(frozen=True, slots=True)
class StacScene:
    """An item's id and the rasters of it that were chosen; ``error`` says why there are none."""

    id: str
    source: tuple[str, ...]
    error: str = ""


def read_stac(name: str, *, asset: str | None = None) -> Iterator[StacScene]:
    """The items of a STAC file, each with the asset whose key or role is ``asset``; three keys
    "r,g,b" give three files.

    Raises ``InputError`` when the file, or a part of a catalogue, cannot be read; ``UsageError``
    without pystac.
    """
    try:
        import pystac
    except ImportError as error:
        raise UsageError(
            f"{name}: reading STAC needs pystac; pip install 'rssc-geo[stac]'"
        ) from error
    try:
        for item in _items(name, pystac.StacIO.default().read_text(name)):
            yield _scene(item, asset)
    except Exception as error:  # whatever a foreign document makes pystac trip over, or its HTTP library (two are possible) says
        raise InputError(f"{name} cannot be read as STAC: {one_line(error)}") from error


def _items(name: str, text: str) -> Iterator[pystac.Item]:
    import pystac

    values = json.loads(text)
    if values.get("type") == "FeatureCollection":
        for feature in values["features"]:
            item = pystac.Item.from_dict(feature, preserve_dict=False)
            if item.get_self_href() is None:
                item.set_self_href(
                    name
                )  # relative hrefs of a collection's items are meant from its file
            yield item
        return
    found = pystac.read_file(name)
    if isinstance(found, pystac.Item):
        yield found
    elif isinstance(found, pystac.Catalog):
        yield from found.get_items(recursive=True)
    else:
        raise TypeError(f"a {type(found).__name__}, not items")


def _scene(item: pystac.Item, asset: str | None) -> StacScene:
    keys = () if asset is None else tuple(asset.split(","))
    if len(keys) == 3 and all(key in item.assets for key in keys):
        hrefs = [item.assets[key].get_absolute_href() for key in keys]
    else:
        wanted = _USUAL if asset is None else (asset,)
        by_key = [item.assets[key] for key in wanted if key in item.assets]
        by_role = [
            entry
            for role in wanted
            for entry in item.assets.values()
            if role in (entry.roles or ())
        ]
        hrefs = [entry.get_absolute_href() for entry in (by_key or by_role)[:1]]
    usable = tuple(
        href for href in hrefs if href and not href.lstrip().startswith("<")
    )  # XML would be a VRT, no place
    if usable and len(usable) == len(hrefs):
        return StacScene(item.id, usable)
    there = (
        ", ".join(
            f"{key} ({'/'.join(entry.roles or ['no role'])})" for key, entry in item.assets.items()
        )
        or "none"
    )
    return StacScene(
        item.id,
        (),
        f"STAC item {item.id}: no asset with key or role {asset or '/'.join(_USUAL)}; it has:"
        f" {there}",
    )
