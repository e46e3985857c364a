"""One layer written through GDAL as a stream of Arrow batches, and checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyogrio

from rssc_geo.output.failures import not_written
from rssc_geo.output.layers import GEOMETRY, Layer

_TAIL_BYTES = 64


def write_ogr(
    layer: Layer,
    path: Path,
    *,
    driver: str,
    layer_options: Mapping[str, str],
    dataset_options: Mapping[str, str] | None = None,
    append: bool = False,
) -> None:
    """Write ``layer`` to ``path``, or with ``append`` into the file there.

    Raises ``OutputError`` when not every feature arrives (a full disk); an exception in the layer's
    own stream goes through as it is.
    """
    stream = _Counted(layer.batches)
    try:
        pyogrio.write_arrow(
            pa.RecordBatchReader.from_batches(layer.schema, stream.batches()),
            path,
            layer=layer.name,
            driver=driver,
            geometry_name=GEOMETRY,
            geometry_type=layer.geometry_type,
            crs=layer.crs.to_wkt(),
            append=append,
            dataset_options=dataset_options,
            layer_options=layer_options,
        )
        arrived = _features(path, layer.name, driver=driver, expected=stream.count)
    except (
        RuntimeError,
        OSError,
        pa.ArrowException,
    ) as error:  # RuntimeError: base of pyogrio's errors
        if stream.failure is not None:
            raise stream.failure from error
        raise not_written(path, str(error)) from error
    if stream.failure is not None:
        raise stream.failure
    if arrived != stream.count:
        raise not_written(path, f"{arrived} of {stream.count} features arrived")


class _Counted:
    """Counts the features of a stream, and keeps its exception.

    Through the C stream GDAL sees only a message.
    """

    def __init__(self, batches: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self.count = 0
        self.failure: BaseException | None = None
        self._batches = batches

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            for batch in self._batches():
                self.count += len(batch)
                yield batch
        except GeneratorExit:
            raise  # GDAL stopped reading: its own error says why
        except BaseException as error:
            self.failure = error
            raise


def _features(path: Path, layer: str, *, driver: str, expected: int) -> int:
    """Features that can be read back.

    GeoJSON is not parsed again: its end says whether it is whole.
    """
    if driver == "GeoJSON":
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES), os.SEEK_SET)
            return expected if file.read().rstrip().endswith(b"}") else 0
    return int(pyogrio.read_info(path, layer=layer, force_feature_count=True)["features"])
