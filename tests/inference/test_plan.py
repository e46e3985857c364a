from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rssc_geo import TilingOptions, load_card, make_plan
from rssc_geo.inference import plan_later_date
from rssc_geo.raster import PixelReader, fit_radiometry
from tests.factories import texture, write_raster

SIDE = 450


def reads_of_all(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Rows and columns of every read of more than a corner."""
    read, shapes = PixelReader.read, []

    def noting(self, window, out_shape):
        if max(out_shape) > 16:
            shapes.append(out_shape)
        return read(self, window, out_shape)

    monkeypatch.setattr(PixelReader, "read", noting)
    return shapes


@pytest.mark.parametrize("stretch", [None, "dos", "2%,98%", "none"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_raster_is_sampled_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stretch: str | None, dtype: str
) -> None:
    hazy = texture(SIDE, SIDE) // 2 + 60
    path = write_raster(tmp_path / "scene.tif", hazy.astype(dtype))
    options = TilingOptions(tile_size="256px", stretch=stretch)
    reads = reads_of_all(monkeypatch)
    plan = make_plan(path, load_card("compact"), options)
    assert reads == [(SIDE, SIDE)] * (dtype == "uint8")
    found = plan.radiometry
    assert reads == [(SIDE, SIDE)]
    assert found == fit_radiometry(plan.scene, stretch=plan.options.stretch)
    if (stretch, dtype) == ("dos", "uint8"):
        assert min(found.low) > 0


def test_a_date_on_another_grid_is_sampled_again(tmp_path: Path) -> None:
    hazy = texture(SIDE, SIDE) // 2 + 60
    options = TilingOptions(tile_size="100px", stretch="dos", force=True)
    plan = make_plan(
        write_raster(tmp_path / "first.tif", hazy[:, :225]), load_card("compact"), options
    )
    same = plan_later_date(write_raster(tmp_path / "same.tif", hazy[:, :225]), plan)
    assert np.array_equal(same.sample, plan.sample)
    assert plan_later_date(write_raster(tmp_path / "larger.tif", hazy), plan).sample is None
