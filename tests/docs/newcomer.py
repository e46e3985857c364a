"""The path of a newcomer: README from top to bottom, then each tutorial, all in one folder.

What the pages show is run, and what it prints is compared with the block of ``text`` that follows:
to the digit with the versions of libraries, and a processor, as the pages were written with
(``printed_with.json``), else within a tenth. ``python -m tests.docs.newcomer`` reports the pages
that are wrong; with ``--update`` it writes into the pages what is printed now.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import rasterio
import torch

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
_TOLERANCE = 0.1
"""By how much of itself a figure may differ with other versions than the page's; one with decimals
also by one unit of the last."""
_PRINTED_WITH = Path(__file__).with_name("printed_with.json")
_LIBRARIES = (
    "numpy",
    "pandas",
    "pyproj",
    "scikit-image",
    "scikit-learn",
    "scipy",
    "shapely",
    "torch",
)
"""Those on whose versions the printed figures depend, beside GDAL."""


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

    def differences(self, *, exact: bool) -> list[str]:
        """The lines that differ, as "shown / printed".

        Not ``exact``: lines may be in another order, and figures differ a little.
        """
        shown, printed = self.block.text.splitlines(), self.lines
        if not exact:
            shown, printed = (sorted(lines, key=_without_figures) for lines in (shown, printed))
        pairs = itertools.zip_longest(shown, printed, fillvalue="")
        return [f"{old} / {new}" for old, new in pairs if not alike(old, new, exact=exact)]


def alike(shown: str, printed: str, *, exact: bool) -> bool:
    """Whether two lines say the same, but for what varies and for the width of columns.

    Not ``exact``: but for small differences of figures, too.
    """
    if exact:
        return _fixed(shown) == _fixed(printed)
    if _without_figures(shown) != _without_figures(printed):
        return False
    figures = (_NUMBER.findall(" ".join(_fixed(line))) for line in (shown, printed))
    return all(_near(old, new) for old, new in zip(*figures, strict=True))


def _fixed(line: str) -> list[str]:
    """The words of a line, ``~`` for what varies; paths of Windows as others."""
    return _VARIES.sub("~", line.replace("\\", "/")).split()


def _without_figures(line: str) -> str:
    return _NUMBER.sub("#", " ".join(_fixed(line)))


def _near(shown: str, printed: str) -> bool:
    _, point, decimals = shown.partition(".")
    slack = 1.001 * 10.0 ** -len(decimals) if point else 0.0
    old, new = (float(text.replace(",", "")) for text in (shown, printed))
    return abs(old - new) <= slack + _TOLERANCE * abs(old)


def versions() -> dict[str, str]:
    """The versions and the kind of machine on which printed figures depend."""
    of_libraries = {name: importlib.metadata.version(name).partition("+")[0] for name in _LIBRARIES}
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "GDAL": rasterio.__gdal_version__,
        **of_libraries,
    }


def _processor() -> str:
    """Threads, family and model of the processor: others round, or divide the work, differently."""
    file = Path("/proc/cpuinfo")
    told = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = [
        match[1]
        for name in ("vendor_id", "cpu family", "model")
        if (match := re.search(rf"^{name}\s*: (\S+)", told, re.MULTILINE))
    ]
    kind = " ".join(found) or platform.processor()
    return f"{torch.get_num_threads()} × {kind}, {torch.backends.cpu.get_cpu_capability()}"


def other_versions() -> list[str]:
    """What differs from the versions that the pages were written with, as "name old, here new"."""
    written = json.loads(_PRINTED_WITH.read_text(encoding="utf-8"))
    return [
        f"{name} {written.get(name)}, here {here}"
        for name, here in versions().items()
        if written.get(name) != here
    ]


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
    others = other_versions()
    if others and arguments.update and arguments.pages:
        parser.error(f"update all pages: they were written with {'; '.join(others)}")
    if others:
        sys.stdout.write(f"figures within {_TOLERANCE:.0%}: written with {'; '.join(others)}\n")
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
                differences = [
                    line for shown in found for line in shown.differences(exact=not others)
                ]
                if arguments.update:
                    renew(page, found)
            wrong += bool(differences)
            told.write(f"{page.name}: {len(differences)} differences\n")
            told.writelines(f"  {line}\n" for line in differences)
            told.flush()
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    if arguments.update:
        _PRINTED_WITH.write_text(
            json.dumps(versions(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
