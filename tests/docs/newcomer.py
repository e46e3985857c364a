"""The path of a newcomer: README from top to bottom, then each tutorial, all in one folder.

What the pages show is run, and what it prints is compared with the block of ``text`` that follows.
``python -m tests.docs.newcomer`` reports the pages that are wrong; with ``--update`` it writes into
the pages what is printed now.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import os
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd

from .blocks import ROOT, Block, blocks, run_block, type_command
from .stand_ins import PAGE, stand_ins

RASTERS = ROOT.parent / "shared" / "data" / "rasters"
LEFT_OUT = "…"
"""A line of its own in a block of what is printed: any number of lines."""
_VARIES = re.compile(
    r"(?<=\brun of )\S+ to \S+"  # when a run was
    r"|\b(?:\d+ h \d\d min|\d+ min \d\d s|[\d.,]+ (?:ms|s|min|h|[kMG]B|(?:tiles|cells|MB)/s))\b"
    r"|(?<=seconds on cpu)\s+[\d.]+"
    r"|[\d.]+ a second|(?:reading|model|writing) \d+%"
    r"|(?<=\s\s)[\d.]+\s{2,}(?=(?:\d+ (?:h|min)|[\d.]+ s)\b)"  # seconds of work, before "took"
    r"|(?<![\w.])/[\w./-]+"  # absolute paths
)
"""What may differ between two runs: times, rates, sizes in memory and absolute paths."""
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_LARGE, _ROUNDING = 50, 0.005
"""From which figure on another processor may change it, and by which share of it."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A block of what the commands before it print: as the page shows it, and as it is now."""

    block: Block
    printed: str

    @property
    def lines(self) -> list[str]:
        """The lines that the block should have: as many around "…" as the page shows."""
        shown = self.block.text.splitlines()
        printed = [line.rstrip() for line in self.printed.splitlines()]
        if LEFT_OUT not in shown or len(printed) < len(shown):
            return printed
        head = shown.index(LEFT_OUT)
        return [*printed[:head], LEFT_OUT, *printed[len(printed) - (len(shown) - head - 1) :]]

    def differences(self, *, rounded: bool) -> list[str]:
        """The lines that differ, as "shown / printed"; ``rounded`` as in :func:`alike`."""
        pairs = itertools.zip_longest(self.block.text.splitlines(), self.lines, fillvalue="")
        return [f"{one} / {now}" for one, now in pairs if not alike(one, now, rounded=rounded)]


def alike(shown: str, printed: str, *, rounded: bool) -> bool:
    """Whether two lines say the same, but for what varies and for the width of columns.

    ``rounded``: figures from 50 up and those with decimals may also differ by what another
    processor's rounding does to a cell or two.
    """
    shown, printed = (
        _VARIES.sub("~", line.replace("\\", "/")) for line in (shown, printed)
    )  # paths as Windows has them
    if not rounded:
        return shown.split() == printed.split()
    if _NUMBER.sub("#", shown).split() != _NUMBER.sub("#", printed).split():
        return False
    pairs = zip(_NUMBER.findall(shown), _NUMBER.findall(printed), strict=True)
    return all(_near(ours, now) for ours, now in pairs)


def _near(shown: str, printed: str) -> bool:
    _, point, decimals = shown.partition(".")
    ours, now = (float(text.replace(",", "")) for text in (shown, printed))
    unit = 1.001 * 10.0 ** -len(decimals) if point else float(ours >= _LARGE)
    return abs(ours - now) <= max(unit, _ROUNDING * abs(ours) if ours >= _LARGE else 0.0)


def pages() -> list[Path]:
    """README and the tutorials in the order of the site."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    names = re.findall(r": (tutorials/\S+\.md)$", text, re.MULTILINE)
    return [ROOT / "README.md", *(ROOT / "docs" / name for name in names)]


def prepare(folder: Path) -> None:
    """What is there before the first page: the project's examples, and what a reader brings."""
    (folder / "examples").symlink_to(ROOT / "examples")
    if RASTERS.is_dir():
        (folder / "rasters").symlink_to(RASTERS)
    for place, gsd in (
        ("scene.tif", "7.5"),
        ("scenes/north.tif", "15"),
        ("scenes/south.tif", "15"),
    ):
        type_command(["python", "examples/make_demo_scene.py", place, "--gsd", gsd])
    labels = gpd.read_file(ROOT / "examples" / "demo_labels.geojson")
    labels.rename(columns={"label": "class"}).to_file(folder / "polygons.gpkg")


def follow(page: Path) -> list[Shown]:
    """Run the blocks of a page in the working folder; gives those that show what is printed.

    ``AssertionError`` for a command that fails, and for a page that changes what an earlier one
    made.
    """
    if page.stem == PAGE:
        with _captured(), stand_ins(Path("stand-ins")) as runnable:
            return _follow(page, runnable)
    return _follow(page, lambda block: block)


def _follow(page: Path, runnable: Callable[[Block], Block]) -> list[Shown]:
    before = _files()
    found: list[Shown] = []
    namespace: dict[str, object] = {}
    printed = ""
    for block in map(runnable, blocks(page)):
        if block.language == "text":
            found.append(Shown(block, printed))
            continue
        with _captured() as stream:
            try:
                run_block(block, namespace)
            except Exception as error:
                error.add_note(stream.getvalue())
                raise
        printed = stream.getvalue()
    after = _files()
    changed = [name for name, content in before.items() if after.get(name) != content]
    assert not changed, f"{page.name} replaces what an earlier page made: {', '.join(changed)}"
    return found


def renew(page: Path, found: list[Shown]) -> None:
    """Write into a page what its commands print now, with the times that they take here."""
    text = page.read_text(encoding="utf-8")
    start = 0
    for shown in found:
        now = "".join(f"{line}\n" for line in shown.lines)
        old, new = (f"```text\n{part}```" for part in (shown.block.text, now))
        start = text.index(old, start)
        text = text[:start] + new + text[start + len(old) :]
        start += len(new)
    page.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def _captured() -> Iterator[io.StringIO]:
    """What is written to the terminal, results and messages in their order."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield stream


def _files() -> dict[str, str]:
    """Each file below the working folder, but for the cache, with a hash of its content."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path().rglob("*")
        if path.is_file() and path.parts[0] not in ("examples", "rasters", "cache")
    }


def main() -> None:
    """Follow the path; exit code 1 where a page is, or was, wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", help="only these, by the names of their files")
    parser.add_argument("--update", action="store_true", help="write the outputs into the pages")
    parser.add_argument("--keep", type=Path, help="folder to work in, new, that stays")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="rssc-geo-newcomer-"))
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["RSSC_GEO_CACHE"] = str(folder / "cache")
    os.chdir(folder)
    told = sys.stdout
    wrong = 0
    try:
        with _captured():
            prepare(folder)
        for page in pages():
            if arguments.pages and page.stem not in arguments.pages:
                continue
            try:
                found = follow(page)
            except Exception as error:  # noqa: BLE001 -- whatever a page's code raises
                differences = traceback.format_exception(error, limit=-3)
            else:
                differences = [line for shown in found for line in shown.differences(rounded=False)]
                if arguments.update:
                    renew(page, found)
            wrong += bool(differences)
            told.write(f"{page.name}: {len(differences)} differences\n")
            told.writelines(f"  {line}\n" for line in differences)
            told.flush()
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
