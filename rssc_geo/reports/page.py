"""HTML pages from the templates, self-contained and with all texts escaped.

A content security policy forbids all network requests of a page, and all scripts but its own.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from rssc_geo.output import AreaUnit, xml_text


def render(
    template: str, values: Mapping[str, Any], *, script: str = "", **filters: Callable[..., str]
) -> str:
    """A page of a template with our style sheet and, if any, the script of that name."""
    assets = files("rssc_geo.reports") / "templates"
    style = (assets / "report.css").read_text(encoding="utf-8")
    code = (assets / script).read_text(encoding="utf-8") if script else ""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rssc_geo.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        # Names and captions may hold control characters, which HTML cannot.
        finalize=lambda value: (
            xml_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value
        ),
    )
    environment.filters |= {
        "area": area_text,
        "number_of": lambda count, noun: f"{count:,} {noun}{'' if count == 1 else 's'}",
        "percent": lambda share: f"{100 * share:.0f}\N{NO-BREAK SPACE}%",
        "share": lambda share: "< 0.1 %" if 0 < share < 0.001 else f"{100 * share:.1f} %",
        **filters,
    }
    script_hash = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return environment.get_template(template).render(
        values, style=style, script=code, script_hash=script_hash
    )


def area_text(area_m2: float, unit: AreaUnit) -> str:
    """An area in a unit, without its sign: one decimal from 100 on, else two."""
    area = area_m2 / unit.size_m2
    if 0 < area < 0.005:
        return "< 0.01"
    return f"{area:,.1f}" if area >= 99.995 else f"{area:.2f}"
