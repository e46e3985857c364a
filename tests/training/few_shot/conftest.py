from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLORS = {"Field": (60, 160, 60), "River, wide": (40, 80, 180), "Town <b>": (170, 90, 80)}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 20 noisy pictures of one color each, one of them there twice, with captions of all but one."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    lines = []
    for name, color in COLORS.items():
        (root / "images" / name).mkdir(parents=True)
        for index in range(20):
            pixels = np.clip(
                np.array(color) + random.integers(-40, 40, (40, 40, 3)), 0, 255
            ).astype(np.uint8)
            file = f"{name}/{index:02d}.png"
            Image.fromarray(pixels).save(root / "images" / file)
            lines.append(
                json.dumps(
                    {
                        "image": file,
                        "captions": [f"this is a {name.split(',', maxsplit=1)[0].lower()} ."],
                    }
                )
            )
    (root / "images" / "Field" / "19.png").write_bytes(
        (root / "images" / "Field" / "00.png").read_bytes()
    )
    (root / "captions.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    return root
