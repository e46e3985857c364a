"""A web server of files, for tests that read by address. No test itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """The address of a server of a folder's files, without a slash at its end.

    A process of its own: GDAL waits for some answers while it holds the interpreter's lock.
    """
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--directory", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            told = server.stdout.readline()  # Serving HTTP on 127.0.0.1 port 41837 (http://…
            yield f"http://127.0.0.1:{int(told.split()[5])}"
        finally:
            server.kill()
