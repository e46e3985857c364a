"""How large a tile is: what the user asks for, or what makes a useful map. Pure arithmetic."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rssc_geo.errors import UsageError

_ENOUGH_CELLS = 24
_LEAST_PIXELS = 64
"""Under 64 source pixels a side a tile shows texture, no scene."""
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(?:\s*[x×]\s*(\d+(?:\.\d+)?))?\s*(px|m|km)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TileChoice:
    """A tile's (rows, columns) in pixels, the metres they cover, why, and what the user should know."""

    size: tuple[int, int]
    footprint_m: tuple[float, float]
    reason: str
    warnings: tuple[str, ...] = ()


def choose_tile_size(
    shape: tuple[int, int],
    gsd_m: tuple[float, float],
    *,
    footprint_m: tuple[float, float, float],
    requested: str | None = None,
) -> TileChoice:
    """Choose the size of a tile.

    By default the tile covers the ground that the model prefers; less where that would give under
    24 cells, first within the range the model was trained on, then below it with a warning; never
    under 64 source pixels a side.

    Parameters
    ----------
    shape, gsd_m : (rows, columns) of the raster in pixels, and metres a pixel along each
    footprint_m : smallest, preferred and largest side of a tile on the ground that suits the model,
        metres
    requested : ``"256px"`` (or ``"256"``), ``"256x128px"`` (rows × columns), ``"400m"``,
        ``"0.5km"``

    Raises ``UsageError`` for a request that is no size.
    """
    least, _, most = footprint_m
    if requested is not None:
        size = _parse_size(requested, gsd_m, option="--tile-size")
        choice = _choice(size, gsd_m, f"as asked for (--tile-size {requested})")
        notes = [
            *_outside_range(choice.footprint_m, least, most),
            *_larger_than_raster(size, shape),
        ]
        return _choice(size, gsd_m, choice.reason, *notes)
    return _default(shape, gsd_m, footprint_m)


def parse_cell_size(
    text: str, size: tuple[int, int], gsd_m: tuple[float, float]
) -> tuple[int, int]:
    """(rows, columns) in pixels of ``--cell-size``, in the units of ``--tile-size``.

    ``UsageError`` if larger than ``size``.
    """
    cell_size = _parse_size(text, gsd_m, option="--cell-size")
    if cell_size[0] > size[0] or cell_size[1] > size[1]:
        raise UsageError(
            f"--cell-size {text} is {_pixels(cell_size)}, larger than the tile of {_pixels(size)}:"
            " parts would be skipped; make the cell_size at most the tile size"
        )
    return cell_size


def _default(
    shape: tuple[int, int], gsd_m: tuple[float, float], footprint_m: tuple[float, float, float]
) -> TileChoice:
    least, _, most = footprint_m
    floor = _LEAST_PIXELS * max(gsd_m)
    notes: list[str] = []
    if floor > most:
        side, reason = floor, f"{_LEAST_PIXELS} px, the smallest tile that shows a scene"
        notes.append(
            f"a pixel covers {_metres(max(gsd_m))}, so that the smallest useful tile"
            f" ({_LEAST_PIXELS} px) covers {_metres(floor)}, more than the {_range(least, most)}"
            " the model was trained on: expect less certain classes"
        )
    else:
        side, reason, note = _within_range(shape, gsd_m, footprint_m, floor)
        notes += [note] if note else []
    size = _to_pixels((side, side), gsd_m)
    cells = _cells(shape, gsd_m, side)
    if cells < _ENOUGH_CELLS:
        notes.append(
            f"the raster of {_pixels(shape)} gives {cells} cell{'' if cells == 1 else 's'} only,"
            f" since a tile has at least {_LEAST_PIXELS} px a side; --tile-size or --cell-size make"
            " more of it"
        )
    return _choice(size, gsd_m, reason, *notes, *_larger_than_raster(size, shape))


