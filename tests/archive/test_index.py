"""An archive is extended by new scenes, loses nothing in a kill, and has no cell twice."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rssc_geo
from rssc_geo import (
    IndexOptions,
    InputError,
    NothingToClassifyError,
    OutputError,
    RsscGeoError,
    UsageError,
)
from rssc_geo.archive import ArchiveStore, CellFilter, SceneEntry, open_store
from rssc_geo.batch import NAME, read_status
from rssc_geo.models import EMBEDDED
from rssc_geo_cli.main import run
from tests.factories import texture, with_changed_bits, write_raster
from tests.programs import Program

SLOW = """
import time
from rssc_geo.inference.predictor import Predictor

def slow(self, block, grid, inner=Predictor.classify_block, **more):
    time.sleep(0.7)
    return inner(self, block, grid, **more)

if Predictor.classify_block.__name__ != "slow":  # Dask runs a preloaded script twice
    Predictor.classify_block = slow
"""
OPTIONS = IndexOptions(tile_size="96px", cell_size="32px", captioner="none", device="cpu")


def scene(path: Path, seed: int = 0) -> Path:
    """4 × 3 cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_raster(path, texture(128, 96, seed))


def held(archive: Path) -> dict[str, int]:
    """The number of cells of each scene in the database."""
    store = open_store(archive)
    found = store.nearest(np.ones(192, np.float32), 1000, CellFilter())
    names = found["scene"].to_pylist()
    return {name: names.count(name) for name in sorted(set(names))}


@pytest.mark.slow
def test_what_is_new_or_changed_is_looked_at_and_nothing_else(tmp_path: Path) -> None:
    archive, scenes = tmp_path / "archive", tmp_path / "in"
    for number in range(2):
        scene(scenes / f"s{number}.tif", number)
    first = rssc_geo.index([scenes / "*.tif"], archive, OPTIONS)
    assert (first.scenes, first.cells, first.added, first.batch.tiles > 0) == (2, 24, 2, True)

    again = rssc_geo.index([scenes / "*.tif"], archive, OPTIONS)
    assert (again.added, again.batch.tiles, again.cells) == (0, 0, 24)

    scene(scenes / "s2.tif", 2)
    more = rssc_geo.index([scenes / "s2.tif"], archive, OPTIONS)
    assert (more.scenes, more.cells, more.added, more.batch.scenes) == (3, 36, 1, 1)

    before = rssc_geo.search(archive, "a river").to_geopandas()
    write_raster(scenes / "s1.tif", texture(96, 96, 7))
    changed = rssc_geo.index([scenes / "*.tif"], archive, OPTIONS)
    assert (changed.added, changed.batch.skipped) == (1, 2)
    assert held(archive) == {"s0": 12, "s1": 9, "s2": 12}
    after = rssc_geo.search(archive, "a river").to_geopandas()
    assert set(before[before["scene"] == "s0"]["score"]) == set(
        after[after["scene"] == "s0"]["score"]
    )

    write_raster(scenes / "s1.tif", texture(96, 96) * 0, nodata=0)
    emptied = rssc_geo.index([scenes / "*.tif"], archive, OPTIONS)
    assert (emptied.forgotten, emptied.scenes) == (1, 2)
    assert held(archive) == {"s0": 12, "s2": 12}


@pytest.mark.slow
def test_scenes_that_are_not_named_any_more_are_removed_and_can_come_again(tmp_path: Path) -> None:
    archive, scenes = tmp_path / "archive", tmp_path / "in"
    for number in range(3):
        scene(scenes / f"s{number}.tif", number)
    rssc_geo.index([scenes], archive, OPTIONS)
    (scenes / "s1.tif").unlink()
    kept = rssc_geo.index([scenes], archive, OPTIONS)  # to be gone on disk is not to be removed
    assert (kept.forgotten, kept.scenes) == (0, 3)
    pruning = replace(OPTIONS, prune=True)
    pruned = rssc_geo.index([scenes], archive, pruning)
    assert (pruned.forgotten, pruned.scenes, pruned.batch.tiles) == (1, 2, 0)
    assert held(archive) == {"s0": 12, "s2": 12}
    assert {path.stem for path in (archive / "scenes").glob("s*.*")} == {"s0", "s2"}
    assert rssc_geo.index([scenes], archive, pruning).forgotten == 0

    write_raster(scenes / "s1.tif", texture(96, 96, 7))  # another picture of that name
    again = rssc_geo.index([scenes], archive, OPTIONS)
    assert (again.added, again.batch.skipped) == (1, 2)
    assert held(archive) == {"s0": 12, "s1": 9, "s2": 12}


