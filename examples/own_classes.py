"""Learn classes from labeled polygons, and map a raster with them.

python examples/own_classes.py scene.tif examples/demo_labels.geojson label my-classes/ landuse.gpkg
"""

from __future__ import annotations

import sys

from rssc_geo import ClassifyOptions, TrainOnPolygonsOptions, classify, train_on_polygons


def main(raster: str, labels: str, column: str, bundle: str, output: str) -> None:
    """Learn the classes in ``column`` of ``labels`` as ``bundle``; map ``raster`` with it."""
    options = TrainOnPolygonsOptions(field=column, tile_size="300m")
    trained = train_on_polygons([(raster, labels)], bundle, options)
    for warning in trained.warnings:
        print("mind:", warning)
    if trained.scores is not None:
        print(
            f"right for {trained.scores.overall_accuracy:.0%} of patches that the model had not"
            " seen, nor their neighbors"
        )
    result = classify(raster, output, ClassifyOptions(model=bundle, overwrite=True))
    print(*(f"{total.name}: {total.cells} cells" for total in result.summary.classes), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
