"""Model bundles: find one by name, folder or hub id; check it; load it; save one."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rssc_geo.errors import BundleError, not_fetched
from rssc_geo.models.caption_decoder import CaptionSource
from rssc_geo.models.card import AS_PUBLISHED, ModelCard, read_card
from rssc_geo.models.keys import fit_keys
from rssc_geo.models.words import caption_ids

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from rssc_geo.models.alignment import Alignment
    from rssc_geo.models.caption_decoder import CaptionDecoder
    from rssc_geo.models.network import DualAttentionClassifier

EMBEDDED = Path(__file__).with_name("bundles")
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
VOCABULARY = "captioner.json"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded bundle: the network in evaluation mode, its card and tokenizer.

    Its captioner and its alignment, if any.
    """

    card: ModelCard
    network: DualAttentionClassifier
    tokenizer: Tokenizer
    decoder: CaptionDecoder | None = None
    vocabulary: Tokenizer | None = None
    alignment: Alignment | None = None

    def __post_init__(self) -> None:
        if (self.decoder is None) != (self.vocabulary is None):
            raise ValueError("a captioner needs its decoder and its vocabulary")

    def reads(self, source: CaptionSource) -> bool:
        """Whether the class is found with words of that source, or they only go to the output."""
        return source == "written" or self.card.reads_own_captions

    def preprocess(self, pixels: np.ndarray, mask: np.ndarray) -> torch.Tensor:
        """uint8 ``(B, H, W, 3)`` and bool ``(B, H, W)`` (True = valid) → normalized float32 ``(B,
        3, H, W)``.

        Invalid pixels become the card's mean, which is 0 after normalization.
        """
        import torch

        scaled = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(torch.float32).div_(255)
        mean, std = (
            torch.tensor(values).view(1, 3, 1, 1) for values in (self.card.mean, self.card.std)
        )
        images = (scaled - mean).div_(std)
        images.masked_fill_(~torch.from_numpy(mask)[:, None], 0.0)
        return images.contiguous(memory_format=torch.channels_last)

    def tokenize(
        self,
        captions: Sequence[str],
        *,
        source: CaptionSource | Sequence[CaptionSource] | None = "written",
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Captions → ids int64 ``(B, T)`` and mask bool ``(B, T)``, T = the card's ``max_tokens``
        at most.

        ``source`` says whose words they are, of all or of each: "generated" by the bundle's own
        captioner, or "written" by people or a large model. Where the vocabulary has a mark for it,
        the mark leads the words, so that the network can trust them accordingly (None: no mark). An
        empty caption has no tokens; one that is too long keeps its conclusion (see
        :func:`caption_ids`).
        """
        import torch

        marks = {
            kind: self.tokenizer.token_to_id(f"[{kind.upper()}]")
            for kind in ("generated", "written")
        }
        sources = [source] * len(captions) if source is None or isinstance(source, str) else source
        rows = []
        for text, kind in zip(captions, sources, strict=True):
            mark = [] if kind is None or marks[kind] is None else [marks[kind]]
            words = caption_ids(
                self.tokenizer,
                text,
                room=self.card.max_tokens - len(mark),
                special_tokens=self.card.special_tokens,
                keep_conclusion=self.card.variant != AS_PUBLISHED,
            )
            rows.append([*mark, *words] if words else [])
        length = max(1, *(len(row) for row in rows))
        ids = torch.zeros(len(rows), length, dtype=torch.long)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row, dtype=torch.long)
            mask[index, : len(row)] = True
        return ids, mask


def embedded_names() -> list[str]:
    """Names of the bundles that come with the program."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def find_bundle(name: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a bundle: an existing folder first, then an embedded name, then a hub id.

    ``BundleError`` says what was tried. A hub id is fetched into the hub's cache;
    ``HF_HUB_OFFLINE`` is honored.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if str(name) in embedded_names():
        return EMBEDDED / str(name)
    if _HUB_ID.fullmatch(str(name)) and not folder.exists():
        return _fetch(str(name), revision)
    kind = (
        "is a file, not a bundle folder"
        if folder.is_file()
        else "is no folder, hub id (owner/name) or embedded model"
    )
    raise BundleError(f"model {str(name)!r} {kind}; embedded: {', '.join(embedded_names())}")


def _fetch(repository: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = ["config.json", WEIGHTS, TOKENIZER, VOCABULARY, "README.md"]
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=wanted))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise not_fetched(f"model {repository!r}", repository, error, revision=revision) from error


def load_card(name: str | Path, *, revision: str | None = None) -> ModelCard:
    """The card alone, without importing torch."""
    return read_card(find_bundle(name, revision=revision))


