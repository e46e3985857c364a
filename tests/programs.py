"""Command lines in processes of their own, for tests that kill them. No test itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Program:
    """``rssc-geo …`` as a process, forked from one that has the libraries loaded.

    ``before``: code that runs in it before.
    """

    def __init__(
        self, server: Any, folder: Path, arguments: tuple[object, ...], before: str
    ) -> None:
        self._out, self._err = folder / "out", folder / "err"
        self.process = server.Process(
            target=exec,
            args=(
                _CHILD,
                {
                    "files": (str(self._out), str(self._err)),
                    "before": before,
                    "arguments": list(map(str, arguments)),
                },
            ),
        )
        self.process.start()

    @property
    def running(self) -> bool:
        return self.process.exitcode is None

    def finish(self, seconds: float = 250) -> tuple[int | None, str, str]:
        """Exit code (negative: killed by that signal), stdout, stderr."""
        self.process.join(seconds)
        assert not self.running, f"still running after {seconds} s"
        err = self._err.read_text()
        assert "Traceback" not in err, err
        assert "internal error, please report it" not in err, err
        return self.process.exitcode, self._out.read_text(), err

    def kill(self) -> None:
        self.process.kill()
        self.process.join()


_CHILD = """
import os, sys
for target, file in zip((1, 2), files):
    os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), target)
exec(before)
sys.argv = ["rssc-geo", *arguments]
from rssc_geo_cli.main import main
main()
"""
