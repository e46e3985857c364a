"""``--captioner hf:<id or folder>``: a vision-language model of Hugging Face's transformers.

Anything that ``AutoModelForImageTextToText`` loads: LLaVA 1.5 and 1.6 first; Qwen2-VL, SmolVLM,
Idefics3, InternVL and others with a chat template; BLIP-2 and Florence-2, which have their own
forms of prompt.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image

from rssc_geo.batching import ShrinkingBatches, out_of_memory
from rssc_geo.captioning.base import CaptionBatch, tile_image
from rssc_geo.captioning.huggingface_model import (
    WeightsFormat,
    check_files,
    check_quantize,
    find_files,
    load_processor,
    load_weights,
    quiet,
)
from rssc_geo.captioning.prompts import tidy_answer
from rssc_geo.errors import BundleError, RsscGeoError, UsageError, one_line
from rssc_geo.models import CaptionSource
from rssc_geo.options import CaptionerOptions

_DEFAULTS = CaptionerOptions()
_BATCH_SIZE = {"cpu": 4, "mps": 4, "cuda": 32}

# Prompts of models without a chat template, in the form of their papers. Florence-2 was only
# trained on its own tasks.
_FORMS = {
    "blip-2": "Question: {prompt} Answer:",
    "instructblip": "{prompt}",
    "florence2": "<MORE_DETAILED_CAPTION>",
}
_LLAVA_FORM = "USER: {image}\n{prompt} ASSISTANT:"
_LLAVA_STOP = "USER:"


@dataclass(frozen=True, slots=True)
class Sampling:
    """Choice of the next token: greedily (temperature 0), or sampled.

    Samples depend on ``seed`` and the tile alone. Raises ``UsageError`` for a negative temperature.
    """

    temperature: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"a temperature of {self.temperature}: it must be positive or 0")


_GREEDY = Sampling()


class HuggingFaceCaptioner:
    """Prompts a model for each tile, in batches that shrink when memory runs out.

    Parameters
    ----------
    name : a folder, or a hub id, "owner/name" or "owner/name@revision"
    prompt : the question
    device : where the model runs
    dtype : its precision; bfloat16 on CUDA and float32 elsewhere by default
    options : ``caption_tokens``, ``caption_batch_size``, ``quantize`` (through bitsandbytes) and
        ``trust_remote_code`` are read
    sampling : how tokens are chosen

    The weights are loaded with the first caption, so that a run whose captions are all known needs
    none. Raises ``UsageError`` and ``BundleError``, one line, for a model that is not there, is
    broken or takes no images.
    """

    source: CaptionSource = "written"

    def __init__(
        self,
        name: str,
        *,
        prompt: str,
        device: torch.device | str,
        dtype: torch.dtype | None = None,
        options: CaptionerOptions = _DEFAULTS,
        sampling: Sampling = _GREEDY,
    ) -> None:
        self._device = torch.device(device)
        self._dtype = dtype or (torch.bfloat16 if self._device.type == "cuda" else torch.float32)
        self._prompt, self._max_new_tokens = prompt, options.caption_tokens
        self._sampling = sampling
        self._quantize = check_quantize(options.quantize)
        self._trust = options.trust_remote_code
        self._files = find_files(name, trust_remote_code=self._trust)
        self._config, self._sizes = check_files(self._files, trust_remote_code=self._trust)
        batch_size = options.caption_batch_size or _BATCH_SIZE.get(self._device.type, 4)
        self._batches = ShrinkingBatches(batch_size, device=self._device)
        self._loaded: _Loaded | None = None

    @property
    def name(self) -> str:
        """The model's name as given; ``parameters`` has its revision."""
        return f"hf:{self._files.name}"

    @property
    def parameters(self) -> dict[str, str | int | float | None]:
        """Everything that a caption depends on beside the tile and the name."""
        return {
            "revision": self._files.revision,
            "prompt": self._prompt,
            "max_new_tokens": self._max_new_tokens,
            "dtype": str(self._dtype).removeprefix("torch."),
            "quantize": self._quantize,
            "temperature": self._sampling.temperature,
            "seed": self._sampling.seed if self._sampling.temperature else None,
        }

    def caption(self, batch: CaptionBatch) -> list[str]:
        """One caption a tile; see ``stream_captions``."""
        return [text for _, text in self.stream_captions(batch)]

    def stream_captions(self, batch: CaptionBatch) -> Iterator[tuple[int, str]]:
        """Places in the batch with their captions, in order.

        Raises ``RsscGeoError`` where the model cannot be loaded, fails, or a single tile does not
        fit into memory.
        """
        if not len(batch.pixels):
            return
        loaded = self._loaded = self._loaded or self._load()

        def write(part: slice) -> list[str]:
            images = [
                tile_image(pixels, mask)
                for pixels, mask in zip(batch.pixels[part], batch.mask[part], strict=True)
            ]
            return self._write(loaded, images)

        yield from enumerate(chain.from_iterable(self._batches(write, len(batch.pixels))))

    def _load(self) -> _Loaded:
        """Processor and model, and the arguments of generation."""
        processor = load_processor(self._files, trust_remote_code=self._trust)
        model = load_weights(
            self._files,
            self._config,
            sizes=self._sizes,
            weights=WeightsFormat(self._device, self._dtype, self._quantize),
            trust_remote_code=self._trust,
        )
        text = _question(processor, self._config.model_type, self._prompt)
        if text is None:
            raise BundleError(
                f"{self.name}: its processor ({type(processor).__name__}) has neither a chat"
                " template nor an image token, so it cannot be prompted; take a model that follows"
                " instructions"
            )
        tokenizer = processor.tokenizer
        tokenizer.padding_side = "left"  # the answer continues the question
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        generation = copy.deepcopy(model.generation_config)
        ends = generation.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
        generation.update(
            do_sample=False,
            num_beams=1,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=self._max_new_tokens,
            max_length=None,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
        return _Loaded(model, processor, text, generation, frozenset(ends))

    def _write(self, loaded: _Loaded, images: list[Image.Image]) -> list[str]:
        """The captions of one batch."""
        try:
            inputs = loaded.inputs(images)
            inputs = {
                key: value.to(self._device, self._dtype if value.is_floating_point() else None)
                for key, value in inputs.items()
                if isinstance(value, torch.Tensor)
            }
            how: dict[str, Any] = {}
            if self._sampling.temperature:
                how["logits_processor"] = [_GumbelSampling(images, self._sampling)]
            with torch.inference_mode(), quiet():
                tokens = loaded.model.generate(**inputs, generation_config=loaded.generation, **how)
        except Exception as error:  # parts of two models can make the library raise anything
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            raise RsscGeoError(
                f"{self.name} failed on a tile; do its parts ({type(loaded.model).__name__}, "
                f"{type(loaded.processor).__name__}) belong together? {one_line(error)}"
            ) from error
        return [loaded.answer(row) for row in loaded.new(tokens, inputs["input_ids"])]


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A model ready to be prompted.

    ``text``: the question in the model's own form; ``ends``: the tokens that end an answer.
    """

    model: Any
    processor: Any
    text: str
    generation: Any
    ends: frozenset[int]

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        """The inputs of the model: the question with each image."""
        begin = self.processor.tokenizer.bos_token
        marked = {"add_special_tokens": False} if begin and self.text.startswith(begin) else {}
        # One list a question: where a question may hold several images, a flat list would all
        # belong to the first.
        return dict(
            self.processor(
                images=[[image] for image in images],
                text=[self.text] * len(images),
                return_tensors="pt",
                padding=True,
                **marked,
            )
        )

    def new(self, tokens: torch.Tensor, asked: torch.Tensor) -> list[list[int]]:
        """The answers' tokens out of all (B, T); most models repeat the question's (B, Q)."""
        length = asked.shape[1]
        if torch.equal(tokens[:, :length], asked):
            return tokens[:, length:].tolist()
        if self.model.config.is_encoder_decoder:
            return tokens[:, 1:].tolist()  # after the decoder's start
        return tokens.tolist()

    def answer(self, row: list[int]) -> str:
        """The answer as one line; tokens after the first end are padding."""
        length = next((place for place, token in enumerate(row) if token in self.ends), None)
        text = self.processor.tokenizer.decode(row[:length], skip_special_tokens=True)
        turn, next_turn, _ = text.partition(_LLAVA_STOP)
        return tidy_answer(turn, cut=length is None and not next_turn)


def _question(processor: Any, model_type: str, prompt: str) -> str | None:
    """The prompt in the form that the model was trained on; None where that is unknown."""
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": prompt}]
        return str(
            processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
        )
    if model_type in _FORMS:
        return _FORMS[model_type].format(prompt=prompt)
    image = getattr(processor, "image_token", None)
    return _LLAVA_FORM.format(image=image, prompt=prompt) if image else None


class _GumbelSampling:
    """Samples the next token from the softmax of ``scores / temperature``, as a logits processor.

    Gumbel noise is added, after which the most likely token is a sample (Maddison, Tarlow and
    Minka, "A* Sampling", NeurIPS 2014). Each tile has a generator of its own, so that its tokens do
    not depend on the batch.
    """

    def __init__(self, images: Sequence[Image.Image], sampling: Sampling) -> None:
        self._temperature, seed = sampling.temperature, sampling.seed
        self._generators = []
        for image in images:
            digest = hashlib.sha256(
                f"{seed} {image.size} ".encode() + np.asarray(image).tobytes()
            ).digest()
            self._generators.append(
                torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            )

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores (B, V) with noise."""
        del input_ids
        noise = torch.stack(
            [torch.empty(scores.shape[1]).exponential_(generator=one) for one in self._generators]
        )
        return scores / self._temperature - noise.log_().to(scores)
