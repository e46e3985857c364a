"""Fingerprints of files: what tells whether a file is still the one that was read."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rssc_geo.deadlines import Deadline, open_url
from rssc_geo.files import local_file

_HEADER_BYTES = 65536
_BLOCKS, _BLOCK_BYTES = 64, 4096
_NETWORK_S, _NETWORK_REQUESTS = 10, 16  # time limit of a request to a server; requests at a time


def fingerprint(files: Iterable[str | Path], *, network: bool = True) -> str:
    """SHA-256 of what identifies files cheaply: name, size, time of change, ``content_mark``.

    A file in an archive counts as the archive. A file on no disk counts by its name and, with
    ``network``, by the ETag or time of change that a web server sends.
    """
    names = [os.fspath(file) for file in files]
    places = [local_file(name) for name in names]
    marks = [_file_mark(place) for place in places]
    if network and None in places:
        with ThreadPoolExecutor(_NETWORK_REQUESTS) as pool:
            asked = [number for number, place in enumerate(places) if place is None]
            told = pool.map(_network_mark, [names[number] for number in asked])
            for number, mark in zip(asked, told, strict=True):
                marks[number] = mark
    digest = hashlib.sha256()
    for name, mark in zip(names, marks, strict=True):
        digest.update(os.fsencode(name) + b"\0" + mark.encode() + b"\0")
    return digest.hexdigest()


def _file_mark(place: str | None) -> str:
    if place is None or not os.path.isfile(place):
        return ""
    return f"{os.stat(place).st_mtime_ns} {content_mark(Path(place))}"


def content_mark(path: Path) -> str:
    """SHA-256 of a file's size, its first 64 KiB and 64 blocks spread evenly over the rest."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as stream:
        digest.update(stream.read(_HEADER_BYTES))
        rest = size - _HEADER_BYTES - _BLOCK_BYTES
        if rest > 0:
            for number in range(_BLOCKS):
                stream.seek(_HEADER_BYTES + rest * number // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()


def content_hash(path: Path) -> str:
    """SHA-256 of the whole of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _network_mark(name: str) -> str:
    """A web server's ETag and time of change of a file; empty where it sends none."""
    url = re.sub(r"^/vsicurl(_streaming)?/", "", name)
    if not url.startswith(("http://", "https://")):
        return ""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 -- http and https alone
    try:
        with (
            Deadline(_NETWORK_S) as deadline,
            open_url(request, deadline, timeout_s=_NETWORK_S) as answer,
        ):
            told = answer.headers
            return f"{told.get('ETag', '')} {told.get('Last-Modified', '')}"
    except (OSError, ValueError, http.client.HTTPException):
        return ""
