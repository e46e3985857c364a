"""Values inside HTML and SVG: texts escaped, pictures embedded."""

from __future__ import annotations

import base64
import html

from rssc_geo.output import xml_text


def text(value: object) -> str:
    """The value as people wrote it, safe in an element and in a quoted attribute."""
    return html.escape(xml_text(str(value)))


def data_uri(jpeg: bytes) -> str:
    """A JPEG as a URI that holds it."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
