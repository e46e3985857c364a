"""``rssc-geo serve``, hidden: it is started by programs such as the QGIS plugin."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from rssc_geo.options import ServeOptions
from rssc_geo_cli.options import command

_GRACE_S = 2.0
"""Seconds that a request may continue after the parent has gone."""
_LONGEST_LINE = 1 << 20
"""Bytes of a request; what follows is left out, so that a longer one is no JSON."""


@command("serve", ServeOptions)
def serve_command(options: ServeOptions) -> None:
    """Answer requests, JSON Lines on standard input, by JSON Lines on standard output.

    See rssc_geo/service.py for their form. Models stay loaded. Ends with its parent.
    """
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    lock = threading.Lock()

    def send(event: Mapping[str, Any]) -> None:
        text = json.dumps(event, ensure_ascii=False, allow_nan=False)
        with lock:
            try:
                lines.write(text + "\n")
                lines.flush()
            except OSError:  # nobody reads the answers
                os._exit(1)

    from rssc_geo.service import Service

    service = Service(send)

    def read() -> None:
        # The descriptor, not sys.stdin: see ``end_with_parent``.
        rest = b""
        while piece := os.read(0, 65536):
            *whole, rest = (rest + piece).split(b"\n")
            rest = rest[: _LONGEST_LINE + 1]
            for line in filter(None, map(bytes.strip, whole)):
                service.receive(line[:_LONGEST_LINE].decode("utf-8", "replace"))
        service.close()
        threading.Event().wait(_GRACE_S)
        os._exit(0)

    threading.Thread(target=read, name="rssc-geo requests", daemon=True).start()
    service.run(idle_s=options.idle)
    sys.stdout.flush()
