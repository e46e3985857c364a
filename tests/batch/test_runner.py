"""The loop of a batch with pools that answer late, in any order, wrongly or not at all."""

from __future__ import annotations

import dataclasses
import math
import os
import random
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rssc_geo
from rssc_geo.batch import (
    BatchResult,
    Block,
    BlockResult,
    Done,
    LocalPool,
    Pool,
    PoolLostError,
    Tracker,
    Worker,
    collect_jobs,
    plan_batch,
    read_status,
    run_batch,
)
from rssc_geo.batch.job import Job, OpenJob, open_job
from rssc_geo.batch.runner import Runner
from rssc_geo.errors import InputError, RsscGeoError, UsageError
from rssc_geo.geometry import BlockGrid, TileGrid
from rssc_geo.inference import Prediction, PredictorSpec, TileResult, load_predictor
from rssc_geo.models import ClassWords, Model, load_card, save_bundle
from rssc_geo.options import BatchOptions, BatchSceneOptions, PredictorOptions, options_of
from tests.factories import texture, write_raster

from .conftest import content, states, write_scene

Run = Callable[[list[Path], Pool], BatchResult]


class Gray:
    """Classes by the mean color of a tile: quick, and a function of the tile alone."""

    batch_size = 4

    def __init__(self) -> None:
        self.tiles = 0

    def __call__(self, pixels: np.ndarray, mask: np.ndarray, *, embed: bool = False) -> Prediction:
        self.tiles += len(pixels)
        means = pixels.reshape(len(pixels), -1, 3).mean(1).astype(np.float32)
        familiarity = np.full(len(pixels), np.nan, np.float32)
        return Prediction(means / means.sum(1, keepdims=True), ["" for _ in pixels], familiarity)


def make_worker(classifier: Gray, bundle: Path, name: str = "one") -> Worker:
    return Worker(
        PredictorSpec(load_card(bundle), "none", "float32"),
        classifier,
        input_size=(64, 64),
        reading_threads=1,
        name=name,
    )


