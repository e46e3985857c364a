"""Run a batch on a Dask cluster of three processes of this machine, as on three machines.

    python examples/local_cluster.py maps/ scene.tif

A scheduler and two workers are started and ended; the batch is told of the scheduler by a file. The
same as containers: examples/cluster/compose.yaml. On real machines: docs/scale-out.md.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from rssc_geo import BatchOptions, run_batch

DASK = (sys.executable, "-m", "dask")


def main(folder: str, *rasters: str) -> None:
    """Map ``rasters`` into ``folder`` on the cluster."""
    with ExitStack() as stack:
        work = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        file = str(Path(work) / "scheduler.json")
        local = ("--scheduler-file", file, "--no-dashboard")
        port = ("--host", "127.0.0.1", "--port", "0")
        start(stack, *DASK, "scheduler", *local, *port, work=work)
        for _ in range(2):
            start(stack, *DASK, "worker", *local, "--nthreads", "1", "--no-nanny", work=work)
        wait_for(Path(file))
        named = [Path(raster).resolve() for raster in rasters]  # by names that all processes know
        result = run_batch(named, folder, BatchOptions(scheduler=file))
    print(f"{result.done} of {result.scenes} scenes, {result.tiles} tiles")
    for worker in result.workers:
        print(worker)


def start(stack: ExitStack, *command: str, work: str) -> None:
    """Start a program that ends with the stack; what it says goes into a file of ``work``."""
    log = stack.enter_context((Path(work) / "cluster.log").open("ab"))
    process = subprocess.Popen(command, stdout=log, stderr=log, cwd=work)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def wait_for(file: Path, seconds: float = 60.0) -> None:
    """Wait until the scheduler has written its file."""
    for _ in range(int(seconds * 10)):
        if file.exists() and file.stat().st_size:
            return
        time.sleep(0.1)
    raise SystemExit(f"no scheduler after {seconds:.0f} s: {file.with_name('cluster.log')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
