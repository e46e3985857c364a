"""Vision-language models in transformers' layout: found, checked, then loaded.

Errors of foreign files are reported in one line, as far as possible before anything is loaded:
first :func:`find_files`, then :func:`check_files`, then :func:`load_processor` and
:func:`load_weights`. The captioner itself prompts a loaded model.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rssc_geo.batching import out_of_memory
from rssc_geo.errors import BundleError, UsageError, one_line
from rssc_geo.fingerprints import content_hash, content_mark
from rssc_geo.hub import check_inside, fetch, is_hub_id
from rssc_geo.models import check_header
from rssc_geo.texts import parse_json

Quantize = Literal["4bit", "8bit"]
_BITS = {"4bit": 4, "8bit": 8}
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model.

    Attributes
    ----------
    name : as given, without a revision
    folder : where they are
    revision : the hub's commit, or a digest of the folder's content
    """

    name: str
    folder: Path
    revision: str


def find_files(name: str, *, trust_remote_code: bool = False) -> ModelFiles:
    """The files of an existing folder, or of a hub id "owner/name" or "owner/name@revision".

    Code is only fetched with ``trust_remote_code``. Raises ``UsageError`` for a name that is
    neither, ``BundleError`` where the hub has none or a file is a link out of the folder.
    """
    folder = Path(name).expanduser()
    wanted = [*_WANTED, "*.py"] if trust_remote_code else _WANTED
    if folder.is_dir():
        check_inside(folder, wanted, what=f"hf:{name}")
        return ModelFiles(name, folder, _digest(folder))
    repository, _, revision = name.partition("@")
    if not is_hub_id(repository):
        raise UsageError(f"hf:{name}: there is no such folder, and it is no hub id (owner/name)")
    fetched = fetch(repository, wanted, what=f"hf:{repository}", revision=revision or None)
    return ModelFiles(repository, fetched, fetched.name)


