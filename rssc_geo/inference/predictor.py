"""A model with its captioner on a device: loaded once, then used for many pictures or tiles."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from rssc_geo.batching import ShrinkingBatches
from rssc_geo.captioning import (
    AdaptiveCaptioner,
    CaptionBatch,
    Captioner,
    NoCaptioner,
    check_whole_tiles,
    describe_captioner,
    make_captioner,
)
from rssc_geo.errors import RsscGeoError, UsageError, one_line
from rssc_geo.geometry import BlockGrid, CellRanges
from rssc_geo.inference.layout import BlockLayout
from rssc_geo.inference.plan import PredictorSpec
from rssc_geo.models import (
    Model,
    ModelCard,
    check_embeddings,
    class_choice,
    fold_batch_norms,
    joined_features,
    load_bundle,
    pool_windows,
)
from rssc_geo.options import PredictorOptions
from rssc_geo.raster import TileData

log = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BATCH_SIZE = {"cpu": 16, "mps": 64, "cuda": 256}


@dataclass(frozen=True, slots=True)
class Compute:
    """The chosen device, dtype of weights and activations, and tiles a batch."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int


def choose_compute(
    device: str | None = None, *, dtype: str | None = None, batch_size: int | None = None
) -> Compute:
    """Choose what is available: CUDA in bfloat16, else Apple's MPS, else the CPU, both in float32.

    ``device``: any torch device name; ``dtype``: float32, bfloat16 or float16; ``batch_size``:
    tiles. Raises ``UsageError`` for an unknown name, a device that is not there, or a batch size
    under 1.
    """
    if device in (None, "auto"):
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        chosen = torch.device(str(device))
        torch.zeros(1, device=chosen).cpu()  # of "meta" nothing can be read
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"--device {device} cannot be used: {one_line(error)}") from error
    if dtype in (None, "auto"):
        dtype = "bfloat16" if chosen.type == "cuda" else "float32"
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype} is unknown; use one of {', '.join(DTYPES)}")
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"--batch-size {batch_size} is not a number of tiles; give 1 or more")
    return Compute(chosen, DTYPES[str(dtype)], batch_size or _BATCH_SIZE.get(chosen.type, 16))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Results of B pictures, or of the B cells of a block, row by row.

    Attributes
    ----------
    probabilities : float32 (B, C), calibrated by the card's temperature
    captions : B
    familiarity : float32 (B,), the share of crops of validation pictures that are less similar to
        the training pictures; NaN for a model without familiarity
    embeddings : float32 (B, D), unit vectors in the space of the model's texts; None where they
        were not asked for
    """

    probabilities: NDArray[np.float32]
    captions: list[str]
    familiarity: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None = None


class Predictor:
    """Pictures in, probabilities and captions out; a picture's result depends on it alone.

    When memory runs out the batch is halved, for this and all later batches.

    Attributes
    ----------
    model, captioner, compute : its parts
    spec : everything on which its results depend, for provenance and for comparing runs
    """

    def __init__(self, model: Model, captioner: Captioner, compute: Compute) -> None:
        encoder = fold_batch_norms(model.network.image_encoder, model.card.input_size)
        if encoder is not model.network.image_encoder:
            # A copy: the model itself can still be saved, or trained.
            known = {id(model.network.image_encoder): encoder}
            model = replace(model, network=copy.deepcopy(model.network, known))
        self.model, self.captioner, self.compute = model, captioner, compute
        dtype = str(compute.dtype).removeprefix("torch.")
        self.spec = PredictorSpec(model.card, describe_captioner(captioner), dtype, model.choice)
        self._batches = ShrinkingBatches(compute.batch_size, device=compute.device)
        model.network.to(device=compute.device, dtype=compute.dtype)
        if compute.device.type == "cpu":
            model.network.to(memory_format=torch.channels_last)
        if model.decoder is not None:
            model.decoder.to(device=compute.device, dtype=compute.dtype)
        if model.familiarity is not None:
            model.familiarity.to(device=compute.device)
        # A copy: the model's own stays as it was loaded.
        alignment = copy.deepcopy(model.alignment)
        self._alignment = alignment and alignment.to(device=compute.device, dtype=torch.float32)

    @property
    def card(self) -> ModelCard:
        """The model's card."""
        return self.model.card

    def choosing(self, choice: tuple[int, ...] | None) -> Predictor:
        """The same with a choice of classes, see ``Model.choice``; None: itself."""
        if choice is None:
            return self
        return Predictor(replace(self.model, choice=choice), self.captioner, self.compute)

    @property
    def batch_size(self) -> int:
        """Tiles a batch, within the memory so far."""
        return self._batches.size

    def predict(
        self,
        images: NDArray[np.uint8],
        masks: NDArray[np.bool_] | None = None,
        *,
        embed: bool = False,
    ) -> Prediction:
        """Classify and describe pictures.

        Parameters
        ----------
        images : uint8 (B, H, W, 3), RGB; pictures of another size than the card's are resampled
        masks : bool (B, H, W), True = valid; None: all pixels are
        embed : also give embeddings

        Raises ``UsageError`` for an array of another type or shape, or for embeddings of a model
        that has none, ``RsscGeoError`` when a single picture does not fit into memory.

        Examples
        --------
        >>> import numpy as np
        >>> from rssc_geo import load_model
        >>> found = load_model("compact").predict(np.zeros((2, 64, 64, 3), np.uint8))
        >>> found.probabilities.shape, len(found.captions)
        ((2, 41), 2)
        """
        images = _writable(images)
        no_pictures = images.ndim != 4 or images.shape[3] != 3 or 0 in images.shape[1:3]
        if images.dtype != np.uint8 or no_pictures:
            raise UsageError(
                f"images of type {images.dtype} and shape {images.shape}: uint8 (B, H, W, 3) is"
                " wanted"
            )
        masks = np.ones(images.shape[:3], bool) if masks is None else _writable(masks)
        if masks.dtype != bool or masks.shape != images.shape[:3]:
            raise UsageError(
                f"masks of type {masks.dtype} and shape {masks.shape}: bool {images.shape[:3]} is"
                " wanted"
            )
        if images.shape[1:3] != self.card.input_size:
            images, masks = _resampled(images, masks, self.card.input_size)
        return self(images, masks, embed=embed)

    def __call__(
        self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_], *, embed: bool = False
    ) -> Prediction:
        """Classify pictures of the card's input size.

        ``pixels`` uint8 (B, H, W, 3), ``mask`` bool (B, H, W), True = valid; any B; ``embed``: also
        give embeddings. Raises ``RsscGeoError`` when a single picture does not fit into memory.
        """
        parts = list(
            self._batches(lambda part: self._run(pixels[part], mask[part], embed), len(pixels))
        )
        if len(parts) == 1:
            return parts[0]
        none = np.empty((0, len(self.card.classes)), np.float32)
        probabilities = np.concatenate([none, *(part.probabilities for part in parts)])
        embeddings = None
        if embed:
            width = check_embeddings(self.card)
            vectors = (part.embeddings for part in parts if part.embeddings is not None)
            embeddings = np.concatenate([np.empty((0, width), np.float32), *vectors])
        return Prediction(
            probabilities,
            [text for part in parts for text in part.captions],
            np.concatenate([none[:, 0], *(part.familiarity for part in parts)]),
            embeddings,
        )

    @torch.inference_mode()
    def classify_block(
        self,
        block: TileData,
        grid: BlockGrid,
        *,
        cells: CellRanges | None = None,
        embed: bool = False,
    ) -> Prediction:
        """Classify cells of a block by their windows, see ``rssc_geo.geometry.BlockGrid``.

        ``block``: as read with its halo, at as many pixels a cell as the model's tiles have;
        ``cells``: the rows and columns of those that are wanted, all by default: no more of the
        block is encoded and captioned than they depend on; ``embed`` as for pictures. Raises
        ``RsscGeoError`` as for pictures, ``UsageError`` for a captioner by confidence.
        """
        check_whole_tiles(self.captioner)
        captions = not isinstance(self.captioner, NoCaptioner)
        layout = BlockLayout.of(self.card, grid, block.tile, cells, captions=captions)
        pixels, mask = block.pixels[layout.seen], block.mask[layout.seen]
        scene, ground = self.model.encode_block(
            self.model.preprocess(pixels[None], mask[None]).to(
                device=self.compute.device, dtype=self.compute.dtype
            )
        )
        pooled = pool_windows((scene[0], ground[0]), scene=layout.scene, ground=layout.ground)
        pooled = pooled.flatten(0, 1)
        logits = self.model.network.classify_pooled(pooled)
        probabilities = self._probabilities(logits, windows=True)
        texts = self._block_captions(pixels, mask, layout, scene, ground)
        embeddings = self._embeddings(pooled) if embed else None
        return Prediction(probabilities, texts, self._familiarity(pooled), embeddings)

    def _block_captions(
        self,
        seen: NDArray[np.uint8],
        valid: NDArray[np.bool_],
        layout: BlockLayout,
        scene: torch.Tensor,
        ground: torch.Tensor,
    ) -> list[str]:
        """The caption of each cell: that of the coarse tile that it lies in."""
        if isinstance(self.captioner, NoCaptioner):
            return [""] * (layout.caption_of.size)
        stride, features = layout.stride, joined_features(scene, ground)
        pixels, masks, tokens = [], [], []
        for top, left, side in layout.tiles:
            tokens.append(features[0, :, top : top + side, left : left + side].flatten(1).T)
            rows = slice(top * stride, (top + side) * stride)
            cols = slice(left * stride, (left + side) * stride)
            pixels.append(seen[rows, cols])
            masks.append(valid[rows, cols])
        texts = []
        for part in self._batches(
            lambda s: self.captioner.caption(
                CaptionBatch(np.stack(pixels[s]), np.stack(masks[s]), torch.stack(tokens[s]))
            ),
            len(tokens),
        ):
            texts += part
        return [texts[place] for place in layout.caption_of.ravel().tolist()]

    @torch.inference_mode()
    def _run(
        self,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        embed: bool,  # noqa: FBT001 -- of the batches' function
    ) -> Prediction:
        compute, model = self.compute, self.model
        images = model.preprocess(pixels, mask).to(
            device=compute.device, dtype=compute.dtype, non_blocking=True
        )
        tokens = model.network.encode_image(images)
        found = self._caption_and_read(CaptionBatch(pixels, mask, tokens))
        return replace(found, embeddings=self._embeddings(tokens.mean(1))) if embed else found

    def _caption_and_read(self, seen: CaptionBatch) -> Prediction:
        captioner, pixels, mask, tokens = self.captioner, seen.pixels, seen.mask, seen.image_tokens
        if not isinstance(captioner, AdaptiveCaptioner):
            return self._read(captioner, seen)
        found = self._read(captioner.first, seen)
        unsure = np.flatnonzero(found.probabilities.max(1) < captioner.threshold).tolist()
        if unsure:
            batch = CaptionBatch(pixels[unsure], mask[unsure], tokens[unsure])
            better = self._read(captioner.second, batch)
            found.probabilities[unsure] = better.probabilities
            for place, caption in zip(unsure, better.captions, strict=True):
                found.captions[place] = caption
        return found

    def _read(self, captioner: Captioner, batch: CaptionBatch) -> Prediction:
        """Caption and classify pictures whose image tokens are known."""
        model = self.model
        captions = captioner.caption(batch)
        read = captions if model.reads(captioner.source) else [""] * len(captions)
        ids, present = (
            values.to(self.compute.device)
            for values in model.tokenize(read, source=captioner.source)
        )
        logits = model.network.classify(batch.image_tokens, ids, present)
        familiarity = self._familiarity(batch.image_tokens.mean(1))
        return Prediction(self._probabilities(logits), captions, familiarity)

    def _familiarity(self, pooled: torch.Tensor) -> NDArray[np.float32]:
        """How familiar mean tokens (B, I) are, (B,)."""
        part = self.model.familiarity
        if part is None:
            return np.full(len(pooled), np.nan, np.float32)
        return np.asarray(part(pooled.float()).cpu().numpy(), np.float32)

    def _embeddings(self, pooled: torch.Tensor) -> NDArray[np.float32]:
        """Mean tokens (B, I) in the space of texts, (B, D), see ``Alignment.embed_centered``."""
        if self._alignment is None:
            check_embeddings(self.card)
            raise ValueError("the model lacks the alignment that its card names")
        vectors = self._alignment.embed_centered(pooled.float()).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise self._no_number()
        return np.asarray(vectors, np.float32)

    def _probabilities(self, logits: torch.Tensor, *, windows: bool = False) -> NDArray[np.float32]:
        """Logits (B, C) as calibrated probabilities; ``RsscGeoError`` where they are not finite."""
        model = self.model
        probabilities = model.calibrated(logits, windows=windows).softmax(1).cpu().numpy()
        if not np.isfinite(probabilities).all():
            raise self._no_number()
        return np.asarray(probabilities, np.float32)

    def _no_number(self) -> RsscGeoError:
        return RsscGeoError(
            f"the model {self.card.name!r} in {self.spec.dtype} gives values that are not finite:"
            " run it with --dtype float32, or get it again"
        )


