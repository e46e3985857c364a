"""The report of a run: one HTML file with the map, the areas, how sure the model is, patches to
look at, and provenance.

The page holds everything it shows and asks no network for anything: a content security policy
forbids it to, and lets no script run but its own. Without scripts it is still complete; they only
add zooming and switching classes.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rssc_geo.errors import OutputError
from rssc_geo.geometry import Window
from rssc_geo.output import CONFIDENCE_STEPS, LandUseSummary
from rssc_geo.reports.markup import data_uri, text
from rssc_geo.reports.page import length_label
from rssc_geo.reports.report_assets import SCRIPT, STYLE
from rssc_geo.reports.report_map import Page

if TYPE_CHECKING:
    from rssc_geo.models import SceneClass

BINS = 20  # of the confidence histogram: the borders of the confidence style fall on theirs
_CHART = 640, 190, 44, 24  # width, height, room on the left, room below


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """A cell to look at.

    What the model says, ``window`` in the raster's pixels, a JPEG of the tile it was seen in.
    """

    name: str
    confidence: float
    runner_up: str | None
    margin: float
    caption: str
    row: int
    col: int
    window: Window
    jpeg: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportContent:
    """What a report shows.

    ``map`` is the ``svg`` element laid out on ``page``; ``histogram`` int (BINS,), cells by
    confidence from 0 to 1; ``examples`` patches by class number, ``doubtful`` the least certain
    ones; ``facts`` say where it all comes from, by label.
    """

    title: str
    ground_m: tuple[float, float]
    page: Page
    map: str
    classes: Sequence[SceneClass]
    summary: LandUseSummary
    histogram: np.ndarray
    examples: Mapping[int, Sequence[Patch]]
    doubtful: Sequence[Patch]
    facts: Mapping[str, str]
    warnings: Sequence[str]

    def __post_init__(self) -> None:
        if self.histogram.shape != (BINS,):
            raise ValueError(f"a histogram of {self.histogram.shape}, not of {BINS} bins")


def write_report(path: Path, content: ReportContent) -> None:
    """Write the page; ``OutputError`` when it cannot be written."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(_document(content), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path} ({error.strerror or error}): choose a writable place with room"
        ) from error


def _document(content: ReportContent) -> str:
    script_hash = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src"
        f" 'sha256-{script_hash}'"
    )
    title = text(content.title)
    warnings = "\n".join(f'<p class="warning">{text(line)}</p>' for line in content.warnings)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Land use of {title}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Land use of {title}</h1>
<p class="faint">{_subtitle(content)}</p>
</header>
{warnings}
<main>
<div class="columns">
<section aria-label="Map">
<div class="frame">
{content.map}
<div id="scale" hidden></div>
</div>
<div class="tools" data-script hidden>
<span><button type="button" id="nearer" aria-label="Zoom in">+</button>
<button type="button" id="farther" aria-label="Zoom out">−</button>
<button type="button" id="whole">Whole map</button></span>
<label>Classes <input type="range" id="opacity" min="0" max="100" value="55" aria-label="Opacity of the classes"></label>
</div>
</section>
{_areas(content)}
</div>
{_confidence(content.histogram)}
{_examples(content)}
{_doubtful(content)}
{_facts(content.facts)}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _subtitle(content: ReportContent) -> str:
    height_m, width_m = content.ground_m
    cells, regions = content.summary.cells, content.summary.regions
    return (
        f"{length_label(width_m)} by {length_label(height_m)} · {cells:,}"
        f" {'cell' if cells == 1 else 'cells'} in {regions:,}"
        f" {'region' if regions == 1 else 'regions'}"
    )


def _areas(content: ReportContent) -> str:
    """The legend: a row a class, the largest first, with its area and a switch."""
    present = sorted(
        (total for total in content.summary.classes if total.cells),
        key=lambda total: -total.area_m2,
    )
    whole = sum(total.area_m2 for total in present) or 1.0
    largest = max((total.area_m2 for total in present), default=0.0) or 1.0
    rows = "\n".join(
        '<tr><td><label><input type="checkbox" checked data-script hidden'
        f' data-class="class-{total.id}"><span class="swatch" style="background:'
        f' {color}"></span><span>{text(total.name)}</span></label><span class="bar" style="width:'
        f' {100 * total.area_m2 / largest:.1f}%; background: {color}"></span></td><td'
        f' class="number">{_hectares(total.area_m2)}</td><td'
        f' class="number">{_share(total.area_m2 / whole)}</td></tr>'
        for total in present
        for color in [content.classes[total.id].color]
    )
    return f"""<section aria-label="Areas">
<div class="scroll">
<table>
<thead><tr><th>Class</th><th class="number">ha</th><th class="number">Share</th></tr></thead>
<tbody>
{rows}
</tbody>
<tfoot><tr><th>All</th><td class="number">{_hectares(whole if present else 0.0)}</td><td class="number">100 %</td></tr></tfoot>
</table>
</div>
<div class="tools" data-script hidden><button type="button" id="all">All classes on or off</button></div>
</section>"""


