"""Import of checkpoints that the authors' code (github.com/CJR7/MultiAtt-RSSC) has written.

``rssc-geo models import best.pth -o bundle/ --classes … --levels 2``. Their network is
:class:`rssc_geo.models.network.PublishedClassifier`.
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPTextConfig, ViTConfig

from rssc_geo.errors import BundleError, UsageError, one_line
from rssc_geo.models.bundle import build_network, check_bundle_folder, load_card, save_bundle
from rssc_geo.models.card import AS_PUBLISHED, Footprint, ModelCard
from rssc_geo.models.encoders import fit_keys
from rssc_geo.models.model import Model
from rssc_geo.models.network import DualAttentionClassifier
from rssc_geo.models.palette import scene_classes
from rssc_geo.models.pretrained import as_configuration, load_tokenizer
from rssc_geo.models.weights import load_weights
from rssc_geo.options import ImportOptions

_FOOTPRINT, _GSD_RANGE_M = Footprint(300, 400, 4800), (0.5, 8.0)
"""Of AID's pictures, on which their network was trained."""
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Of both encoders at every size; the number of heads is not in a state dict.
_HEAD_WIDTH = 64
# Names of modules in their code, and in ours.
_LEVEL = (
    "image_proj",
    "back_proj",
    "text_self_attention",
    "text_cross_attention",
    "image_cross_attention",
    "mlp",
)
_MODULES = {
    "image_encoder": "image_encoder.backbone",
    "text_encoder": "text_encoder.backbone",
    **{name: f"level.{name}" for name in _LEVEL},
    "text_layer_norm": "level.text_norm",
    "image_layer_norm": "level.image_norm",
}
# The pooler's output is not read; old versions of transformers stored the positions' numbers.
_UNUSED = ("image_encoder.pooler.", "position_ids")


def import_checkpoint(
    path: str | Path,
    output: str | Path,
    classes: Sequence[str],
    options: ImportOptions,
) -> ModelCard:
    """Make a bundle of a checkpoint of the authors' code; its card.

    Parameters
    ----------
    path : state dict as ``torch.save`` wrote it (read without running anything of it) or
        safetensors
    output : the bundle's folder
    classes : the class names in the order they were trained in (their code sorts them)
    options : levels and heads, which are not in the checkpoint; tokenizer, a folder or hub id of
        CLIP's; name of the bundle. The variant "as-published" computes what their code computes for
        a batch of one; "corrected" is our network with the same weights, as a start for training:
        its learned queries and its gate are new and untrained

    Raises ``BundleError`` for a file that is no such checkpoint, with the names that are missing or
    unexpected, and ``UsageError`` where ``classes`` does not fit it.
    """
    check_bundle_folder(output)
    weights = read_state_dict(Path(path))
    rows = weights.get("classifier.0.weight")
    if rows is not None and len(rows) != len(classes):
        raise UsageError(
            f"{path} was trained for {len(rows)} classes, and --classes names {len(classes)}"
        )
    words = load_tokenizer(options.tokenizer)
    try:
        sizes = _Sizes.of(weights)
    except (KeyError, IndexError, ValueError) as error:
        raise BundleError(
            f"{path} is no checkpoint of MultiAtt-RSSC: what it lacks or holds otherwise: {error}"
        ) from error
    network = {**sizes.network, "heads": options.heads, "levels": options.levels}
    if options.variant == AS_PUBLISHED:
        network |= {
            "variant": AS_PUBLISHED,
            "text_length": sizes.tokens,
            "padding_token": words.padding,
        }
    else:
        network |= {"learned_queries": 8, "gate": True}
    card = _card(path, classes, options, sizes, network)
    built = build_network(card)
    with torch.no_grad():
        _initialize(built)
    _fill(built, weights, path=Path(path))
    return save_bundle(
        output,
        Model(card, built.eval(), words.tokenizer),
        readme=_readme(card, Path(path)),
        half=False,
        overwrite=False,
    )


