"""Scenes that STAC 1.x lists (https://stacspec.org): items, their collections, static catalogs.

On disk or by URL. A file is read item by item, so that its size does not matter and an invalid item
does not affect the others.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Any, TextIO
from urllib.parse import urljoin

from rssc_geo.deadlines import Deadline, open_url
from rssc_geo.errors import InputError, UsageError, one_line
from rssc_geo.output import date_text, parse_date

_USUAL_ASSETS = ("visual", "data", "image")  # keys and roles that are tried when none is given
_LIST = "features"
_CHUNK = 1 << 16  # characters
_PATIENCE_S = 30  # for a server
_DOCUMENT_S = 900  # for a whole document: a collection of 100,000 items over a slow line
_MOST = 500_000
"""Items and documents of a file in all; of a static catalog an item counts twice."""
_DEEPEST = 50  # catalogs above a document: links that never end go down, or over _MOST
_LARGEST_VALUE = 1 << 26
"""Characters of an item, or of a catalog's list of links."""
_KEPT = ("type", "id", "links", "assets", "properties")
_SPACE = re.compile(r"[ \t\n\r]*")
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)
"""What decides on depth: brackets, and texts, so that brackets in them do not count."""


@dataclass(frozen=True, slots=True)
class StacItem:
    """A usable item, or with ``error`` one that cannot be used and why.

    ``files``: the asset asked for, or three of them, as paths or URLs; ``id``: its own, or its
    place in the file; ``date``: when it was taken, or the start of its range, "" where that is not
    known.
    """

    id: str
    files: tuple[str, ...] = ()
    error: str = ""
    date: str = ""


def read_items(name: str, asset: str | None) -> Iterator[StacItem]:
    """The items of a STAC file, each with the asset whose key or role is ``asset``.

    Three keys "r,g,b" give three files. Raises ``InputError`` when the file cannot be read, or not
    to its end, and where it lists more than any archive does; a part of a catalog that cannot be
    read is an item with an error.
    """
    waiting, known = deque([(name, 0)]), {name}
    count = 0
    while waiting:
        place, depth = waiting.popleft()
        if depth > _DEEPEST:
            message = f"{place} cannot be read as STAC: more than {_DEEPEST} catalogs lead to it"
            yield _whole_characters(StacItem(place, error=message))
            continue
        try:
            for found in _read(place, asset):
                count += 1
                if count > _MOST:
                    raise InputError(
                        f"{name} has more than {_MOST:,} STAC items and documents, or never ends"
                    )
                if isinstance(found, StacItem):
                    yield _whole_characters(found)
                elif found not in known:
                    known.add(found)
                    waiting.append((found, depth + 1))
        except (OSError, ValueError, RecursionError, HTTPException) as error:
            message = f"{place} cannot be read as STAC: {one_line(error)}"
            if place == name:
                raise InputError(message) from error
            yield _whole_characters(StacItem(place, error=message))


def _whole_characters(item: StacItem) -> StacItem:
    """The item with question marks for halves of characters, which JSON can hold and no file."""
    id_, error, *files = (
        text.encode("utf-8", "replace").decode() for text in (item.id, item.error, *item.files)
    )
    return replace(item, id=id_, files=tuple(files), error=error)


def _read(place: str, asset: str | None) -> Iterator[StacItem | str]:
    """The items of a document, and the places of others that it leads to."""
    document: dict[str, Any] = {}
    items = 0
    with _opened(place) as stream:
        for key, value in _members(stream):
            if key == _LIST:
                items += 1
                yield _item(value, f"{place}, item {items}", place, asset)
            elif key in _KEPT:
                document[key] = value
    if document.get("type") == "Feature":
        yield _item(document, place, place, asset)
    elif document.get("type") in ("Catalog", "Collection"):
        for rel in ("item", "child"):
            for href in _links(document, rel):
                try:
                    yield _resolved(href, place)
                except ValueError as error:
                    message = f"{href} cannot be read as STAC: {one_line(error)}"
                    yield StacItem(href, error=message)
    elif document.get("type") != "FeatureCollection":
        raise ValueError(f"its type is {json.dumps(document.get('type'))}, no STAC item or catalog")


def _item(values: object, label: str, place: str, asset: str | None) -> StacItem:
    """An item of the document at ``place``; ``label``: its place, for messages."""
    if not isinstance(values, dict) or values.get("type") != "Feature":
        return StacItem(label, error=f"{label} is no STAC item")
    name, assets = values.get("id"), values.get("assets")
    if isinstance(name, bool) or not isinstance(name, (str, int, float)) or name == "":
        return StacItem(label, error=f"{label}: the STAC item has no id")
    if not isinstance(assets, dict):
        return StacItem(str(name), error=f"STAC item {name} has no assets")
    entries = {key: entry for key, entry in assets.items() if isinstance(entry, dict)}
    hrefs = [entry.get("href") for entry in _chosen(entries, asset)]
    # XML would be a VRT, not a path.
    if not hrefs or not all(
        isinstance(href, str) and href and not href.lstrip().startswith("<") for href in hrefs
    ):
        there = one_line(
            ", ".join(
                f"{key} ({'/'.join(_roles(entry)) or 'no role'})" for key, entry in entries.items()
            )
            or "none"
        )
        wanted = asset or "/".join(_USUAL_ASSETS)
        error = f"no asset with key or role {wanted}; it has: {there}"
        return StacItem(str(name), error=f"STAC item {name}: {error}")
    own = next(_links(values, "self"), None)
    try:
        base = place if own is None else _resolved(own, place)
        files = tuple(_resolved(str(href), base) for href in hrefs)
    except ValueError as error:
        return StacItem(str(name), error=f"STAC item {name}: {one_line(error)}")
    return StacItem(str(name), files, date=_date(values.get("properties")))