def _within_range(
    shape: tuple[int, int],
    gsd_m: tuple[float, float],
    footprint_m: tuple[float, float, float],
    floor: float,
) -> tuple[float, str, str]:
    """The side in metres, why, and a warning or "".

    For rasters whose ``floor`` is within the model's range.
    """
    least, preferred, most = footprint_m
    extent = tuple(length * gsd for length, gsd in zip(shape, gsd_m, strict=True))
    lowest, wanted = max(least, floor), max(preferred, floor)
    # Rather a smaller tile within the range than a padded one.
    side = min(wanted, max(min(extent), lowest))
    if _cells(shape, gsd_m, side) < _ENOUGH_CELLS:
        side = _largest_with_enough_cells(shape, gsd_m, lowest, side)
    if _cells(shape, gsd_m, side) < _ENOUGH_CELLS:
        side = _largest_with_enough_cells(shape, gsd_m, floor, lowest)
        side = min(side, max(min(extent), floor))
    note = ""
    if side < least:
        note = (
            f"tiles of {_metres(side)} are smaller than the {_range(least, most)} the model was"
            f" trained on, since the raster covers only {_metres(extent[0])} ×"
            f" {_metres(extent[1])}: expect less certain classes"
        )
    if side == preferred:
        return side, f"{_metres(side)}, the side that the model prefers", note
    if side == floor:
        return side, f"{_metres(side)}, {_LEAST_PIXELS} px of this raster", note
    return (
        side,
        f"{_metres(side)} instead of {_metres(wanted)}, to suit the size of the raster",
        note,
    )


def _largest_with_enough_cells(
    shape: tuple[int, int], gsd_m: tuple[float, float], low: float, high: float
) -> float:
    """The largest side in [low, high] metres that gives enough cells; ``low`` if none does."""
    for _ in range(60):
        middle = (low + high) / 2
        if _cells(shape, gsd_m, middle) >= _ENOUGH_CELLS:
            low = middle
        else:
            high = middle
    return low


def _cells(shape: tuple[int, int], gsd_m: tuple[float, float], side: float) -> int:
    rows, cols = _to_pixels((side, side), gsd_m)
    return -(-shape[0] // rows) * -(-shape[1] // cols)


def _to_pixels(side_m: tuple[float, float], gsd_m: tuple[float, float]) -> tuple[int, int]:
    rows, cols = (max(1, round(side / gsd)) for side, gsd in zip(side_m, gsd_m, strict=True))
    return rows, cols


def _choice(
    size: tuple[int, int], gsd_m: tuple[float, float], reason: str, *warnings: str
) -> TileChoice:
    return TileChoice(size, (size[0] * gsd_m[0], size[1] * gsd_m[1]), reason, warnings)


def _parse_size(text: str, gsd_m: tuple[float, float], *, option: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UsageError(
            f"{option} {text!r} is no size: give pixels (256px, 256x128px as rows x columns) or"
            " ground units (400m, 0.5km)"
        )
    sides = float(match[1]), float(match[2] or match[1])
    unit = (match[3] or "px").lower()
    if unit == "px":
        if min(sides) < 1 or any(side != int(side) for side in sides):
            raise UsageError(f"{option} {text}: pixels are whole numbers from 1 up")
        return int(sides[0]), int(sides[1])
    metres = tuple(side * (1000 if unit == "km" else 1) for side in sides)
    if any(side < gsd for side, gsd in zip(metres, gsd_m, strict=True)):
        raise UsageError(
            f"{option} {text} is less than one pixel of the raster ({_metres(max(gsd_m))})"
        )
    return _to_pixels((metres[0], metres[1]), gsd_m)


def _outside_range(footprint_m: tuple[float, float], least: float, most: float) -> list[str]:
    # A pixel's rounding is no departure from the range.
    if min(footprint_m) >= least * 0.99 and max(footprint_m) <= most * 1.01:
        return []
    covered = " × ".join(_metres(side) for side in footprint_m)
    return [
        f"a tile covers {covered}, outside the {_range(least, most)} the model was trained on:"
        " expect less certain classes"
    ]


def _larger_than_raster(size: tuple[int, int], shape: tuple[int, int]) -> list[str]:
    if size[0] <= shape[0] and size[1] <= shape[1]:
        return []
    return [
        f"a tile of {_pixels(size)} is larger than the raster of {_pixels(shape)}: the rest is"
        " filled by reflection"
    ]


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} × {size[1]} px"


def _range(least: float, most: float) -> str:
    return f"{least:g}–{most:g} m"


def _metres(value: float) -> str:
    return (
        f"{value / 1000:.3g} km"
        if value >= 10_000
        else f"{value:.3g} m"
        if value < 1000
        else f"{value:.0f} m"
    )
