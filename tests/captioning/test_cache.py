"""The cache of captions.

What is asked again, what is kept, and what a spoilt file does (nothing).
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rssc_geo.captioning import (
    FOLDER_VARIABLE,
    CachedCaptioner,
    CaptionBatch,
    CaptionCache,
    default_path,
)
from rssc_geo.errors import OutputError
from rssc_geo.models import CaptionSource
from tests.users import without_privileges


@dataclass
class Counting:
    """Captions are numbered as they are written, so that each can be told from the others."""

    name: str = "hf:model"
    parameters: Mapping[str, str | int | float | None] = field(
        default_factory=lambda: {"prompt": "What?"}
    )
    source: CaptionSource = "written"
    seen: list[np.ndarray] = field(default_factory=list)

    def caption(self, batch: CaptionBatch) -> list[str]:
        self.seen.extend(batch.pixels)
        assert len(batch.image_tokens) == len(batch.mask) == len(batch.pixels)
        return [
            f"caption {len(self.seen) - len(batch.pixels) + place + 1}"
            for place in range(len(batch.pixels))
        ]


class Failing(Counting):
    """Gives two captions, the last first, and then fails."""

    def stream_captions(self, batch: CaptionBatch) -> Iterator[tuple[int, str]]:
        yield len(batch.pixels) - 1, "last"
        yield 0, "first"
        raise ConnectionError


def tiles(*shades: int, texture: float = 0) -> CaptionBatch:
    noise = np.random.default_rng(sum(shades)).normal(0, texture, (len(shades), 32, 32, 3))
    pixels = (np.array(shades, float)[:, None, None, None] + noise).clip(0, 255).astype(np.uint8)
    return CaptionBatch(
        pixels, np.ones((len(shades), 32, 32), bool), torch.zeros(len(shades), 2, 3)
    )


@pytest.fixture
def cache(tmp_path: Path) -> CaptionCache:
    return CaptionCache(tmp_path / "deep" / "captions.sqlite")


def test_only_new_tiles_are_asked_for_and_twins_once(cache: CaptionCache) -> None:
    first = Counting()
    assert CachedCaptioner(first, cache).caption(tiles(1, 2, 1)) == [
        "caption 1",
        "caption 2",
        "caption 1",
    ]
    again = Counting()
    captioner = CachedCaptioner(again, CaptionCache(cache.path))
    assert captioner.caption(tiles(2, 3, 1)) == ["caption 2", "caption 1", "caption 1"]
    assert captioner.asked == len(again.seen) == 1
    assert again.seen[0][0, 0].tolist() == [3, 3, 3]


def test_every_part_of_the_key_counts(cache: CaptionCache) -> None:
    batch = tiles(5)
    holed = tiles(5)
    holed.mask[0, 0, 0] = False
    flat = CaptionBatch(
        batch.pixels.reshape(1, 16, 64, 3), batch.mask.reshape(1, 16, 64), batch.image_tokens
    )
    cases = [
        (Counting(), batch),
        (Counting(), holed),
        (Counting(), flat),
        (Counting(), tiles(6)),
        (Counting(name="hf:other"), batch),
        (Counting(parameters={"prompt": "Why?"}), batch),
        (Counting(parameters={"prompt": "What?", "revision": "abc"}), batch),
    ]
    for captioner, case in cases:
        CachedCaptioner(captioner, cache).caption(case)
        assert len(captioner.seen) == 1
    assert cache.info()["captions"] == len(cases)
    banded = (
        batch.pixels.transpose(0, 3, 1, 2).copy().transpose(0, 2, 3, 1)
    )  # as the reader delivers them
    same = Counting()
    CachedCaptioner(same, cache).caption(CaptionBatch(banded, batch.mask, batch.image_tokens))
    assert same.seen == []


def test_what_came_before_a_failure_is_kept(cache: CaptionCache) -> None:
    with pytest.raises(ConnectionError):
        CachedCaptioner(Failing(), cache).caption(tiles(1, 2, 3))
    rest = Counting()
    assert CachedCaptioner(rest, cache).caption(tiles(1, 2, 3)) == ["first", "caption 1", "last"]


def test_tiles_that_look_the_same_share_a_caption_when_asked(cache: CaptionCache) -> None:
    water = tiles(104, 105, 106, texture=4)
    assert len(set(CachedCaptioner(Counting(), cache).caption(water))) == 3
    assert CachedCaptioner(Counting(), cache, share=True).caption(water) == ["caption 1"] * 3
    later = Counting()
    captioner = CachedCaptioner(later, cache, share=True)
    assert captioner.caption(tiles(103, 30, texture=4)) == [
        "caption 1",
        "caption 1",
    ]  # the first known, the second new
    assert len(later.seen) == 1
    holed = tiles(104, texture=4)
    holed.mask[0, 0, 0] = False
    assert captioner.caption(holed) == ["caption 2"]


def test_sharing_does_not_need_a_cache_that_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    captioner = CachedCaptioner(
        Counting(), CaptionCache(tmp_path / "file" / "captions.sqlite"), share=True
    )
    assert (
        captioner.caption(tiles(104, texture=4))
        == captioner.caption(tiles(105, texture=4))
        == ["caption 1"]
    )
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "captions are not cached" in caplog.text


def test_a_damaged_file_is_set_aside(cache: CaptionCache, caplog: pytest.LogCaptureFixture) -> None:
    CachedCaptioner(Counting(), cache).caption(tiles(1))
    for _ in range(2):  # the second time in place of the one that lies there
        spoilt = cache.path.read_bytes()[:4096] + b"?" * 4096
        cache.path.write_bytes(spoilt)
        captioner = Counting()
        assert CachedCaptioner(captioner, cache).caption(tiles(1)) == ["caption 1"]
        assert "damaged" in caplog.text
        assert cache.path.with_name("captions.sqlite.damaged").read_bytes() == spoilt
        again = CachedCaptioner(Counting(), CaptionCache(cache.path))
        assert again.caption(tiles(1)) == ["caption 1"]
        assert again.asked == 0
    assert cache.info()["captions"] == 1
    cache.clear()
    assert [path.name for path in cache.path.parent.iterdir()] == ["captions.sqlite"]


def test_files_of_others_are_left_alone(
    cache: CaptionCache, caplog: pytest.LogCaptureFixture
) -> None:
    """With the name of the cache, of its journal, of one set aside; also behind a link."""
    CachedCaptioner(Counting(), cache).caption(tiles(1))
    whole, folder = cache.path.read_bytes(), cache.path.parent
    torn = whole[:4096] + b"?" * 4096
    geopackage = whole[:68] + b"GPKG" + whole[72:4096] + b"?" * 4096
    for name, content, own in (
        ("captions.sqlite", b"not SQLite at all, " * 100, None),
        ("captions.sqlite", b"short", None),
        ("captions.sqlite", bytes(8192), None),
        ("captions.sqlite", geopackage, None),
        ("captions.sqlite-journal", b"what I did today", whole),
        ("captions.sqlite.damaged", b"precious", torn),
    ):
        for path in folder.iterdir():
            path.unlink()
        if own is not None:
            cache.path.write_bytes(own)
        (folder / name).write_bytes(content)
        caplog.clear()
        again = CaptionCache(cache.path)
        captioner = CachedCaptioner(Counting(), again)
        assert captioner.caption(tiles(1)) == ["caption 1"]
        assert len(caplog.records) == 1, name
        assert "captions are not cached" in caplog.text
        assert (folder / name).read_bytes() == content
        if own is not None:
            assert cache.path.read_bytes() == own
        if name != "captions.sqlite.damaged":
            with pytest.raises(OutputError):
                again.clear()
        else:
            cache.path.unlink()
            again.clear()
        assert (folder / name).read_bytes() == content
    cache.path.symlink_to(folder / "captions.sqlite.damaged")
    CachedCaptioner(Counting(), CaptionCache(cache.path)).caption(tiles(1))
    assert cache.path.is_symlink()
    assert cache.path.read_bytes() == content


def test_a_file_that_another_process_has_set_aside_is_not_again(
    cache: CaptionCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have found the damage; the other has made a new file, with captions in it."""
    CachedCaptioner(Counting(), cache).caption(tiles(1))
    spoilt = cache.path.read_bytes()[:4096] + b"?" * 4096
    cache.path.write_bytes(spoilt)
    opened = CaptionCache._opened
    other = CaptionCache(cache.path)

    def slow(self: CaptionCache) -> Any:
        if self is cache:
            monkeypatch.setattr(CaptionCache, "_opened", opened)
            CachedCaptioner(Counting(), other).caption(tiles(1, 2))
            raise sqlite3.DatabaseError("malformed")
        return opened(self)

    monkeypatch.setattr(CaptionCache, "_opened", slow)
    captioner = Counting()
    assert CachedCaptioner(captioner, cache).caption(tiles(2)) == ["caption 2"]
    assert captioner.seen == []
    assert cache.path.with_name("captions.sqlite.damaged").read_bytes() == spoilt


