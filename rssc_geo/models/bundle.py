"""Model bundles: find one by name, folder or hub id; check it; load it; save one.

torch is imported only where it is needed, so that a card is read without it.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssc_geo.errors import BundleError, InputError, RsscGeoError, one_line
from rssc_geo.files import atomic_write, check_name, check_takes_files, write_error
from rssc_geo.fingerprints import content_hash
from rssc_geo.hub import fetch
from rssc_geo.locks import FileLock
from rssc_geo.models.card import AS_PUBLISHED, ModelCard, read_card, read_json
from rssc_geo.models.model import Model
from rssc_geo.models.weights import load_weights

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from rssc_geo.models.caption_decoder import CaptionDecoder
    from rssc_geo.models.network import Alignment, DualAttentionClassifier, Familiarity

EMBEDDED = Path(__file__).with_name("bundles")
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
VOCABULARY = "captioner.json"
_PARTS = ("network", "captioner", "alignment", "familiarity")
_SAVING = ".bundle.rssc-geo"  # there while a bundle is being saved
_LOCK = ".lock.rssc-geo"
_FILES = ("config.json", WEIGHTS, TOKENIZER, VOCABULARY, "README.md")
_LARGEST_TOKENIZER = 128_000_000  # bytes; those of a million tokens have 40,000,000
_LARGEST_GROWTH = 10_000  # factor by which a normalizer may lengthen a text
_MOST_STEPS = 1000  # of a tokenizer; that of a language model takes ten
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")


def embedded_names() -> list[str]:
    """Names of the bundles that come with the program."""
    return sorted(path.parent.name for path in EMBEDDED.glob("*/config.json"))


def load_card(name: str | Path, *, revision: str | None = None) -> ModelCard:
    """The card alone, without importing torch; arguments and errors as of ``load_bundle``.

    Examples
    --------
    >>> from rssc_geo import load_card
    >>> len(load_card("compact").classes)
    41
    """
    return read_card(find_bundle(name, revision))


def load_bundle(name: str | Path = "compact", *, revision: str | None = None) -> Model:
    """Load a bundle by folder, embedded name or hub id (``revision``: of the hub id).

    Weights are safetensors only, compared with the card's sha256; nothing is unpickled, no remote
    code runs, nothing outside the folder is read. Weights stored in half precision are computed in
    float32. The model is tried on a blank picture. Raises ``BundleError``, one line, where there is
    no such bundle, or it is incomplete, altered, holds pickled weights, or its parts do not match.
    """
    folder = find_bundle(name, revision)
    card = read_card(folder)
    _check_files(folder, card)
    weights = _read_weights(folder / WEIGHTS)
    tokenizer = _read_tokenizer(folder / TOKENIZER)
    vocabulary = _read_tokenizer(folder / VOCABULARY) if card.captioner is not None else None

    from rssc_geo.models.trial import try_model, without_words

    network, decoder, alignment, familiarity = _build(folder, card, weights)
    model = Model(card, network, tokenizer, decoder, vocabulary, alignment, familiarity)
    for prefix, module in model.modules():
        _fill(module, weights, f"{prefix}.", folder)
        module.eval()
    try:
        with without_words():
            try_model(model)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except RsscGeoError as error:
        raise BundleError(f"{folder}: {error}") from error
    except BaseException as error:  # panics of the tokenizers library are no Exception
        raise BundleError(
            f"{folder}: the network of config.json does not run: {one_line(error)}"
        ) from error
    return model


def _build(
    folder: Path, card: ModelCard, weights: dict[str, torch.Tensor]
) -> tuple[DualAttentionClassifier, CaptionDecoder | None, Alignment | None, Familiarity | None]:
    """The card's modules with random weights; ``BundleError`` for an invalid configuration."""
    import torch

    from rssc_geo.models.caption_decoder import CaptionDecoder
    from rssc_geo.models.network import Alignment, Familiarity
    from rssc_geo.models.trial import no_larger_than

    def build() -> tuple[
        DualAttentionClassifier, CaptionDecoder | None, Alignment | None, Familiarity | None
    ]:
        return (
            build_network(card),
            CaptionDecoder(**card.captioner) if card.captioner is not None else None,
            Alignment(**card.alignment) if card.alignment is not None else None,
            Familiarity(**card.familiarity) if card.familiarity is not None else None,
        )

    try:
        try:
            # First on the meta device, without memory. Not all versions of timm can do that.
            with no_larger_than(weights), torch.device("meta"):
                build()
        except (NotImplementedError, RuntimeError):
            pass
        with no_larger_than(weights):
            return build()
    except RsscGeoError as error:
        raise BundleError(f"{folder}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:  # a foreign configuration can make the libraries raise anything
        raise BundleError(
            f"{folder}: config.json describes no network this program can build: {one_line(error)}"
        ) from error


def build_network(card: ModelCard) -> DualAttentionClassifier:
    """The card's network with random weights: ours, or the authors' ("as-published")."""
    from rssc_geo.models.network import DualAttentionClassifier, PublishedClassifier

    settings = {name: value for name, value in card.network.items() if name != "variant"}
    kind = PublishedClassifier if card.variant == AS_PUBLISHED else DualAttentionClassifier
    return kind(classes=len(card.classes), **settings)


def check_bundle_folder(folder: str | Path) -> None:
    """Refuse with ``InputError`` a folder where saving a bundle would replace what is there.

    That is another bundle, or files with its names that no interrupted saving has left.
    ``UsageError`` for an invalid name, ``OutputError`` where no files can be made.
    """
    target = Path(folder)
    check_name(target)
    places = (target, *target.absolute().parents)
    check_takes_files(next(place for place in places if place.exists()))
    if (target / "config.json").exists():
        raise InputError(f"{target} holds a bundle already; choose another folder or remove it")
    names = (WEIGHTS, TOKENIZER, VOCABULARY, "README.md")
    there = [name for name in names if (target / name).exists()]
    if there and not (target / _SAVING).exists():
        raise InputError(
            f"{target} holds {there[0]}, which would be replaced: choose another folder"
        )


def save_bundle(
    folder: str | Path, model: Model, *, readme: str, half: bool = True, overwrite: bool = True
) -> ModelCard:
    """Write weights, tokenizers, README and card into a folder, which is made if need be.

    Each file appears whole or not at all; the card comes last, with the checksums of the others.
    One process at a time writes a folder.

    Parameters
    ----------
    folder : of the bundle
    model : with its card, which gets the checksums
    readme : text of README.md, Markdown
    half : weights in float16; False keeps them as they are
    overwrite : whether a bundle that is there is replaced

    Returns the card as written. Raises ``OutputError`` for errors of the file system and a folder
    in use, ``InputError`` for a bundle that another process has made meanwhile.
    """
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(target, error) from error
    with FileLock(target / _LOCK, taken=target):
        if not overwrite:
            check_bundle_folder(target)
        return _write_bundle(target, model, readme=readme, half=half)


def _write_bundle(target: Path, model: Model, *, readme: str, half: bool) -> ModelCard:
    import torch
    from safetensors.torch import save

    with atomic_write(target / _SAVING) as made:
        made.write_text("rssc-geo saves a bundle here\n", encoding="utf-8")
    states = {
        f"{prefix}.{key}": value
        for prefix, module in model.modules()
        for key, value in module.state_dict().items()
    }
    if half:
        states = {
            key: value.to(torch.float16) if value.is_floating_point() else value
            for key, value in states.items()
        }
    with atomic_write(target / WEIGHTS) as made:
        made.write_bytes(save({key: value.contiguous() for key, value in states.items()}))
    with atomic_write(target / TOKENIZER) as made:
        model.tokenizer.save(str(made), pretty=False)
    if model.vocabulary is not None:
        with atomic_write(target / VOCABULARY) as made:
            model.vocabulary.save(str(made), pretty=False)
    with atomic_write(target / "README.md") as made:
        made.write_text(readme, encoding="utf-8")
    checksums = {file: content_hash(target / file) for file in _checked_files(model.card)}
    card = dataclasses.replace(model.card, sha256=checksums)
    with atomic_write(target / "config.json") as made:
        made.write_text(card.to_json(), encoding="utf-8")
    (target / _SAVING).unlink()
    return card


def find_bundle(name: str | Path, revision: str | None) -> Path:
    """The folder of a bundle, downloaded if need be."""
    embedded = {name: EMBEDDED / name for name in embedded_names()}
    what = f"model {str(name)!r}"
    return fetch(name, _FILES, what=what, revision=revision, embedded=embedded)


def _checked_files(card: ModelCard) -> list[str]:
    """The files that the card's checksums have to cover."""
    return [WEIGHTS, TOKENIZER, VOCABULARY] if card.captioner is not None else [WEIGHTS, TOKENIZER]


def _check_files(folder: Path, card: ModelCard) -> None:
    """Refuse a bundle that lacks a file, or has a wrong checksum: ``BundleError``."""
    for file in _checked_files(card):
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
        if content_hash(path) != expected:
            raise BundleError(
                f"{path} does not have the checksum of config.json: the bundle is damaged or"
                " altered; get it again"
            )


def _read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name, halves as float32; ``BundleError``."""
    from safetensors import SafetensorError

    try:
        weights = {
            key: value.float() if value.is_floating_point() else value
            for key, value in load_weights(path).items()
        }
        damaged = [key for key, value in weights.items() if not bool(value.isfinite().all())]
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as error:
        raise BundleError(
            f"{path} is not a readable safetensors file: {one_line(error)}"
        ) from error
    if damaged:
        raise BundleError(f"{path}: {one_line(damaged[0])} holds values that are no numbers")
    for key in weights:
        if key.partition(".")[0] not in _PARTS or not key.isprintable():
            raise BundleError(f"{path} holds {one_line(key)!r}, which no part of a model has")
    return weights


def _read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a file, without padding and truncation; ``BundleError``."""
    from tokenizers import Tokenizer

    from rssc_geo.models.trial import without_words

    try:
        text = _read_limited(path, _LARGEST_TOKENIZER)
        _check_steps(read_json(text))
        with without_words():
            tokenizer: Tokenizer = Tokenizer.from_str(text)
            # Padding to foreign lengths is not wanted.
            tokenizer.no_padding()
            tokenizer.no_truncation()
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # the library raises plain Exception, and panics that are none
        raise BundleError(f"{path} is not a tokenizer: {one_line(error)}") from error
    return tokenizer


def _check_steps(tokenizer: Any) -> None:
    """Refuse a tokenizer of many steps, or that makes texts ever longer; ``ValueError``."""
    growth, steps = 1, 0
    for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
        left = [tokenizer.get(part)] if isinstance(tokenizer, dict) else []
        while left and steps <= _MOST_STEPS:
            found = left.pop()
            if isinstance(found, list):
                left += found
            elif isinstance(found, dict):
                steps += 1
                left += [value for value in found.values() if isinstance(value, list)]
                if part == "normalizer":
                    growth *= 1 + len(str(found.get("content", found.get("prepend", ""))))
                    growth *= 2 if found.get("type") == "ByteLevel" else 1
    if steps > _MOST_STEPS:
        raise ValueError(f"it takes more than {_MOST_STEPS} steps")
    if growth > _LARGEST_GROWTH:
        raise ValueError("it makes texts too long")


def _read_limited(path: Path, most: int) -> str:
    """The text of a file; ``ValueError`` where it has more than ``most`` bytes."""
    if path.stat().st_size > most:
        raise ValueError("it is too large")
    return path.read_text(encoding="utf-8")


def _fill(
    module: torch.nn.Module, weights: dict[str, torch.Tensor], prefix: str, folder: Path
) -> None:
    """Load those weights into a module whose names start with ``prefix``; ``BundleError``."""
    from rssc_geo.models.encoders import fit_keys

    own = {
        key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)
    }
    state = module.state_dict()
    own = fit_keys(own, state)
    for key, value in own.items():
        # Whole numbers of quantized weights are meaningless without their scale.
        if key in state and state[key].is_floating_point() and not value.is_floating_point():
            raise BundleError(
                f"{folder}: {WEIGHTS} does not fit config.json: {one_line(prefix + key)} is of type"
                f" {value.dtype}, not {state[key].dtype}"
            )
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        first = one_line(str(error).strip().splitlines()[-1])
        raise BundleError(f"{folder}: {WEIGHTS} does not fit config.json: {first}") from error
