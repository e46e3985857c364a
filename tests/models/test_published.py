"""Checkpoints of the authors' code.

Imported, computed as theirs for a batch of one, refused in one line when wrong.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast, ViTConfig, ViTModel

from rssc_geo.errors import BundleError, UsageError
from rssc_geo.models import import_checkpoint, load_bundle
from rssc_geo.options import ImportOptions

CLASSES = ["Beach", "Forest", "Port"]
TEXT, IMAGE, TOKENS = 64, 128, 11


class Authors(nn.Module):
    """Their network, restated from its description.

    Attention modules that take (S, B, E), fed (B, S, E) by the text's own.
    """

    def __init__(self, levels: int) -> None:
        super().__init__()
        vit = ViTConfig(
            hidden_size=IMAGE,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
        )
        clip = CLIPTextConfig(
            vocab_size=20,
            hidden_size=TEXT,
            intermediate_size=80,
            num_hidden_layers=2,
            num_attention_heads=1,
            max_position_embeddings=TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
        self.levels = levels
        self.image_encoder, self.text_encoder = ViTModel(vit), CLIPTextModel(clip)
        self.image_proj, self.back_proj = nn.Linear(IMAGE, TEXT), nn.Linear(TEXT, IMAGE)
        self.text_self_attention = nn.MultiheadAttention(TEXT, 4)
        self.text_cross_attention = nn.MultiheadAttention(TEXT, 4)
        self.image_cross_attention = nn.MultiheadAttention(TEXT, 4)
        self.mlp = nn.Sequential(
            nn.Linear(TEXT, 2 * TEXT),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(2 * TEXT, TEXT),
            nn.Dropout(0.1),
        )
        self.classifier = nn.Sequential(nn.Linear(IMAGE + TEXT, len(CLASSES)), nn.Dropout(0.0))
        self.text_layer_norm, self.image_layer_norm = nn.LayerNorm(TEXT), nn.LayerNorm(IMAGE)

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        def attend(block: nn.Module, asking: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
            return block(asking.transpose(0, 1), asked.transpose(0, 1), asked.transpose(0, 1))[
                0
            ].transpose(0, 1)

        image = self.image_encoder(pixel_values=pixels).last_hidden_state
        text = self.text_encoder(input_ids=ids).last_hidden_state
        seen = self.image_proj(image)
        for _ in range(self.levels):
            own = self.text_self_attention(text, text, text)[0]
            text = self.text_layer_norm(own + attend(self.text_cross_attention, own, seen))
            image = self.image_layer_norm(
                image + self.back_proj(attend(self.image_cross_attention, seen, self.mlp(text)))
            )
        return self.classifier(torch.cat([image.mean(1), text.mean(1)], 1))


@pytest.fixture(scope="module")
def authors() -> Authors:
    torch.manual_seed(0)
    network = Authors(levels=2).eval()
    with (
        torch.no_grad()
    ):  # norms and biases start as ones and zeros, which would hide a weight in the wrong place
        for value in network.parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.3)
        network.image_encoder.embeddings.position_embeddings.normal_()
        network.text_encoder.get_input_embeddings().weight.normal_()
    return network


@pytest.fixture(scope="module")
def clip_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words as CLIP's tokenizer gives them.

    Marks of begin and end around them, the latter also the padding.
    """
    words = ["<|startoftext|>", "<|endoftext|>", "[UNK]", *"abcdefghijklmnopq"]
    tokenizer = Tokenizer(
        models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)],
    )
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=words[0],
        eos_token=words[1],
        pad_token=words[1],
        unk_token="[UNK]",
    ).save_pretrained(folder)
    return folder


OLD_NAMES = (
    ("text_encoder.", "text_encoder.text_model."),
    ("image_encoder.layers.", "image_encoder.encoder.layer."),
    *(
        (f".attention.{new}_proj.", f".attention.attention.{old}.")
        for new, old in zip("qkv", ("query", "key", "value"), strict=True)
    ),
    (".attention.o_proj.", ".attention.output.dense."),
)


