"""Classify every raster of a folder and print the results as a Markdown table.

    python benchmarks/rasters.py ../shared/data/rasters OUT [--bands-from b1.tif b2.tif b3.tif]

OUT gets a GeoPackage and a preview picture a raster; --bands-from names files of the folder. Each
map is checked: cells inside the raster, no cell under the minimum of valid pixels (counted at full
resolution by plain rasterio), none missing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely

from rssc_geo import ClassifyOptions, Predictor, load_model
from rssc_geo.errors import RsscGeoError
from rssc_geo.geometry import TileGrid, Window
from rssc_geo.output import read_provenance
from rssc_geo.pipelines.classify import classify
from rssc_geo.raster import Scene, open_scene

MIN_VALID = 0.5


def missing_and_extra(scene: Scene, result: Path, cells: gpd.GeoDataFrame) -> tuple[int, int]:
    """Valid cells without a polygon, and polygons off their cell or where too little is valid."""
    found = {
        (int(r), int(c)): g
        for r, c, g in zip(cells["row"], cells["col"], cells.geometry, strict=True)
    }
    provenance = read_provenance(result)
    grid = TileGrid(
        scene.shape, tuple(provenance["tile_size_px"]), tuple(provenance["cell_size_px"])
    )
    with scene.pixel_reader() as reader:
        valid = reader.valid_at_full_resolution(Window(0, 0, *scene.shape))
    missing = extra = 0
    for cell in grid.cells():
        wanted = valid[cell.window.slices].mean() >= MIN_VALID
        polygon = found.pop((cell.row, cell.col), None)
        missing += wanted and polygon is None
        if polygon is not None:
            w = cell.window
            corners = [
                (w.col + x, w.row + y)
                for x, y in ((0, 0), (0, w.height), (w.width, w.height), (w.width, 0))
            ]
            placed = polygon.equals(
                shapely.Polygon([scene.transform @ corner for corner in corners])
            )
            extra += not (wanted and placed)
    return missing, extra + len(found)


def row_of(source: str | tuple[str, ...], name: str, out: Path, model: Predictor) -> str:
    target = out / f"{name}.gpkg"
    options = ClassifyOptions(preview=str(out / f"{name}.png"), overwrite=True)
    try:
        done = classify(source, target, options, model=model)
    except RsscGeoError as error:
        folder = str(Path(source if isinstance(source, str) else source[0]).parent)
        return f"| {name} | refused: {str(error).replace(folder + '/', '')} | | | |"
    scene = open_scene(source)
    cells = gpd.read_file(target, layer="cells")
    missing, extra = missing_and_extra(scene, target, cells)
    classes = sorted(done.summary.classes, key=lambda c: -c.area_m2)
    total = sum(c.area_m2 for c in classes)
    top = ", ".join(f"{c.name} {c.area_m2 / total:.0%}" for c in classes[:3] if c.area_m2)
    confidence = float(np.mean(cells["confidence"]))
    check = "all right" if not missing and not extra else f"{missing} MISSING, {extra} WRONG"
    gsd = "/".join(f"{value:.3g}" for value in sorted(set(np.round(scene.gsd_m, 3))))
    return (
        f"| {name} | {top} | {gsd} m, {scene.mask} | {done.summary.cells} in {done.tiles} |"
        f" {confidence:.2f}, {check} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--bands-from", nargs=3, type=Path, metavar="FILE")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model = load_model("compact")
    print(
        "| raster | map: classes by area | ground sampling, mask | cells in blocks | mean"
        " confidence, check |"
    )
    print("|---|---|---|---|---|")
    rows = [
        row_of(str(path), path.name, options.out, model)
        for path in sorted(options.folder.iterdir())
        if path.is_file()
    ]
    if options.bands_from:
        name = " + ".join(path.name for path in options.bands_from)
        files = tuple(str(options.folder / path) for path in options.bands_from)
        rows.append(row_of(files, name, options.out, model))
    for row in rows:
        print(row)
    return 1 if any("MISSING" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