def test_nothing_is_pruned_where_inputs_name_no_scene(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where the disk of the rasters is not there: all scenes would go."""
    archive, scenes = tmp_path / "archive", tmp_path / "in"
    scene(scenes / "s0.tif")
    rssc_geo.index([scenes], archive, OPTIONS)
    (scenes / "s0.tif").unlink()
    for inputs in ([scenes], [scenes / "*.tif"], [tmp_path / "gone"]):
        kept = rssc_geo.index(inputs, archive, replace(OPTIONS, prune=True))
        assert (kept.scenes, kept.forgotten) == (1, 0)
        assert "nothing is pruned" in caplog.text
        caplog.clear()
    assert (archive / "scenes" / "s0.gpkg").exists()


def test_a_semicolon_in_a_name_parts_no_bands(tmp_path: Path) -> None:
    source, archive = scene(tmp_path / "s;0.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, replace(OPTIONS, cell_size="96px"))
    options = rssc_geo.SearchOptions(sheet=str(tmp_path / "sheet.html"))
    hits = rssc_geo.search(archive, "a river", options=options).hits
    assert {hit.raster for hit in hits} == {"s;0.tif"}
    assert (tmp_path / "sheet.html").read_text().count("data:image") >= len(hits)


def test_maps_that_a_killed_removal_left_are_removed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, scenes = tmp_path / "archive", tmp_path / "in"
    for number in range(2):
        scene(scenes / f"s{number}.tif", number)
    rssc_geo.index([scenes], archive, OPTIONS)
    pruning, forget = replace(OPTIONS, prune=True), ArchiveStore.forget

    def stop(store: ArchiveStore, names: list[str]) -> None:
        forget(store, names)
        if names:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveStore, "forget", stop)
        with pytest.raises(KeyboardInterrupt):
            rssc_geo.index([scenes / "s0.tif"], archive, pruning)
    assert held(archive) == {"s0": 12}
    assert (archive / "scenes" / "s1.gpkg").exists()
    assert rssc_geo.index([scenes / "s0.tif"], archive, pruning).forgotten == 0
    assert not (archive / "scenes" / "s1.gpkg").exists()


@pytest.mark.slow
def test_scenes_are_made_again_where_the_journal_is_lost(tmp_path: Path) -> None:
    archive, scenes = tmp_path / "archive", tmp_path / "in"
    for number in range(2):
        scene(scenes / f"s{number}.tif", number)
    rssc_geo.index([scenes], archive, OPTIONS)
    before = rssc_geo.search(archive, "a river").to_geopandas()
    journal = archive / "scenes" / NAME
    for damage in ("empty", "gone"):
        journal.write_bytes(b"") if damage == "empty" else journal.unlink()
        again = rssc_geo.index([scenes], archive, OPTIONS)
        assert (again.batch.done, again.batch.failed, again.cells) == (2, (), 24)
        assert rssc_geo.search(archive, "a river").to_geopandas().equals(before)
    journal.unlink()
    journal.mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        rssc_geo.index([scenes], archive, OPTIONS)


def test_a_folder_of_others_named_scenes_is_not_taken_over(tmp_path: Path) -> None:
    raster = scene(tmp_path / "in" / "s0.tif")
    kept = tmp_path / "archive" / "scenes" / "s0.gpkg"
    kept.parent.mkdir(parents=True)
    kept.write_text("of others")
    for _ in range(2):
        with pytest.raises(OutputError, match="something else than an archive"):
            rssc_geo.index([raster], tmp_path / "archive", OPTIONS)
    assert [path for path in (tmp_path / "archive").rglob("*") if path.is_file()] == [kept]
    assert kept.read_text() == "of others"
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("of others")
    with pytest.raises(OutputError, match="something else than an archive"):
        rssc_geo.index([raster], tmp_path / "archive", OPTIONS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": "free"},
        {"only_classes": ("none",)},
        {"quantize": "4bit"},
        {"device": "nonsense"},
        {"device": "cuda:77"},
        {"scheduler": "tcp://127.0.0.1:1"},
        {"captioner": "hf:/nowhere/at/all"},
    ],
)
def test_wrong_options_leave_no_archive(wrong: dict[str, Any], tmp_path: Path) -> None:
    """Nor the folders above it, and an archive as it is."""
    raster, archive = scene(tmp_path / "in" / "s0.tif"), tmp_path / "new" / "archive"
    options = replace(OPTIONS, **wrong)
    with pytest.raises(RsscGeoError):
        rssc_geo.index([raster], archive, options)
    assert not archive.parent.exists()
    archive.mkdir(parents=True)
    with pytest.raises(RsscGeoError):
        rssc_geo.index([raster], archive, options)
    assert list(archive.iterdir()) == []


@pytest.mark.slow
def test_wrong_options_change_no_archive(tmp_path: Path) -> None:
    raster, archive = scene(tmp_path / "in" / "s0.tif"), tmp_path / "archive"
    rssc_geo.index([raster], archive, OPTIONS)
    card, cells = (archive / "archive.json").read_bytes(), held(archive)
    other = scene(tmp_path / "in" / "s1.tif", 1)
    changed = replace(OPTIONS, cell_size="48px", device="nonsense")
    with pytest.raises(UsageError, match="--device nonsense cannot be used"):
        rssc_geo.index([raster, other], archive, changed)
    assert (archive / "archive.json").read_bytes() == card
    assert held(archive) == cells
    rssc_geo.index([raster], archive, replace(changed, device="cpu"))
    assert json.loads((archive / "archive.json").read_text())["cell_size"] == "48px"


@pytest.mark.slow
def test_the_database_writes_no_lines_of_its_own(
    tmp_path: Path, start: Callable[..., Program]
) -> None:
    raster, archive = scene(tmp_path / "in" / "s0.tif"), tmp_path / "archive"
    rssc_geo.index([raster], archive, OPTIONS)
    versions = (archive / "cells.lancedb" / "scenes.lance" / "_versions").glob("*.manifest")
    newest = min(versions)
    content = bytearray(newest.read_bytes())
    content[content.index(b".lance")] = 0xFF  # of a file's name in its transaction: no UTF-8
    newest.write_bytes(content)
    code, _, err = start("search", archive, "a river", "--json").finish()
    assert (code, [line for line in err.splitlines() if "lance::" in line]) == (0, [])


def command(scenes: Path, archive: Path, *more: object) -> tuple[object, ...]:
    """The command line of ``OPTIONS``."""
    sizes = ("--tile-size", "96px", "--cell-size", "32px")
    return ("index", scenes, "-o", archive, *sizes, "--captioner", "none", "--json", *more)


def finished(archive: Path) -> int:
    """Scenes that the journal knows to be done."""
    journal = archive / "scenes"
    if not (journal / NAME).exists() or not (journal / NAME).stat().st_size:
        return 0
    return sum(row["state"] == "done" for row in read_status(journal)["scenes"])


def wait_for(program: Program, archive: Path) -> None:
    """Until the first scene is done."""
    while not finished(archive):
        assert program.running, program.finish()
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_process_loses_no_finished_scene(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    archive, scenes = tmp_path / "archive", tmp_path / "in"
    for number in range(4):
        scene(scenes / f"s{number}.tif", number)
    program = start(*command(scenes, archive, "--device", "cpu"), before=SLOW)
    wait_for(program, archive)
    program.kill()
    done = finished(archive)
    assert done < 4
    again = rssc_geo.index([scenes], archive, OPTIONS)
    assert again.batch.skipped == done
    assert held(archive) == {f"s{number}": 12 for number in range(4)}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_a_cluster_makes_the_same_archive_also_when_the_client_is_killed(
    start: Callable[..., Program], tmp_path: Path
) -> None:
    """Two real worker processes of Dask."""
    distributed = pytest.importorskip("distributed")
    import dask

    scenes, here, there = tmp_path / "in", tmp_path / "here", tmp_path / "there"
    for number in range(3):
        scene(scenes / f"s{number}.tif", number)
    rssc_geo.index([scenes], here, OPTIONS)
    (tmp_path / "preload.py").write_text(SLOW)
    with (
        dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0",
            preload=[str(tmp_path / "preload.py")], local_directory=str(tmp_path / "dask"),
        ) as cluster,
    ):  # fmt: skip
        on_cluster = command(scenes, there, "--scheduler", cluster.scheduler_address)
        program = start(*on_cluster)
        wait_for(program, there)
        program.kill()
        done = finished(there)
        code, out, err = start(*on_cluster).finish()
    assert code == 0, err
    assert json.loads(out)["skipped"] == done
    assert held(there) == held(here)
    tables = [
        open_store(archive).nearest(np.ones(192, np.float32), 100, CellFilter())
        for archive in (here, there)
    ]
    rows = [table.sort_by([("scene", "ascending"), ("row", "ascending"), ("col", "ascending")])
            for table in tables]  # fmt: skip
    assert rows[0]["class"].equals(rows[1]["class"])
    np.testing.assert_allclose(rows[0]["score"], rows[1]["score"], atol=1e-3)


@pytest.mark.parametrize("killed_at", ["forget", "tidy"])
def test_a_killed_indexing_goes_on_with_what_is_done(
    killed_at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while scenes are added: maps are not made again, and no cell is there twice."""
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"

    def stop(*_arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveStore, killed_at, stop)
        with pytest.raises(KeyboardInterrupt):
            rssc_geo.index([source], archive, OPTIONS)
    again = rssc_geo.index([source], archive, OPTIONS)
    assert again.batch.tiles == 0
    assert held(archive) == {"s": 12}


def test_cells_without_their_scene_are_replaced(tmp_path: Path) -> None:
    """The state after a process was killed between the two writes."""
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    store = open_store(archive)
    store._scenes.delete("true")
    assert held(archive) == {"s": 12}
    with pytest.raises(NothingToClassifyError, match="12 cells of 0 scenes"):
        rssc_geo.search(archive, "a river")
    again = rssc_geo.index([source], archive, OPTIONS)
    assert (again.added, again.batch.tiles) == (1, 0)
    assert held(archive) == {"s": 12}


def test_a_table_that_cannot_be_read_costs_no_cells(tmp_path: Path) -> None:
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    store, table = open_store(archive), archive / "scenes" / "s.parquet"
    (tmp_path / "bad.parquet").write_bytes(table.read_bytes()[:100])
    new = [
        SceneEntry("s", "s.tif", "new", table),
        SceneEntry("t", "t.tif", "new", tmp_path / "bad.parquet"),
    ]
    with pytest.raises(InputError, match=r"bad\.parquet cannot be read"):
        store.put(new)
    assert store.scenes().keys() == {"s"}
    assert held(archive) == {"s": 12}


def test_two_scenes_of_one_name(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    first, second = scene(tmp_path / "a" / "s.tif"), scene(tmp_path / "b" / "s.tif", 1)
    rssc_geo.index([first], archive, OPTIONS)
    with pytest.raises(UsageError, match="give it an id of its own"):
        rssc_geo.index([second], archive, OPTIONS)
    (tmp_path / "list.csv").write_text(f"input,id\n{second},it's\n")
    rssc_geo.index([tmp_path / "list.csv"], archive, OPTIONS)
    assert held(archive) == {"it_s": 12, "s": 12}
    first.rename(tmp_path / "s.tif")  # moved: the same scene from another place
    rssc_geo.index([tmp_path / "s.tif"], archive, OPTIONS)
    assert open_store(archive).scenes()["s"]["source"] == str(tmp_path / "s.tif")


def test_what_cannot_be_meant(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = scene(tmp_path / "s.tif")
    other = tmp_path / "other"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    (tmp_path / "list.csv").write_text(f"input,output\n{source},elsewhere.gpkg\n")
    for arguments, code, message in (
        ([source, "-o", other], 1, "holds something else than an archive"),
        ([source, "-o", tmp_path / "a", "--model", bundle], 2, "without captions"),
        ([tmp_path / "list.csv", "-o", tmp_path / "a"], 2, "leave out the columns output"),
    ):
        assert run(["index", *map(str, arguments)]) == code
        error = capsys.readouterr().err.strip()
        assert message in error
        assert len(error.splitlines()) == 1
    assert not (tmp_path / "a").exists()
    assert os.listdir(other) == ["letter.txt"]

    archive = tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    card = json.loads((archive / "archive.json").read_text())
    (archive / "archive.json").write_text(json.dumps({**card, "version": "0.0", "identity": "0a"}))
    with pytest.raises(UsageError, match="cannot be compared"):
        rssc_geo.index([source], archive, OPTIONS)
    with pytest.raises(UsageError, match="was indexed with the model compact 0.0"):
        rssc_geo.search(archive, "a river")


def test_a_model_with_another_card_is_another_one(tmp_path: Path) -> None:
    source, archive, model = scene(tmp_path / "s.tif"), tmp_path / "archive", tmp_path / "model"
    shutil.copytree(EMBEDDED / "compact", model)
    options = replace(OPTIONS, model=str(model))
    rssc_geo.index([source], archive, options)
    card = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps({**card, "mean": [0.1, 0.9, 0.1]}))
    message = r"weights or config\.json differ"
    with pytest.raises(UsageError, match=message):
        rssc_geo.index([source], archive, options)
    with pytest.raises(UsageError, match=message):
        rssc_geo.search(archive, "a river", options=rssc_geo.SearchOptions(model=str(model)))


def test_a_damaged_database_is_made_anew_from_the_maps(tmp_path: Path) -> None:
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    for manifest in (archive / "cells.lancedb").rglob("*.manifest"):
        manifest.write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be opened"):
        rssc_geo.search(archive, "a river")
    shutil.rmtree(archive / "cells.lancedb")
    again = rssc_geo.index([source], archive, OPTIONS)
    assert (again.added, again.batch.tiles) == (1, 0)
    assert held(archive) == {"s": 12}


@pytest.mark.parametrize("table", ["cells", "scenes"])
def test_a_table_that_was_put_back_is_told_and_mended(tmp_path: Path, table: str) -> None:
    """LanceDB opens an earlier version, without a word, where the files of the newest are gone."""
    scenes, archive = tmp_path / "in", tmp_path / "archive"
    for number in range(2):
        scene(scenes / f"s{number}.tif", number)
        rssc_geo.index([scenes], archive, OPTIONS)
    store = open_store(archive)
    changed = {"cells": store._cells, "scenes": store._scenes}[table]
    whole = changed.count_rows()
    for version in reversed(changed.list_versions()):
        changed.checkout(version["version"])
        if 0 < changed.count_rows() < whole:
            break
    changed.restore()
    if table == "cells":
        with pytest.raises(InputError, match="has lost 12 cells of its scenes"):
            rssc_geo.search(archive, "a river")
    again = rssc_geo.index([scenes], archive, OPTIONS)
    assert again.batch.tiles == 0
    assert held(archive) == {"s0": 12, "s1": 12}


@pytest.mark.parametrize("name", ["../../other", "/absolute", "a\\b", "c:d", "", None])
def test_names_that_lead_out_of_an_archive_are_damage(tmp_path: Path, name: str | None) -> None:
    """An archive of others must not have files deleted or read that are not its own."""
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    other = tmp_path / "other.gpkg"
    other.write_text("my own work")
    cells = open_store(archive)._cells
    cell = cells.search().limit(1).to_arrow()
    cells.add(cell.set_column(cell.schema.get_field_index("scene"), "scene", pa.array([name])))
    with pytest.raises(InputError, match="is no name of a scene"):
        held(archive)
    with pytest.raises(InputError, match="is no name of a scene"):
        rssc_geo.index([source], archive, replace(OPTIONS, prune=True))
    shutil.rmtree(archive / "cells.lancedb")
    rssc_geo.index([source], archive, OPTIONS)
    open_store(archive)._scenes.add([{"scene": name, "source": "x", "mark": "m", "cells": 0}])
    for work in (
        lambda: rssc_geo.index([source], archive, replace(OPTIONS, prune=True)),
        lambda: rssc_geo.search(archive, "a river"),
    ):
        with pytest.raises(InputError, match="is no name of a scene"):
            work()
    assert other.read_text() == "my own work"
    assert (archive / "scenes" / "s.gpkg").is_file()


def test_a_scene_without_its_source_is_damage(tmp_path: Path) -> None:
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    open_store(archive)._scenes.add([{"scene": "t", "source": None, "mark": "m", "cells": 0}])
    with pytest.raises(InputError, match="lacks its source"):
        rssc_geo.search(archive, "a river")


@pytest.mark.parametrize(
    "values",
    [
        {"width": "192"},
        {"width": 10**12},
        {"indexed_rows": -1},
        {"model": 5},
        {"version": []},
        {"indexed_rows": "x"},
        {"tile_size": 5},
    ],
)
def test_a_description_of_other_types_is_one_line(tmp_path: Path, values: dict[str, Any]) -> None:
    card = {
        "format": 3,
        "model": "compact",
        "version": "1",
        "identity": "0a",
        "width": 192,
        **values,
    }
    (tmp_path / "archive.json").write_text(json.dumps(card))
    with pytest.raises(InputError, match=r"archive\.json cannot be read"):
        open_store(tmp_path)


def test_damaged_cells_and_tables_of_others_are_one_line(tmp_path: Path) -> None:
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    for data in (archive / "cells.lancedb").rglob("data/*.lance"):
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be opened"):
        rssc_geo.search(archive, "a river")
    shutil.rmtree(archive / "cells.lancedb")
    pq.write_table(pa.table({"a": [1]}), archive / "scenes" / "s.parquet")
    with pytest.raises(InputError, match=r"s\.parquet cannot be read .*: delete it"):
        rssc_geo.index([source], archive, OPTIONS)
    (archive / "scenes" / "s.parquet").unlink()
    rssc_geo.index([source], archive, OPTIONS)
    assert held(archive) == {"s": 12}


def test_changed_bits_of_cells_are_told(tmp_path: Path) -> None:
    """LanceDB has no checksums."""
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    store = open_store(archive)
    whole = store.nearest(np.ones(192, np.float32), 12, CellFilter())
    first = whole["score"].to_numpy()[0]
    table = pq.read_table(archive / "scenes" / "s.parquet")
    best = table["embedding"].combine_chunks().flatten().to_numpy().reshape(12, 192)
    vector = best[best.astype(np.float32).sum(1).argmax()].tobytes()
    (data,) = (
        path
        for path in (archive / "cells.lancedb" / "cells.lance").rglob("*.lance")
        if vector in path.read_bytes()
    )
    content = data.read_bytes()
    for name, place in {
        "embedding": content.index(vector) + 80,
        "outline": content.index(whole["geom"].to_pylist()[0]) + 20,
    }.items():
        bad = bytearray(content)
        bad[place] ^= 4
        data.write_bytes(bad)
        with pytest.raises(InputError, match="cells are not as they were written") as caught:
            open_store(archive).nearest(np.ones(192, np.float32), 12, CellFilter())
        assert "\n" not in str(caught.value), name
    data.write_bytes(content)
    again = open_store(archive).nearest(np.ones(192, np.float32), 12, CellFilter())
    assert again["score"].to_numpy()[0] == first


def test_changed_bits_of_a_table_are_told(tmp_path: Path) -> None:
    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    shutil.rmtree(archive / "cells.lancedb")
    columns = ("class", "confidence", "embedding", "geom")
    for column in with_changed_bits(archive / "scenes" / "s.parquet", columns):
        with pytest.raises(InputError, match=r"s\.parquet cannot be read") as caught:
            rssc_geo.index([source], archive, OPTIONS)
        assert "\n" not in str(caught.value), column


def test_without_the_database_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = scene(tmp_path / "s.tif")
    monkeypatch.setitem(sys.modules, "lancedb", None)
    for arguments in (["index", str(source), "-o", "a"], ["search", str(tmp_path), "river"]):
        assert run(arguments) == 2
        error = capsys.readouterr().err.strip()
        assert error.endswith("an archive needs LanceDB; pip install 'rssc-geo[archive]'")
        assert len(error.splitlines()) == 1


def test_one_indexing_at_a_time(tmp_path: Path) -> None:
    from rssc_geo.locks import FileLock

    source, archive = scene(tmp_path / "s.tif"), tmp_path / "archive"
    rssc_geo.index([source], archive, OPTIONS)
    lock = FileLock(archive / ".rssc-geo-index.lock", taken=archive)
    with pytest.raises(OutputError, match="is in use by another rssc-geo process"):
        rssc_geo.index([source], archive, OPTIONS)
    lock.close()
    (tmp_path / "new").mkdir()  # what a run that was killed at its start leaves
    (tmp_path / "new" / ".rssc-geo-index.lock-journal").touch()
    assert rssc_geo.index([source], tmp_path / "new", OPTIONS).added == 1
