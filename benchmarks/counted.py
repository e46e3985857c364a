"""The program as a process that records each batch of tiles: kills are timed, costs counted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_COUNTING = """
import os, sys, time
from rssc_geo.inference.predictor import Predictor

notes = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND)

def counted(self, pixels, mask, inner=Predictor.__call__, **more):
    os.write(notes, f"{time.monotonic()} {len(pixels)}\\n".encode())
    return inner(self, pixels, mask, **more)

Predictor.__call__ = counted
from rssc_geo_cli.main import main
main()
"""


class Counted:
    """``rssc-geo …``.

    Each batch of tiles is recorded when it is started, in the file ``notes``, which a killed
    process leaves.
    """

    def __init__(self, notes: Path, *arguments: str) -> None:
        self._notes = notes
        notes.touch()
        self.began = time.monotonic()
        command = [sys.executable, "-c", _COUNTING, str(notes), *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    @property
    def batches(self) -> list[tuple[float, int]]:
        """When each batch was started, in seconds of this machine's clock, and its tiles."""
        lines = self._notes.read_text().splitlines()
        return [(float(moment), int(tiles)) for moment, tiles in (line.split() for line in lines)]

    @property
    def tiles(self) -> int:
        """Tiles begun."""
        return sum(tiles for _, tiles in self.batches)

    @property
    def start_up(self) -> float:
        """Seconds to the first batch."""
        return self.batches[0][0] - self.began

    def finish(self) -> float:
        """Wait for the end; the seconds it all took."""
        code = self.process.wait()
        assert code == 0, f"the command ended with {code}"
        return time.monotonic() - self.began
