"""Compare the results of this checkout with those of an older one.

    python benchmarks/same_results.py OLD_CHECKOUT [--keep DIR] [--only PART] [--data FOLDER]

Both run the same commands, each in a process of its own with its own modules, on twelve rasters and
on small inputs of the other commands; a few minutes on two processors. Files and JSON are compared:
geometry, classes, captions and areas are equal, confidences within 1e-5 (a class may differ where
the margin is below 2e-5); accuracies after a short training within one point. Allowed are the names
that changed: the layer ``scenes`` is ``cells``, ``--stride`` is ``--cell-size``, keys and words are
in US spelling, and a raster with nothing to classify ends with exit code 3. Logs and weights are
not compared, and of HTML pages only most words. Ends with exit code 1 where anything differs.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

HERE = Path(__file__).resolve().parents[1]
CONFIDENCE = 1e-5
MARGIN = 2e-5
ACCURACY = 0.01
EVIDENCE = 1e-3
SIZES = 1e-9

OLD_FLAGS = {"CELL-SIZE": "--stride", "cell-size": "stride"}
NEW_FLAGS = {"CELL-SIZE": "--cell-size", "cell-size": "cell-size"}
CHANGING = re.compile("seconds|tiles_per_s|time_share")  # keys of what changes from run to run
SPELLING = {
    "scenes": "cells",
    "stride": "cell_size",
    "colour": "color",
    "centre": "center",
    "labelled": "labeled",
    "neighbour": "neighbor",
    "licence": "license",
    "quantis": "quantiz",
    "metre": "meter",
}


# The commands.


@dataclass(frozen=True)
class Case:
    """One command line, which writes into a folder of its own that is named like it.

    ``{name}`` in the arguments is one of the options that were renamed. ``kind``: ``same``, or
    ``training`` where only accuracies are compared.
    """

    name: str
    arguments: tuple[str, ...]
    kind: str = "same"
    old_code: int = 0
    new_code: int = 0


def _map(
    name: str, raster: str | tuple[str, ...], form: str, *options: str, **flags: tuple[str, ...]
) -> Iterator[Case]:
    """``classify`` into a GeoPackage and, with ``also``, into another format."""
    read = ("--bands-from", *raster) if isinstance(raster, tuple) else (raster,)
    result = f"{name}/map.gpkg"
    extra = ("--class-raster", f"{name}/classes.tif", *flags.get("gpkg", ()))
    yield Case(name, ("classify", *read, *options, "-o", result, *extra, "--json"))
    other = f"{name}-{form}"
    yield Case(other, ("classify", *read, *options, "-o", f"{other}/map.{form}", "--json"))


def cases(rasters: Path, small: Path) -> list[Case]:
    """All of it; ``small`` holds what was prepared beforehand."""

    def raster(name: str) -> str:
        return str(rasters / name)

    gray = ("--bands", "1,1,1")
    naip = tuple(raster(f"NAIP-VA-b{band}.tiff") for band in (1, 2, 3))
    subset = raster("m_3607717_sw_18_1_20160620_subset.tif")
    masked = raster("cog_rgb_mask.tif")
    finer = ("--tile-size", "512px", "{CELL-SIZE}", "256px")
    demo, labels, pictures = (str(small / name) for name in ("demo.tif", "labels.geojson", "set"))
    maps = [
        *_map("rotated", raster("rotated.tif"), "geojson", *gray, "--assume-crs", "EPSG:32633"),
        *_map("gcps", raster("cog_gcps.tif"), "fgb", *gray, "--tile-size", "128px"),
        *_map("dateline", raster("cog_dateline.tif"), "geojson", *gray, "--tile-size", "400px"),
        *_map("separate", naip, "parquet"),
        *_map("nodata", raster("201404_13SED190110_201404_0x1500m_CL_1_nodata.tif"), "shp"),
        *_map("uint16", raster("RGBA.uint16.tif"), "fgb"),
        *_map("palette", raster("cog_cmap.tif"), "parquet", "--tile-size", "1024px"),
        *_map("alpha", raster("pix4d_alpha_nodata.tif"), "geojson", gpkg=("--probabilities",)),
        *_map("mask", masked, "shp", "--min-valid", "0.9"),
        *_map("south-up", str(small / "south_up.tif"), "geojson"),
        *_map("degrees", raster("3420B_2010_328_RGB_LATLNG.tif"), "fgb", *finer),
        *_map("bounds", subset, "parquet", *("--bounds", "231450,4057010,231700,4057250"),
              *("--min-area", "3000", "--crs", "EPSG:3857", "--tile-size", "100px"),
              *("{CELL-SIZE}", "50px"), gpkg=("--review", "5", "--preview", "bounds/map.png",
                                        "--report", "bounds/map.html")),
        *_map("aoi", demo, "geojson", "--aoi", labels, "--aoi-clip", "--captioner", "none",
              "--stretch", "minmax", "--tile-size", "200m"),
        Case("all-nodata", ("classify", raster("all-nodata.tif"), "-o", "all-nodata/map.gpkg"),
             old_code=1, new_code=3),
        Case("no-crs", ("classify", raster("no_crs.tiff"), "-o", "no-crs/map.gpkg"),
             old_code=1, new_code=1),
        Case("corrupt", ("classify", raster("corrupt.tif"), "-o", "corrupt/map.gpkg"),
             old_code=1, new_code=1),
    ]  # fmt: skip
    words = ("--classes", "forest,water,houses")
    others = [
        Case("zero-shot", ("zero-shot", "--bands-from", *naip, *words,
             "-o", "zero-shot/map.gpkg", "--json")),
        Case("zero-shot-refine", ("zero-shot", raster("pix4d_alpha_nodata.tif"), *words, "--refine",
             "--no-other", "--probabilities", "-o", "zero-shot-refine/map.gpkg", "--json")),
        Case("explain", ("explain", subset, "--tile-size", "150px", "--at", "231500,4057100",
             "--at", "231600,4057200", "-o", "explain/out", "--json")),
        Case("explain-result", ("explain", subset, "--result", "bounds/map.gpkg", "--cells", "2",
             "-o", "explain-result/out", "--json")),
        Case("batch", ("batch", "run", str(small / "{side}.csv"), "-o", "batch/maps", "--json")),
        Case("batch-merge", ("batch", "run", subset, masked, raster("rd_netherlands_25cm.tif"),
             demo, "--tile-size", "300px", "{CELL-SIZE}", "150px", "--merge", "most-confident",
             "-o", "batch-merge/all.gpkg", "--json")),
        Case("caption", ("caption", raster("RGBA.uint16.tif"), "-o", "caption/a.gpkg", "--json")),
        Case("caption-lines", ("caption", subset, "--tile-size", "100px", "--caption-beam", "3",
             "-o", "caption-lines/a.jsonl", "--json")),
        Case("tile", ("tile", raster("sentinel2_11band_nodata255.tif"), "--bands", "4,3,2",
             "--tile-size", "128px", "{CELL-SIZE}", "100px", "-o", "tile/chips", "--json")),
        Case("tile-png", ("tile", raster("mosaic_cog1.tif"), "--bands", "3,2,1", "--format", "png",
             "--tile-size", "200px", "--size", "64", "-o", "tile-png/chips", "--json")),
        Case("info", ("info", raster("RGBA.uint16.tif"), "--json")),
        Case("info-degrees", ("info", raster("3420B_2010_328_RGB_LATLNG.tif"), *finer, "--json")),
        Case("info-separate", ("info", "--bands-from", *naip, "--json")),
        Case("evaluate", ("evaluate", "compact", pictures, "--json")),
    ]  # fmt: skip
    short = ("--schedule", "6x64", "--caption-epochs", "1", "--fusion-epochs", "6", "--views", "1",
             "--val", "0.25", "--test", "0.25", "--seed", "3", "--device", "cpu")  # fmt: skip
    trained = [
        Case("train-polygons", ("train", "--raster", demo, "--labels", labels, "--field", "label",
             "-o", "train-polygons/own", "--json"), "training"),
        Case("train-polygons-map", ("classify", subset, "--model", "train-polygons/own",
             "-o", "train-polygons-map/map.gpkg", "--json"), "training"),
        Case("train-polygons-evaluate", ("evaluate", "train-polygons/own", "--raster", demo,
             "--labels", labels, "--field", "label", "--json"), "training"),
        Case("train", ("train", pictures, "-o", "train/own", *short, "-q"), "training"),
        Case("train-card", ("models", "info", "train/own", "--json"), "training"),
        Case("train-evaluate", ("evaluate", "train/own", pictures, "--part", "all", "--json"),
             "training"),
    ]  # fmt: skip
    return [*maps, *others, *trained]


def prepare(small: Path, data: Path) -> None:
    """The demo scene with its labels, a south-up raster, pictures of four classes, manifests."""
    import rasterio

    small.mkdir(parents=True, exist_ok=True)
    with rasterio.open(data / "rasters" / "river_town_10cm_3395.tif") as source:
        turned = source.transform @ rasterio.Affine(1, 0, 0, 0, -1, source.height)
        with rasterio.open(
            small / "south_up.tif", "w", **{**source.profile, "transform": turned}
        ) as target:
            target.write(source.read()[:, ::-1])
    demo = small / "demo.tif"
    script = HERE / "examples" / "make_demo_scene.py"
    subprocess.run([sys.executable, str(script), str(demo)], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(HERE / "examples" / "demo_labels.geojson", small / "labels.geojson")
    pictures = data / "aid150"
    chosen: set[str] = set()
    for name in ("Beach", "Forest", "Parking", "DenseResidential"):
        folder = small / "set" / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        for picture in sorted((pictures / "images" / name).iterdir())[:25]:
            shutil.copy(picture, folder / picture.name)
            chosen.add(f"{name}/{picture.name}")
    lines = (pictures / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if json.loads(line)["image"] in chosen]
    (small / "set" / "captions.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    rows = [
        ("201404_13SED190110_201404_0x1500m_CL_1_nodata.tif", "first", "100px", "50px", ""),
        ("RGBA.uint16.tif", "second", "", "", "EPSG:4326"),
        ("NAIP-VA-b1.tiff;NAIP-VA-b2.tiff;NAIP-VA-b3.tiff", "third", "", "", ""),
    ]
    for side, flags in (("old", OLD_FLAGS), ("new", NEW_FLAGS)):
        table = [f"input,id,tile-size,{flags['cell-size']},crs"]
        for files, *rest in rows:
            paths = ";".join(str(data / "rasters" / file) for file in files.split(";"))
            table.append(",".join((paths, *rest)))
        (small / f"{side}.csv").write_text("\n".join(table) + "\n", encoding="utf-8")


# The two sides.


def run_plan(plan: Path) -> int:
    """In a process of one side: run its commands one after another and record their output."""
    import rssc_geo
    import rssc_geo_cli
    from rssc_geo_cli.main import main as program

    todo = json.loads(plan.read_text(encoding="utf-8"))
    for package in (rssc_geo, rssc_geo_cli):
        if Path(todo["root"]) not in Path(package.__path__[0]).resolve().parents:
            raise SystemExit(f"{package.__name__} is not that of {todo['root']}")
    for name, arguments in todo["commands"].items():
        Path(name).mkdir()
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        sys.argv = ["rssc-geo", *arguments]
        started, code = time.perf_counter(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                program()
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        out.flush()
        err.flush()
        said = [stream.buffer.getvalue().decode() for stream in (out, err)]
        done = {"code": code, "out": said[0], "err": said[1]}
        done["seconds"] = round(time.perf_counter() - started, 2)
        Path(f"{name}.done.json").write_text(json.dumps(done), encoding="utf-8")
    return 0


@dataclass(frozen=True)
class Side:
    """A checkout and the folder of its results."""

    name: str
    root: Path
    folder: Path
    flags: Mapping[str, str]

    def start(self, todo: Iterable[Case]) -> subprocess.Popen[bytes]:
        """Begin its commands, in a process of its own."""
        self.folder.mkdir()
        words = {**self.flags, "side": self.name}

        def meant(argument: str) -> str:
            for word, value in words.items():
                argument = argument.replace(f"{{{word}}}", value)
            return argument

        commands = {case.name: [meant(word) for word in case.arguments] for case in todo}
        plan = self.folder.with_suffix(".plan.json")
        plan.write_text(json.dumps({"root": str(self.root), "commands": commands}))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(self.root), str(self.root / "cli"))),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(Path(__file__).resolve()), "--run", str(plan)]
        with self.folder.with_suffix(".log").open("wb") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def done(self, case: Case) -> dict[str, Any] | None:
        """The output of a command, None if it was never finished."""
        path = self.folder / f"{case.name}.done.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


# The comparison.


def spelled(text: str) -> str:
    """A text in the new names."""
    for old, new in SPELLING.items():
        text = re.sub(old, new, text, flags=re.IGNORECASE)
    return text


@dataclass
class Findings:
    """The comparisons of one case, and the differences."""

    compared: int = 0
    confidence: float = 0.0
    close_calls: int = 0
    differences: list[str] = field(default_factory=list)

    def check(self, equal: object, difference: str) -> None:
        """Note a comparison and what is said where it fails."""
        self.compared += 1
        if not equal:
            self.differences.append(difference)


def compare(case: Case, old: Side, new: Side) -> Findings:
    """Compare what a command wrote and said on both sides."""
    found = Findings()
    before, after = old.done(case), new.done(case)
    if before is None or after is None:
        unfinished = old.name if before is None else new.name
        found.differences.append(f"did not finish: {unfinished}, see its log")
        return found
    for side, done, code in ((old, before, case.old_code), (new, after, case.new_code)):
        last = (done["err"].strip().splitlines() or [""])[-1]
        found.check(done["code"] == code, f"{side.name}: exit code {done['code']}: {last}")
    if found.differences:
        return found
    if "--json" in case.arguments:
        values = json.loads(before["out"]), json.loads(after["out"])
        _compare_values(found, *values, "", training=case.kind == "training")
    if case.kind == "same":
        _compare_folders(found, old.folder / case.name, new.folder / case.name)
    return found


def _compare_folders(found: Findings, old: Path, new: Path) -> None:
    def files(folder: Path) -> dict[str, Path]:
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {spelled(str(path.relative_to(folder))): path for path in paths}

    before, after = files(old), files(new)
    found.check(
        before.keys() == after.keys(),
        f"files: {sorted(before.keys() ^ after.keys())} on one side only",
    )
    kinds = {
        (".gpkg", ".fgb", ".geojson", ".shp", ".parquet"): _compare_layers,
        (".tif",): _compare_rasters,
        (".png",): _compare_pictures,
        (".jsonl",): _compare_lines,
        (".html",): _compare_pages,
    }
    for name in sorted(before.keys() & after.keys(), key=lambda name: "cells" not in name):
        for suffixes, compare_files in kinds.items():
            if name.endswith(suffixes):
                compare_files(found, before[name], after[name], name)


def _compare_layers(found: Findings, old: Path, new: Path, name: str) -> None:
    import geopandas
    import pyogrio

    if name.endswith(".parquet"):
        _compare_frames(found, geopandas.read_parquet(old), geopandas.read_parquet(new), name)
        return
    layers = []
    for path in (old, new):
        names = [str(layer) for layer, _ in pyogrio.list_layers(path)]
        layers.append({spelled(layer): (path, layer) for layer in names})
    before, after = layers
    found.check(before.keys() == after.keys(), f"{name}: layers {[*before]} and {[*after]}")
    for layer in sorted(before.keys() & after.keys()):  # cells before landuse
        first, second = (
            pyogrio.read_dataframe(path, layer=own) for path, own in (before[layer], after[layer])
        )
        what = f"{name} {layer}" if len(before) > 1 else name
        if layer == "layer_styles":
            _compare_styles(found, first, second, what)
        else:
            _compare_frames(found, first, second, what)


def _compare_styles(found: Findings, old: Any, new: Any, what: str) -> None:
    """Styles hold the same elements; their order says nothing."""
    columns = ["f_table_name", "f_geometry_column", "styleName", "styleQML", "styleSLD"]
    texts = [
        sorted(
            sorted(re.split(r"[\s<>]+", spelled(" ".join(map(str, row)))))
            for row in frame[columns].itertuples(index=False)
        )
        for frame in (old, new)
    ]
    found.check(texts[0] == texts[1], f"{what}: styles differ")


def _compare_frames(found: Findings, old: Any, new: Any, what: str) -> None:
    import numpy as np
    import pandas as pd
    import shapely

    def ordered(frame: Any) -> Any:
        frame = frame.rename_geometry("geometry") if frame.geometry.name != "geometry" else frame
        frame = frame.rename(columns={name: spelled(name) for name in frame.columns})
        keys = [key for key in ("scene", "row", "col") if key in frame]
        if "row" not in keys:
            box = shapely.bounds(shapely.normalize(frame.geometry.values)).round(6)
            frame = frame.assign(**{f"_{i}": box[:, i] for i in range(4)})
            keys += [*(f"_{i}" for i in range(4)), *frame.columns.intersection(["class_id"])]
        return frame.sort_values(keys, ignore_index=True).drop(columns=frame.filter(regex="^_"))

    old, new = ordered(old), ordered(new)
    found.check(
        [*old.columns] == [*new.columns], f"{what}: columns {[*old.columns]} and {[*new.columns]}"
    )
    found.check(len(old) == len(new), f"{what}: {len(old)} and {len(new)} rows")
    found.check(old.crs == new.crs, f"{what}: another CRS")
    if len(old) != len(new):
        return
    close = np.zeros(len(old), bool)
    if "class" in old and "margin" in old and "class" in new:
        close = (old["class"] != new["class"]).to_numpy() & (old["margin"] < MARGIN).to_numpy()
        found.close_calls += int(close.sum())
    if found.close_calls and "row" not in old:
        return  # regions follow from the cells, which may differ here
    found.compared += len(old)
    shapes = [shapely.normalize(frame.geometry.values) for frame in (old, new)]
    size = np.abs(shapely.bounds(shapes[0])).max(initial=1.0)
    moved = ~shapely.equals_exact(*shapes, tolerance=size * 1e-12)
    found.check(not moved.any(), f"{what}: {moved.sum()} of {len(old)} geometries differ")
    for column in old.columns.intersection(new.columns).drop("geometry"):
        before, after = old[column][~close], new[column][~close]
        if pd.api.types.is_float_dtype(before):
            away = (before - after).abs()
            allowed = away <= _tolerance(column, before.abs())
            if column == "confidence":
                found.confidence = max(found.confidence, float(away.max()) if len(away) else 0.0)
        else:
            allowed = before.map(_plain) == after.map(_plain)
        unlike = ~(allowed | (before.isna() & after.isna()))
        found.check(
            not unlike.any(),
            f"{what}: {column} differs in {unlike.sum()} of {len(old)} rows, such as"
            f" {before[unlike].iloc[:1].tolist()} and {after[unlike].iloc[:1].tolist()}",
        )


def _plain(value: Any) -> str:
    return spelled(str(value))


def _tolerance(name: str, size: Any) -> Any:
    if name in {"confidence", "familiarity"} or name.startswith("p_"):
        return CONFIDENCE
    if name == "margin":
        return MARGIN
    if name in {"evidence", "effect", "attention"}:
        return EVIDENCE
    return SIZES * size


def _compare_rasters(found: Findings, old: Path, new: Path, name: str) -> None:
    import numpy as np
    import rasterio

    with rasterio.open(old) as before, rasterio.open(new) as after:
        for what in ("shape", "crs", "dtypes", "transform", "nodata", "colorinterp"):
            values = getattr(before, what), getattr(after, what)
            nan = what == "nodata" and values[0] != values[0] and values[1] != values[1]
            found.check(nan or values[0] == values[1], f"{name}: {what} {values[0]}, {values[1]}")
        pixels = before.read(), after.read()
        if pixels[0].shape != pixels[1].shape:
            return
        exact = pixels[0].dtype.kind in "iu"
        same = np.isclose(*pixels, rtol=0, atol=0 if exact else EVIDENCE, equal_nan=not exact)
        found.check(bool(same.all()), f"{name}: {(~same).sum()} pixels differ")
        if before.colorinterp[0].name == "palette":
            found.check(before.colormap(1) == after.colormap(1), f"{name}: another color table")


def _compare_pictures(found: Findings, old: Path, new: Path, name: str) -> None:
    import numpy as np
    from PIL import Image

    pixels = [np.asarray(Image.open(path).convert("RGB"), np.int16) for path in (old, new)]
    sizes = [picture.shape for picture in pixels]
    found.check(sizes[0] == sizes[1], f"{name}: {sizes[0]} and {sizes[1]} pixels")
    if sizes[0] != sizes[1]:
        return
    share = float((np.abs(pixels[0] - pixels[1]).max(2) > 2).mean())
    found.check(share < 0.01, f"{name}: {share:.1%} of the pixels differ")


def _compare_lines(found: Findings, old: Path, new: Path, name: str) -> None:
    before, after = (path.read_text(encoding="utf-8").splitlines() for path in (old, new))
    lines = [[json.loads(line) for line in text] for text in (before, after)]
    _compare_values(found, *lines, name, training=False)


def _compare_pages(found: Findings, old: Path, new: Path, name: str) -> None:
    """Most words of a page are the same; its wording may change."""
    words = []
    for path in (old, new):
        page = path.read_text("utf-8")
        text = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
        words.append(Counter(spelled(html.unescape(re.sub(r"<[^>]*>", " ", text))).split()))
    common = (words[0] & words[1]).total() / max(words[0].total(), words[1].total())
    found.check(common > 0.9, f"{name}: only {common:.0%} of the words are the same")


def _compare_values(found: Findings, old: Any, new: Any, where: str, *, training: bool) -> None:
    """Compare JSON; of a training only the accuracies."""
    if isinstance(old, dict) and isinstance(new, dict):
        before, after = ({spelled(k): v for k, v in _reshaped(side).items()} for side in (old, new))
        missing = [] if training else sorted(before.keys() - after.keys())
        found.check(not missing, f"JSON {where}: no more {', '.join(missing)}")
        for name in before.keys() & after.keys():
            if not CHANGING.search(name):
                inner = f"{where}.{name}"
                _compare_values(found, before[name], after[name], inner, training=training)
    elif where == ".outputs":  # the preview is named too
        named = [{spelled(str(path)) for path in side} for side in (old, new)]
        found.check(named[0] <= named[1], f"JSON {where}: {old} and {new}")
    elif isinstance(old, list) and isinstance(new, list):
        found.check(training or len(old) == len(new), f"JSON {where}: {old} and {new}")
        if not where.endswith(".warnings"):  # their words may change
            for first, second in zip(old, new, strict=False):
                _compare_values(found, first, second, where, training=training)
    elif not training or "accuracy" in where:
        _compare_plain(found, old, new, where, accuracy=training)


def _reshaped(values: dict[str, Any]) -> dict[str, Any]:
    """The scaling in ``info`` was three keys and is an object now."""
    scaling = values.get("scaling")
    if not isinstance(scaling, dict):
        return values
    inner = {f"scaling_{side}": scaling[side] for side in ("low", "high")}
    return {**values, "scaling": scaling["method"], **inner}


def _compare_plain(found: Findings, old: Any, new: Any, where: str, *, accuracy: bool) -> None:
    equal = _plain(old) == _plain(new)
    if isinstance(old, float | int) and isinstance(new, float | int):
        key = where.rpartition(".")[2]
        away = abs(old - new)
        equal = away <= (ACCURACY if accuracy else _tolerance(key, abs(old))) + 1e-12
        if key == "confidence":
            found.confidence = max(found.confidence, away)
    found.check(equal, f"JSON {where}: {old} and {new}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", nargs="?", type=Path, metavar="OLD_CHECKOUT")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what both made here")
    parser.add_argument("--only", metavar="PART", help="cases with this in their name")
    parser.add_argument("--data", type=Path, default=HERE.parent / "shared" / "data")
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        return run_plan(options.run)
    if not options.old or not (options.old / "rssc_geo").is_dir():
        parser.error("name a folder with the older checkout")
    with contextlib.ExitStack() as stack:
        work = options.keep
        if work is None:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = work.resolve()
        work.mkdir(parents=True, exist_ok=True)
        for left in ("old", "new"):
            shutil.rmtree(work / left, ignore_errors=True)
        data = options.data.resolve()
        prepare(work / "inputs", data)
        todo = cases(data / "rasters", work / "inputs")
        if options.only:
            todo = [case for case in todo if re.search(options.only, case.name)]
        sides = (
            Side("old", options.old.resolve(), work / "old", OLD_FLAGS),
            Side("new", HERE, work / "new", NEW_FLAGS),
        )
        for process in [side.start(todo) for side in sides]:
            process.wait()
        return report(todo, *sides)


def report(todo: Iterable[Case], old: Side, new: Side) -> int:
    """Print a line a case, and what differs; 1 where anything does."""
    print(f"{'case':<24} {'old s':>6} {'new s':>6} {'compared':>8} {'confidence':>10}  verdict")
    good = True
    for case in todo:
        found = compare(case, old, new)
        times = [(side.done(case) or {"seconds": float("nan")})["seconds"] for side in (old, new)]
        verdict = "same" if not found.differences else f"{len(found.differences)} differ"
        if found.close_calls:
            verdict += f" ({found.close_calls} close calls)"
        print(
            f"{case.name:<24} {times[0]:6.1f} {times[1]:6.1f} {found.compared:8}"
            f" {found.confidence:10.1e}  {verdict}"
        )
        for difference in found.differences:
            print(f"    {difference}")
        good &= not found.differences
    print("all the same" if good else "there are differences")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
