"""A vision-language model and its processor, loaded from files that were checked.

Each problem in one line.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from rssc_geo.batching import out_of_memory
from rssc_geo.captioning.huggingface_files import (
    BITS,
    FileSizes,
    ModelFiles,
    Quantize,
    fetch_anew,
    quiet,
)
from rssc_geo.errors import BundleError, UsageError, one_line


def load_processor(files: ModelFiles, *, trust_remote_code: bool = False) -> Any:
    """What turns a picture and a question into the model's inputs.

    ``BundleError`` where it is none or cannot be read.
    """
    from transformers import AutoProcessor

    anew = fetch_anew(files)
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
    except Exception as error:  # whatever a foreign file makes the library raise
        raise BundleError(
            f"hf:{files.name}: its processor cannot be loaded ({one_line(error)}); {anew}"
        ) from error
    if not (hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
        raise BundleError(
            f"hf:{files.name}: its processor ({type(processor).__name__}) takes no images with"
            f" text; is preprocessor_config.json missing? {anew}"
        )
    return processor


def load_model(
    files: ModelFiles,
    config: Any,
    *,
    sizes: FileSizes,
    device: torch.device,
    dtype: torch.dtype,
    quantize: Quantize | None = None,
    trust_remote_code: bool = False,
) -> Any:
    """The model on its device, in evaluation mode. Safetensors only, and every weight has to come
    from them.

    ``UsageError`` for weights that do not fit or a package that is missing, ``BundleError`` for
    weights that are not the model's.
    """
    import transformers
    from packaging.version import Version

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
    except Exception as error:  # whatever a foreign file makes the library raise
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
    """``UsageError`` for another word than 4bit or 8bit, or where the packages for it are missing."""
    if quantize is None:
        return None
    if quantize not in BITS:
        raise UsageError(f"--quantize {quantize} is unknown; use one of {', '.join(BITS)}")
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
