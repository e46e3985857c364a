"""Fine maps: cells read from features that the windows of a raster share."""

import copy
import dataclasses
import math
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch

import rssc_geo
from rssc_geo import ClassifyOptions
from rssc_geo.captioning import CaptionBatch, Captioner, NoCaptioner
from rssc_geo.geometry import BlockGrid, choose_sizes, window_weights
from rssc_geo.inference import Prediction, Predictor, choose_compute, make_plan, predict_tiles
from rssc_geo.inference import layout as layout_module
from rssc_geo.inference.layout import BlockLayout, block_grid
from rssc_geo.models import Model, pool_windows
from rssc_geo.options import TilingOptions

STRIDE, FINE, FIELD = 32, 8, 315


class _ColorCaptioner:
    """Says what color a tile has, and how many of its pixels are valid."""

    name = "none"
    source = "generated"

    def caption(self, batch: CaptionBatch) -> list[str]:
        assert batch.image_tokens.shape[1:] == (36, 1032)
        assert batch.pixels.shape[1:] == (192, 192, 3)
        return [
            f"color {pixels.mean():.2f}, valid {mask.mean():.3f}"
            for pixels, mask in zip(batch.pixels, batch.mask, strict=True)
        ]


def _predictor(model: Model) -> Predictor:
    model = dataclasses.replace(model, network=copy.deepcopy(model.network))
    return Predictor(model, _ColorCaptioner(), choose_compute("cpu"))


def _cells(
    model: Model, fine_scene: Path, path: Path, *, probabilities: bool = True, **options: object
) -> gpd.GeoDataFrame:
    """Before any step over the set of them."""
    made = ClassifyOptions(
        probabilities=probabilities,
        min_valid=0.5,
        smooth=False,
        **options,  # type: ignore[arg-type]
    )
    rssc_geo.classify(fine_scene, path, made, model=_predictor(model))
    return gpd.read_file(path, layer="cells").set_index(["row", "col"]).sort_index()


def _same(one: gpd.GeoDataFrame, other: gpd.GeoDataFrame) -> None:
    names = [name for name in one.columns if name.startswith("p_")]
    assert names
    np.testing.assert_allclose(one[names], other[names], atol=2e-5)
    assert (one["caption"] == other["caption"]).all()


def test_windows_are_centered_and_stay_inside() -> None:
    found = window_weights(range(9), range(9), count=9, tokens=1, window=6)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[4], np.array([0, 1, 2, 2, 2, 2, 2, 1, 0]) / 12)
    np.testing.assert_allclose(found[0], np.array([1] * 6 + [0] * 3) / 6)
    np.testing.assert_allclose(found[8], np.array([0] * 3 + [1] * 6) / 6)
    thirds = window_weights(range(1, 2), range(3), count=3, tokens=2, window=6)
    np.testing.assert_allclose(thirds, np.ones((1, 6)) / 6)
    small = window_weights(range(2), range(-1, 3), count=2, tokens=2, window=6)
    np.testing.assert_allclose(small, np.array([[0, 0, 1, 1, 1, 1, 0, 0]] * 2) / 4)
    with pytest.raises(ValueError, match="reaches beyond"):
        window_weights(range(4, 5), range(4, 5), count=9, tokens=1, window=6)


@pytest.mark.parametrize(
    ("tile", "cell", "size", "cell_size"),
    [
        (None, None, (60, 60), (10, 10)),
        (None, "100m", (60, 60), (10, 10)),
        (None, "8px", (48, 48), (8, 8)),
        (None, "7px", (84, 84), (7, 7)),
        (None, "30px", (60, 60), (30, 30)),
        (None, "200px", (200, 200), (200, 200)),
        ("1200m", None, (120, 120), (20, 20)),
        ("70px", None, (72, 72), (12, 12)),
        ("100px", "33px", (99, 99), (33, 33)),
        ("100px", "50px", (100, 100), (50, 50)),
        (None, "50m", (60, 60), (5, 5)),
        (None, "1px", (12, 12), (1, 1)),
        ("70px", "6px", (72, 72), (6, 6)),
    ],
)
def test_a_tile_is_whole_cells(
    tile: str | None, cell: str | None, size: tuple[int, int], cell_size: tuple[int, int]
) -> None:
    found = choose_sizes(
        (320, 260), (10, 10), footprint_m=(300, 600, 4800), tokens=24, requested=(tile, cell)
    )
    assert (found.size, found.cell_size) == (size, cell_size)
    assert found.size[0] == found.fraction * found.cell_size[0]


