"""Batches on a Dask cluster of real worker processes, some of which die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rssc_geo.output import read_provenance
from tests.factories import write_raster
from tests.programs import Program

from .conftest import begun, content, load_json, states, status, write_scene
from .test_reliability import SLOW, command

distributed = pytest.importorskip("distributed", reason="the extra 'distributed' is not installed")

Start = Callable[..., Program]
OTHER_VERSION = """
import importlib.metadata
own = importlib.metadata.version
importlib.metadata.version = lambda name: "9.9.9" if name == "rssc-geo" else own(name)
"""


@pytest.fixture
def cluster(fork_server: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Start a cluster whose workers run a script first."""
    import dask

    running: list[Any] = []

    def begin(script: str, *, workers: int = 2) -> Any:
        (tmp_path / "preload.py").write_text(script)
        with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
            running.append(
                distributed.LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    dashboard_address=":0",  # None would want port 8787
                    preload=[str(tmp_path / "preload.py")],
                    local_directory=str(tmp_path / "dask"),
                )
            )
        return running[-1]

    yield begin
    for each in running:
        each.close(timeout=20)


def blocks_done(folder: Path) -> int:
    """Blocks that the journal knows to be written."""
    return (
        sum(scene["blocks"].get("done", 0) for scene in status(folder)["scenes"])
        if begun(folder)
        else 0
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_neither_a_killed_worker_nor_a_killed_client_changes_the_maps(
    start: Start, cluster: Callable[..., Any], scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    write_scene(scenes / "a_big.tif", side=1024, seed=9)
    whole, spread = tmp_path / "whole", tmp_path / "spread"
    code, _, err = start(*command(scenes, whole, bundle)).finish()
    assert code == 0, err
    workers = cluster(SLOW)
    on_cluster = command(scenes, spread, bundle, "--scheduler", workers.scheduler_address)

    client = start(*on_cluster)
    while blocks_done(spread) < 1:
        assert client.running, client.finish()
        time.sleep(0.1)
    client.kill()
    client = start(*on_cluster)
    before = blocks_done(spread)
    while blocks_done(spread) <= before:
        assert client.running, client.finish()
        time.sleep(0.1)
    os.kill(workers.workers[0].pid, signal.SIGKILL)
    code, out, err = client.finish()
    assert code == 0, err
    assert (
        load_json(out)["tiles"] < 256 + 3 * 16
    )  # what the first client had written was not done again
    assert set(states(spread).values()) == {"done"}
    for name in ("a_big", "scene_0", "scene_1", "scene_2"):
        assert content(spread / f"{name}.gpkg") == content(whole / f"{name}.gpkg")


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_workers_of_another_version_are_refused(
    start: Start, cluster: Callable[..., Any], scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    address = cluster(OTHER_VERSION, workers=1).scheduler_address
    code, _, err = start(
        *command(scenes, tmp_path / "maps", bundle, "--scheduler", address)
    ).finish()
    assert code == 1
    assert "has rssc-geo 9.9.9, here is " in err
    assert not (tmp_path / "maps").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_workers_in_another_folder_read_the_rasters_that_were_meant(
    start: Start, cluster: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    """Of relative paths; a raster of the same name lies in the workers' own folder."""
    here, there = tmp_path / "here", tmp_path / "there"
    for seed, folder in enumerate((here, there)):
        (folder / "in").mkdir(parents=True)
        write_scene(folder / "in" / "scene.tif", seed=seed)
    inputs, before = Path("in"), f"import os\nos.chdir({str(here)!r})"
    code, _, err = start(*command(inputs, tmp_path / "whole", bundle), before=before).finish()
    assert code == 0, err
    address = cluster(f"import os\nos.chdir({str(there)!r})", workers=1).scheduler_address
    spread = command(inputs, tmp_path / "spread", bundle, "--scheduler", address)
    code, _, err = start(*spread, before=before).finish()
    assert code == 0, err
    name = "scene.gpkg"
    assert content(tmp_path / "spread" / name) == content(tmp_path / "whole" / name)


def test_a_wrong_scheduler_is_said(
    start: Start, scenes: Path, bundle: Path, tmp_path: Path
) -> None:
    code, _, err = start(
        *command(scenes, tmp_path / "maps", bundle, "--scheduler", "tcp://127.0.0.1:9"),
        before="from rssc_geo.batch import dask_pool; dask_pool._PATIENCE_S = 1",
    ).finish()
    assert code == 2
    assert "--scheduler tcp://127.0.0.1:9: no Dask scheduler answers there" in err


@pytest.fixture
def processes() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start parts of Dask as the command line does; whatever is left is killed at the end."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(part: str, *arguments: object) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-m", f"distributed.cli.dask_{part}", *map(str, arguments)]
        running.append(
            subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_scheduler_is_said_and_another_goes_on(
    start: Start,
    processes: Callable[..., subprocess.Popen[bytes]],
    scenes: Path,
    bundle: Path,
    tmp_path: Path,
) -> None:
    """All as processes of the command line, which find each other by a scheduler file."""
    (tmp_path / "slow.py").write_text(SLOW)
    write_scene(scenes / "a_big.tif", side=512, seed=9)
    maps, where = tmp_path / "maps", tmp_path / "scheduler.json"
    on_cluster = command(scenes, maps, bundle, "--scheduler", where)

    def cluster() -> subprocess.Popen[bytes]:
        where.unlink(missing_ok=True)
        scheduler = processes("scheduler", "--port", 0, "--no-dashboard", "--scheduler-file", where)
        while not where.exists():
            assert scheduler.poll() is None
            time.sleep(0.1)
        settings = (
            "--nthreads",
            1,
            "--no-nanny",
            "--no-dashboard",
            "--preload",
            tmp_path / "slow.py",
        )
        processes(
            "worker", "--scheduler-file", where, "--local-directory", tmp_path / "dask", *settings
        )
        return scheduler

    scheduler = cluster()
    client = start(*on_cluster)
    while blocks_done(maps) < 1:
        assert client.running, client.finish()
        time.sleep(0.1)
    scheduler.kill()
    code, _, err = client.finish()
    assert code == 1
    assert f"the scheduler {where} is gone" in err
    assert "failed" not in states(maps).values()

    code, _, err = start(*on_cluster).finish()  # the file is there still, and nobody answers
    assert code == 2
    assert f"--scheduler {where}: no Dask scheduler answers there" in err

    cluster()
    code, out, err = start(*on_cluster).finish()
    assert code == 0, err
    assert load_json(out)["tiles"] < 64 + 3 * 16
    whole = tmp_path / "whole"
    code, _, err = start(*command(scenes, whole, bundle)).finish()
    assert code == 0, err
    for name in ("a_big", "scene_0", "scene_1", "scene_2"):
        assert content(maps / f"{name}.gpkg") == content(whole / f"{name}.gpkg")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_choice_and_steps_are_those_of_one_machine(
    start: Start, cluster: Callable[..., Any], bundle: Path, tmp_path: Path
) -> None:
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    write_scene(scenes / "scene.tif", side=512)  # 64 tiles: enough for shares
    options = (
        "--adapt-shares",
        "--smooth",
        "--snap",
        "--exclude-classes",
        "Field",
        "--probabilities",
    )
    whole, spread = tmp_path / "whole", tmp_path / "spread"
    code, _, err = start(*command(scenes, whole, bundle, *options)).finish()
    assert code == 0, err
    address = cluster("", workers=1).scheduler_address
    code, _, err = start(
        *command(scenes, spread, bundle, *options, "--scheduler", address)
    ).finish()
    assert code == 0, err
    assert content(spread / "scene.gpkg") == content(whole / "scene.gpkg")
    told = read_provenance(spread / "scene.gpkg")
    assert told["class_choice"] == ["River, wide", "Town <b>"]
    assert {step["cells"] for step in told["steps"].values()} == {64}
    assert set(told["steps"]) == {"adapt_shares", "snap"}
    assert told["steps"] == read_provenance(whole / "scene.gpkg")["steps"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_classes_are_refined_on_a_cluster_as_on_one_machine(
    start: Start, cluster: Callable[..., Any], tmp_path: Path
) -> None:
    """Failures of the workers have the class and the words that they have without a cluster."""
    write_scene(tmp_path / "scene.tif")
    write_scene(tmp_path / "odd.tif")
    write_raster(tmp_path / "empty.tif", np.zeros((3, 256, 256), np.uint8), nodata=0)
    table = "input,id,classes\nscene.tif,scene,\nempty.tif,empty,\nodd.tif,odd,\u65e5\u672c\n"
    (tmp_path / "list.csv").write_text(table, encoding="utf-8")
    options = ("--classes", "water,forest,houses", "--refine", "--force")
    whole, spread = tmp_path / "whole", tmp_path / "spread"
    inputs = tmp_path / "list.csv"
    code, _, err = start(*command(inputs, whole, "compact", *options)).finish()
    assert code == 4, err
    address = cluster("", workers=2).scheduler_address
    on_cluster = command(inputs, spread, "compact", *options, "--scheduler", address)
    code, _, err = start(*on_cluster).finish()
    assert code == 4, err
    assert content(spread / "scene.gpkg") == content(whole / "scene.gpkg")
    told, expected = (
        {scene["id"]: (scene["state"], scene["error"]) for scene in status(folder)["scenes"]}
        for folder in (spread, whole)
    )
    assert told == expected
    assert {name: state for name, (state, _) in told.items()} == {
        "scene": "done",
        "empty": "empty",
        "odd": "failed",
    }
    assert "holds no word the text encoder knows" in told["odd"][1]
