"""Small pretrained encoders as they lie in folders: real classes, random weights.

No test itself.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTImageProcessor,
    ViTModel,
)

WORDS = [
    "<|startoftext|>",
    "<|endoftext|>",
    "[UNK]",
    ".",
    "this",
    "is",
    "a",
    "field",
    "river",
    "town",
    "overall",
    *"bcdefgh",
]


def save_tokenizer(folder: Path) -> None:
    """Words as CLIP's tokenizer gives them.

    Marks of begin and end around them, the latter also the padding.
    """
    tokenizer = Tokenizer(
        models.WordLevel({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=WORDS[0],
        eos_token=WORDS[1],
        pad_token=WORDS[1],
        unk_token="[UNK]",
    ).save_pretrained(folder)


def save_vit(folder: Path) -> ViTModel:
    """A ViT of 32 pixels, with its preprocessing."""
    torch.manual_seed(3)
    model = ViTModel(
        ViTConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=8,
        )
    )
    model.save_pretrained(folder)
    ViTImageProcessor(
        image_mean=[0.5] * 3, image_std=[0.25] * 3, size={"height": 32, "width": 32}
    ).save_pretrained(folder)
    return model.eval()


def save_clip(folder: Path) -> CLIPModel:
    """A whole CLIP, pictures and texts of 16 tokens, with its tokenizer and preprocessing."""
    torch.manual_seed(4)
    sizes = {"intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = {
        "vocab_size": len(WORDS),
        "max_position_embeddings": 16,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    model = CLIPModel(
        CLIPConfig(
            text_config={"hidden_size": 24, **text, **sizes},
            vision_config={"hidden_size": 32, "image_size": 16, "patch_size": 8, **sizes},
        )
    )
    model.save_pretrained(folder)
    save_tokenizer(folder)
    ViTImageProcessor(
        image_mean=[0.4] * 3, image_std=[0.3] * 3, size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    return model.eval()


def save_pictures(folder: Path) -> None:
    """Pictures of two classes in a folder each, and beside it ``generated.jsonl`` with captions."""
    random = np.random.default_rng(0)
    lines = []
    for name, level in {"Field": 60, "River": 200}.items():
        (folder / name).mkdir(parents=True)
        for index in range(8):
            pixels = random.integers(level - 20, level + 20, (32, 32, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
            lines.append(
                json.dumps(
                    {"image": f"{name}/{index}.png", "captions": [f"overall a {name.lower()}."]}
                )
            )
    (folder.parent / "generated.jsonl").write_text("\n".join(lines))