def _confidence(histogram: np.ndarray) -> str:
    """Bars of the histogram in the colors of the confidence style, and the two figures to remember."""
    width, height, left, below = _CHART
    most, cells = max(int(histogram.max()), 1), max(int(histogram.sum()), 1)
    step, room = (width - left) / BINS, height - below - 14
    bars = []
    for index, count in enumerate(histogram.tolist()):
        lower = index / BINS
        color = next(
            look.color for look in reversed(CONFIDENCE_STEPS) if lower >= look.lower - 1e-9
        )
        tall = room * count / most
        bars.append(
            f'<rect x="{left + index * step + 1:.1f}" y="{height - below - tall:.1f}"'
            f' width="{step - 2:.1f}" height="{tall:.1f}" fill="{color}"'
            f' stroke="#0000004d"><title>{100 * lower:.0f} to {100 * (index + 1) / BINS:.0f} %:'
            f" {count:,} cells</title></rect>"
        )
    ticks = "".join(
        f'<text x="{left + tick / 100 * (width - left):.1f}" y="{height - 6}"'
        f' text-anchor="{anchor}">{tick} %</text>'
        for tick, anchor in (
            (0, "start"),
            (25, "middle"),
            (50, "middle"),
            (75, "middle"),
            (100, "end"),
        )
    )
    low, high = int(histogram[: BINS // 2].sum()) / cells, int(histogram[-1]) / cells
    words = (
        f"{_share(low)} of the cells have a confidence under 50 %, {_share(high)} one of 95 % or"
        " more."
    )
    return f"""<section>
<h2>How sure the model is</h2>
<p>{words}</p>
<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="Cells by confidence">
<text x="{left - 6}" y="14" text-anchor="end" dominant-baseline="middle">{most:,}</text>
<text x="{left - 6}" y="{height - below}" text-anchor="end">0</text>
<line x1="{left}" x2="{width}" y1="{height - below}" y2="{height - below}" stroke="#1c2024"/>
{"".join(bars)}
{ticks}
</svg>
</section>"""


def _examples(content: ReportContent) -> str:
    """The surest cells of each class, the classes in the order of their areas."""
    order = sorted(content.examples, key=lambda index: -content.summary.classes[index].area_m2)
    groups = "\n".join(
        '<div><h3><span class="swatch" style="display: inline-block; background:'
        f' {content.classes[index].color}"></span> '
        f"{text(content.classes[index].name)}</h3>\n{_figures(content.examples[index], page=content.page, named=False)}</div>"
        for index in order
    )
    return f"""<section>
<h2>Examples of each class</h2>
{_about(len(order), content)}
<div class="groups">
{groups}
</div>
</section>"""


def _about(shown: int, content: ReportContent) -> str:
    words = (
        "Cells of which the model is most certain, far from each other. A tap on one shows it on"
        " the map."
    )
    present = sum(1 for total in content.summary.classes if total.cells)
    if shown < present:
        words += f" Shown for the {shown} largest of {present} classes."
    return f'<p class="faint">{words}</p>'


def _doubtful(content: ReportContent) -> str:
    figures = _figures(content.doubtful, page=content.page, named=True)
    words = (
        "Cells where the two most probable classes are nearly equal, unlike each other: the first"
        " to check."
    )
    return f'<section>\n<h2>Least certain</h2>\n<p class="faint">{words}</p>\n{figures}\n</section>'


def _figures(patches: Sequence[Patch], *, page: Page, named: bool) -> str:
    return (
        '<div class="patches">\n'
        + "\n".join(_figure(patch, page, named=named) for patch in patches)
        + "\n</div>"
    )


def _figure(patch: Patch, page: Page, *, named: bool) -> str:
    window = patch.window
    x, y = page.center(window)
    side = max(window.width, window.height) * np.sqrt(abs(page.to_page.determinant))
    says = [f"{100 * patch.confidence:.0f}&nbsp;%"]
    if named:
        says = [f"<b>{text(patch.name)}</b> {says[0]}"]
        if patch.runner_up is not None:
            says.append(
                f"<b>{text(patch.runner_up)}</b>"
                f" {100 * (patch.confidence - patch.margin):.0f}&nbsp;%"
            )
    place = f'<span class="faint">row {patch.row}, col {patch.col}</span>'
    lines = [" or ".join(says), *([text(patch.caption)] if patch.caption else []), place]
    return (
        f'<figure><button type="button" data-box="{window.col} {window.row} {window.width}'
        f' {window.height}" '
        f'data-at="{x:.3f} {y:.3f} {side:.3f}" title="Show on the map">'
        f'<img src="{data_uri(patch.jpeg)}" alt="{text(patch.name)}, cell row {patch.row}, column'
        f' {patch.col}"></button>'
        f"<figcaption>{'<br>'.join(lines)}</figcaption></figure>"
    )


def _facts(facts: Mapping[str, str]) -> str:
    rows = "\n".join(
        f"<dt>{text(label)}</dt><dd>{text(value)}</dd>" for label, value in facts.items()
    )
    return f"<section>\n<h2>Where this comes from</h2>\n<dl>\n{rows}\n</dl>\n</section>"


def _hectares(area_m2: float) -> str:
    hectares = area_m2 / 1e4
    return f"{hectares:,.1f}" if hectares >= 10 else f"{hectares:.2g}"


def _share(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %"
