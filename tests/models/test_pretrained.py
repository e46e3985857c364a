"""Pretrained encoders.

Read from folders, with their own preprocessing, kept in bundles that load without them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel, T5Model

from rssc_geo.errors import BundleError, UsageError
from rssc_geo.models import (
    load_bundle,
    load_image_encoder,
    load_text_encoder,
    load_tokenizer,
    make_image_encoder,
    make_text_encoder,
    save_bundle,
)
from rssc_geo.training import (
    EndToEndRecipe,
    Legend,
    TrainingRecipe,
    load_encoders,
    new_end_to_end_model,
    train_layers,
)
from tests.pretrained_folders import WORDS, save_clip, save_tokenizer, save_vit


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit")
    save_vit(folder)
    return folder


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_clip(folder)
    return folder


def test_a_transformers_vision_model(vit_folder: Path, tmp_path: Path) -> None:
    found = load_image_encoder(str(vit_folder))
    assert (found.size, found.mean, found.std) == (32, (0.5,) * 3, (0.25,) * 3)
    encoder = make_image_encoder(json.loads(json.dumps(found.configuration))).eval()
    encoder.load_state_dict(found.weights)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        wanted = save_vit(tmp_path)(pixel_values=pixels).last_hidden_state  # the same seed
        torch.testing.assert_close(encoder(pixels), wanted)
    assert wanted.shape == (2, 17, encoder.width)


def test_the_two_halves_of_clip(clip_folder: Path, tmp_path: Path) -> None:
    whole = save_clip(tmp_path)
    image, text = load_image_encoder(str(clip_folder)), load_text_encoder(str(clip_folder))
    assert (image.size, image.mean, text.max_tokens) == (16, (0.4,) * 3, 16)
    sees, reads = (
        make_image_encoder(image.configuration).eval(),
        make_text_encoder(text.configuration).eval(),
    )
    sees.load_state_dict(image.weights)
    reads.load_state_dict(text.weights)
    pixels, ids = torch.randn(1, 3, 16, 16), torch.tensor([[0, 5, 6, 7, 1]])
    with torch.inference_mode():
        torch.testing.assert_close(
            sees(pixels), whole.vision_model(pixel_values=pixels).last_hidden_state
        )
        torch.testing.assert_close(
            reads(ids, torch.ones_like(ids, dtype=torch.bool)),
            whole.text_model(input_ids=ids).last_hidden_state,
        )


def test_of_an_encoder_decoder_the_encoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS),
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=1,
        num_heads=2,
        decoder_start_token_id=0,
    )
    whole = T5Model(config).eval()
    whole.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    found = load_text_encoder(str(tmp_path))
    encoder = make_text_encoder(found.configuration).eval()
    encoder.load_state_dict(found.weights)
    assert isinstance(encoder.backbone, T5EncoderModel)
    ids = torch.tensor([[5, 6, 1]])
    with torch.inference_mode():
        wanted = whole.encoder(input_ids=ids).last_hidden_state
        torch.testing.assert_close(encoder(ids, torch.ones_like(ids, dtype=torch.bool)), wanted)


@pytest.mark.parametrize("architecture", ["resnet10t", "test_vit"])
def test_a_timm_folder(architecture: str, tmp_path: Path) -> None:
    model = timm.create_model(architecture, num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    preset = {
        "architecture": architecture,
        "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3, "input_size": [3, 160, 160]},
    }
    (tmp_path / "config.json").write_text(json.dumps(preset))
    found = load_image_encoder(str(tmp_path))
    assert (found.size, found.mean) == (160, (0.1,) * 3)
    encoder = make_image_encoder(found.configuration).eval()
    encoder.load_state_dict(found.weights)
    pixels = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        tokens, wanted = encoder(pixels), model.forward_features(pixels)
    assert tokens.shape == (1, tokens.shape[1], encoder.width)
    torch.testing.assert_close(
        tokens.mean(1),
        wanted.mean((2, 3)) if wanted.ndim == 4 else wanted.mean(1),
        atol=1e-4,
        rtol=1e-4,
    )


def test_maps_with_channels_last_are_read_as_such() -> None:
    kwargs = {
        "img_size": 64,
        "window_size": 2,
        "embed_dim": 16,
        "depths": (1, 1, 1, 1),
        "num_heads": (1, 1, 2, 2),
    }
    encoder = make_image_encoder(
        {"architecture": "swin_tiny_patch4_window7_224", "kwargs": kwargs}
    ).eval()
    with torch.inference_mode():
        assert encoder(torch.randn(1, 3, 64, 64)).shape == (1, 4, encoder.width)


def test_a_bundle_of_them_loads_without_them(
    vit_folder: Path, clip_folder: Path, tmp_path: Path
) -> None:
    for source in (vit_folder, clip_folder):
        shutil.copytree(source, tmp_path / source.name)
    recipe = EndToEndRecipe(
        image_encoder=str(tmp_path / vit_folder.name),
        text_encoder=str(tmp_path / clip_folder.name),
        width=16,
    )
    model = new_end_to_end_model(
        TrainingRecipe(), recipe, load_encoders(recipe), Legend.of_classes(["Field", "River"])
    )
    save_bundle(tmp_path / "bundle", model, readme="")
    for source in (vit_folder, clip_folder):
        shutil.rmtree(tmp_path / source.name)
    loaded = load_bundle(tmp_path / "bundle")
    assert loaded.card.special_tokens
    ids, mask = loaded.tokenize(
        ["a field", "", " ".join(["this is a river."] * 9) + " Overall a field."]
    )
    assert ids.shape == (3, 16)
    assert ids[0, :5].tolist() == [0, WORDS.index("a"), WORDS.index("field"), 1, 0]
    assert mask.sum(1).tolist() == [4, 0, 16]
    assert [WORDS[k] for k in ids[2, -5:].tolist()] == [
        "overall",
        "a",
        "field",
        ".",
        "<|endoftext|>",
    ]
    images = loaded.preprocess(np.full((3, 32, 32, 3), 255, np.uint8), np.ones((3, 32, 32), bool))
    assert float(images.max()) == pytest.approx((1 - 0.5) / 0.25)
    with torch.inference_mode():
        assert torch.allclose(
            loaded.network(images, ids, mask), model.network.eval()(images, ids, mask), atol=0.05
        )


def test_the_last_layers_learn(clip_folder: Path) -> None:
    encoder = make_text_encoder(load_text_encoder(str(clip_folder)).configuration)

    def learning() -> list[str]:
        return [name for name, value in encoder.named_parameters() if value.requires_grad]

    every = learning()
    train_layers(encoder, 1, what="text")
    assert learning() == [
        name for name in every if "layers.2." in name or "final_layer_norm" in name
    ]
    train_layers(encoder, 0, what="text")
    assert learning() == []
    train_layers(encoder, None, what="text")
    assert learning() == every
    with pytest.raises(UsageError, match="the text encoder has 3 layers, of which 4"):
        train_layers(encoder, 4, what="text")


def _remove(folder: Path, file: str) -> None:
    (folder / file).unlink()


BREAKAGES = {
    "no config": (lambda f: _remove(f, "config.json"), "holds no config.json"),
    "no weights": (lambda f: _remove(f, "model.safetensors"), "cannot be loaded as safetensors"),
    "pickled": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "cannot be loaded as safetensors",
    ),
    "half": (
        lambda f: (f / "model.safetensors").write_bytes(
            (f / "model.safetensors").read_bytes()[:999]
        ),
        "cannot be loaded",
    ),
    "other weights": (
        lambda f: save_file({"a": torch.zeros(1)}, f / "model.safetensors", {"format": "pt"}),
        "its weights lack",
    ),
    "own code": (
        lambda f: (f / "config.json").write_text(
            '{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}'
        ),
        "runs code of its own, which is refused",
    ),
    "no preset": (
        lambda f: _remove(f, "preprocessor_config.json"),
        "preprocessor_config.json cannot be used",
    ),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_what_cannot_be_read_is_one_line(name: str, vit_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    shutil.copytree(vit_folder, folder)
    damage, message = BREAKAGES[name]
    damage(folder)
    with pytest.raises(BundleError, match=message) as caught:
        load_image_encoder(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("google/vit-base-patch16-224-in21k", "hf download google/vit-base-patch16-224-in21k"),
        ("vit_base_patch16_224", "hf download timm/vit_base_patch16_224"),
        ("no such model", "is no folder, hub id .* or timm model"),
    ],
)
def test_without_a_network_the_line_says_what_to_fetch(
    name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BundleError, match=message) as caught:
        load_image_encoder(name)
    assert "\n" not in str(caught.value)
    with pytest.raises(BundleError):
        load_text_encoder(name)


def test_a_tokenizer_that_is_none(vit_folder: Path) -> None:
    with pytest.raises(BundleError, match="holds no tokenizer_config.json"):
        load_tokenizer(str(vit_folder))