def load_predictor(options: PredictorOptions) -> Predictor:
    """Load the model and the captioner that the options name.

    Raises ``BundleError`` for a model that cannot be loaded, ``UsageError`` for an unknown device,
    captioner or class, and what captioners raise.

    Examples
    --------
    >>> from rssc_geo import PredictorOptions, load_predictor
    >>> load_predictor(PredictorOptions(caption_beam=2, device="cpu")).spec.captioner
    'compact, beam of 2'
    """
    started = time.monotonic()
    log.info("loading the model %s", options.model)
    compute = choose_compute(options.device, dtype=options.dtype, batch_size=options.batch_size)
    model = load_bundle(options.model, revision=options.revision)
    captioner = make_captioner(model, options, device=compute.device, dtype=compute.dtype)
    predictor = Predictor(model, captioner, compute).choosing(class_choice(model.card, options))
    log.info(
        "%s %s on %s, %s, %d threads, batches of %d, captions by %s; %.1f s",
        model.card.name,
        model.card.version,
        compute.device,
        predictor.spec.dtype,
        torch.get_num_threads(),
        compute.batch_size,
        predictor.spec.captioner,
        time.monotonic() - started,
    )
    return predictor


def load_model(
    name: str | Path = "compact",
    *,
    revision: str | None = None,
    captioner: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    batch_size: int | None = None,
) -> Predictor:
    """Load a model once, for many pictures or rasters.

    Parameters
    ----------
    name, revision : embedded name, bundle folder or hub id, and the hub id's revision
    captioner : ``compact``, ``none``, ``hf:…`` or ``openai:…``; default: the model's own
    device, dtype, batch_size : see :func:`choose_compute`

    Raises what :func:`load_predictor` does, which takes all options of captioners.

    Examples
    --------
    >>> from rssc_geo import ClassifyOptions, classify, load_model
    >>> model = load_model("compact", captioner="none")
    >>> for name in ["north", "south"]:
    ...     result = classify("scene.tif", f"{name}.gpkg", model=model)
    """
    return load_predictor(
        PredictorOptions(
            model=str(name),
            revision=revision,
            captioner=captioner,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
        )
    )


def _writable(values: object) -> NDArray[Any]:
    """An array of its own where torch does not take it, as one of BGR turned into RGB, or PIL's."""
    try:
        return np.require(values, requirements=["C", "W"])
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"images and masks have to be arrays, of pictures of one size: {one_line(error)}"
        ) from error


def _resampled(
    images: NDArray[np.uint8], masks: NDArray[np.bool_], size: tuple[int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Pictures of ``size`` (rows, columns), averaged where reduced; masks by the nearest pixel."""
    colors = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    colors = F.interpolate(colors, size, mode="bilinear", antialias=True, align_corners=False)
    valid = F.interpolate(torch.from_numpy(masks)[:, None].float(), size, mode="nearest-exact")
    pixels = colors.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return pixels.contiguous().numpy(), valid[:, 0].bool().numpy()
