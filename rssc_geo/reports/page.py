"""The page of a preview: panels, title, legend and scale bar set out on white."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from rssc_geo.errors import OutputError
from rssc_geo.output import Rgb

_PAPER, _INK, _FAINT, _RULE = (255, 255, 255), (28, 32, 36), (108, 116, 124), (214, 219, 224)
_MARGIN, _GAP = 44, 28
_TITLE, _TEXT, _SMALL = 36, 21, 18
_ROW, _SWATCH = 36, 22
_COLUMN = 230, 480  # of the legend, at least and at most
_SHARE = 80  # room for a percentage
_NARROWEST = 660
_BAR_SHARE = 0.3  # of the panel's width, at most


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the legend; ``share`` of the classified area."""

    name: str
    color: Rgb
    share: float


def compose(
    panels: tuple[Image.Image, Image.Image],
    *,
    stacked: bool,
    metres_a_pixel: float,
    entries: Sequence[Entry],
    title: str,
    subtitle: str,
) -> Image.Image:
    """The page with both panels (of one size), side by side or stacked."""
    width, height = panels[0].size
    across, down = (1, 2) if stacked else (2, 1)
    block = across * width + (across - 1) * _GAP
    inner = max(block, _NARROWEST)
    columns = max(1, (inner + _GAP) // _column_width(entries))
    rows = max(1, math.ceil(len(entries) / columns))
    top = _MARGIN + _TITLE + 14 + _SMALL + _GAP
    bottom = top + down * height + (down - 1) * _GAP
    legend_top = bottom + 16 + _ROW + _GAP
    page = Image.new(
        "RGB", (inner + 2 * _MARGIN, legend_top + rows * _ROW + _MARGIN - (_ROW - _SWATCH)), _PAPER
    )
    draw = ImageDraw.Draw(page)
    heading = page_font(_TITLE)
    draw.text((_MARGIN - 1, _MARGIN), fitted(title, heading, inner), _INK, heading, anchor="lt")
    draw.text((_MARGIN, _MARGIN + _TITLE + 14), subtitle, _FAINT, page_font(_SMALL), anchor="lt")
    left = _MARGIN + (inner - block) // 2
    for index, panel in enumerate(panels):
        x = left if stacked else left + index * (width + _GAP)
        y = top + index * (height + _GAP) if stacked else top
        page.paste(panel, (x, y))
        draw.rectangle((x - 1, y - 1, x + width, y + height), outline=_RULE)
    scale_bar(
        draw,
        right=left + block,
        y=bottom + 16,
        metres_a_pixel=metres_a_pixel,
        longest=int(width * _BAR_SHARE),
    )
    draw.text(
        (left, bottom + 18), "Share of the classified area", _FAINT, page_font(_SMALL), anchor="lt"
    )
    _legend(draw, entries, (_MARGIN, legend_top), rows=rows, step=(inner + _GAP) // columns)
    return page


def length_label(metres: float) -> str:
    """A length for people: ``85 cm``, ``850 m``, ``8.5 km``, ``85 km``."""
    if metres >= 1000:
        return f"{_rounded(metres / 1000)} km"
    if metres >= 1:
        return f"{_rounded(metres)} m"
    return f"{_rounded(metres * 100)} cm"


def round_length(longest_m: float) -> float:
    """The longest of 1, 2 and 5 times a power of ten that is no longer than ``longest_m``."""
    power = 10.0 ** math.floor(math.log10(longest_m))
    # 0.5: the logarithm may round up to the next power.
    return max(step * power for step in (0.5, 1, 2, 5) if step * power <= longest_m)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def scale_bar(
    draw: ImageDraw.ImageDraw, *, right: int, y: int, metres_a_pixel: float, longest: int
) -> None:
    """A bar of a round length, at most ``longest`` pixels, that ends at ``right``, with its length before it."""
    metres = round_length(max(longest, 1) * metres_a_pixel)
    start = right - round(metres / metres_a_pixel)
    middle = y + 12
    draw.line((start, middle, right, middle), _INK, 3)
    for x in (start, right):
        draw.line((x, middle - 7, x, middle + 7), _INK, 3)
    draw.text((start - 12, middle), length_label(metres), _INK, page_font(_SMALL), anchor="rm")


def _column_width(entries: Sequence[Entry]) -> int:
    font = page_font(_TEXT)
    longest = max((font.getlength(entry.name) for entry in entries), default=0.0)
    return round(min(max(_SWATCH + 12 + longest + 14 + _SHARE + _GAP, _COLUMN[0]), _COLUMN[1]))


def _legend(
    draw: ImageDraw.ImageDraw,
    entries: Sequence[Entry],
    corner: tuple[int, int],
    *,
    rows: int,
    step: int,
) -> None:
    """Entries down the columns, the largest share first."""
    text, small = page_font(_TEXT), page_font(_SMALL)
    for index, entry in enumerate(entries):
        column, row = divmod(index, rows)
        x, y = corner[0] + column * step, corner[1] + row * _ROW
        draw.rectangle(
            (x, y, x + _SWATCH, y + _SWATCH),
            entry.color,
            tuple(round(0.7 * c) for c in entry.color),
        )
        share = "< 0.1 %" if entry.share < 0.001 else f"{100 * entry.share:.1f} %"
        end = x + step - _GAP
        room = end - small.getlength(share) - 14 - (x + _SWATCH + 12)
        draw.text(
            (x + _SWATCH + 12, y + _SWATCH / 2),
            fitted(entry.name, text, room),
            _INK,
            text,
            anchor="lm",
        )
        draw.text((end, y + _SWATCH / 2), share, _FAINT, small, anchor="rm")


def fitted(text: str, font: ImageFont.FreeTypeFont, room: float) -> str:
    """The text on one line, cut with an ellipsis where it is longer than the room."""
    text = " ".join(text.split())
    if font.getlength(text) <= room:
        return text
    while text and font.getlength(f"{text}…") > room:
        text = text[:-1]
    return f"{text.rstrip()}…"


def page_font(size: int) -> ImageFont.FreeTypeFont:
    """The font of all pictures, ``size`` pixels high."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise OutputError(
            "this Pillow was built without FreeType, which --preview needs: reinstall it"
        )
    return font
