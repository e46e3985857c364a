"""Image and text encoders with one interface: tokens out, ``width`` numbers each.

All are built from their configuration alone; nothing is downloaded here, so that a bundle loads
offline. A configuration is foreign: only networks that are named below are built, with arguments of
their size, never with ones that name a file, a repository or code.
"""

from __future__ import annotations

import copy
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

import timm
import torch
import torch.nn.functional as F
from timm.models.efficientnet import EfficientNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForTextEncoding

from rssc_geo.errors import BundleError, one_line

_TIMM_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")  # with a tag or without; no scheme
_TIMM_ARGUMENTS = frozenset(
    {
        *("class_token", "depth", "depths", "drop_path_rate", "drop_rate", "embed_dim"),
        *("global_pool", "img_size", "init_values", "mlp_ratio", "no_embed_class", "num_heads"),
        *("output_stride", "pad_type", "patch_size", "qk_norm", "qkv_bias", "reg_tokens"),
        *("window_size",),
    }
)
_LARGEST = 65536  # largest value of an argument of timm
_MOST_STAGES = 100
_LARGEST_SIZE, _MOST_LAYERS = 10_000_000, 500  # of a configuration of transformers
_LONGEST_SIDES = {"image_size": 1024, "patch_size": 1024}
_LAYERS = re.compile("layers|depth|blocks|stages|heads")
_Encoder = TypeVar("_Encoder", bound=nn.Module)
_FOLDED = 1e-4  # largest relative difference of features by rounding
_STRIP = 128  # rows of an image, a multiple of each stride
_TIMM_WORD = re.compile(r"[a-z0-9_]*")
# Not LeViT, which compares all pairs of its tokens one by one before its first layer; timm has it.
_IMAGE_TYPES = frozenset(
    {
        *("beit", "blip_vision_model", "clip_vision_model", "convnext", "convnextv2", "cvt"),
        *("data2vec-vision", "deit", "dinov2", "dinov2_with_registers", "dinov3_convnext"),
        *("dinov3_vit", "efficientnet", "focalnet", "hiera", "ijepa", "mobilenet_v1"),
        *("mobilenet_v2", "mobilevit", "mobilevitv2", "poolformer", "pvt", "pvt_v2", "regnet"),
        *("resnet", "siglip2_vision_model", "siglip_vision_model", "swin", "swinv2", "vit"),
        *("vit_mae", "vit_msn"),
    }
)
_TEXT_TYPES = frozenset(
    {
        *("albert", "altclip_text_model", "bert", "big_bird", "blip_text_model", "camembert"),
        *("chinese_clip_text_model", "clip_text_model", "convbert", "data2vec-text", "deberta"),
        *("deberta-v2", "distilbert", "electra", "ernie", "longformer", "mobilebert"),
        *("modernbert", "mpnet", "mt5", "nomic_bert", "rembert", "roberta", "siglip2_text_model"),
        *("siglip_text_model", "squeezebert", "t5", "umt5", "xlm-roberta", "xlm-roberta-xl"),
    }
)
# Fields of a configuration that do not describe the network's form.
_NO_FORM = frozenset(
    {
        *("architectures", "dtype", "id2label", "label2id", "model_type", "num_labels"),
        *("output_attentions", "output_hidden_states", "problem_type", "return_dict"),
        *("torch_dtype", "transformers_version"),
    }
)


