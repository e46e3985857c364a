"""The picture that explains a cell: its tile, the evidence for its class, and the words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rssc_geo.output import Rgb
from rssc_geo.reports.preview import (
    GAP,
    INK,
    MARGIN,
    PAPER,
    RULE,
    SMALL,
    TITLE,
    filled,
    fitted,
    page_font,
    scale_bar,
)

_FAINT = (96, 104, 112)
_SIDE, _TEXT = 440, 23
_LINE, _WORD_HEIGHT, _WORD_PAD, _WORD_GAP = 44, 36, 8, 5
_SWATCH = 30
_OUTLINE = 6  # least side of a cell that can be seen
_BAR_SHARE = 0.4  # longest text, as a share of a picture's width
# Orange and blue: distinguishable with any color vision.
FOR, AGAINST, LOOK = (230, 97, 1), (33, 102, 172), (123, 50, 148)
_OPACITY = 0.8  # where a map is strongest
_GRAY = 0.85  # of the picture below a map, so that its colors are not taken for the map's
_FAINTEST = 0.05  # share of the strongest word: weaker ones stay white


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Contents of a picture.

    Attributes
    ----------
    pixels, mask : uint8 (H, W, 3) and bool (H, W), True = valid: the tile as input of the network
    metres_a_pixel : of it, across
    cell : (top, left, bottom, right) in these pixels, None where it is the whole tile
    evidence, attention : float (H, W); attention is None where there is none
    words : each with its effect, below 0 against the class
    title, detail, evidence_note, words_note : lines of text
    color : of the class
    """

    pixels: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    metres_a_pixel: float
    cell: tuple[float, float, float, float] | None
    evidence: NDArray[np.floating[Any]]
    attention: NDArray[np.floating[Any]] | None
    words: Sequence[tuple[str, float]]
    title: str
    detail: str
    color: Rgb
    evidence_note: str
    words_note: str

    def __post_init__(self) -> None:
        shapes = {self.pixels.shape[:2], self.mask.shape, self.evidence.shape}
        if self.attention is not None:
            shapes.add(self.attention.shape)
        if len(shapes) != 1:
            raise ValueError(f"the pictures of a panel differ in shape: {shapes}")


def write_panel(path: Path, panel: Panel) -> None:
    """Write a panel as PNG; ``OSError`` when that fails."""
    pictures = [(_ground(panel), "Tile, input of the network")]
    pictures.append((_laid_over(panel, _shades(panel.evidence)), panel.evidence_note))
    if panel.attention is not None:
        above = np.clip(panel.attention - panel.attention.min(), 0, None)
        pictures.append((_laid_over(panel, [(_relative(above), LOOK)]), "Attention of the network"))
    scale = _SIDE / max(panel.mask.shape)
    size = max(1, round(scale * panel.mask.shape[1])), max(1, round(scale * panel.mask.shape[0]))
    step = _SIDE + GAP
    inner = step * len(pictures) - GAP
    rows = _wrapped([word for word, _ in panel.words], inner)
    notes = _lines(panel.words_note, page_font(SMALL), inner)
    note_height = len(notes) * (SMALL + 6)
    details = _lines(panel.detail, page_font(_TEXT), inner)
    top = MARGIN + TITLE + 14 + len(details) * (_TEXT + 8) - 8 + GAP
    below = top + size[1] + 14 + SMALL + GAP
    page = Image.new(
        "RGB", (inner + 2 * MARGIN, below + len(rows) * _LINE + note_height + MARGIN), PAPER
    )
    draw = ImageDraw.Draw(page)
    draw.rectangle((MARGIN, MARGIN, MARGIN + _SWATCH, MARGIN + _SWATCH), panel.color, _FAINT)
    heading = page_font(TITLE)
    draw.text(
        (MARGIN + _SWATCH + 14, MARGIN),
        fitted(panel.title, heading, inner - _SWATCH - 14),
        INK,
        heading,
        anchor="lt",
    )
    for number, detail in enumerate(details):
        y = MARGIN + TITLE + 14 + number * (_TEXT + 8)
        draw.text((MARGIN, y), detail, _FAINT, page_font(_TEXT), anchor="lt")
    for index, (picture, note) in enumerate(pictures):
        left = MARGIN + index * step
        page.paste(picture.resize(size, Image.Resampling.BICUBIC), (left, top))
        draw.rectangle((left - 1, top - 1, left + size[0], top + size[1]), outline=RULE)
        _outline(draw, panel.cell, (left, top), scale)
        draw.text(
            (left, top + size[1] + 14),
            fitted(note, page_font(SMALL), _SIDE),
            _FAINT,
            page_font(SMALL),
            anchor="lt",
        )
    # Under the first picture, whose note leaves room for it.
    longest, y = int(size[0] * _BAR_SHARE) - 60, top + size[1] + 11
    scale_bar(
        draw,
        right=MARGIN + size[0],
        y=y,
        metres_a_pixel=panel.metres_a_pixel / scale,
        longest=longest,
    )
    _write_words(draw, panel.words, rows, y=below)
    for number, note in enumerate(notes):
        y = below + len(rows) * _LINE + 6 + number * (SMALL + 6)
        draw.text((MARGIN, y), note, _FAINT, page_font(SMALL), anchor="lt")
    page.save(path, format="PNG")


