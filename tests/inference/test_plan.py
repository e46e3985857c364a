from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rssc_geo import TilingOptions, load_card, make_plan
from rssc_geo.geometry import Window
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


def test_a_window_is_shown_as_the_network_sees_it(tmp_path: Path) -> None:
    pixels = texture(120, 90).astype(np.uint16) * 20 + 500
    pixels[:, :30, :30] = 0
    path = write_raster(tmp_path / "scene.tif", pixels, nodata=0)
    plan = make_plan(path, load_card("compact"), TilingOptions(tile_size="60px", force=True))
    window = Window(20, 10, 40, 60)
    shown, mask = plan.picture(window, (40, 60))
    cut = pixels[:, 20:60, 10:70].transpose(1, 2, 0)
    assert np.array_equal(mask, (cut != 0).any(2))
    assert np.array_equal(shown, plan.radiometry.apply(cut, mask))
    assert not shown[~mask].any()
    halved, there = plan.picture(window, (20, 30))
    assert halved.shape == (20, 30, 3)
    assert there.sum() == 20 * 30 - 5 * 10
