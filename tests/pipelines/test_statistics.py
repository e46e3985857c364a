"""A program that displays a raster while it is mapped writes statistics beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rssc_geo import BatchOptions, ClassifyOptions, classify, run_batch
from tests.factories import texture, write_raster

HERE = {"tile_size": "50px", "force": True, "device": "cpu", "batch_size": 8}


class StopError(Exception):
    pass


def display(raster: Path, times: int) -> None:
    """Write the statistics that GDAL writes, of ever more bands."""
    band = '<PAMRasterBand band="{}"><Metadata><MDI key="STATISTICS_MEAN">9</MDI></Metadata>'
    bands = "".join(f"{band.format(number + 1)}</PAMRasterBand>" for number in range(times))
    raster.with_name(f"{raster.name}.aux.xml").write_text(f"<PAMDataset>{bands}</PAMDataset>")


def test_a_run_goes_on_and_ends_while_the_raster_is_displayed(bundle: Path, tmp_path: Path) -> None:
    scene = write_raster(tmp_path / "scene.tif", texture(300, 400))
    options = ClassifyOptions(model=str(bundle), **HERE)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "classify" and done >= total // 2:
            raise StopError

    with pytest.raises(StopError):
        classify(scene, tmp_path / "map.gpkg", options, progress=stop)
    display(scene, 1)
    result = classify(scene, tmp_path / "map.gpkg", options, progress=lambda *_: display(scene, 2))
    assert result.resumed_at > 0
    batch = BatchOptions(model=str(bundle), **HERE)
    assert run_batch([scene], tmp_path / "maps", batch).done == 1
    display(scene, 3)
    assert run_batch([scene], tmp_path / "maps", batch).skipped == 1
