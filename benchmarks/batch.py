"""Speed and memory of batches, as ratios within one run.

    python benchmarks/batch.py [loop] [workers] [scaling] [sparse] [resume] [--scenes 200]
    [--loop-scenes 10] …

``loop``: one ``batch run`` of many small scenes against a shell loop that calls ``classify`` for
each (a sample of the loop is measured). ``workers``: two Dask workers of one thread against this
process with two threads, same scenes, models loaded. ``scaling``: 1 and 16 workers whose model
sleeps, so that only the loop is measured. ``sparse``: memory of scheduler and client and the
number of tasks for a 100,000 × 100,000 scene.

``resume``: the command is killed (SIGKILL) when half of the tiles were started, and given again.
The cost is counted, not timed, since on a busy machine two equal runs differ by more than the
target: tiles that were started twice, as a share of all, plus the seconds that a run needs to find
the finished scenes (measured on the finished batch: inputs, journal, files' signatures), as a share
of the undisturbed run. The elapsed times of the same three runs are printed beside it: their excess
also holds the second start of Python and the loading of the model, which is named, and the noise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import rasterio
from affine import Affine
from common import CACHE, median_rates, noise, own_peak_mb, sparse_scene, verdict
from counted import Counted
from distributed import Client, LocalCluster

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the program does, before torch is loaded

from rssc_geo.batch import (
    Block,
    BlockResult,
    DaskPool,
    Done,
    LocalPool,
    Pool,
    run_batch,
)
from rssc_geo.inference import PredictorSpec, TileResult
from rssc_geo.models import load_card
from rssc_geo.options import BatchOptions, PredictorOptions

PROGRAM = [sys.executable, "-c", "from rssc_geo_cli.main import main; main()"]
TILE = "128px"
OPTIONS = BatchOptions(tile_size=TILE)


class SleepingWorker:
    """Sleeps for every tile and gives each a result; reads nothing."""

    def __init__(self, seconds_a_tile: float, name: str) -> None:
        self.spec = PredictorSpec(load_card("compact"), "none", "float32")
        self.batch_size = 16
        self.name = name
        self._seconds = seconds_a_tile

    def run(self, block: Block) -> BlockResult:
        time.sleep(self._seconds * len(block.tiles))
        classes = len(self.spec.card.classes)
        results = []
        for index in block.tiles.tolist():
            tile = block.grid.tile(index)
            rows, cols = block.grid.cells_of_tile(tile)
            probabilities = np.full(classes, 0.5 / (classes - 1), np.float32)
            probabilities[index // 64 % classes] = 0.5
            results.append(
                TileResult(
                    tile,
                    1.0,
                    np.ones((len(rows), len(cols)), np.float32),
                    probabilities,
                    ("a field",),
                )
            )
        return BlockResult.pack(
            results,
            classes=classes,
            reading_s=0.0,
            model_s=self._seconds * len(results),
            worker=self.name,
        )


class Sleepy:
    """Makes sleeping workers; identified by its repr, since the plugin of a cluster stays."""

    def __init__(self, seconds_a_tile: float) -> None:
        self.seconds_a_tile = seconds_a_tile

    def __call__(
        self,
        options: PredictorOptions,  # noqa: ARG002 -- as load_worker
        *,
        threads: int,  # noqa: ARG002
        reading_threads: int,  # noqa: ARG002
        name: str = "",
    ) -> SleepingWorker:
        return SleepingWorker(self.seconds_a_tile, name)

    def __repr__(self) -> str:
        return f"Sleepy({self.seconds_a_tile})"


def small_scenes(count: int, side: int) -> Path:
    """A folder of scenes, made once."""
    folder = CACHE / f"batch_{count}_{side}"
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"scene_{number:04d}.tif"
        if not path.exists():
            transform = Affine(1, 0, 500_000 + number * side, 0, -1, 5_000_000)
            profile = {
                "driver": "GTiff",
                "height": side,
                "width": side,
                "count": 3,
                "dtype": "uint8",
                "photometric": "rgb",
            }
            with rasterio.open(
                path, "w", crs="EPSG:32632", transform=transform, **profile
            ) as raster:
                raster.write(noise(side, side, number))
    return folder


def output_in(folder: Path) -> Path:
    """The folder of a batch's maps."""
    return folder / "{stem}.gpkg"