def _date(properties: object) -> str:
    """The item's ``datetime``; where that is null, as it may be, the beginning of its range.

    "" also for an invalid date: the map needs none.
    """
    told = properties if isinstance(properties, dict) else {}
    date = told.get("datetime") or told.get("start_datetime")
    if not isinstance(date, str):
        return ""
    with contextlib.suppress(UsageError):
        return date_text(parse_date(date, "datetime"))
    return ""


def _chosen(assets: Mapping[str, dict[str, Any]], asset: str | None) -> list[dict[str, Any]]:
    """The asset that was asked for, three of them, or none."""
    keys = () if asset is None else tuple(asset.split(","))
    if len(keys) == 3 and all(key in assets for key in keys):
        return [assets[key] for key in keys]
    wanted = _USUAL_ASSETS if asset is None else (asset,)
    by_key = [assets[key] for key in wanted if key in assets]
    by_role = [entry for role in wanted for entry in assets.values() if role in _roles(entry)]
    return (by_key or by_role)[:1]


def _roles(asset: Mapping[str, object]) -> Sequence[str]:
    roles = asset.get("roles")
    return [role for role in roles if isinstance(role, str)] if isinstance(roles, list) else []


def _links(document: Mapping[str, object], rel: str) -> Iterator[str]:
    """The targets of the links of one type."""
    links = document.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, dict) and link.get("rel") == rel and isinstance(link.get("href"), str):
            yield link["href"]


def _resolved(href: str, base: str) -> str:
    """A path or URL in a document, relative to that of the document."""
    if "://" in base:
        return urljoin(base, href)
    if "://" in href or href.startswith("/vsi") or os.path.isabs(href):
        return href
    return os.path.normpath(os.path.join(os.path.dirname(base), href))


@contextmanager
def _opened(place: str) -> Iterator[TextIO]:
    """The text of a file or of a web server's response.

    Raises ``OSError`` for a response that did not end in time, also while it is read.
    """
    if "://" not in place:
        with open(place, encoding="utf-8-sig") as file:
            yield file
        return
    if not place.startswith(("http://", "https://")):
        raise ValueError("only files, http:// and https:// are read")
    with Deadline(_DOCUMENT_S) as deadline:
        try:
            with (
                open_url(place, deadline, timeout_s=_PATIENCE_S) as answer,
                io.TextIOWrapper(answer, encoding="utf-8-sig") as text,
            ):
                yield text
        except (OSError, ValueError, HTTPException) as error:
            if deadline.passed:
                raise OSError(f"it did not end within {_DOCUMENT_S:g} s") from error
            raise


# JSON, piece by piece: a file may be larger than the memory.


def _members(stream: TextIO) -> Iterator[tuple[str, Any]]:
    """Names and values of an object; the elements of its list ``features`` one by one.

    Raises ``ValueError`` for what is no JSON object.
    """
    reader = _JsonReader(stream)
    reader.take("{")
    while reader.next_sign() != "}":
        key = reader.value()
        reader.take(":")
        if key == _LIST and reader.next_sign() == "[":
            reader.take("[")
            while reader.next_sign() != "]":
                yield _LIST, reader.value()
                reader.take_comma("]")
            reader.take("]")
        else:
            yield str(key), reader.value()
        reader.take_comma("}")


class _JsonReader:
    """JSON values from a stream, which is read as far as they need.

    Raises ``ValueError`` for one of more than ``_LARGEST_VALUE`` characters.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._text, self._at = "", 0
        self._decoder = json.JSONDecoder(parse_int=_integer)

    def next_sign(self) -> str:
        """The next character that is no space, which is not consumed; "" at the end."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = self._at if space is None else space.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def take(self, sign: str) -> None:
        """Consume a character; ``ValueError`` where there is another."""
        if (found := self.next_sign()) != sign:
            raise ValueError(f"no JSON: {found!r} where {sign!r} should be")
        self._at += 1

    def take_comma(self, end: str) -> None:
        """Consume a comma, unless the end of the list or object follows."""
        if self.next_sign() != end:
            self.take(",")

    def value(self) -> Any:
        """The next value; ``ValueError`` for none."""
        self.next_sign()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._read_on():
                    continue
                raise ValueError(f"no JSON: {error.msg}") from error
            except RecursionError:
                value, end = None, self._end_of_nested()
            if end == len(self._text) and self._read_on():  # a number may continue
                continue
            self._at = end
            return value

    def _end_of_nested(self) -> int:
        """Where a value ends that is too deep to be read, so that it costs one item alone."""
        while True:
            depth = 0
            for part in _BRACKETS.finditer(self._text, self._at):
                depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(part.group(), 0)
                if depth == 0:
                    return part.end()
            if not self._read_on():
                raise ValueError("no JSON: it ends within a list or object")

    def _read_on(self) -> bool:
        """Read at least as much again as is held; whether there was more."""
        self._text, self._at = self._text[self._at :], 0
        if len(self._text) > _LARGEST_VALUE:
            raise ValueError(f"an item or list of links has more than {_LARGEST_VALUE} characters")
        more = self._stream.read(max(_CHUNK, len(self._text)))
        self._text += more
        return bool(more)


def _integer(digits: str) -> int | float:
    """A whole number; one with more digits than Python takes is infinite."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)
