"""A configuration file is read once, whatever it is and holds; other text files as it is."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from rssc_geo.batch import collect_jobs
from rssc_geo.options import BatchOptions
from rssc_geo.output import read_legend
from rssc_geo.pipelines import read_class_words, read_classes
from rssc_geo.texts import read_text
from tests.factories import texture, write_raster

from .conftest import Outcome, Rssc

HOSTILE = {
    "lists in lists": ("a=" + "[" * 3000 + "]" * 3000, "nested too deeply"),
    "tables in tables": ("a=" + "{b=" * 3000 + "1" + "}" * 3000, "nested too deeply"),
    "a decimal number": ("batch-size=" + "9" * 5000, "is no TOML"),
    "a hexadecimal number": ("batch-size=0x" + "f" * 5000, "--batch-size is a number of too many"),
    "a list of numbers": ("bands=[1,2,0x" + "f" * 5000 + "]", "--bands is a number of too many"),
    "a long text": ("tile-size='96px'\nbatch-size='" + "x" * 5000 + "'", "is not a whole number"),
    "a name of no file": (r'log-file="a\u0000b"', "--log-file a\\x00b cannot be written"),
    "no text": (b"tile-size = '\xff'", "is no TOML"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_odd_content_is_one_line(case: str, rssc: Rssc, tmp_path: Path) -> None:
    content, message = HOSTILE[case]
    file = tmp_path / "own.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = rssc("classify", "none.tif", "-o", tmp_path / "map.gpkg", "--config", file)
    assert (done.code, done.out) == (2, "")
    assert message in done.message
    assert len(done.message) < 500


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_counts_as_a_file_does(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def told(content: str) -> Outcome:
        writer = threading.Thread(target=pipe.write_text, args=(content,), daemon=True)
        writer.start()
        done = rssc("info", scene, "--config", pipe)
        writer.join(10)
        return done

    assert json.loads(told("json = true\ntile-size = '96px'").out)["tile_size_px"] == [96, 96]
    assert json.loads(told("json = true\nfoo = 1").out)["error"]["exit_code"] == 2
    assert "is no TOML" in told("json = tru").message


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs a device that never ends")
def test_a_device_that_never_ends_is_left(
    rssc: Rssc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rssc_geo.texts._LARGEST_TEXT", 1 << 20)
    done = rssc("models", "list", "--config", "/dev/zero")
    assert (done.code, "larger than 256 MiB" in done.message) == (2, True)
    endless = tmp_path / "scenes.csv"
    endless.symlink_to("/dev/zero")
    done = rssc("batch", "run", endless, "-o", tmp_path / "maps", "--dry-run")
    assert "scenes.csv cannot be read as a manifest: it is larger than 256 MiB" in done.err


def test_a_byte_order_mark_is_no_part_of_a_text(rssc: Rssc, scene: Path, tmp_path: Path) -> None:
    def marked(name: str, content: str) -> str:
        file = tmp_path / name
        file.write_text(content, encoding="utf-8-sig")
        return str(file)

    assert read_text(marked("a.txt", "a\r\nb")) == "a\r\nb"
    config = marked("own.toml", "tile-size = '96px'\n")
    told = json.loads(rssc("info", scene, "--config", config, "--json").out)
    assert told["tile_size_px"] == [96, 96]
    assert read_classes(marked("names.txt", "River\nTown\n")) == ["River", "Town"]
    many = [f"town {number}" for number in range(400)]  # longer than the name of a file can be
    assert read_classes(",".join(many)) == many
    assert read_class_words(marked("words.json", '{"a": ["b"]}')) == {"a": ["b"]}
    legend = read_legend(marked("own.json", '{"crosswalk": {"River": "Water"}}'))
    assert legend.translate("River", "") == "Water"
    jobs = collect_jobs([marked("in.csv", "input\na.tif\n")], "out", BatchOptions()).jobs
    assert [Path(job.source[0]).name for job in jobs] == ["a.tif"]


def test_only_line_ends_end_a_line(tmp_path: Path) -> None:
    odd = "a\u2028b\x85c\x0bd\x1ce.tif"  # what Python's splitlines takes for line ends, too
    names, listed, table = (tmp_path / name for name in ("names", "in.txt", "in.csv"))
    names.write_bytes(f"River{odd}\r\nTown\r".encode())
    assert read_classes(str(names)) == [f"River{odd}", "Town"]
    listed.write_bytes(f"{odd}\rb.tif\r\n\nc.tif".encode())
    table.write_bytes(f'input,id\r"{odd}",1\r\n"b.tif","2\n3"\nc.tif,4'.encode())
    for manifest in (listed, table):
        found = collect_jobs([str(manifest)], "out", BatchOptions())
        assert found.problems == ()
        assert [Path(job.source[0]).name for job in found.jobs] == [odd, "b.tif", "c.tif"]


def test_commands_of_a_group_share_a_table(rssc: Rssc, bundle: Path, tmp_path: Path) -> None:
    """One file serves `batch run` and then `batch status`, though that has none of its options."""
    scene = write_raster(tmp_path / "scene.tif", texture(64, 64), photometric="rgb")
    file = tmp_path / "own.toml"
    settings = {"model": str(bundle), "tile-size": "64px", "captioner": "none", "json": True}
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    file.write_text(f"[batch]\n{text}[models]\nlevels = 2\n[assess]\nseed = 3\n")
    rest = ("--config", file)
    assert json.loads(rssc("batch", "run", scene, "-o", tmp_path / "maps", *rest).out)["done"] == 1
    status = rssc("batch", "status", tmp_path / "maps", *rest)
    assert json.loads(status.out)["counts"]["done"] == 1
    areas = rssc("batch", "areas", tmp_path / "maps", "-o", tmp_path / "areas.csv", *rest)
    assert areas.code == 0, areas.err
    assert rssc("models", "list", *rest).code == 0
    file.write_text("[batch]\ntile-sise = '64px'\n")
    wrong = rssc("batch", "status", tmp_path / "maps", *rest)
    assert (wrong.code, "did you mean tile-size?" in wrong.message) == (2, True)