def _as_version(state: dict[str, torch.Tensor], version: int) -> dict[str, torch.Tensor]:
    """The names that transformers 4 or 5 gives, whichever is installed."""
    renamed = {}
    for name, value in state.items():
        key = name
        for new, old in OLD_NAMES:
            if key.startswith("image_encoder.") or new.startswith("text_encoder."):
                key = key.replace(old, new)
                key = key.replace(new, old) if version == 4 else key
        if key.startswith("image_encoder."):
            for new, old in (
                (".mlp.fc1.", ".intermediate.dense."),
                (".mlp.fc2.", ".output.dense."),
            ):
                if ".attention.output" not in key:
                    key = key.replace(new, old) if version == 4 else key.replace(old, new)
        renamed[key] = value
    return renamed


def _tell(authors: Authors, pixels: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Their logits of pictures one by one; each text as their processor pads and cuts it."""
    rows = []
    for picture, text in zip(pixels, texts, strict=True):
        ids = [0, *("abcdefghijklmnopq".index(word) + 3 for word in text.split())][: TOKENS - 1]
        rows.append(authors(picture[None], torch.tensor([[*ids, *[1] * (TOKENS - len(ids))]])))
    return torch.cat(rows)


TEXTS = ["a b c", "q", "d e f g h i j k l m n o p"]


@pytest.mark.parametrize("version", [4, 5])
def test_as_published_equals_their_network_for_a_batch_of_one(
    authors: Authors, clip_tokenizer: Path, tmp_path: Path, version: int
) -> None:
    state = _as_version(authors.state_dict(), version)
    assert ("image_encoder.encoder.layer.0.intermediate.dense.weight" in state) == (version == 4)
    assert ("text_encoder.text_model.final_layer_norm.weight" in state) == (version == 4)
    torch.save(state, tmp_path / "best.pth")
    card = import_checkpoint(
        tmp_path / "best.pth",
        tmp_path / "bundle",
        classes=CLASSES,
        options=ImportOptions(levels=2, tokenizer=str(clip_tokenizer)),
    )
    assert card.variant == "as-published"
    assert card.needs_captions
    assert not card.accuracy
    assert card.input_size == (32, 32)
    model = load_bundle(tmp_path / "bundle")
    pixels = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        wanted = _tell(authors, pixels, TEXTS)
        alone = torch.cat(
            [model.network(pixels[k : k + 1], *model.tokenize([TEXTS[k]])) for k in range(3)]
        )
        together = model.network(pixels, *model.tokenize(TEXTS))
        their_batch = authors(
            pixels, torch.tensor([[0, k + 3, *[1] * (TOKENS - 2)] for k in range(3)])
        )
        their_own = _tell(authors, pixels, ["a", "b", "c"])
    assert wanted.std() > 0.05
    torch.testing.assert_close(alone, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(together, wanted, atol=1e-4, rtol=0)
    assert (
        their_batch - their_own
    ).abs().max() > 1e-3  # why there is nothing to equal in larger batches
    with pytest.raises(UsageError, match="choose a --captioner"):
        model.network(pixels[:1])
    with pytest.raises(UsageError, match="choose a --captioner"):
        model.network(pixels, *model.tokenize(["a", "", "b"]))


def test_corrected_takes_the_same_weights_and_forgets_the_defects(
    authors: Authors, clip_tokenizer: Path, tmp_path: Path
) -> None:
    torch.save(
        {"model_state_dict": {f"module.{k}": v for k, v in authors.state_dict().items()}},
        tmp_path / "best.pth",
    )
    card = import_checkpoint(
        tmp_path / "best.pth",
        tmp_path / "bundle",
        classes=CLASSES,
        options=ImportOptions(levels=2, variant="corrected", tokenizer=str(clip_tokenizer)),
    )
    assert card.variant == "corrected"
    assert not card.needs_captions
    network = load_bundle(tmp_path / "bundle").network
    theirs = authors.state_dict()
    ours = network.state_dict()
    assert torch.equal(ours["level.text_norm.weight"], theirs["text_layer_norm.weight"])
    assert torch.equal(ours["level.mlp.3.weight"], theirs["mlp.3.weight"])
    assert torch.equal(
        ours["classifier.1.weight"][:, :TEXT], theirs["classifier.0.weight"][:, IMAGE:]
    )
    assert torch.equal(ours["text_proj.weight"], torch.eye(TEXT))
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(
        network.encode_image(pixels), authors.image_encoder(pixel_values=pixels).last_hidden_state
    )
    assert torch.isfinite(network(pixels)).all()


@pytest.fixture(scope="module")
def state(authors: Authors) -> dict[str, torch.Tensor]:
    return dict(authors.state_dict())


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("ran",))


WRONG: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (
        lambda s: {k: v for k, v in s.items() if k not in {"mlp.0.bias", "back_proj.bias"}},
        "missing: level.back_proj.bias, level.mlp.0.bias",
    ),
    "unexpected": (
        lambda s: {**s, "surprise.weight": torch.zeros(1)},
        "unexpected: surprise.weight",
    ),
    "shape": (lambda s: {**s, "mlp.0.bias": torch.zeros(3)}, "of another shape: level.mlp.0.bias"),
    "classes": (
        lambda s: {**s, "classifier.0.weight": torch.zeros(4, TEXT + IMAGE)},
        "trained for 4 classes, and --classes names 3",
    ),
    "another": (lambda s: {"weight": torch.zeros(1)}, "is no checkpoint of MultiAtt-RSSC"),
    "numbers": (lambda s: [1, 2], "holds no state dict"),
    "code": (lambda s: {"weight": _Evil()}, "could run code, which is refused"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_checkpoint_is_refused_in_one_line(
    name: str,
    state: dict[str, torch.Tensor],
    clip_tokenizer: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    change, message = WRONG[name]
    torch.save(change(state), tmp_path / "best.pth")
    with pytest.raises((BundleError, UsageError), match=message) as caught:
        import_checkpoint(
            tmp_path / "best.pth",
            tmp_path / "b",
            classes=CLASSES,
            options=ImportOptions(levels=2, tokenizer=str(clip_tokenizer)),
        )
    assert "\n" not in str(caught.value)
    assert "ran" not in capfd.readouterr().out
    assert not (tmp_path / "b").exists()


def test_files_that_are_none_and_tokenizers_that_are_not_there(
    state: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BundleError, match="no such file"):
        import_checkpoint(
            tmp_path / "none.pth", tmp_path / "b", classes=CLASSES, options=ImportOptions()
        )
    (tmp_path / "half.pth").write_bytes(pickle.dumps(1)[:-2])
    with pytest.raises(BundleError):
        import_checkpoint(
            tmp_path / "half.pth", tmp_path / "b", classes=CLASSES, options=ImportOptions()
        )
    torch.save(state, tmp_path / "best.pth")
    with pytest.raises(BundleError, match="hf download openai/clip-vit-base-patch32"):
        import_checkpoint(
            tmp_path / "best.pth", tmp_path / "b", classes=CLASSES, options=ImportOptions()
        )


def test_the_card_says_its_variant(authors: Authors, clip_tokenizer: Path, tmp_path: Path) -> None:
    torch.save(authors.state_dict(), tmp_path / "best.pth")
    import_checkpoint(
        tmp_path / "best.pth",
        tmp_path / "b",
        classes=CLASSES,
        options=ImportOptions(levels=1, tokenizer=str(clip_tokenizer)),
    )
    assert (
        json.loads((tmp_path / "b" / "config.json").read_text())["network"]["variant"]
        == "as-published"
    )
    assert "defects included" in (tmp_path / "b" / "README.md").read_text()
