"""Files that are kept between runs have a version and checksums, by which damage is detected.

``data/kept-6`` holds a file of each kind as the present program writes it: a part file, a journal,
a cache of captions, a checkpoint of a training; the folders before it those of earlier schemas.
"""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import nn

from rssc_geo.batch import NAME, Journal, SceneFigures, read_journal, signatures, unchanged
from rssc_geo.captioning import CaptionCache
from rssc_geo.errors import InputError, OutputError, RsscGeoError
from rssc_geo.output import PartFile, Row
from rssc_geo.training import LoopOptions, Task, fit, is_kept, keeping

DATA = Path(__file__).parent / "data"
KEY = {"input": "abc", "options": {"cell_size": [64, 64]}, "name": "naïve 🌲"}
CAPTION = {b"k" * 32: "a river ."}
FUZZ_S, TRIES = 5.0, 500  # for each kind at most; on a slow disk at least 40 damages


def rows(first: int, count: int) -> list[Row]:
    return [
        (index, 7, 1, 0.75, 2, 0.5, f"caption {index} 'quoted' \"é\"", b"\0\1", 0.25, b"\2", b"\3")
        for index in range(first, first + count)
    ]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The files of the present schema, to be changed."""
    return Path(shutil.copytree(DATA / "kept-6", tmp_path / "kept"))


def one_line(caught: pytest.ExceptionInfo[BaseException]) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def all_rows(part: PartFile) -> list[tuple[object, ...]]:
    return [row for chunk in part.read("*") for row in chunk]


class Steps(Task[torch.Tensor]):
    """The training whose second epoch the checkpoint has kept."""

    name = "golden"

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Linear(2, 1)
        self.seen: list[int] = []

    def batches(self, epoch: int) -> list[torch.Tensor]:
        self.seen.append(epoch)
        return [torch.ones(1, 2) * (epoch + 1)]

    def loss(self, batch: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = self.network(batch).square().mean()
        return value


def learn(checkpoint: Path, made_of: str = "golden", epochs: int = 3) -> Steps:
    task = Steps()
    optimizer = torch.optim.SGD(task.network.parameters(), lr=0.1, momentum=0.5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    fit(task, optimizer, schedule, LoopOptions(epochs, checkpoint=checkpoint, made_of=made_of))
    return task


# The present schema is read.


def test_files_of_the_present_schema_are_read(kept: Path) -> None:
    with PartFile(kept / "map.gpkg.part", KEY) as part:
        assert (part.watermark, len(part)) == (30, 3)
        assert part.steps == {"golden": {"cells": 3, "done": True}}
        assert all_rows(part) == rows(0, 3)
        part.append(rows(3, 1), 40)
    (scene,) = read_journal(kept)["scenes"]
    assert (scene["output"], scene["state"], scene["classes"]) == (
        "a.gpkg",
        "done",
        [{"name": "River", "cells": 4, "area_m2": 12.5}],
    )
    with Journal(kept, options={}) as journal:
        found = journal.scene("a.gpkg")
        assert found is not None
        assert found["warnings"] == ["one"]
        journal.fail_scene("a.gpkg", "gone", again=False, opened=False)
    assert read_journal(kept)["scenes"][0]["state"] == "failed"
    assert CaptionCache(kept / "captions.sqlite").get(CAPTION) == CAPTION
    task = learn(kept / "loop.safetensors")
    assert task.seen == [2]
    whole = learn(kept / "another.safetensors")
    for found_weight, weight in zip(
        task.network.parameters(), whole.network.parameters(), strict=True
    ):
        assert torch.equal(found_weight, weight)


# Others are refused in one line, or made again.


def test_files_of_the_first_schema_are_refused_or_made_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = Path(shutil.copytree(DATA / "kept-1", tmp_path / "old"))
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    with pytest.raises(OutputError) as caught:
        PartFile(old / "map.gpkg.part", KEY)
    assert "map.gpkg.part is no part file of this program" in one_line(caught)
    for use in (lambda: read_journal(old), lambda: Journal(old, options={})):
        with pytest.raises(OutputError) as caught:
            use()
        assert "is a journal of format 1, this program writes 3" in one_line(caught)
    assert CaptionCache(old / "captions.sqlite").get(CAPTION) == {}
    CaptionCache(old / "captions.sqlite").put(CAPTION, captioner="hf:model")
    assert "it is no cache of captions of this version" in caplog.text
    assert {name: (old / name).read_bytes() for name in before} == before
    assert learn(old / "loop.safetensors").seen == [0, 1, 2]
    assert "loop.safetensors is made again" in caplog.text


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_part_file_of_an_earlier_schema_is_made_anew(
    tmp_path: Path, version: int, caplog: pytest.LogCaptureFixture
) -> None:
    old = Path(shutil.copytree(DATA / f"kept-{version}", tmp_path / "old"))
    with PartFile(old / "map.gpkg.part", KEY) as part:
        assert (part.watermark, len(part)) == (0, 0)
    assert f"it is of version {version}, this program writes 5" in caplog.text


def test_a_journal_of_an_earlier_schema_is_refused(tmp_path: Path) -> None:
    old = Path(shutil.copytree(DATA / "kept-5", tmp_path / "old"))
    before = (old / NAME).read_bytes()
    for use in (lambda: read_journal(old), lambda: Journal(old, options={})):
        with pytest.raises(OutputError) as caught:
            use()
        assert "is a journal of format 2, this program writes 3" in one_line(caught)
    assert (old / NAME).read_bytes() == before


def test_later_schemas_are_refused_or_made_anew(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, statement in (
        ("map.gpkg.part", "PRAGMA user_version = 6"),
        (NAME, "UPDATE meta SET format = 4"),
        ("captions.sqlite", "PRAGMA user_version = 3"),
    ):
        with closing(sqlite3.connect(kept / name)) as connection:
            connection.execute(statement)
            connection.commit()
    with PartFile(kept / "map.gpkg.part", KEY) as part:
        assert (part.watermark, len(part)) == (0, 0)
    assert "it is of version 6, this program writes 5" in caplog.text
    with pytest.raises(OutputError, match="is a journal of format 4, this program writes 3"):
        read_journal(kept)
    assert CaptionCache(kept / "captions.sqlite").get(CAPTION) == {}
    mark = kept / "loop.safetensors.mark"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "schema": 3}))
    assert learn(kept / "loop.safetensors").seen == [0, 1, 2]


def test_a_part_file_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "map.gpkg.part"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE mine (a)")
        other.commit()
    for content in (path.read_bytes(), b"half a download", b"\0" * 5000):
        path.write_bytes(content)
        with pytest.raises(OutputError) as caught:
            PartFile(path, KEY)
        assert "move it away or delete it" in one_line(caught)
        assert path.read_bytes() == content
        assert [each.name for each in tmp_path.iterdir()] == [path.name]


# Files of other inputs are made again.


def test_a_checkpoint_of_other_content_is_not_gone_on_from(
    kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert learn(kept / "loop.safetensors", made_of="other pictures").seen == [0, 1, 2]
    assert "made of other pictures, weights or options" in caplog.text


def test_a_crash_between_mark_and_file_loses_neither(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.bin"
    with keeping(path, "one") as made:
        made.write_bytes(b"first")
    replace = Path.replace

    def crash(self: Path, target: Path) -> Path:
        if target == path:
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt), keeping(path, "one") as made:
        made.write_bytes(b"second")
    assert path.read_bytes() == b"first"
    assert is_kept(path, "one")
    monkeypatch.undo()
    with keeping(path, "one") as made:
        made.write_bytes(b"third")
    assert is_kept(path, "one")
    path.write_bytes(b"thirD")
    assert not is_kept(path, "one")


def test_a_file_of_the_same_size_and_time_but_other_content_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(bytes(200_000))
    known = signatures([file], tmp_path)
    stat = file.stat()
    assert unchanged(known, tmp_path)
    shutil.copy2(file, tmp_path / "copy")
    (tmp_path / "copy").replace(file)  # another entry, the same content
    assert unchanged(known, tmp_path)
    content = bytearray(200_000)
    content[150_000:190_000] = b"\1" * 40_000
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not unchanged(known, tmp_path)


# Damage.


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Flipped bits, zeros, a page of zeros, or a cut."""
    spoilt = bytearray(content)
    at = chance.randrange(len(spoilt))
    kind = chance.choice(["flip", "flip", "zeros", "page", "cut"])
    if kind == "flip":
        spoilt[at] ^= 1 << chance.randrange(8)
    elif kind == "zeros":
        spoilt[at : at + 64] = bytes(len(spoilt[at : at + 64]))
    elif kind == "page":
        at -= at % 4096
        spoilt[at : at + 4096] = bytes(len(spoilt[at : at + 4096]))
    else:
        del spoilt[at:]
    return bytes(spoilt)


