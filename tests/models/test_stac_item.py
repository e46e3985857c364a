"""A model's card as a STAC item of the Machine Learning Model extension."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import url2pathname

import pytest
import safetensors

from rssc_geo.errors import BundleError, OutputError, UsageError
from rssc_geo.models import SceneClass, load_card, stac_class, write_model_item
from tests.catalogs import checked_item


def test_the_embedded_model_as_an_item(tmp_path: Path) -> None:
    card = load_card("compact")
    (tmp_path / "catalog").mkdir()
    path = write_model_item("compact", tmp_path / "catalog" / "compact.json")
    item = checked_item(path)
    told = item.properties
    assert item.id == f"{card.name}-{card.version}"
    assert told["license"] == card.license
    assert told["mlm:input"][0]["input"]["shape"] == [-1, 3, *card.input_size]
    classes = told["mlm:output"][0]["classification:classes"]
    assert [entry["title"] for entry in classes] == [known.title for known in card.classes]
    assert told["rssc_geo:sha256"] == dict(card.sha256)
    assert item.assets["model"].roles is not None
    assert "mlm:model" in item.assets["model"].roles
    for asset in item.assets.values():  # links lead to the bundle's files
        assert (path.parent / url2pathname(asset.href)).is_file()
    weights = path.parent / url2pathname(item.assets["model"].href)
    with safetensors.safe_open(weights, framework="numpy") as file:
        sizes = [file.get_tensor(name).size for name in file.keys()]  # noqa: SIM118 -- no dict
    assert told["mlm:total_parameters"] == sum(sizes)


def test_a_plain_bundle_as_an_item(bundle: Path, tmp_path: Path) -> None:
    """Without a captioner, an alignment and a record of its training."""
    item = checked_item(write_model_item(bundle, tmp_path / "item.json"))
    assert "scene-classification" in item.properties["mlm:tasks"]
    assert len(item.properties["mlm:output"]) == len(item.properties["mlm:tasks"])


def test_an_image_encoder_of_transformers_has_a_name_too(bundle: Path, tmp_path: Path) -> None:
    config = bundle / "config.json"
    card = json.loads(config.read_text(encoding="utf-8"))
    card["network"]["image_encoder"] = {"model_type": "vit", "hidden_size": 768}
    config.write_text(json.dumps(card), encoding="utf-8")
    item = checked_item(write_model_item(bundle, tmp_path / "item.json"))
    assert item.properties["mlm:architecture"] == "vit, dual cross-attention"


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tennis court", "tennis_court"),
        ("Café/bar", "Caf_bar"),
        ("草地", "class_4"),
        ("A-b", "A-b"),
    ],
)
def test_names_of_classes_fit_the_extension(name: str, wanted: str) -> None:
    found = stac_class(SceneClass(4, name, "#00ff7f"))
    assert found["name"] == wanted
    assert (found["title"], found["color_hint"]) == (name, "00FF7F")


def test_what_cannot_be_written_or_read(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"name it \.json"):
        write_model_item(bundle, tmp_path / "item.txt")
    there = tmp_path / "there.json"
    there.write_text("{}", encoding="utf-8")
    with pytest.raises(OutputError, match="exists"):
        write_model_item(bundle, there)
    write_model_item(bundle, there, overwrite=True)
    assert json.loads(there.read_text(encoding="utf-8"))["type"] == "Feature"
    (bundle / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BundleError, match="cannot be read"):
        write_model_item(bundle, tmp_path / "damaged.json")