def load_model(name: str | Path = "compact", *, revision: str | None = None) -> Model:
    """Load a bundle by embedded name, folder or hub id.

    Weights are safetensors only, compared with the card's sha256; nothing is unpickled, no remote
    code runs. Weights stored in half precision are computed in float32. ``BundleError``, one line,
    when the folder is incomplete, altered, or holds pickled weights.
    """
    folder = find_bundle(name, revision=revision)
    card = read_card(folder)
    _check_files(folder, card)

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from rssc_geo.models.alignment import Alignment
    from rssc_geo.models.caption_decoder import CaptionDecoder

    try:
        weights = {
            key: value.float() if value.is_floating_point() else value
            for key, value in load_file(folder / WEIGHTS).items()
        }
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"{folder / WEIGHTS} is not a readable safetensors file: {error}"
        ) from error
    tokenizer = _read_tokenizer(folder / TOKENIZER)
    vocabulary = _read_tokenizer(folder / VOCABULARY) if card.captioner is not None else None
    try:
        network = build_network(card)
        decoder = CaptionDecoder(**card.captioner) if card.captioner is not None else None
        alignment = Alignment(**card.alignment) if card.alignment is not None else None
    except (TypeError, KeyError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{folder}: config.json describes no network this program can build: {error}"
        ) from error
    _fill(network, weights, "network.", folder)
    if decoder is not None:
        _fill(decoder, weights, "captioner.", folder)
        decoder.eval()
    if alignment is not None:
        _fill(alignment, weights, "alignment.", folder)
        alignment.eval()
    return Model(card, network.eval(), tokenizer, decoder, vocabulary, alignment)


def build_network(card: ModelCard) -> DualAttentionClassifier:
    """The card's network with random weights.

    Ours, or the authors' where the card says "as-published".
    """
    from rssc_geo.models.network import DualAttentionClassifier
    from rssc_geo.models.published import PublishedClassifier

    settings = {name: value for name, value in card.network.items() if name != "variant"}
    kind = PublishedClassifier if card.variant == AS_PUBLISHED else DualAttentionClassifier
    return kind(classes=len(card.classes), **settings)


def _read_tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the tokenizers library raises plain Exception
        raise BundleError(f"{path} is not a tokenizer: {error}") from error


def _files(card: ModelCard) -> list[str]:
    """What the card's checksums have to cover."""
    return [WEIGHTS, TOKENIZER, VOCABULARY] if card.captioner is not None else [WEIGHTS, TOKENIZER]


def _check_files(folder: Path, card: ModelCard) -> None:
    for file in _files(card):
        path = folder / file
        if not path.is_file():
            pickled = sorted(p.name for pattern in _PICKLED for p in folder.glob(pattern))
            hint = (
                f" ({', '.join(pickled)} is pickled and never loaded; convert it to safetensors)"
                if pickled
                else ""
            )
            raise BundleError(f"{folder}: {file} is missing{hint}")
        expected = card.sha256.get(file)
        if expected is None:
            raise BundleError(f"{folder}: config.json gives no sha256 for {file}")
        if digest(path) != expected:
            raise BundleError(
                f"{path} does not have the checksum of config.json: the bundle is damaged or"
                " altered; get it anew"
            )


def _fill(
    module: torch.nn.Module, weights: dict[str, torch.Tensor], prefix: str, folder: Path
) -> None:
    own = {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
    try:
        module.load_state_dict(fit_keys(own, module.state_dict()))
    except RuntimeError as error:
        first = str(error).strip().splitlines()[-1].strip()
        raise BundleError(f"{folder}: {WEIGHTS} does not fit config.json: {first}") from error


def save_bundle(folder: str | Path, model: Model, *, readme: str, half: bool = True) -> ModelCard:
    """Write a bundle folder: weights in float16, tokenizer, README, and the card with the files'
    checksums.

    ``half``: False keeps the weights as they are. Returns the card as written.
    """
    import torch
    from safetensors.torch import save

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    states = {f"network.{key}": value for key, value in model.network.state_dict().items()}
    if model.decoder is not None:
        states |= {f"captioner.{key}": value for key, value in model.decoder.state_dict().items()}
    if model.alignment is not None:
        states |= {f"alignment.{key}": value for key, value in model.alignment.state_dict().items()}
    if half:
        states = {
            key: value.to(torch.float16) if value.is_floating_point() else value
            for key, value in states.items()
        }
    (target / WEIGHTS).write_bytes(save({key: value.contiguous() for key, value in states.items()}))
    model.tokenizer.save(str(target / TOKENIZER), pretty=False)
    if model.vocabulary is not None:
        model.vocabulary.save(str(target / VOCABULARY), pretty=False)
    card = dataclasses.replace(
        model.card, sha256={file: digest(target / file) for file in _files(model.card)}
    )
    (target / "config.json").write_text(card.to_json(), encoding="utf-8")
    (target / "README.md").write_text(readme, encoding="utf-8")
    return card


def digest(path: Path) -> str:
    """sha256 of a file, as hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