def _ground(panel: Panel) -> Image.Image:
    return Image.fromarray(filled(panel.pixels, panel.mask))


def _laid_over(
    panel: Panel, shades: Sequence[tuple[NDArray[np.floating[Any]], Rgb]]
) -> Image.Image:
    """The tile, nearly gray, under layers of color, each (H, W) of 0 to 1; void stays bare."""
    ground = _ground(panel)
    ground = Image.blend(ground, ground.convert("L").convert("RGB"), _GRAY)
    for strength, color in shades:
        opacity = np.where(panel.mask, _OPACITY * strength, 0.0)
        ground.paste(color, (0, 0), Image.fromarray(np.round(255 * opacity).astype(np.uint8)))
    return ground


def _shades(evidence: NDArray[np.floating[Any]]) -> list[tuple[NDArray[np.floating[Any]], Rgb]]:
    strength = _relative(np.abs(evidence))
    return [
        (np.where(evidence > 0, strength, 0.0), FOR),
        (np.where(evidence < 0, strength, 0.0), AGAINST),
    ]


def _relative(values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """Values from 0 up, as shares of the largest."""
    largest = float(values.max())
    return values / largest if largest > 0 else np.zeros_like(values)


def _outline(
    draw: ImageDraw.ImageDraw,
    cell: tuple[float, float, float, float] | None,
    corner: tuple[int, int],
    scale: float,
) -> None:
    """The cell in its tile, in white on black, visible on any ground."""
    if cell is None:
        return
    (top, bottom), (left, right) = (
        _at_least(_OUTLINE, start * scale, stop * scale)
        for start, stop in zip(cell[:2], cell[2:], strict=True)
    )
    box = (corner[0] + left, corner[1] + top, corner[0] + right - 1, corner[1] + bottom - 1)
    draw.rectangle(box, outline=(0, 0, 0), width=4)
    draw.rectangle(
        tuple(value + inset for value, inset in zip(box, (1, 1, -1, -1), strict=True)),
        outline=PAPER,
        width=2,
    )


def _at_least(length: int, start: float, stop: float) -> tuple[float, float]:
    """A range, widened on both sides to ``length``."""
    missing = max(0.0, length - (stop - start)) / 2
    return start - missing, stop + missing


def _lines(text: str, font: ImageFont.FreeTypeFont, room: int) -> list[str]:
    """A text in lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and font.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fitted(line, font, room) for line in lines]


def _wrapped(words: Sequence[str], room: int) -> list[list[int]]:
    """The numbers of the words on each line."""
    font = page_font(_TEXT)
    lines: list[list[int]] = [[]]
    used = 0.0
    for number, word in enumerate(words):
        width = font.getlength(fitted(word, font, room - 2 * _WORD_PAD)) + 2 * _WORD_PAD + _WORD_GAP
        if lines[-1] and used + width > room:
            lines.append([])
            used = 0.0
        lines[-1].append(number)
        used += width
    return lines


def _write_words(
    draw: ImageDraw.ImageDraw, words: Sequence[tuple[str, float]], lines: list[list[int]], *, y: int
) -> None:
    """The words on a background of their effect's color, the darker the stronger."""
    font = page_font(_TEXT)
    strongest = max((abs(effect) for _, effect in words), default=0.0)
    room = draw.im.size[0] - 2 * MARGIN - 2 * _WORD_PAD
    for line in lines:
        x = float(MARGIN)
        for number in line:
            word, effect = words[number]
            share = abs(effect) / strongest if strongest > 0 else 0.0
            color = FOR if effect > 0 else AGAINST
            weight = 0.0 if share < _FAINTEST else 0.85 * share
            ground = tuple(round(255 + weight * (channel - 255)) for channel in color)
            text = fitted(word, font, room)
            width = font.getlength(text) + 2 * _WORD_PAD
            draw.rounded_rectangle((x, y, x + width, y + _WORD_HEIGHT), 6, ground)
            ink = PAPER if weight > 0.6 else INK
            draw.text((x + _WORD_PAD, y + _WORD_HEIGHT / 2), text, ink, font, anchor="lm")
            x += width + _WORD_GAP
        y += _LINE