class TimmImageEncoder(nn.Module):
    """Any timm model as an encoder of images.

    With *ground features* each token also describes the ground that it covers itself: features of
    an early stage, with a receptive field of some tens of pixels (color and texture, not the type
    of place), pass a layer of their own, and their mean over the token's ground is appended to the
    token's numbers, which are then called *scene features*.

    ``architecture`` and ``kwargs`` are those of ``timm.create_model``; weights are never fetched
    here. ``ground``: the ``stage`` from which the ground features are read (of timm's
    ``feature_info``, from 0) and their ``width`` in numbers a token; None: there are none. Raises
    ``BundleError`` for a name that timm does not list itself, an argument other than of the
    network's form, or an unknown stage.
    """

    def __init__(
        self,
        architecture: str,
        kwargs: Mapping[str, Any],
        ground: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        _check_timm(architecture, kwargs)
        self.backbone = timm.create_model(architecture, pretrained=False, num_classes=0, **kwargs)
        self.scene_width: int = self.backbone.num_features
        self.width = self.scene_width
        self.ground: nn.Sequential | None = None
        self.ground_stride: int | None = None
        if ground is not None:
            self._stage, channels, self.ground_stride = _stage(self.backbone, architecture, ground)
            self.stride: int = self.backbone.feature_info[-1]["reduction"]
            self.ground = nn.Sequential(
                nn.Conv2d(channels, ground["width"], 1, bias=False),
                nn.BatchNorm2d(ground["width"]),
                nn.ReLU(inplace=True),
            )
            self.width += ground["width"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) → tokens (B, N, width)."""
        if self.ground is not None:
            return _as_tokens(self.feature_map(images))
        features: torch.Tensor = self.backbone.forward_features(images)
        if str(getattr(self.backbone, "output_fmt", "")) == "NHWC":  # Swin and its kin
            return features.flatten(1, 2)  # (B, h, w, width) → (B, N, width)
        return _as_tokens(features)

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) → scene and ground features together, (B, width, h, w)."""
        return joined_features(*self.feature_maps(images))

    def feature_maps(
        self, images: torch.Tensor, *, in_strips: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scene features (B, scene width, h, w) and ground features of normalized images.

        The latter is (B, ground width, h', w'), as fine as the stage that it reads; without one it
        has no numbers. ``in_strips``: for large images and a receptive field of few pixels: the
        layers up to that stage, whose features are the largest, see one strip of the images after
        another, where timm's model is a chain of layers; the result is the same.
        """
        if self.ground is None:
            features: torch.Tensor = self.backbone.forward_features(images)
            return features, features[:, :0]
        if not in_strips or not isinstance(self.backbone, EfficientNet):
            scene, (early,) = self.backbone.forward_intermediates(images, indices=[self._stage])
            return scene, self.ground(early)
        backbone = self.backbone
        count = backbone.feature_info[self._stage]["stage"]
        stem = nn.Sequential(backbone.conv_stem, backbone.bn1, *backbone.blocks[:count])
        early = _by_strips(stem, images)
        scene = backbone.bn2(backbone.conv_head(backbone.blocks[count:](early)))
        return scene, self.ground(early)


def _by_strips(layers: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features of local layers, one strip of the images with the rows that it depends on at a time.

    ``layers``: convolutions and layers of single pixels, listed in their order.
    """
    above, below, stride = _reach(layers)
    height = images.shape[2]
    whole = torch.empty(0)
    for top in range(0, height, _STRIP):
        first = max(0, top - above)
        seen = layers(images[:, :, first : top + _STRIP + below])
        if not top:
            whole = torch.empty(
                (*seen.shape[:2], height // stride, seen.shape[3]),
                dtype=seen.dtype,
                device=seen.device,
                memory_format=torch.channels_last,
            )
        rows = slice(top // stride, min(top + _STRIP, height) // stride)
        start = (top - first) // stride
        whole[:, :, rows] = seen[:, :, start : start + rows.stop - rows.start]
    return whole


def _reach(layers: nn.Module) -> tuple[int, int, int]:
    """Rows above and below those of some features on which they depend, and the features' stride.

    In rows of the input, in whole strides; no less than that where layers pad in their own way.
    """
    above = below = 0
    stride = 1
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            beyond = (layer.kernel_size[0] - 1) * layer.dilation[0]
            same = type(layer) is nn.Conv2d and isinstance(layer.padding, tuple)
            padding = layer.padding[0] if same else None
            above += stride * (beyond if padding is None else int(padding))
            below += stride * (beyond if padding is None else beyond - int(padding))
            stride *= layer.stride[0]
    # The last row of the features begins a stride before the end of the strip.
    return -(-above // stride) * stride, max(0, -(-(below + 1) // stride) - 1) * stride, stride


def joined_features(scene: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """Scene features (B, ·, h, w) and ground features (B, ·, h', w') together, (B, ·, h, w)."""
    if not ground.shape[1]:
        return scene
    rows, cols = scene.shape[2:]
    return torch.cat([scene, F.adaptive_avg_pool2d(ground, (rows, cols))], dim=1)


@torch.no_grad()
def fold_batch_norms(encoder: _Encoder, size: tuple[int, int]) -> _Encoder:
    """An encoder with its batch normalizations folded into the convolutions before them.

    For inference only: its results are the same within rounding. Where they would differ, because
    layers run in another order than they are listed in, and where there is nothing to fold, it is
    the encoder itself; else a copy.

    ``encoder``: of images (B, 3, H, W), in evaluation mode; ``size``: (H, W) of its input.
    """
    if not any(_foldable(encoder)):
        return encoder
    folded = copy.deepcopy(encoder)
    for module, (name, layer), (norm_name, norm) in list(_foldable(folded)):
        setattr(module, name, fuse_conv_bn_eval(layer, norm))
        # timm's have the activation in them.
        setattr(module, norm_name, getattr(norm, "act", nn.Identity()))
    images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    images = images.to(next(encoder.parameters()))
    expected, found = encoder(images), folded(images)
    limit = _FOLDED * float(expected.abs().max())
    return folded if torch.allclose(found, expected, rtol=_FOLDED, atol=limit) else encoder


def _foldable(
    encoder: nn.Module,
) -> Iterator[tuple[nn.Module, tuple[str, nn.Conv2d], tuple[str, nn.BatchNorm2d]]]:
    """Modules with a convolution and the batch normalization listed behind it, by their names."""
    for module in encoder.modules():
        for (name, layer), (norm_name, norm) in itertools.pairwise(module.named_children()):
            if (
                isinstance(layer, nn.Conv2d)
                and isinstance(norm, nn.BatchNorm2d)
                and layer.out_channels == norm.num_features
            ):
                yield module, (name, layer), (norm_name, norm)


def receptive_field(encoder: TimmImageEncoder, *, largest: int) -> tuple[int, int] | None:
    """Stride and receptive field of an encoder's tokens, in pixels of its input.

    Measured by the extent of the gradient of a picture's central token. None for tokens that are no
    grid, or have a receptive field of more than ``largest`` pixels.
    """
    side = 2 * largest
    images = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    images.requires_grad = True
    was_training = encoder.training
    encoder.eval()
    features = encoder.feature_map(images)
    if features.ndim != 4 or side % features.shape[-1]:
        encoder.train(was_training)
        return None
    stride = side // features.shape[-1]
    center = features.shape[-1] // 2
    (gradient,) = torch.autograd.grad(features[0, :, center, center].abs().sum(), images)
    encoder.train(was_training)
    seen = gradient[0].abs().sum(0) > 0
    reaches = []
    for line in (seen.any(1), seen.any(0)):
        places = line.nonzero().flatten()
        middle = center * stride + stride / 2
        reaches.append(max(middle - float(places[0]), float(places[-1]) + 1 - middle))
    # With an even stride the field reaches further to one side.
    field = 2 * math.ceil(max(reaches))
    return None if field > largest else (stride, field)


def _stage(
    backbone: nn.Module, architecture: str, ground: Mapping[str, int]
) -> tuple[int, int, int]:
    """The stage of the ground features, its channels and its stride."""
    known = ground.keys() == {"stage", "width"}
    if not known or not all(isinstance(value, int) for value in ground.values()):
        raise BundleError("ground features have a stage and a width, no more")
    stages = getattr(backbone, "feature_info", None) or []
    stage = ground["stage"]
    if not hasattr(backbone, "forward_intermediates") or not 0 <= stage < len(stages):
        raise BundleError(f"{architecture} has no stage {stage} for ground features")
    if not 1 <= ground["width"] <= _LARGEST:
        raise BundleError(f"{ground['width']} is no width of ground features")
    return stage, stages[stage]["num_chs"], stages[stage]["reduction"]


class TransformersImageEncoder(nn.Module):
    """A transformers vision model, built from its configuration with its ``model_type``.

    Raises ``BundleError`` for a type that is not known here.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        settings = _as_config(config, _IMAGE_TYPES)
        self.backbone = AutoModel.from_config(settings, trust_remote_code=False)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # its output would not be used
        # hidden_sizes: of convolutional stages.
        width = getattr(settings, "hidden_size", None) or settings.hidden_sizes[-1]
        self.width: int = width

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Normalized images (B, 3, H, W) → tokens (B, N, width)."""
        return _as_tokens(self.backbone(pixel_values=images).last_hidden_state)


def _as_tokens(features: torch.Tensor) -> torch.Tensor:
    """A feature map (B, width, h, w) as tokens (B, N, width); tokens as they are."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features


class StaticTextEncoder(nn.Module):
    """One fixed vector a word piece, distilled from a sentence encoder.

    It covers an open vocabulary with a few megabytes. The table is int8 with a scale a row and is
    not trained further; words are combined by the attention that reads them. The mean over a text's
    pieces is the embedding of the text (:meth:`embed`).
    """

    def __init__(self, *, vocab_size: int, hidden_size: int) -> None:
        super().__init__()
        self.width, self.vocabulary = hidden_size, vocab_size
        self.table: torch.Tensor
        self.scale: torch.Tensor
        self.register_buffer("table", torch.zeros(vocab_size, hidden_size, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(vocab_size, 1))

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Token ids (B, T) → states (B, T, width) of zero mean and unit variance.

        Each depends on its token alone. A vector's length is the weight of its word in a mean
        (:meth:`embed`); for attention all words have the same length.
        """
        del token_mask
        return F.layer_norm(self._lookup(token_ids), (self.width,), eps=1e-12)

    def _lookup(self, token_ids: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.table[token_ids].to(self.scale.dtype) * self.scale[token_ids]
        return vectors

    def embed(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Texts (B, T) → unit vectors (B, width); zeros where a text has no token."""
        states = self._lookup(token_ids) * token_mask.unsqueeze(2)
        return F.normalize(states.sum(1), dim=1)


class TransformersTextEncoder(nn.Module):
    """A transformers text encoder, built from its configuration with its ``model_type``.

    Raises ``BundleError`` for a type that is not known here.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        settings = _as_config(config, _TEXT_TYPES)
        self.backbone = text_class(settings).from_config(settings, trust_remote_code=False)
        self.width: int = settings.hidden_size
        self.vocabulary: int = settings.vocab_size

    def forward(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Token ids (B, T) and their mask (True = a token) → states (B, T, width).

        A row without any token is legal; its states mean nothing and the caller masks them.
        """
        mask = token_mask.clone()
        # The softmax over nothing is NaN: an empty row attends to its first padding.
        mask[:, 0] |= ~mask.any(1)
        output = self.backbone(input_ids=token_ids, attention_mask=mask.long())
        states: torch.Tensor = output.last_hidden_state
        return states

    def embed(self, token_ids: torch.Tensor, token_mask: torch.Tensor) -> torch.Tensor:
        """Texts (B, T) → unit vectors (B, width); zeros where a text has no token.

        The mean of the last hidden states, as in sentence-transformers.
        """
        states = self(token_ids, token_mask) * token_mask.unsqueeze(2)
        return F.normalize(states.sum(1), dim=1)


def _check_timm(architecture: object, kwargs: Mapping[str, Any]) -> None:
    """Refuse arguments that ``timm.create_model`` would take for a path or anything but a form."""
    if (
        not isinstance(architecture, str)
        or not _TIMM_NAME.fullmatch(architecture)
        or not timm.is_model(architecture)
    ):
        raise BundleError(
            f"{one_line(repr(architecture))} is no architecture that timm lists itself"
        )
    beyond = len(kwargs.keys() - _TIMM_ARGUMENTS)
    if beyond:
        raise BundleError(
            f"{beyond} of the image encoder's kwargs say more than its form, for which there are"
            f" {', '.join(sorted(_TIMM_ARGUMENTS))}"
        )
    for name, value in kwargs.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        most = _MOST_LAYERS if _LAYERS.search(name) else _LARGEST
        if len(values) > _MOST_STAGES or not all(_is_size(part, most) for part in values):
            raise BundleError(
                f"{name!r} of the image encoder is {one_line(repr(value))}, which is not valid"
            )


def _is_size(value: object, most: int) -> bool:
    """Whether a value is a number within reason, a flag, a short word or nothing."""
    if isinstance(value, str):
        return _TIMM_WORD.fullmatch(value) is not None
    return value is None or (isinstance(value, (int, float)) and 0 <= value <= most)


def _as_config(config: Mapping[str, Any], known: frozenset[str]) -> Any:
    """A transformers configuration of a known type, with the fields of its own class alone."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in known:
        raise BundleError(
            f"an encoder of the type {one_line(repr(kind))} is none that a bundle may have"
        )
    if "auto_map" in config:
        raise BundleError("auto_map names code of the bundle, which is never run")
    family = CONFIG_MAPPING[kind]
    fields = {name for name in family().to_dict() if not name.startswith("_")}
    fields |= family.attribute_map.keys()
    form = {name: config[name] for name in config if name in fields - _NO_FORM}
    for name, value in form.items():
        _check_sizes(name, value)
    return family(**form)


def _check_sizes(name: str, value: object) -> None:
    """Refuse a number for which transformers would count for minutes before the first layer."""
    if isinstance(value, Mapping):
        for inner, part in value.items():
            _check_sizes(inner, part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            _check_sizes(name, part)
    elif isinstance(value, int):
        most = _MOST_LAYERS if _LAYERS.search(name) else _LONGEST_SIDES.get(name, _LARGEST_SIZE)
        if abs(value) > most:
            raise BundleError(
                f"{one_line(repr(name))} of an encoder is {one_line(repr(value))}, which is not"
                f" valid: {most} at most"
            )


def text_class(config: Any) -> Any:
    """The transformers factory for a text encoder's configuration.

    Of an encoder–decoder such as T5 the encoder alone is built.
    """
    return AutoModelForTextEncoding if getattr(config, "is_encoder_decoder", False) else AutoModel


def make_image_encoder(
    config: Mapping[str, Any],
) -> TimmImageEncoder | TransformersImageEncoder:
    """An image encoder with random weights.

    ``architecture`` (and ``kwargs``, ``ground``) make a timm model, ``model_type`` one of
    transformers.
    """
    if "architecture" in config:
        kwargs = config.get("kwargs", {})
        ground = config.get("ground")
        if (
            config.keys() - {"architecture", "kwargs", "ground"}
            or not isinstance(kwargs, Mapping)
            or not isinstance(ground, Mapping | None)
        ):
            raise BundleError(
                "an image encoder of timm has an architecture, kwargs and ground features, no more"
            )
        return TimmImageEncoder(config["architecture"], kwargs, ground)
    return TransformersImageEncoder(config)


def make_text_encoder(config: Mapping[str, Any]) -> StaticTextEncoder | TransformersTextEncoder:
    """A text encoder with random weights.

    ``model_type`` "static" is ours (``vocab_size``, ``hidden_size``), every other is transformers'.
    """
    if config["model_type"] == "static":
        return StaticTextEncoder(vocab_size=config["vocab_size"], hidden_size=config["hidden_size"])
    return TransformersTextEncoder(config)


# Names of weights that transformers changed between its versions 4 and 5.
_RENAMED = (
    (r"\b(text|vision)_model\.", ""),
    (r"\bencoder\.layer\.", "layers."),
    (
        r"\.attention\.attention\.(query|key|value)\.",
        lambda found: f".attention.{found[1][0]}_proj.",
    ),
    (r"\.attention\.output\.dense\.", ".attention.o_proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"(layers\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
)


def fit_keys(weights: Mapping[str, torch.Tensor], wanted: Iterable[str]) -> dict[str, torch.Tensor]:
    """The weights under the names that the installed transformers gives them.

    ``wanted``: the names in the module that is to be filled. Both sides are brought to one
    spelling, so that weights written with version 4 or 5 are read by either; names that match none
    stay as they are.
    """
    names = {_spelling(name): name for name in wanted}
    return {names.get(_spelling(name), name): value for name, value in weights.items()}


def _spelling(name: str) -> str:
    for pattern, new in _RENAMED:
        name = re.sub(pattern, new, name)
    return name
