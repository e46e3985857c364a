"""GeoParquet 1.1 through pyarrow, as a stream (https://geoparquet.org/releases/v1.1.0/)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import shapely

from rssc_geo.output.failures import not_written
from rssc_geo.output.layers import GEOMETRY, Layer


def write_geoparquet(layer: Layer, path: Path, provenance: Mapping[str, object]) -> None:
    """Write ``layer``; the provenance goes to the file's metadata as ``rssc_geo``.

    ``OutputError`` on a full disk.
    """
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    kinds: set[str] = set()
    try:
        with pq.ParquetWriter(path, layer.schema, compression="zstd") as writer:
            for batch in layer.batches():
                if len(batch):
                    geometries = shapely.from_wkb(
                        batch.column(GEOMETRY).to_numpy(zero_copy_only=False)
                    )
                    bounds = shapely.total_bounds(geometries)
                    low, high = np.minimum(low, bounds[:2]), np.maximum(high, bounds[2:])
                    kinds.update(geometry.geom_type for geometry in geometries)
                writer.write_batch(batch)
            column: dict[str, object] = {
                "encoding": "WKB",
                "geometry_types": sorted(kinds),
                "crs": layer.crs.to_json_dict(),
            }
            if kinds:
                column["bbox"] = [*low.tolist(), *high.tolist()]
            geo = {"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}}
            writer.add_key_value_metadata(
                {"geo": json.dumps(geo), "rssc_geo": json.dumps(provenance, ensure_ascii=False)}
            )
    except OSError as error:
        raise not_written(path, error) from error