def _digest(folder: Path) -> str:
    """A hash of the relevant files, by which models are distinguished; of weights a sample."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        if path.suffix == ".safetensors":  # gigabytes
            digest.update(f"{path.name} {content_mark(path)}\n".encode())
        elif path.suffix in {".json", ".txt", ".model", ".jinja", ".py"}:
            digest.update(f"{path.name} {content_hash(path)}\n".encode())
    return digest.hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class FileSizes:
    """The size of the weights.

    ``floats``: how many change with the dtype; ``bytes_else``: of packed ones that do not.
    """

    floats: int
    bytes_else: int

    def bytes(self, dtype: torch.dtype, quantize: Quantize | None) -> int:
        """Bytes in memory, at least."""
        bits = _BITS[quantize] if quantize else 8 * dtype.itemsize
        return self.floats * bits // 8 + self.bytes_else


def check_files(files: ModelFiles, *, trust_remote_code: bool = False) -> tuple[Any, FileSizes]:
    """The model's configuration, and the sizes of its weights, without loading them.

    Raises ``BundleError`` where something is missing or broken, the model takes no images, or code
    of its own would have to run.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

    where = files.folder / "config.json"
    try:
        found = parse_json(where.read_bytes())
        kind, remote = str(found.get("model_type", "")), bool(found.get("auto_map"))
        kernel = _names_kernel(found)
    except (OSError, ValueError, AttributeError) as error:
        raise BundleError(
            f"hf:{files.name}: {where} cannot be read ({one_line(error)}); {fetch_hint(files)}"
        ) from error
    if kernel and not trust_remote_code:
        raise BundleError(
            f"hf:{files.name}: its config.json names a kernel to fetch and run, which is refused;"
            " take the name out of it, or allow it with --trust-remote-code"
        )
    try:
        with quiet():
            config = AutoConfig.from_pretrained(files.folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # a foreign file can make the library raise anything
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
    return config, _measure(files)


def _names_kernel(value: Any) -> bool:
    """Whether a configuration asks for an attention from a repository, "owner/name"."""
    if isinstance(value, list):
        return any(_names_kernel(part) for part in value)
    if not isinstance(value, dict):
        return False
    return any(
        ("/" in json.dumps(part)) if key.endswith("attn_implementation") else _names_kernel(part)
        for key, part in value.items()
    )


def _measure(files: ModelFiles) -> FileSizes:
    """The sizes of the weights by the headers of their files; ``BundleError``."""
    from safetensors import SafetensorError, safe_open

    floats = bytes_else = 0
    path = files.folder
    try:
        for path in _weight_files(files):
            check_header(path)
            # It maps the file read-only, so that it may be larger than the memory.
            with safe_open(path, "np") as opened:
                for key in opened.keys():  # noqa: SIM118 -- it is no mapping
                    piece = opened.get_slice(key)
                    kind, count = piece.get_dtype(), math.prod(piece.get_shape())
                    if kind.startswith(("F", "BF")):
                        floats += count
                    else:
                        bytes_else += count * int(re.sub(r"\D", "", kind) or 8) // 8
    except (SafetensorError, OSError, ValueError) as error:
        raise BundleError(
            f"{path} is not a readable safetensors file ({one_line(error)}); {fetch_hint(files)}"
        ) from error
    return FileSizes(floats, bytes_else)


def _weight_files(files: ModelFiles) -> list[Path]:
    """The safetensors files, one or those of an index; ``BundleError`` where one is missing."""
    folder = files.folder
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if (folder / _INDEX).is_file():
        try:
            index = parse_json((folder / _INDEX).read_bytes())
            names = sorted({str(name) for name in index["weight_map"].values()})
        except (OSError, ValueError, LookupError, AttributeError) as error:
            raise BundleError(
                f"hf:{files.name}: {_INDEX} cannot be read ({one_line(error)}); {fetch_hint(files)}"
            ) from error
        if any(Path(name).name != name for name in names):
            raise BundleError(f"hf:{files.name}: {_INDEX} names files of other folders")
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise BundleError(
                f"hf:{files.name}: {folder} lacks {', '.join(missing)}; {fetch_hint(files)}"
            )
        return [folder / name for name in names]
    pickled = sorted(
        path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern)
    )
    hint = (
        f", and {pickled[0]} is pickled and never loaded: convert it to safetensors"
        if pickled
        else f"; {fetch_hint(files)}"
    )
    raise BundleError(f"hf:{files.name}: {folder} holds no {_WEIGHTS}{hint}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the library's advice, which is for programmers, and its bar if not on a terminal."""
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


def fetch_hint(files: ModelFiles) -> str:
    """What to do about a file that is missing or broken."""
    if is_hub_id(files.name) and files.folder != Path(files.name):
        return f"fetch it again with 'hf download --force-download {files.name}'"
    return "get the folder again"


def load_processor(files: ModelFiles, *, trust_remote_code: bool = False) -> Any:
    """What turns an image and a question into the model's inputs.

    Raises ``BundleError`` where it does not, or cannot be read, ``UsageError`` for a package that
    is missing.
    """
    from transformers import AutoProcessor

    again = fetch_hint(files)
    try:
        with quiet():
            processor = AutoProcessor.from_pretrained(
                files.folder, trust_remote_code=trust_remote_code
            )
    except ImportError as error:
        raise UsageError(
            f"hf:{files.name}: its processor needs a package that is not installed"
            f" ({one_line(error)})"
        ) from error
    except Exception as error:  # a foreign file can make the library raise anything
        raise BundleError(
            f"hf:{files.name}: its processor cannot be loaded ({one_line(error)}); {again}"
        ) from error
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise BundleError(
            f"hf:{files.name}: its processor ({type(processor).__name__}) takes no images with"
            f" text; is preprocessor_config.json missing? {again}"
        )
    return processor


@dataclass(frozen=True, slots=True)
class WeightsFormat:
    """Where weights lie and in which numbers.

    Attributes
    ----------
    device : that holds them
    dtype : of weights that are not quantized, and of what is computed
    quantize : to so many bits; None: not
    """

    device: torch.device
    dtype: torch.dtype
    quantize: Quantize | None = None


def load_weights(
    files: ModelFiles,
    config: Any,
    *,
    sizes: FileSizes,
    weights: WeightsFormat,
    trust_remote_code: bool = False,
) -> Any:
    """The model with its weights on their device, in evaluation mode.

    Safetensors only, and every weight has to come from them. Raises ``UsageError`` for weights that
    do not fit into memory or a package that is missing, ``BundleError`` for weights that are not
    the model's.
    """
    import transformers
    from packaging.version import Version

    device, dtype, quantize = weights.device, weights.dtype, weights.quantize
    too_large = UsageError(
        f"hf:{files.name}: its weights ({sizes.bytes(dtype, quantize) / 1e9:.1f} GB) do not fit"
        f" into the memory of {device}; take a smaller model, --dtype bfloat16 or --quantize 4bit"
    )
    if sizes.bytes(dtype, quantize) > _memory(device):
        raise too_large
    # transformers 4.56 renamed it.
    how: dict[str, Any] = {
        "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype": dtype
    }
    if quantize is not None or getattr(config, "quantization_config", None) is not None:
        how["device_map"] = {"": device}  # such weights cannot be moved later
    if quantize is not None:
        how["quantization_config"] = transformers.BitsAndBytesConfig(
            load_in_4bit=quantize == "4bit",
            load_in_8bit=quantize == "8bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        with quiet():
            model, report = transformers.AutoModelForImageTextToText.from_pretrained(
                files.folder,
                config=config,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, by name
                **how,
            )
        missing = sorted(
            [*report["missing_keys"], *(str(entry[0]) for entry in report["mismatched_keys"])]
        )
        if not missing:
            return (model if "device_map" in how else model.to(device)).eval()
    except ImportError as error:
        raise UsageError(
            f"hf:{files.name} needs a package that is not installed ({one_line(error)})"
        ) from error
    except Exception as error:  # a foreign file can make the library raise anything
        if out_of_memory(error):
            raise too_large from error
        raise BundleError(
            f"hf:{files.name}: its weights cannot be loaded ({one_line(error)})"
        ) from error
    raise BundleError(
        f"hf:{files.name}: its weights are not those of its config.json:"
        f" {', '.join(missing[:3])}{', …' * (len(missing) > 3)} ({len(missing)} in all) are missing"
        " or of another shape"
    )


def check_quantize(quantize: str | None) -> Quantize | None:
    """``UsageError`` where packages are missing for it."""
    if quantize is None:
        return None
    missing = [
        name for name in ("bitsandbytes", "accelerate") if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise UsageError(
            f"--quantize {quantize} needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        )
    return "4bit" if quantize == "4bit" else "8bit"


def _memory(device: torch.device) -> float:
    """Bytes that weights may take at most; infinite where the system does not say."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
