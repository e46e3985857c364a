"""The troubleshooting page has a row for every message of the program, and for no other."""

from __future__ import annotations

import re

import pytest

from .conftest import ROOT
from .messages import messages

PAGE = ROOT / "docs" / "troubleshooting.md"


def pieces() -> list[str]:
    """The pieces of messages in the first columns of the page's tables."""
    rows = re.findall(r"^\| (`.*?) \| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [piece for row in rows for piece in re.findall(r"`([^`]+)`", row.replace("\\|", "|"))]


def is_of(piece: str, message: str) -> bool:
    """Whether the piece is in the message; one that starts with "…" is the whole message."""
    if piece.startswith("…"):
        return piece == message
    pattern = ".*".join(re.escape(part) for part in piece.split("…"))
    return re.search(pattern, message) is not None


def test_every_message_has_its_place() -> None:
    known = pieces()
    missing = [
        f"{place[0]}: {text}"
        for text, place in messages().items()
        if not any(is_of(piece, text) for piece in known)
    ]
    assert not missing, "docs/troubleshooting.md has no row for\n" + "\n".join(missing)


def test_every_row_is_of_a_message() -> None:
    told = list(messages())
    unused = [piece for piece in pieces() if not any(is_of(piece, text) for text in told)]
    assert not unused, f"no message of the program has {unused}"


def test_no_piece_is_of_everything() -> None:
    """A piece that fits a large part of the messages is not specific enough."""
    told = list(messages())
    for piece in pieces():
        assert sum(is_of(piece, text) for text in told) <= len(told) / 15, piece


@pytest.mark.parametrize(
    "text", ["… has no CRS: name the CRS of its coordinates with --assume-crs (such as EPSG:32633)"]
)
def test_messages_are_found_in_the_source(text: str) -> None:
    found = messages()
    assert found[text][0].startswith("rssc_geo/raster/scene.py")
    assert len(found) > 400