@pytest.mark.parametrize(
    ("gsd_m", "size", "words"),
    [
        (1.0, (600, 600), "prefers"),
        (20.0, (36, 36), "36 px of this raster"),
        (30.0, (36, 36), "36 px of this raster"),
    ],
)
def test_default_tiles_show_enough_pixels(gsd_m: float, size: tuple[int, int], words: str) -> None:
    found = choose_sizes((2000, 2000), (gsd_m, gsd_m), footprint_m=(300, 600, 4800), tokens=24)
    assert (found.size, found.cell_size) == (size, (size[0] // 6, size[1] // 6))
    assert words in found.reason
    more = choose_sizes(
        (2000, 2000), (gsd_m, gsd_m), footprint_m=(300, 600, 4800), tokens=24, least_shown=60
    )
    assert more.size == (max(size[0], 60), max(size[1], 60))


@pytest.mark.parametrize(("tokens", "cell_size"), [(1, 50), (2, 25), (4, 25), (6, 8), (7, 50)])
def test_a_cell_is_whole_tokens(tokens: int, cell_size: int) -> None:
    """Of a tile of 50 px."""
    found = choose_sizes(
        (320, 260), (10, 10), footprint_m=(300, 600, 4800), tokens=tokens, requested=("50px", None)
    )
    assert found.cell_size == (cell_size, cell_size)
    assert tokens % found.fraction == 0


@pytest.mark.slow
@pytest.mark.parametrize(("fraction", "cell"), [(12, 5), (12, 4), (6, 10), (3, 20), (2, 30)])
def test_windows_equal_those_cut_out_with_their_context(
    fine_model: Model, fine_scene: Path, fraction: int, cell: int
) -> None:
    plan = make_plan(
        fine_scene, fine_model.card, TilingOptions(tile_size="60px", cell_size=f"{cell}px")
    )
    assert plan.blocks is not None
    assert plan.tiling.fraction == fraction
    predictor, side = _predictor(fine_model), 192 // fraction
    whole = BlockGrid(
        plan.scene.shape,
        (cell, cell),
        cell_pixels=plan.blocks.cell_pixels,
        side=100,
        halo=-(-8 * STRIDE // side),
        margin=plan.blocks.margin,
    )
    with _reader(plan, whole) as reader:
        (data,) = reader
    with torch.inference_mode():
        images = predictor.model.preprocess(data.pixels[None], data.mask[None])
        looks = predictor.model.encode_block(images)
        count, margin = whole.cells_shape, whole.margin * side
        layout = BlockLayout.of(fine_model.card, whole, data.tile)
        pooled = pool_windows((looks[0][0], looks[1][0]), scene=layout.scene, ground=layout.ground)
        for place in ((count[0] // 2, count[1] // 2), (0, 0), (count[0] - 1, 3)):
            found = []
            for look, stride, window in zip(looks, (STRIDE, FINE), (192, side), strict=True):
                # In units of the finest tokens, from the raster's origin: rows and columns.
                weights = [
                    window_weights(range(k, k + 1), range(cells), count=cells,
                                   tokens=side // FINE, window=window // FINE)[0]
                    for k, cells in zip(place, count, strict=True)
                ]  # fmt: skip
                used = [np.flatnonzero(w) * FINE // stride for w in weights]
                # Cut out the tokens' pixels with all that they see, no more.
                reach = -(-(FIELD - STRIDE) // 2 // STRIDE) * STRIDE
                starts = [(u[0] * stride + margin - reach) // STRIDE * STRIDE for u in used]
                ends = [(u[-1] + 1) * stride + margin + reach for u in used]
                cut = images[:, :, starts[0] : ends[0], starts[1] : ends[1]]
                seen = predictor.model.encode_block(cut)[stride != STRIDE]
                first = [(start - margin) // stride for start in starts]
                tokens = [u - f for u, f in zip(used, first, strict=True)]
                inner = seen[0][:, tokens[0]][:, :, tokens[1]]
                block = [u + margin // stride for u in used]
                torch.testing.assert_close(
                    inner, look[0][:, block[0]][:, :, block[1]], atol=1e-4, rtol=1e-4
                )
                found.append(torch.einsum(
                    "chw,h,w->c", inner, *(torch.from_numpy(w[w > 0]) for w in weights)
                ))  # fmt: skip
            torch.testing.assert_close(pooled[place], torch.cat(found), atol=1e-4, rtol=1e-4)


def _reader(plan: object, grid: BlockGrid):
    from rssc_geo.raster import TileReader

    return TileReader(plan.scene, grid, plan.radiometry, out_size=(1, 1))  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "fraction"), [("100m", 6), ("50m", 12)])
def test_where_blocks_end_leaves_no_trace(
    cell: str,
    fraction: int,
    fine_model: Model,
    fine_scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large = _cells(fine_model, fine_scene, tmp_path / "large.gpkg", cell_size=cell)
    monkeypatch.setattr(layout_module, "_BLOCK_TOKENS", 12)
    plan = make_plan(fine_scene, fine_model.card, TilingOptions(cell_size=cell))
    assert plan.blocks is not None
    assert plan.tiling.fraction == fraction
    assert plan.blocks.tiles_shape == (3, 3)
    small = _cells(fine_model, fine_scene, tmp_path / "small.gpkg", cell_size=cell)
    parts = fraction**2 // 36
    assert len(large) == len(small) > 750 * parts
    assert large["class"].nunique() > 1
    assert large["caption"].nunique() > 1
    names = [name for name in large.columns if name.startswith("p_")]
    np.testing.assert_allclose(large[names], small[names], atol=2e-5)
    inside = _cells(
        fine_model,
        fine_scene,
        tmp_path / "aoi.gpkg",
        cell_size=cell,
        bounds=(500_500, 4_997_500, 501_500, 4_999_500),
    )
    assert len(inside) == 168 * parts  # of 100 m: 20 x 10 cells, 4 x 8 of them without data
    _same(inside, small.loc[inside.index])


def test_results_of_a_whole_block_are_not_copied(
    fine_model: Model, fine_scene: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner, made = Predictor.classify_block, []

    def noting(self: Predictor, *arguments: object, **more: object) -> Prediction:
        made.append(inner(self, *arguments, **more))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(Predictor, "classify_block", noting)
    whole = make_plan(fine_scene, fine_model.card, TilingOptions(cell_size="100m"))
    bounds = (500_500, 4_997_500, 501_500, 4_999_500)
    part = make_plan(fine_scene, fine_model.card, dataclasses.replace(whole.options, bounds=bounds))
    for plan, shared in ((whole, True), (part, False)):
        with _reader(plan, plan.blocks) as reader:
            batches = predict_tiles(reader, plan.unit_cells, _predictor(fine_model))
            results = [result for batch in batches for result in batch]
        for result in results:
            found = made.pop(0)
            for name in ("probabilities", "familiarity"):
                value, own = getattr(result, name), getattr(found, name)
                assert value.shape[:2] == result.cell_fractions.shape
                assert np.shares_memory(value, own) == shared
        assert not made


@pytest.mark.slow
@pytest.mark.parametrize("captioner", [_ColorCaptioner(), NoCaptioner()], ids=["captions", "none"])
@pytest.mark.parametrize(("cell", "fraction"), [("100m", 6), ("50m", 12), ("200m", 3)])
def test_cells_are_the_same_looked_at_alone(
    cell: str,
    fraction: int,
    captioner: Captioner,
    fine_model: Model,
    fine_scene: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a block only what the wanted cells depend on is encoded."""
    monkeypatch.setattr(layout_module, "_BLOCK_TOKENS", 24)
    plan = make_plan(fine_scene, fine_model.card, TilingOptions(cell_size=cell))
    grid = plan.blocks
    assert grid is not None
    assert plan.tiling.fraction == fraction
    predictor, encoded = Predictor(fine_model, captioner, choose_compute("cpu")), []
    honest = Model.encode_block

    def noted(self: Model, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded.append(images.shape[2] * images.shape[3])
        return honest(self, images)

    monkeypatch.setattr(Model, "encode_block", noted)
    smaller = 0
    with _reader(plan, grid) as blocks:
        for block in blocks:
            whole = predictor.classify_block(block, grid)
            rows, cols = grid.cells_of_tile(block.tile)
            count = len(rows), len(cols)
            full = encoded.pop()
            for top, left, height, width in (
                (0, 0, 1, 1),
                (count[0] // 2, count[1] // 2, 1, 1),
                (count[0] - 1, count[1] - 1, 1, 1),
                (count[0] // 3, 0, count[0] // 2, count[1]),
            ):
                wanted = rows[top : top + height], cols[left : left + width]
                found = predictor.classify_block(block, grid, cells=wanted)
                part = encoded.pop()
                assert part <= full
                smaller += part < full
                same = np.arange(count[0] * count[1]).reshape(count)
                same = same[top : top + height, left : left + width].ravel()
                np.testing.assert_allclose(
                    found.probabilities, whole.probabilities[same], atol=1e-5
                )
                np.testing.assert_allclose(found.familiarity, whole.familiarity[same], atol=1e-5)
                assert found.captions == [whole.captions[place] for place in same]
    assert smaller > 8


def test_cells_lie_where_they_belong_and_nodata_is_not_classified(
    fine_model: Model, fine_scene: Path, tmp_path: Path
) -> None:
    cells = _cells(fine_model, fine_scene, tmp_path / "map.gpkg")
    assert set(cells.index) == {
        (row, col)
        for row in range(32)
        for col in range(26)
        if not (20 <= row < 24 and 5 <= col < 13)
    }
    west, south, east, north = cells.loc[(3, 7)].geometry.bounds
    assert (west, south, east, north) == (500_700, 4_999_600, 500_800, 4_999_700)


def test_one_cell_a_tile_is_looked_at_alone(
    fine_model: Model, fine_scene: Path, tmp_path: Path
) -> None:
    plan = make_plan(fine_scene, fine_model.card, TilingOptions(tile_size="60px", cell_size="60px"))
    assert plan.blocks is None
    cells = _cells(
        fine_model, fine_scene, tmp_path / "map.gpkg", tile_size="60px", cell_size="60px"
    )
    with rasterio.open(fine_scene) as raster:
        pixels = raster.read(window=rasterio.windows.Window(0, 60, 60, 60)).transpose(1, 2, 0)
    found = _predictor(fine_model).predict(np.ascontiguousarray(pixels)[None])
    names = [name for name in cells.columns if name.startswith("p_")]
    np.testing.assert_allclose(
        cells.loc[(1, 0), names].astype(float), found.probabilities[0], atol=2e-2
    )


@pytest.mark.slow
def test_windows_have_a_temperature_of_their_own(
    fine_model: Model, fine_scene: Path, tmp_path: Path
) -> None:
    card = dataclasses.replace(fine_model.card, window_temperature=0.5)
    surer = dataclasses.replace(fine_model, card=card)
    before, found = (
        _cells(model, fine_scene, tmp_path / f"{name}.gpkg").filter(like="p_").to_numpy(float)
        for name, model in (("before", fine_model), ("surer", surer))
    )
    assert np.ptp(before, 1).max() > 0.3
    squares = before**2
    np.testing.assert_allclose(found, squares / squares.sum(1, keepdims=True), atol=1e-4)

    tiles = {"tile_size": "60px", "cell_size": "60px"}
    alone = _cells(fine_model, fine_scene, tmp_path / "tiles.gpkg", **tiles)
    _same(alone, _cells(surer, fine_scene, tmp_path / "same.gpkg", **tiles))


@pytest.mark.slow
def test_a_run_that_stopped_goes_on(
    fine_model: Model, fine_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout_module, "_BLOCK_TOKENS", 12)
    whole = _cells(fine_model, fine_scene, tmp_path / "whole.gpkg")
    predictor = _predictor(fine_model)
    looked = []
    honest = Predictor.classify_block

    def failing(self: Predictor, block: object, grid: object, **_more: object) -> object:
        looked.append(block)
        if len(looked) == 6:
            raise KeyboardInterrupt
        return honest(self, block, grid)  # type: ignore[arg-type]

    options = ClassifyOptions(probabilities=True, min_valid=0.5, smooth=False)
    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "classify_block", failing)
        with pytest.raises(KeyboardInterrupt):
            rssc_geo.classify(fine_scene, tmp_path / "map.gpkg", options, model=predictor)
    count = []
    with monkeypatch.context() as patch:
        patch.setattr(
            Predictor,
            "classify_block",
            lambda self, block, grid, **_more: count.append(1) or honest(self, block, grid),
        )
        rssc_geo.classify(fine_scene, tmp_path / "map.gpkg", options, model=predictor)
    blocks = block_grid(fine_model.card, (320, 260), (10, 10), 6).tiles_shape
    assert len(count) == blocks[0] * blocks[1] - 5
    again = gpd.read_file(tmp_path / "map.gpkg", layer="cells").set_index(["row", "col"])
    _same(whole, again.sort_index())


def test_weights_fit_the_features_of_any_block(fine_model: Model) -> None:
    card, random = fine_model.card, np.random.default_rng(0)
    finest = card.token_strides[1]
    for _ in range(300):
        fraction = int(random.choice([1, 2, 3, 6, 12]))
        shape = tuple(int(side) for side in random.integers(1, 900, 2))
        cell_size = tuple(int(side) for side in random.integers(1, 12, 2))
        grid = block_grid(card, shape, cell_size, fraction)
        block = grid.tile(int(random.integers(math.prod(grid.tiles_shape))))
        cells = None
        if random.random() < 0.5:  # some of the block's, as an area of interest wants
            axes = []
            for every in grid.cells_of_tile(block):
                first = int(random.integers(every.start, every.stop))
                axes.append(range(first, int(random.integers(first, every.stop)) + 1))
            cells = axes[0], axes[1]
        layout = BlockLayout.of(card, grid, block, cells)
        for axis, seen in enumerate(layout.seen):
            tokens = -(-(seen.stop - seen.start) // STRIDE)
            for look, count in ((layout.scene, tokens), (layout.ground, tokens * STRIDE // finest)):
                assert look[axis].shape[1] == count
                np.testing.assert_allclose(look[axis].sum(1), 1, rtol=1e-5)