def fuzz(path: Path, use: Callable[[], None]) -> None:
    """Spoil a file again and again; ``use`` asserts, or raises an error of one line."""
    chance, content, end = random.Random(17), path.read_bytes(), time.monotonic() + FUZZ_S
    tries = 0
    while tries < 40 or (tries < TRIES and time.monotonic() < end):
        tries += 1
        path.write_bytes(damaged(content, chance))
        try:
            use()
        except RsscGeoError as error:
            assert "\n" not in str(error)  # noqa: PT017 -- either is right
        for left in path.parent.glob(f"{path.name}-*"):
            left.unlink()


def test_no_damage_to_a_part_file_changes_a_map(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    path = tmp_path / "map.gpkg.part"
    with PartFile(path, KEY) as part:
        for first in range(0, 60, 20):
            part.append(rows(first, 20), first + 20)

    def resume() -> None:
        with PartFile(path, KEY) as part:
            start = part.watermark
            assert start in {0, 60}
            part.append(rows(start, 80 - start), 80)
            assert part.is_whole()
            assert all_rows(part) == rows(0, 80)

    fuzz(path, resume)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE meta SET watermark = 7",
        "UPDATE meta SET watermark = 'abc'",
        "UPDATE cells SET class_id = 999 WHERE row = 0",
        "UPDATE cells SET class_id = -1 WHERE row = 0",
        "UPDATE cells SET row = 9999 WHERE row = 0",
        "UPDATE cells SET confidence = 5 WHERE row = 0",
        "UPDATE cells SET caption = x'ff00' WHERE row = 0",
        "DELETE FROM cells WHERE row = 0",
        "INSERT INTO meta SELECT * FROM meta",
        "DELETE FROM meta",
        "DROP TABLE cells",
    ],
)
def test_a_part_file_changed_by_others_is_started_anew(
    kept: Path, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(sqlite3.connect(kept / "map.gpkg.part")) as connection:
        connection.execute(statement)
        connection.commit()
    with PartFile(kept / "map.gpkg.part", KEY) as part:
        assert (part.watermark, len(part)) == (0, 0)
        part.append(rows(0, 2), 2)
    assert "it is damaged" in caplog.text
    assert len(caplog.records) == 1


def test_no_damage_to_a_journal_goes_unnoticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Some damage looks to SQLite like a file that another process holds.
    monkeypatch.setattr("rssc_geo.batch.journal._BUSY_S", 0.1)
    caplog.set_level(logging.ERROR)
    path = tmp_path / NAME
    with Journal(tmp_path, options={}) as journal:
        for number in range(20):
            key = f"{number}.gpkg"
            scene = {"output": key, "id": key, "input": f"{number}.tif", "options_hash": "00ff"}
            journal.await_scenes([{**scene, "input_files": []}])
            figures = SceneFigures(number, [{"name": "River", "cells": number}], 1.0, 0.5, 0.2, 0.3)
            journal.finish_scene(key, figures, [])
    whole = read_journal(tmp_path)["scenes"]

    def use() -> None:
        assert read_journal(tmp_path)["scenes"] == whole
        with Journal(tmp_path, options={}) as journal:
            for scene in whole:
                found = journal.scene(scene["output"])
                assert found is not None
                assert {**found, "blocks": {}} == scene

    fuzz(path, use)


def test_no_damage_to_a_cache_gives_another_caption(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    path = tmp_path / "captions.sqlite"
    captions = {bytes([n]) * 32: f"caption {n}" for n in range(60)}
    CaptionCache(path).put(captions, captioner="hf:model")

    def use() -> None:
        cache = CaptionCache(path)
        assert cache.get(captions).items() <= captions.items()
        cache.put(captions, captioner="hf:model")
        assert cache.get(captions).items() <= captions.items()

    fuzz(path, use)


@pytest.mark.slow
def test_no_damage_to_a_checkpoint_changes_a_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    path = tmp_path / "loop.safetensors"
    learn(path, epochs=2)
    mark = path.with_name("loop.safetensors.mark")
    marked = mark.read_bytes()
    right = [value.clone() for value in learn(tmp_path / "whole.safetensors").network.parameters()]

    def use() -> None:
        mark.write_bytes(marked)
        task = learn(path)
        for value, expected in zip(task.network.parameters(), right, strict=True):
            assert torch.equal(value, expected)

    fuzz(path, use)


def test_an_unknown_journal_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no"):
        read_journal(tmp_path)