class Shuffled:
    """Answers several blocks in random order, and fails every third at its first try."""

    capacity = 2

    def __init__(
        self, worker: Worker, *, broken: Callable[[Block], bool] = lambda _: False
    ) -> None:
        self._worker, self._broken = worker, broken
        self.spec, self.batch_size = worker.spec, worker.batch_size
        self._waiting: list[tuple[Block, Done]] = []
        self._random = random.Random(4)
        self._failed: set[int] = set()
        self._lock = threading.Lock()
        self._timers: list[threading.Timer] = []
        self.most = 0

    def submit(self, block: Block, done: Done) -> Callable[[], None]:
        with self._lock:
            self._waiting.append((block, done))
            self.most = max(self.most, len(self._waiting))
        self._timers.append(threading.Timer(0.05, self._answer))
        self._timers[-1].start()
        return lambda: None

    def _answer(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
            self._random.shuffle(waiting)
            for block, done in waiting:
                first = int(block.tiles[0])
                if self._broken(block) or (first % 3 == 0 and first not in self._failed):
                    self._failed.add(first)
                    done(InputError("a bad moment"))
                else:
                    done(self._run(block))

    def _run(self, block: Block) -> BlockResult | RsscGeoError:
        try:
            return self._worker.run(block)
        except RsscGeoError as error:
            return error

    def close(self) -> None:
        for timer in self._timers:
            timer.join()


@pytest.fixture
def options(bundle: Path) -> BatchOptions:
    return BatchOptions(model=str(bundle), tile_size="64px", cell_size="48px")


@pytest.fixture
def run(options: BatchOptions, tmp_path: Path) -> Run:
    """Run a batch with a pool, into the folder ``maps``."""

    def call(scenes: list[Path], pool: Pool) -> BatchResult:
        output = tmp_path / "maps" / "{stem}.gpkg"
        return run_batch(scenes, output, options, make_pool=lambda: pool)

    return call


def test_order_and_failures_of_blocks_do_not_change_the_map(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", side=768)
    pool = Shuffled(make_worker(Gray(), bundle))
    result = run([scene], pool)
    assert result.failed == ()
    assert pool.most <= 2 * pool.capacity + 1
    shuffled = content(tmp_path / "maps" / "scene.gpkg")
    (tmp_path / "maps" / "scene.gpkg").unlink()
    gray = Gray()
    straight = LocalPool(
        PredictorOptions(device="cpu"), threads=1, load=lambda *_, **__: make_worker(gray, bundle)
    )
    assert run([scene], straight).done == 1
    assert content(tmp_path / "maps" / "scene.gpkg") == shuffled
    assert gray.tiles == 256  # 16 × 16: none twice


@pytest.mark.slow
def test_fine_maps_are_the_same_as_one_by_one(
    fine_model: Model, fine_scene: Path, tmp_path: Path
) -> None:
    save_bundle(tmp_path / "fine", fine_model, readme="# fine\n")
    options = BatchOptions(model=str(tmp_path / "fine"), captioner="none", device="cpu")
    scenes = [fine_scene, Path(shutil.copy(fine_scene, tmp_path / "again.tif"))]
    result = run_batch(scenes, tmp_path / "maps" / "{stem}.gpkg", options)
    assert result.failed == ()
    alone = rssc_geo.ClassifyOptions(model=options.model, captioner="none", device="cpu")
    rssc_geo.classify(fine_scene, tmp_path / "alone.gpkg", alone)
    for name in ("scene", "again"):
        assert content(tmp_path / "maps" / f"{name}.gpkg") == content(tmp_path / "alone.gpkg")


def test_a_block_that_always_fails_fails_its_scene_alone(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    inputs = [
        write_scene(tmp_path / f"{name}.tif", side=512, seed=seed)
        for seed, name in enumerate("abc")
    ]
    pool = Shuffled(
        make_worker(Gray(), bundle),
        broken=lambda block: block.scene.name == "b" and block.tiles[0] > 50,
    )
    result = run(inputs, pool)
    assert result.as_dict()["failed"] == [
        {"input": str(inputs[1]), "error": "a bad moment", "known": False}
    ]
    assert states(tmp_path / "maps") == {"a.gpkg": "done", "b.gpkg": "failed", "c.gpkg": "done"}


def test_all_devices_are_fed(run: Run, bundle: Path, tmp_path: Path) -> None:
    scene = write_scene(tmp_path / "scene.tif", side=1024)
    models = [Gray(), Gray()]
    left = iter(models)
    pool = LocalPool(
        PredictorOptions(device="cpu,cpu"),
        threads=2,
        load=lambda *_, **__: make_worker(next(left), bundle, name=f"device {id(models)}"),
    )
    assert run([scene], pool).done == 1
    assert sum(model.tiles for model in models) == 21 * 21
    assert min(model.tiles for model in models) > 50


def test_nobody_left_to_classify_stops_the_batch_and_keeps_what_was_done(
    run: Run, bundle: Path, tmp_path: Path
) -> None:
    scene = write_scene(tmp_path / "scene.tif", side=768)
    pool = Shuffled(make_worker(Gray(), bundle))
    submit, count = pool.submit, [0]

    def vanishing(block: Block, done: Done) -> Callable[[], None]:
        count[0] += 1
        if count[0] > 8:
            done(PoolLostError("the scheduler is gone"))
            return lambda: None
        return submit(block, done)

    pool.submit = vanishing  # type: ignore[method-assign]
    with pytest.raises(PoolLostError):
        run([scene], pool)
    assert states(tmp_path / "maps") == {"scene.gpkg": "waiting"}
    assert (tmp_path / "maps" / "scene.gpkg.part").exists()
    assert run([scene], Shuffled(make_worker(Gray(), bundle))).done == 1


def test_an_interruption_leaves_no_scene_open(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a notebook, which keeps the traceback: one is being written, another being opened."""
    scenes = [write_scene(tmp_path / f"{name}.tif", side=512) for name in "ab"]
    writing, over = threading.Event(), threading.Event()

    def write(self: OpenJob, results: list[BlockResult], inner: Any = OpenJob.write) -> float:
        writing.set()
        over.wait(0.3)
        return float(inner(self, results))

    def open_slowly(job: Job, pool: Pool, *, overwrite: bool) -> OpenJob:
        found = open_job(job, pool, overwrite=overwrite)
        if job.id == "b":
            over.wait(30)
        return found

    def tick(_: Runner) -> None:
        if writing.is_set():
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(OpenJob, "write", write)
        patch.setattr("rssc_geo.batch.runner.open_job", open_slowly)
        patch.setattr(Runner, "_tick", tick)
        with pytest.raises(KeyboardInterrupt) as caught:
            run(scenes, Shuffled(make_worker(Gray(), bundle)))
    over.set()
    for thread in threading.enumerate():
        if thread.name.startswith("rssc-geo open"):
            thread.join(30)
    result = run(scenes, Shuffled(make_worker(Gray(), bundle)))
    assert (result.done, result.failed) == (2, ())
    assert caught.value is not None


def test_another_model_than_expected_is_refused(run: Run, bundle: Path, tmp_path: Path) -> None:
    class Other(Shuffled):
        def submit(self, block: Block, done: Done) -> Callable[[], None]:
            return super().submit(dataclasses.replace(block, spec_hash="else"), done)

    scene = write_scene(tmp_path / "scene.tif")
    result = run([scene], Other(make_worker(Gray(), bundle, name="worker-7")))
    assert "worker-7 has another model or version of rssc-geo" in result.failed[0].message


@pytest.mark.parametrize(
    ("output", "options", "words"),
    [
        ("{id}.gpkg", {"merge": "last"}, "must have no placeholder"),
        ("all.shp", {"merge": "last"}, "--merge writes .gpkg or .parquet, not all.shp"),
    ],
)
def test_options_that_cannot_be_meant(
    tmp_path: Path, bundle: Path, output: str, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        run_batch([], tmp_path / output, BatchOptions(model=str(bundle), **options))


ONCE = {
    "stretch": "odd",
    "tile_size": "many",
    "cell_size": "10",
    "bounds": (1.0, 1.0, 0.0, 0.0),
    "aoi": "nowhere.gpkg",
    "crs": "EPSG:abc",
    "assume_crs": "EPSG:0",
    "date": "x",
    "preview": "{stem}.jpg",
    "report": "{stem}.pdf",
    "areas": "{stem}.xlsx",
    "class_raster": "{stem}.png",
    "stac_item": "{stem}.txt",
    "embeddings": "{stem}.csv",
}


def test_an_input_that_is_named_alone_is_one(bundle: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", texture(64, 64))
    options = BatchOptions(model=str(bundle), tile_size="64px")
    for named in (scene, str(scene)):
        assert plan_batch(named, tmp_path / "maps", options).scenes == 1


@pytest.mark.parametrize("name", ONCE)
@pytest.mark.parametrize("verb", [run_batch, plan_batch])
def test_a_value_that_suits_no_raster_is_told_once(
    verb: Callable[..., object], name: str, bundle: Path, tmp_path: Path
) -> None:
    """Not by each scene; in a row of a manifest it is that row's."""
    for number in range(2):
        write_raster(tmp_path / f"s{number}.tif", texture(64, 64, number))
    options = BatchOptions(model=str(bundle), **{name: ONCE[name]})
    with pytest.raises(RsscGeoError, match=f"--{name.replace('_', '-')} "):
        verb([tmp_path / "s*.tif"], tmp_path / "maps", options)
    assert not (tmp_path / "maps").exists()
    key, value = name.replace("_", "-"), ONCE[name]
    text = value if isinstance(value, str) else ",".join(f"{part:g}" for part in value)
    (tmp_path / "list.csv").write_text(f'input,{key}\ns0.tif,"{text}"\ns1.tif,\n')
    jobs = collect_jobs([str(tmp_path / "list.csv")], "maps", BatchOptions())
    assert [job.id for job in jobs.jobs] == ["s1"]
    (problem,) = jobs.problems
    assert f"--{key} " in problem.message


@pytest.mark.skipif(os.name != "posix", reason="links need permission there")
def test_a_plan_refuses_what_the_run_refuses(bundle: Path, tmp_path: Path) -> None:
    """Outputs that are inputs of any scene, by whatever name."""
    (tmp_path / "in").mkdir()
    scenes = [
        write_raster(tmp_path / "in" / f"s{number}.tif", texture(64, 64, number))
        for number in range(2)
    ]
    area = tmp_path / "aoi.gpkg"
    area.write_bytes(b"a vector file")
    (tmp_path / "link").symlink_to("in")
    os.link(scenes[1], tmp_path / "hard.tif")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    options = BatchOptions(model=str(bundle), overwrite=True)
    bounded = dataclasses.replace(options, aoi=str(area))
    cases: list[tuple[list[Path], Path, BatchOptions]] = [
        (scenes, tmp_path / "in" / "{id}.tif", options),
        (scenes, tmp_path / "link" / "{id}.tif", options),
        (scenes, tmp_path / "in" / ".." / "in" / "{id}.tif", options),
        (scenes[1:], tmp_path / "hard.tif", options),
        (scenes[:1], area, bounded),
        (scenes, area, dataclasses.replace(bounded, merge="first")),
        (scenes[:1], tmp_path / "maps", dataclasses.replace(options, class_raster=str(scenes[0]))),
    ]
    for inputs, output, given in cases:
        for verb in (plan_batch, run_batch):
            with pytest.raises(UsageError, match="is the input itself"):
                verb(inputs, output, given)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_a_run_that_cannot_begin_leaves_nothing(bundle: Path, tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "s.tif", texture(64, 64))
    options = BatchOptions(model=str(bundle), device="nonsense")
    with pytest.raises(UsageError, match="--device nonsense cannot be used"):
        run_batch([raster], tmp_path / "new" / "maps", options)
    assert not (tmp_path / "new").exists()
    (tmp_path / "maps").mkdir()
    with pytest.raises(UsageError, match="--device nonsense cannot be used"):
        run_batch([raster], tmp_path / "maps", options)
    assert list((tmp_path / "maps").iterdir()) == []
    other = write_raster(tmp_path / "t.tif", texture(64, 64, 1))
    run_batch([raster], tmp_path / "maps", dataclasses.replace(options, device="cpu"))
    before = read_status(tmp_path / "maps")["scenes"]
    with pytest.raises(UsageError, match="--device nonsense cannot be used"):
        run_batch([raster, other], tmp_path / "maps", options)
    found = read_status(tmp_path / "maps")
    assert found["scenes"][:1] == before
    assert [run["outcome"] for run in found["runs"]] == ["done", "stopped"]


def test_a_row_sets_what_the_options_say_that_a_row_may(tmp_path: Path) -> None:
    """Every declared option: those of a row are columns, and its paths start from its folder.

    No row sets what destroys or runs code.
    """
    columns = {found.key: found for found in options_of(BatchSceneOptions) if found.declaration.row}
    texts = {"integer": "1", "number": "0.5", "boolean": "yes", "string": "x"}
    own = {
        "crs": "EPSG:4326",
        "assume-crs": "EPSG:32633",
        "stretch": "minmax",
        "tile-size": "64px",
        "cell-size": "400m",
        "date": "2024-06-01",
        "bounds": "0,0,1,1",
        "aoi": "area.gpkg",
    }
    (tmp_path / "area.gpkg").touch()
    for key, found in columns.items():
        kind = found.declaration.kind
        commas = kind.name.count(",") if kind.json_type == "array" else 0
        text = ",".join(["1"] * (commas + 1)) if commas else texts[kind.json_type]
        text = own.get(key, text) + next(iter(kind.suffixes), "")
        (tmp_path / "list.csv").write_text(f'input,{key}\na.tif,"{text}"\nb.tif,\n')
        jobs = collect_jobs([str(tmp_path / "list.csv")], "maps", BatchOptions())
        assert jobs.problems == (), key
        value = getattr(jobs.jobs[0].options, found.name)
        assert value == (str(tmp_path / text) if found.declaration.path else found.parse(text))
        assert getattr(jobs.jobs[1].options, found.name) == found.default
    assert {"tile-size", "min-area", "aoi", "preview"} <= columns.keys()
    for found in options_of(BatchOptions):
        if found.key in columns:
            continue
        (tmp_path / "list.csv").write_text(f"input,{found.key}\na.tif,1\n")
        (problem,) = collect_jobs([str(tmp_path / "list.csv")], "maps", BatchOptions()).problems
        assert f"unknown column(s) {found.key!r}" in problem.message


GRIDS = (
    TileGrid((300, 500), (64, 64), (40, 50)),
    BlockGrid((300, 500), (20, 30), cell_pixels=32, side=4, halo=2),
)


def test_a_file_of_classes_is_read_once_for_all_scenes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "two.txt").write_text("water\nforest\n")
    (tmp_path / "three.json").write_text('{"water": [], "forest": [], "field": ["corn"]}')
    (tmp_path / "scenes.csv").write_text(
        "input,classes\na.tif,\nb.tif,three.json\nc.tif,\nd.tif,three.json\ne.tif,two.txt\n"
    )
    opened, files = open, []

    def noting(file: Any, *args: Any, **kwargs: Any) -> Any:
        files.append(Path(str(file)).name)
        return opened(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", noting)
    options = BatchOptions(classes=str(tmp_path / "two.txt"))
    jobs = collect_jobs([str(tmp_path / "scenes.csv")], str(tmp_path / "{id}.gpkg"), options).jobs
    assert sorted(set(files) - {"scenes.csv"}) == ["three.json", "two.txt"]
    assert (files.count("three.json"), files.count("two.txt")) == (1, 1)
    named = [[name for name, _ in job.words.words] for job in jobs if job.words is not None]
    two, three = ["water", "forest"], ["water", "forest", "field"]
    assert named == [two, three, two, three, two]


@pytest.mark.parametrize("embed", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
def test_results_survive_the_way_as_arrays(grid: TileGrid | BlockGrid, embed: bool) -> None:
    random = np.random.default_rng(0)
    results = []
    for tile in grid.tiles():
        rows, cols = grid.cells_of_tile(tile)
        fractions = random.random((len(rows), len(cols)), np.float32)
        seen = random.random() < 0.5
        each = fractions.shape if isinstance(grid, BlockGrid) else ()
        probabilities = random.random((*each, 3), np.float32) if seen else None
        captions = [f"{tile.index}, {k}" for k in range(fractions.size if each else 1)]
        familiarity = random.random(each, np.float32) if each else random.random()
        results.append(
            TileResult(
                tile,
                random.random(),
                fractions,
                probabilities,
                captions if seen else ("",),
                familiarity if seen else math.nan,
                random.random((*fractions.shape, 3), np.float32),
                random.random((*each, 5), np.float32) if seen and embed else None,
            )
        )
    packed = BlockResult.pack(results, classes=3, reading_s=0, model_s=0, worker="")
    found = packed.unpack(grid)
    assert [result.tile for result in found] == [result.tile for result in results]
    for before, after in zip(results, found, strict=True):
        if before.probabilities is None:
            assert after.probabilities is None
            assert not after.cell_fractions.any()
            continue
        assert before.valid_fraction == after.valid_fraction
        assert list(before.captions) == list(after.captions)
        np.testing.assert_array_equal(before.cell_fractions, after.cell_fractions)
        np.testing.assert_array_equal(before.probabilities, after.probabilities)
        np.testing.assert_allclose(before.familiarity, after.familiarity)
        np.testing.assert_array_equal(before.colors, after.colors)
        assert (after.embeddings is not None) == embed
        if embed:
            np.testing.assert_array_equal(before.embeddings, after.embeddings)


def test_time_left_counts_only_what_this_run_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    tracker = Tracker(4)
    tracker.skip({"cells": 1, "classes": []})
    tracker.start("x", tiles=100, done=50)
    assert tracker.now().seconds_left is None
    clock[0] += 10
    tracker.advance("x", done=75, tiles=25, looked=25)
    now = tracker.now()
    assert now.done_share == pytest.approx(1.75 / 4)
    assert now.seconds_left == pytest.approx(2.25 / 0.25 * 10)
    assert now.tiles_per_s == pytest.approx(2.5)


def test_a_client_needs_no_torch() -> None:
    import subprocess

    code = "import sys, rssc_geo.batch.batch; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "name", ["{x}", "{id", "{0}", "{id!r}", "{id.__class__}", "{id:>999999999}"]
)
def test_templates_hold_stem_and_id_alone(tmp_path: Path, name: str) -> None:
    jobs = collect_jobs(["a.tif"], f"{tmp_path}/{name}.gpkg", BatchOptions())
    assert "is no template" in jobs.problems[0].message


@pytest.mark.parametrize("row", ["x" * 200_000, '"a.tif'])
def test_a_manifest_that_is_no_table_is_one_line(tmp_path: Path, row: str) -> None:
    (tmp_path / "list.csv").write_text(f"input\n{row}\n")
    jobs = collect_jobs([f"{tmp_path}/list.csv"], f"{tmp_path}/{{id}}.gpkg", BatchOptions())
    assert "list.csv cannot be read as a manifest: line 2" in jobs.problems[0].message


@pytest.mark.skipif(sys.platform != "linux", reason="names that other systems do not allow")
@pytest.mark.parametrize("name", ["in", "in/*.tif"])
def test_a_file_whose_name_is_no_text_fails_alone(bundle: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    raster = write_raster(tmp_path / "in" / "good.tif", texture(64, 64))
    shutil.copy(raster, os.fsencode(tmp_path / "in") + b"/\xff.tif")
    options = BatchOptions(model=str(bundle), device="cpu")
    result = run_batch([tmp_path / name], tmp_path / "maps", options)
    assert result.done == 1
    (problem,) = result.failed
    assert r"\udcff.tif is not UTF-8; rename the file" in str(problem)
    assert [problem["label"] for problem in read_status(tmp_path / "maps")["problems"]] == [
        f"{tmp_path}/in/\\udcff.tif"
    ]


def test_a_scene_that_is_listed_twice_is_mapped_once(tmp_path: Path) -> None:
    raster = write_raster(tmp_path / "a.tif", texture(64, 64))
    (tmp_path / "list.csv").write_text("input,tile-size\na.tif,\na.tif,32px\n")
    again = tmp_path / "list.csv" / ".." / "a.tif"
    names = [str(raster), f"{tmp_path}/*.tif", str(again), f"{tmp_path}/list.csv"]
    jobs = collect_jobs(names, f"{tmp_path}/maps", BatchOptions())
    assert [job.source for job in jobs.jobs] == [(str(raster),)]
    (problem,) = jobs.problems
    assert "is that of" in problem.message, "other options are another scene"


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("in", "in/a_class.tif"),
        ("in/*.tif", "in/a_class.tif"),
        ("in/a*", "in/a.gpkg"),
        ("*/*.tif", "in/a_class.tif"),
        ("**/*.tif", "in/b_class.tif"),
        ("**/in/*", "in/a.gpkg"),
        ("in/?.tif", ""),
        ("*.tif", ""),
        ("in/a.tif", ""),
    ],
)
def test_results_that_the_next_run_would_read_are_refused(
    bundle: Path, tmp_path: Path, name: str, refused: str
) -> None:
    (tmp_path / "in").mkdir()
    write_raster(tmp_path / "in" / "a.tif", texture(64, 64))
    write_raster(tmp_path / "b.tif", texture(64, 64))
    folder = tmp_path / "in"
    options = BatchOptions(model=str(bundle), class_raster=f"{folder}/{{id}}_class.tif")
    if not refused:
        plan_batch([tmp_path / name], folder, options)
        return
    with pytest.raises(UsageError, match=f"{refused} would be an input of the next run"):
        plan_batch([tmp_path / name], folder, options)


def test_of_workers_for_named_classes_the_one_unused_for_longest_goes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With --refine the words as given are needed for every scene, refined ones for one."""
    monkeypatch.setattr("rssc_geo.batch.worker._NAMED", 2)
    predictor = load_predictor(PredictorOptions(device="cpu"))
    size = predictor.spec.card.input_size
    worker = Worker(predictor.spec, predictor, input_size=size, reading_threads=1, name="cpu")
    river, beach, harbor = (
        ClassWords.of([name, "forest"], other=False) for name in ("river", "beach", "harbor")
    )
    first, second = worker.named(river), worker.named(beach)
    assert worker.named(river) is first
    worker.named(harbor)
    assert worker.named(river) is first
    assert worker.named(beach) is not second