@pytest.mark.skipif(sys.platform != "linux", reason="permissions of POSIX")
def test_a_file_that_cannot_be_written_is_read(
    cache: CaptionCache, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where a caption in it is damaged, and after a new one could not be kept."""
    CachedCaptioner(Counting(), cache).caption(tiles(1, 2, 3))
    with closing(sqlite3.connect(cache.path)) as connection, connection:
        connection.execute("UPDATE captions SET mark = x'00' WHERE caption = 'caption 3'")
    cache.path.chmod(0o444)
    with without_privileges():
        captioner = Counting()
        cached = CachedCaptioner(captioner, CaptionCache(cache.path))
        assert cached.caption(tiles(1, 3)) == ["caption 1", "caption 1"]
        assert cached.caption(tiles(2)) == ["caption 2"]
        assert len(captioner.seen) == 1
    assert caplog.text.count("captions are not cached") == 1


def test_pages_torn_in_the_middle_cost_the_captions_only(cache: CaptionCache) -> None:
    captioner = CachedCaptioner(Counting(), cache)
    captioner.caption(tiles(*range(200)))
    content = bytearray(cache.path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    cache.path.write_bytes(content)
    survivor = Counting()
    assert (
        len(CachedCaptioner(survivor, CaptionCache(cache.path)).caption(tiles(*range(200)))) == 200
    )
    assert len(survivor.seen) == 200


def test_a_file_that_cannot_be_written_costs_one_warning(
    cache: CaptionCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.path.parent.mkdir()
    with closing(sqlite3.connect(cache.path)) as other:
        other.execute(
            "CREATE VIEW captions AS SELECT x'00' AS key, 'no' AS caption, 'one' AS captioner"
        )
        other.commit()
    captioner = CachedCaptioner(Counting(), cache)
    assert captioner.caption(tiles(1)) == ["caption 1"]
    assert captioner.caption(tiles(1)) == ["caption 2"]
    assert caplog.text.count("captions are not cached") == 1


@pytest.mark.parametrize("folder", ["/", "."])
def test_a_folder_is_no_cache(folder: str, caplog: pytest.LogCaptureFixture) -> None:
    """Not even one without a name of its own."""
    captioner = CachedCaptioner(Counting(), CaptionCache(folder))
    assert captioner.caption(tiles(1)) == ["caption 1"]
    assert "is a folder" in caplog.text
    assert caplog.text.count("captions are not cached") == 1


_WRITER = """
import sys
from rssc_geo.captioning.cache import CaptionCache
cache, start = CaptionCache(sys.argv[1]), int(sys.argv[2])
for number in range(start, start + 40):
    cache.put({number.to_bytes(4, "big"): f"caption {number}"}, captioner=f"process {start}")
"""


def test_processes_write_at_the_same_time(cache: CaptionCache) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, cache.path, str(start)], stderr=subprocess.PIPE
        )
        for start in (0, 20, 40)
    ]
    for writer in writers:
        assert writer.communicate()[1] == b""
        assert writer.returncode == 0
    assert cache.info()["captions"] == 80
    assert cache.get([n.to_bytes(4, "big") for n in range(100)])[b"\0\0\0\x4f"] == "caption 79"


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert default_path().parent == tmp_path
    monkeypatch.delenv(FOLDER_VARIABLE)
    assert "rssc-geo" in str(default_path())
    assert CaptionCache(tmp_path / "none.sqlite").info()["captions"] == 0
    assert not (tmp_path / "none.sqlite").exists()
    (tmp_path / "spoilt").write_bytes(b"x" * 4096)
    with pytest.raises(OutputError, match="spoilt cannot be used"):
        CaptionCache(tmp_path / "spoilt").info()
