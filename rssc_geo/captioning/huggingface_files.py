"""The files of a vision-language model in transformers' layout, found and checked.

Each problem in one line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rssc_geo.errors import BundleError, UsageError, not_fetched, one_line

Quantize = Literal["4bit", "8bit"]
BITS = {"4bit": 4, "8bit": 8}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """``name``: as asked for; ``revision``.

    The hub's commit, or a digest of the folder, which changes when the model does.
    """

    name: str
    folder: Path
    revision: str


def find_files(
    name_or_folder: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> ModelFiles:
    """An existing folder first, then a hub id, which is fetched into the hub's cache;
    ``HF_HUB_OFFLINE`` is honored.

    ``revision`` may also follow the id: "owner/name@revision". Raises ``UsageError`` for a name
    that is neither, ``BundleError`` where the hub gives nothing.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UsageError(f"{name_or_folder} is a folder, which has no revision {revision!r}")
        return ModelFiles(name_or_folder, folder, _digest(folder))
    repository, _, written = name_or_folder.partition("@")
    if not _HUB_ID.fullmatch(repository):
        raise UsageError(
            f"hf:{name_or_folder}: there is no such folder, and it is no hub id (owner/name)"
        )
    if revision and written and revision != written:
        raise UsageError(f"hf:{name_or_folder}: two revisions, {written!r} and {revision!r}")
    fetched = _fetch(
        repository,
        revision or written or None,
        [*_WANTED, "*.py"] if trust_remote_code else _WANTED,
    )
    return ModelFiles(repository, fetched, fetched.name)


def _fetch(repository: str, revision: str | None, wanted: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    try:  # folders inside hold the same weights in other forms
        return Path(
            snapshot_download(
                repository, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]
            )
        )
    except GatedRepoError as error:
        raise BundleError(
            f"hf:{repository}: its owner gives access on request; ask for it on the model's page"
            " and log in with 'hf auth login'"
        ) from error
    except RevisionNotFoundError as error:
        raise BundleError(f"hf:{repository}: the hub has no revision {revision!r} of it") from error
    except Exception as error:  # whatever the network makes the library raise
        raise not_fetched(f"hf:{repository}", repository, error, revision=revision) from error


def _digest(folder: Path) -> str:
    """Of the small files' bytes, and of the weights' names, sizes and times, which are not worth reading twice."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        facts = path.stat()
        if path.suffix in {".json", ".txt", ".model", ".jinja", ".py"}:
            digest.update(f"{path.name} {facts.st_size}\n".encode() + path.read_bytes())
        elif path.suffix == ".safetensors":
            digest.update(f"{path.name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class FileSizes:
    """What the weights take.

    ``floats`` numbers that change with the dtype, ``bytes_else`` of packed ones that do not.
    """

    floats: int
    bytes_else: int

    def bytes(self, dtype: torch.dtype, quantize: Quantize | None) -> int:
        """In memory, at least."""
        bits = BITS[quantize] if quantize else 8 * dtype.itemsize
        return self.floats * bits // 8 + self.bytes_else


def check_files(files: ModelFiles, *, trust_remote_code: bool = False) -> tuple[Any, FileSizes]:
    """The model's configuration, and the sizes of its weights, without loading them.

    ``BundleError`` where something is missing or broken, the model takes no images, or code of its
    own would have to run.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    where = files.folder / "config.json"
    try:
        said = json.loads(where.read_text(encoding="utf-8"))
        kind, remote = str(said.get("model_type", "")), bool(said.get("auto_map"))
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(
            f"hf:{files.name}: {where} cannot be read ({one_line(error)}); {fetch_anew(files)}"
        ) from error
    try:
        with quiet():
            config = AutoConfig.from_pretrained(files.folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever a foreign file makes the library raise
        if remote and not trust_remote_code:
            raise BundleError(
                f"hf:{files.name}: a {kind!r} model that runs code of its own, which is refused;"
                " take a model that transformers knows, or read its code and allow it with"
                " --trust-remote-code"
            ) from error
        raise BundleError(
            f"hf:{files.name}: transformers knows no such model ({one_line(error)})"
        ) from error
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not (
        trust_remote_code and remote
    ):
        raise BundleError(
            f"hf:{files.name}: {kind!r} is no model that takes an image and writes text; take one"
            " such as LLaVA or Qwen2.5-VL"
        )
    return config, _weigh(files)


def _weigh(files: ModelFiles) -> FileSizes:
    from safetensors import SafetensorError, safe_open

    floats = bytes_else = 0
    path = files.folder
    try:
        for path in _weight_files(files):
            with safe_open(
                path, "np"
            ) as opened:  # maps the file read-only, so that it may be larger than the memory
                for key in opened.keys():
                    piece = opened.get_slice(key)
                    kind, count = piece.get_dtype(), math.prod(piece.get_shape())
                    if kind.startswith(("F", "BF")):
                        floats += count
                    else:
                        bytes_else += count * int(re.sub(r"\D", "", kind) or 8) // 8
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{path} is not a readable safetensors file ({one_line(error)}); {fetch_anew(files)}"
        ) from error
    return FileSizes(floats, bytes_else)


def _weight_files(files: ModelFiles) -> list[Path]:
    folder = files.folder
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if (folder / _INDEX).is_file():
        try:
            names = sorted(
                set(
                    json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
                )
            )
        except (OSError, ValueError, LookupError, AttributeError) as error:
            raise BundleError(
                f"hf:{files.name}: {_INDEX} cannot be read ({one_line(error)}); {fetch_anew(files)}"
            ) from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise BundleError(
                f"hf:{files.name}: {folder} lacks {', '.join(missing)}; {fetch_anew(files)}"
            )
        return [folder / name for name in names]
    pickled = sorted(
        path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)
    )
    hint = (
        f", and {pickled[0]} is pickled and never loaded: convert it to safetensors"
        if pickled
        else f"; {fetch_anew(files)}"
    )
    raise BundleError(f"hf:{files.name}: {folder} holds no {_WEIGHTS}{hint}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the library's advice, which is for programmers, and without its progress bar, but on a terminal."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def fetch_anew(files: ModelFiles) -> str:
    """What to do about a file that is missing or broken."""
    if _HUB_ID.fullmatch(files.name) and files.folder != Path(files.name):
        return f"fetch it anew with 'hf download --force-download {files.name}'"
    return "get the folder anew"
