"""Small stand-ins for what the page of large models needs: a server, models, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.captioning.test_huggingface import llava, save
from tests.chat_server import ChatServer
from tests.pretrained_folders import save_clip, save_pictures, save_vit

from .blocks import Block, type_command

PAGE = "large-models"
_MODEL = "llava-hf/llava-1.5-7b-hf"
_SMALL = "--epochs 1 --width 16 --train-image-layers 1 --train-text-layers none"


@contextmanager
def stand_ins(folder: Path) -> Iterator[Callable[[Block], Block]]:
    """Gives a function that makes a ``sh`` block of the page one that can be run.

    What stands in is made in ``folder``, with a small part of the scene. Commands that start a
    server are left out, and what needs a GPU.
    """
    vit, clip, small = folder / "vit", folder / "clip", folder / "small.tif"
    for place in (vit, clip, folder / "llava", Path("work")):
        place.mkdir(parents=True, exist_ok=True)
    save_vit(vit)
    save_clip(clip)
    save_pictures(folder / "pictures")
    type_command(["python", "examples/make_demo_scene.py", str(small), "--gsd", "15"])
    with ChatServer(model=_MODEL) as server:
        pairs = {
            f"openai:http://localhost:8000/v1#{_MODEL}": server.captioner,
            f"hf:{_MODEL}": f"hf:{save(llava, folder / 'llava')}",
            " --quantize 4bit": "",
            "google/vit-base-patch16-224-in21k": str(vit),
            "openai/clip-vit-base-patch32": str(clip),
            "pictures/": str(folder / "pictures"),
            "generated.jsonl": str(folder / "written.jsonl"),
            "--recipe published": f"--recipe published {_SMALL}",
            "work/scene.tif": f"{small} --bounds 422000,4859000,423000,4860000",
        }

        def runnable(block: Block) -> Block:
            if block.language != "sh":
                return block
            text = re.sub(r"^vllm .*\n", "", block.text, flags=re.MULTILINE)
            for shown, used in pairs.items():
                text = text.replace(shown, used)
            return replace(block, language="bash", text=text)

        yield runnable
        assert server.requests
