"""Commands that read single tiles work on models of fine maps too."""

import copy
import dataclasses
from pathlib import Path

import geopandas as gpd
import pytest
import torch

import rssc_geo
from rssc_geo import ClassifyOptions, ExplainOptions, TilingOptions, UsageError, ZeroShotOptions
from rssc_geo.models import END, Alignment, Model, load_card, save_bundle


@pytest.fixture(scope="module")
def fine_bundle(fine_model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    alignment = Alignment(image_width=1032, text_width=32)
    card = dataclasses.replace(fine_model.card, alignment={"image_width": 1032, "text_width": 32})
    folder = tmp_path_factory.mktemp("bundles") / "fine"
    decoder = copy.deepcopy(fine_model.decoder)
    assert decoder is not None
    with torch.no_grad():
        decoder.words.weight[: END + 1] = 0  # it writes words, not the end at once
    model = dataclasses.replace(fine_model, card=card, alignment=alignment, decoder=decoder)
    save_bundle(folder, model, readme="# fine\n")
    return folder


def test_own_classes_by_words_are_mapped_as_finely(
    fine_bundle: Path, fine_scene: Path, tmp_path: Path
) -> None:
    options = ZeroShotOptions(model=str(fine_bundle), device="cpu", other=False)
    rssc_geo.zero_shot(fine_scene, tmp_path / "map.gpkg", ["field", "river"], options)
    cells = gpd.read_file(tmp_path / "map.gpkg", layer="cells")
    assert len(cells) == 800
    assert set(cells["class"]) <= {"field", "river"}
    again = rssc_geo.zero_shot(fine_scene, tmp_path / "again.gpkg", "field,river", options)
    assert [total.name for total in again.summary.classes] == ["field", "river"]
    with pytest.raises(UsageError, match="has no layer 'tiles'; there are landuse, cells"):
        again.to_geopandas("tiles")


def test_a_fine_cell_is_explained_by_the_tile_around_it(
    fine_bundle: Path, fine_scene: Path, tmp_path: Path
) -> None:
    options = ClassifyOptions(model=str(fine_bundle), device="cpu", smooth=False)
    rssc_geo.classify(fine_scene, tmp_path / "map.gpkg", options)
    result = rssc_geo.explain(
        fine_scene,
        tmp_path / "why",
        ExplainOptions(
            model=str(fine_bundle),
            device="cpu",
            at=[(500_050, 4_999_950), (501_350, 4_998_450), (502_550, 4_996_850)],
            result=str(tmp_path / "map.gpkg"),
        ),
    )
    cells = gpd.read_file(tmp_path / "map.gpkg", layer="cells").set_index(["row", "col"])
    assert [(cell.row, cell.col) for cell in result.cells] == [(0, 0), (15, 13), (31, 25)]
    for explained in result.cells:
        written = cells.loc[(explained.row, explained.col)]
        assert explained.class_name == written["class"]
        assert explained.caption == written["caption"] != ""
        assert not explained.words_read  # captions of fine maps do not influence the class
        assert explained.confidence == pytest.approx(written["confidence"], abs=1e-5)
        assert explained.reasons.evidence.shape == (192, 192)


def test_one_cell_is_explained_without_its_whole_block(
    fine_bundle: Path, fine_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded, honest = [], Model.encode_block

    def noted(self: Model, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        encoded.append(images.shape[2] * images.shape[3] / 32**2)
        return honest(self, images)

    monkeypatch.setattr(Model, "encode_block", noted)
    options = ClassifyOptions(model=str(fine_bundle), device="cpu", smooth=False)
    rssc_geo.classify(fine_scene, tmp_path / "map.gpkg", options)
    whole = max(encoded)
    encoded.clear()
    asked = ExplainOptions(model=str(fine_bundle), device="cpu", at=[(500_550, 4_999_450)])
    result = rssc_geo.explain(fine_scene, tmp_path / "why", asked)
    cells = gpd.read_file(tmp_path / "map.gpkg", layer="cells").set_index(["row", "col"])
    written = cells.loc[(result.cells[0].row, result.cells[0].col)]
    assert result.cells[0].caption == written["caption"]
    assert result.cells[0].confidence == pytest.approx(written["confidence"], abs=1e-5)
    assert max(encoded) < whole / 3


def test_the_plan_tells_of_tiles_and_cells(fine_bundle: Path, fine_scene: Path) -> None:
    card = load_card(fine_bundle)
    plan = rssc_geo.make_plan(fine_scene, card, TilingOptions())
    described = rssc_geo.describe_run(plan, card)
    assert described.tile_size_px == (60, 60)
    assert described.cell_size_px == (10, 10)
    assert described.cells == 832
    assert (described.tiles, described.blocks) == (None, len(plan.unit_cells.tiles()))
    coarse = rssc_geo.describe_run(
        rssc_geo.make_plan(fine_scene, card, TilingOptions(tile_size="60px", cell_size="60px")),
        card,
    )
    assert coarse.blocks is None
    assert coarse.as_dict()["tiles"] == coarse.tiles
    assert "blocks" not in coarse.as_dict()
