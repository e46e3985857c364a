"""Bundles: written, read back equal, and refused in one line when something is wrong."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from rssc_geo.errors import BundleError, InputError, OutputError
from rssc_geo.locks import FileLock
from rssc_geo.models import (
    EMBEDDED,
    Model,
    ModelCard,
    embedded_names,
    load_bundle,
    load_card,
    save_bundle,
)


def test_round_trip(bundle: Path, small_model: Model) -> None:
    loaded = load_bundle(bundle)
    assert loaded.card.classes == small_model.card.classes
    images = torch.randn(2, 3, 64, 64)
    inputs = loaded.tokenize(["A green field.", "Trees."])
    with torch.inference_mode():
        assert torch.allclose(
            loaded.network(images, *inputs), small_model.network(images, *inputs), atol=0.05
        )
    again = load_bundle(str(bundle))
    for key, value in loaded.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    assert not loaded.network.training


def test_a_bundle_may_be_written_over_and_beside_other_files(
    bundle: Path, small_model: Model
) -> None:
    (bundle / "notes.txt").write_text("mine")
    before = set(bundle.iterdir())
    card = save_bundle(bundle, small_model, readme="# again\n", half=False)
    assert set(bundle.iterdir()) == before, "nothing temporary is left"
    assert (bundle / "README.md").read_text() == "# again\n"
    assert load_card(bundle) == card
    loaded = load_bundle(bundle).network.state_dict()
    for key, value in small_model.network.state_dict().items():
        assert torch.equal(value, loaded[key])


def test_a_bundle_that_another_process_has_made_meanwhile_is_kept(
    bundle: Path, small_model: Model
) -> None:
    """Two trainings with one output: files of both would be mixed."""
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    with pytest.raises(InputError, match="holds a bundle already"):
        save_bundle(bundle, small_model, readme="# mine\n", overwrite=False)
    with (
        FileLock(bundle / ".lock.rssc-geo", taken=bundle),
        pytest.raises(OutputError, match="is in use by another rssc-geo process"),
    ):
        save_bundle(bundle, small_model, readme="# mine\n")
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


def test_card_survives_json(small_model: Model) -> None:
    card = ModelCard.from_json(small_model.card.to_json(), where="here")
    assert card.to_json() == small_model.card.to_json()


def _edit(bundle: Path, **changes: object) -> None:
    path = bundle / "config.json"
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps({k: v for k, v in data.items() if v != "DELETE"}))


BREAKAGES = {
    "no config": (lambda b: (b / "config.json").unlink(), "config.json is missing"),
    "not json": (lambda b: (b / "config.json").write_text("{"), "config.json cannot be used"),
    "a list": (lambda b: (b / "config.json").write_text("[]"), "not a JSON object"),
    "no classes": (lambda b: _edit(b, classes="DELETE"), "lacks 'classes'"),
    "unknown field": (lambda b: _edit(b, surprise=1), "surprise"),
    "other format": (lambda b: _edit(b, format=99), "format 99"),
    "no weights": (lambda b: (b / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no tokenizer": (lambda b: (b / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "altered weights": (lambda b: (b / "model.safetensors").write_bytes(b"\0" * 100), "checksum"),
    "no checksum": (lambda b: _edit(b, sha256={}), "no sha256"),
    "other network": (
        lambda b: _edit(b, captioner=None, network={"image_encoder": {}, "text_encoder": {}}),
        "an encoder of the type None",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_broken_bundles_are_refused_in_one_line(bundle: Path, name: str) -> None:
    damage, message = BREAKAGES[name]
    damage(bundle)
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(bundle: Path) -> None:
    data = json.loads((bundle / "config.json").read_text())
    data["network"]["width"] = 64
    (bundle / "config.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="does not fit") as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_named_and_never_loaded(bundle: Path) -> None:
    (bundle / "model.safetensors").unlink()
    (bundle / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n.")
    with pytest.raises(BundleError, match=r"pytorch_model.bin is pickled and never loaded"):
        load_bundle(bundle)


def test_a_pickle_named_safetensors_is_refused(bundle: Path) -> None:
    payload = b"\x80\x04cos\nsystem\n." * 20
    (bundle / "model.safetensors").write_bytes(payload)
    data = json.loads((bundle / "config.json").read_text())
    data["sha256"]["model.safetensors"] = hashlib.sha256(payload).hexdigest()
    (bundle / "config.json").write_text(json.dumps(data))
    with pytest.raises(BundleError, match="not a readable safetensors"):
        load_bundle(bundle)


def test_unknown_names_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="embedded: compact"):
        load_bundle("nonsense")
    file = tmp_path / "weights.pth"
    file.write_bytes(b"x")
    with pytest.raises(BundleError, match="is a file"):
        load_bundle(file)


def test_a_hub_id_without_a_network_says_how_to_fetch_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BundleError, match="hf download nobody/nothing") as caught:
        load_bundle("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_folders_come_before_names(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle.rename(bundle.with_name("compact"))
    monkeypatch.chdir(bundle.parent)
    assert load_card("compact").name == "small"


def test_the_embedded_bundle_is_whole() -> None:
    assert embedded_names() == ["compact"]
    model = load_bundle("compact")
    assert len(model.card.classes) == 41
    assert sum(p.stat().st_size for p in (EMBEDDED / "compact").iterdir()) <= 20_000_000
    assert model.card.accuracy["validation"]["overall_accuracy"] >= 0.90
    assert model.decoder is not None