def loop(arguments: argparse.Namespace) -> bool:
    folder = small_scenes(arguments.scenes, arguments.side)
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        command = [
            *PROGRAM,
            "batch",
            "run",
            str(folder),
            "-o",
            f"{out}/{{stem}}.gpkg",
            "--tile-size",
            TILE,
            "-q",
        ]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        batch = arguments.scenes / (time.perf_counter() - started)
        sample = sorted(folder.iterdir())[: arguments.loop_scenes]
        started = time.perf_counter()
        for path in sample:
            command = [
                *PROGRAM,
                "classify",
                str(path),
                "-o",
                f"{out}/single_{path.stem}.gpkg",
                "--tile-size",
                TILE,
                "-q",
            ]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        single = len(sample) / (time.perf_counter() - started)
    print(
        f"{arguments.scenes} scenes of {arguments.side} px: batch {batch:.2f} scenes/s, "
        f"loop (of {len(sample)}) {single:.2f} scenes/s"
    )
    return verdict("batch / shell loop", batch / single, at_least=5)


def timed(folder: Path, pool: Pool) -> float:
    """Tiles a second of a batch, the model being loaded."""
    with tempfile.TemporaryDirectory() as out:
        started = time.perf_counter()
        result = run_batch([folder], output_in(Path(out)), OPTIONS, make_pool=lambda: pool)
        assert not result.failed, result.failed
        return result.tiles / (time.perf_counter() - started)


def workers(arguments: argparse.Namespace) -> bool:
    folder = small_scenes(arguments.worker_scenes, 1024)
    rates: dict[str, list[float]] = {"one process, two threads": [], "two Dask workers": []}
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        for _ in range(arguments.repeats):
            rates["one process, two threads"].append(timed(folder, LocalPool(OPTIONS, threads=2)))
            rates["two Dask workers"].append(
                timed(folder, DaskPool(cluster.scheduler_address, OPTIONS))
            )
    local, dask = median_rates(rates).values()
    return verdict("two Dask workers / one process", dask / local, at_least=0.9)


class Clocked(DaskPool):
    """Records when the first block was sent and the last result came."""

    first = last = 0.0

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        self.first = self.first or time.perf_counter()

        def clocked(result: BlockResult | BaseException) -> None:
            self.last = time.perf_counter()
            done(result)

        return super().submit(block, clocked)


def scaling(arguments: argparse.Namespace) -> bool:
    """Eight blocks a worker, each as long as a core takes for it.

    Opening and finishing the scene are not counted.
    """
    rates = {}
    for count, side in ((1, 4096), (16, 16384)):
        scene = sparse_scene(side, 4)
        with LocalCluster(
            n_workers=count, threads_per_worker=1, dashboard_address=None, processes=False
        ) as cluster:
            pool = Clocked(cluster.scheduler_address, OPTIONS, load=Sleepy(arguments.sleep))
            with tempfile.TemporaryDirectory() as out:
                result = run_batch(
                    [scene], output_in(Path(out)), OPTIONS, make_pool=lambda pool=pool: pool
                )
        assert not result.failed, result.failed
        rates[count] = result.tiles / (pool.last - pool.first)
        print(
            f"{count} workers, {arguments.sleep * 1e3:g} ms a tile, {result.tiles} tiles:"
            f" {rates[count]:.1f} tiles/s"
        )
    return verdict("efficiency from 1 to 16 workers", rates[16] / (16 * rates[1]), at_least=0.9)