def _card(
    path: str | Path,
    classes: Sequence[str],
    options: ImportOptions,
    sizes: _Sizes,
    network: Mapping[str, Any],
) -> ModelCard:
    """The bundle's card; ``network``: the arguments of its network."""
    return dataclasses.replace(
        load_card("compact"),
        name=options.bundle_name or one_line(Path(path).stem),
        version="1",
        description=(
            f"weights of MultiAtt-RSSC (arXiv 2412.02531), {options.variant},"
            f" {len(classes)} classes"
        ),
        license="unspecified",
        classes=scene_classes(classes),
        input_size=(sizes.pixels, sizes.pixels),
        mean=_CLIP_MEAN,  # as their code normalizes, though the backbone had learned with 0.5
        std=_CLIP_STD,
        network=network,
        footprint=_FOOTPRINT,
        gsd_range_m=_GSD_RANGE_M,
        captioner=None,
        alignment=None,
        local_features=None,
        window_temperature=None,
        familiarity=None,
        max_tokens=sizes.tokens,
        temperature=1.0,
        reads_own_captions=False,
        cpu_tiles_per_s=None,
        special_tokens=True,
        training={},
        accuracy={},
        sha256={},
    )


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint by name, without the wrappers of training scripts.

    Nothing in the file is run. Raises ``BundleError`` for a file that is no plain state dict.
    """
    try:
        if path.suffix == ".safetensors":
            found: Any = load_weights(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BundleError(f"{path}: no such file") from None
    except pickle.UnpicklingError as error:
        raise BundleError(
            f"{path} is no plain state dict: reading it could run code, which is refused"
        ) from error
    except Exception as error:  # whatever a damaged file makes the libraries raise
        raise BundleError(f"{path} cannot be read as a state dict ({one_line(error)})") from error
    for wrapping in ("model_state_dict", "state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapping), Mapping):
            found = found[wrapping]
    if not isinstance(found, Mapping) or not all(
        isinstance(value, torch.Tensor) for value in found.values()
    ):
        raise BundleError(f"{path} holds no state dict: expected tensors by name")
    return {str(key).removeprefix("module."): value for key, value in found.items()}


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What the shapes of a checkpoint's weights tell.

    Attributes
    ----------
    network : arguments of the network, but for those that are not in a checkpoint
    pixels : of a side of the image encoder's input
    tokens : the most that the text encoder reads
    """

    network: Mapping[str, Any]
    pixels: int
    tokens: int

    @classmethod
    def of(cls, weights: Mapping[str, torch.Tensor]) -> _Sizes:
        """Those of a checkpoint; ``KeyError``, ``IndexError`` or ``ValueError`` for others."""
        shapes = {name: tuple(value.shape) for name, value in weights.items()}
        # transformers has the text encoder's weights under text_model, or (since 5) not.
        text_shapes = {
            name.removeprefix("text_encoder.").removeprefix("text_model."): shape
            for name, shape in shapes.items()
        }
        patches = "image_encoder.embeddings.patch_embeddings.projection.weight"
        image_width, _, patch, _ = shapes[patches]
        places = shapes["image_encoder.embeddings.position_embeddings"][1] - 1
        vocabulary, text_width = text_shapes["embeddings.token_embedding.weight"]
        tokens = text_shapes["embeddings.position_embedding.weight"][0]
        pixels = round(places**0.5) * patch
        image = ViTConfig(
            hidden_size=image_width,
            intermediate_size=_first_rows(
                shapes,
                "image_encoder.layers.0.mlp.fc1.weight",
                "image_encoder.encoder.layer.0.intermediate.dense.weight",
            ),
            num_hidden_layers=_layers(weights, "image_encoder."),
            num_attention_heads=max(1, image_width // _HEAD_WIDTH),
            image_size=pixels,
            patch_size=patch,
        )
        text = CLIPTextConfig(
            vocab_size=vocabulary,
            hidden_size=text_width,
            intermediate_size=_first_rows(text_shapes, "encoder.layers.0.mlp.fc1.weight"),
            num_hidden_layers=_layers(weights, "text_encoder."),
            num_attention_heads=max(1, text_width // _HEAD_WIDTH),
            max_position_embeddings=tokens,
        )
        network = {
            "image_encoder": as_configuration(image),
            "text_encoder": as_configuration(text),
            "width": shapes["image_proj.weight"][0],
        }
        return cls(network, pixels, tokens)


def _first_rows(shapes: Mapping[str, tuple[int, ...]], *names: str) -> int:
    """Rows of the first of these weights that is there; ``KeyError`` where none is."""
    known = next((name for name in names if name in shapes), names[0])
    return shapes[known][0]


def _layers(weights: Mapping[str, torch.Tensor], encoder: str) -> int:
    """Number of an encoder's layers, by the numbers in the names."""
    numbers = [
        int(part)
        for name in weights
        if name.startswith(encoder)
        for part in name.split(".")
        if part.isdecimal()
    ]
    return max(numbers) + 1


def _initialize(network: DualAttentionClassifier) -> None:
    """Weights that the checkpoint lacks: words pass unchanged, and the gate is almost open."""
    if isinstance(network.text_proj, torch.nn.Linear):
        torch.nn.init.eye_(network.text_proj.weight)
        network.text_proj.bias.zero_()
    if isinstance(network.gate, torch.nn.Linear):
        network.gate.weight.zero_()
        network.gate.bias.fill_(4.0)


def _fill(
    network: DualAttentionClassifier, weights: Mapping[str, torch.Tensor], *, path: Path
) -> None:
    """Load the weights under our names.

    ``BundleError`` lists names that are missing, unexpected or of another shape.
    """
    own = network.state_dict()
    text_width = network.level.text_norm.normalized_shape[0]
    placed = {}
    for name, value in weights.items():
        first, _, rest = name.partition(".")
        if any(part in name for part in _UNUSED):
            continue
        if name == "classifier.0.weight":  # theirs reads the image first, ours the words
            placed["classifier.1.weight"] = torch.cat(
                [value[:, -text_width:], value[:, :-text_width]], dim=1
            )
        elif name == "classifier.0.bias":
            placed["classifier.1.bias"] = value
        else:
            placed[f"{_MODULES.get(first, first)}.{rest}"] = value
    placed = fit_keys(placed, own)
    ours = {name for name in own if name.split(".")[0] in ("text_proj", "queries", "gate")}
    wrong = {
        "missing": sorted(own.keys() - placed.keys() - ours),
        "unexpected": sorted(placed.keys() - own.keys()),
        "of another shape": sorted(
            name for name in own.keys() & placed.keys() if own[name].shape != placed[name].shape
        ),
    }
    if any(wrong.values()):
        lists = "; ".join(f"{what}: {', '.join(names)}" for what, names in wrong.items() if names)
        raise BundleError(f"{path} does not fit the published network; {lists}")
    network.load_state_dict(placed, strict=False)


def _readme(card: ModelCard, path: Path) -> str:
    what = (
        "Our network with the authors' weights, as a start for training: queries and gate are"
        " untrained."
    )
    if card.variant == AS_PUBLISHED:
        what = (
            "The network is computed as in the authors' code for a batch of one, defects included "
            "(see rssc_geo/models/network.py). It needs a caption for every tile."
        )
    return (
        f"# {card.name}\n\n{card.description}\n\nImported from {path.name}. {what}\n\nNothing was"
        " measured. Figures of the as-published and of the corrected variant belong to two"
        " different models.\n"
    )