def sparse(arguments: argparse.Namespace) -> bool:
    scene = sparse_scene(arguments.sparse_side, 40)
    with tempfile.TemporaryDirectory() as out:
        where = f"{out}/scheduler.json"
        scheduler = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_scheduler",
                "--port",
                "0",
                "--no-dashboard",
                "--scheduler-file",
                where,
            ],
            stderr=subprocess.DEVNULL,
        )
        while not Path(where).exists():
            time.sleep(0.1)
        worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                "--scheduler-file",
                where,
                "--nthreads",
                "4",
                "--no-dashboard",
                "--no-nanny",
            ],
            stderr=subprocess.DEVNULL,
        )
        try:
            peak = {"scheduler": 0, "tasks": 0}
            over = threading.Event()

            def look() -> None:
                with Client(scheduler_file=where, set_as_default=False) as client:
                    while not over.wait(0.5):
                        tasks = client.run_on_scheduler(
                            lambda dask_scheduler: len(dask_scheduler.tasks)
                        )
                        peak["tasks"] = max(peak["tasks"], tasks)
                        peak["scheduler"] = max(
                            peak["scheduler"], psutil.Process(scheduler.pid).memory_info().rss
                        )

            watching = threading.Thread(target=look)
            watching.start()
            wanted = BatchOptions(tile_size="256px")
            started = time.perf_counter()
            result = run_batch(
                [scene],
                output_in(Path(out)),
                wanted,
                make_pool=lambda: DaskPool(where, wanted, load=Sleepy(1e-5)),
            )
            seconds = time.perf_counter() - started
            over.set()
            watching.join()
        finally:
            for process in (worker, scheduler):
                # A worker whose scheduler goes may wait for another, whatever it is asked.
                process.kill()
                process.wait()
    client_mb = own_peak_mb()
    print(
        f"{arguments.sparse_side}², {result.tiles} tiles, {result.cells} cells written,"
        f" {seconds:.0f} s"
    )
    assert not result.failed, result.failed
    met = verdict("MB of the scheduler", peak["scheduler"] / 2**20, at_most=500)
    met &= verdict("MB of the client", client_mb, at_most=500)
    return verdict("most tasks at once", peak["tasks"], at_most=3000) and met


def resume(arguments: argparse.Namespace) -> bool:
    folder = small_scenes(arguments.scenes, arguments.side)
    with tempfile.TemporaryDirectory() as place:
        out = Path(place)

        def begin(name: str, maps: str) -> Counted:
            return Counted(
                out / name,
                "batch",
                "run",
                str(folder),
                "-o",
                f"{out}/{maps}/{{stem}}.gpkg",
                "--tile-size",
                TILE,
                "-q",
            )

        whole = begin("notes_whole", "whole")
        undisturbed = whole.finish()
        first = begin("notes_first", "killed")
        while first.tiles < whole.tiles / 2:
            assert first.process.poll() is None, "the command ended before it could be killed"
            time.sleep(0.02)
        first.process.kill()
        first.process.wait()
        until_killed = time.monotonic() - first.began
        second = begin("notes_second", "killed")
        went_on = second.finish()
        started = time.perf_counter()
        again = run_batch([folder], output_in(out / "killed"), OPTIONS)
        finding_out = time.perf_counter() - started
        assert again.skipped == arguments.scenes, again.failed
        twice = first.tiles + second.tiles - whole.tiles
        print(
            f"{arguments.scenes} scenes, {whole.tiles} tiles: undisturbed {undisturbed:.1f} s;"
            f" killed after {first.tiles} tiles and {until_killed:.1f} s, went on with"
            f" {second.tiles} for {went_on:.1f} s; {twice} tiles twice; {finding_out:.2f} s to find"
            " out what is done"
        )
        excess = until_killed + went_on - undisturbed
        print(
            f"elapsed: {excess:+.1f} s ({excess / undisturbed:+.1%}), of which"
            f" {second.start_up:.1f} s are the second start to the first batch of tiles"
            f" (undisturbed: {whole.start_up:.1f} s)"
        )
        cost = twice / whole.tiles + finding_out / undisturbed
    return verdict("resume / work done, counted", cost, at_most=0.02)


PARTS = {"sparse": sparse, "scaling": scaling, "loop": loop, "resume": resume, "workers": workers}
"""In this order: torch must not be loaded yet where the client's memory is measured."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--side", type=int, default=384, help="pixels of a small scene's side")
    parser.add_argument("--loop-scenes", type=int, default=10)
    parser.add_argument("--worker-scenes", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--sleep", type=float, default=0.03, help="seconds a tile of the sleeping model"
    )
    parser.add_argument("--sparse-side", type=int, default=100_000)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part(s) {', '.join(sorted(unknown))}")
    wanted = [
        part for name, part in PARTS.items() if not arguments.parts or name in arguments.parts
    ]
    met = [part(arguments) for part in wanted]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
