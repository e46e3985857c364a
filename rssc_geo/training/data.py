"""Data sets of pictures in memory: captions, legend, and splits without leaks. No torch here."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rssc_geo.captioning import check_captioner
from rssc_geo.errors import InputError, UsageError, one_line
from rssc_geo.files import atomic_write, check_not_input, check_writable, paths_of
from rssc_geo.models import load_card
from rssc_geo.options import CaptionOptions, DescribingOptions, PredictorOptions, values_of
from rssc_geo.pipelines import CaptionResult
from rssc_geo.progress import Progress, reporting
from rssc_geo.texts import parse_json, read_lines
from rssc_geo.training.taxonomy import Legend, Taxonomy, read_taxonomy

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}
DataSets = str | Path | Sequence[str | Path]
"""One image folder or several."""
Split = Mapping[str, NDArray[np.int64]]
"""Rows of the parts ``train``, ``val`` and ``test``."""


@dataclass(frozen=True, slots=True)
class SceneImages:
    """Labeled scene images, all of one size.

    Attributes
    ----------
    pixels : uint8 ``(N, H, W, 3)``, RGB
    labels : int64 ``(N,)``, places in ``legend.labels``
    names : path of each image below the data set's folder; of several sets, the set's name first
    legend : which classes each label allows
    captions : the human sentences for each image
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    legend: Legend
    captions: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not len(self.pixels) == len(self.labels) == len(self.names) == len(self.captions):
            raise ValueError("pixels, labels, names and captions differ in length")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.legend.classes

    def truth(
        self, scores: NDArray[np.floating], rows: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """The class that each of these rows (None: all) counts as, see ``Legend.truth``.

        ``scores``: ``(len(rows), C)``, probabilities or logits.
        """
        return self.legend.truth(scores, self.labels if rows is None else self.labels[rows])

    def fingerprint(self) -> str:
        """A hash of all of it: pixels, labels, names, captions."""
        digest = hashlib.sha256(np.ascontiguousarray(self.pixels).data)
        digest.update(self.labels.tobytes())
        digest.update(json.dumps([self.names, self.legend.as_dict(), self.captions]).encode())
        return digest.hexdigest()

    def take(self, rows: NDArray[np.int64]) -> SceneImages:
        """The pictures ``rows``, int64 (n,), with all classes."""
        chosen = rows.tolist()
        return SceneImages(
            self.pixels[rows],
            self.labels[rows],
            tuple(self.names[row] for row in chosen),
            self.legend,
            tuple(self.captions[row] for row in chosen),
        )


@dataclass(frozen=True, slots=True)
class PictureFiles:
    """The files of an image folder, unread.

    Attributes
    ----------
    root : folder of the class folders
    classes : names of the class folders, sorted
    paths : (place of the class, file), sorted
    """

    root: Path
    classes: tuple[str, ...]
    paths: tuple[tuple[int, Path], ...]


def find_pictures(folder: str | Path) -> PictureFiles:
    """List the images ``folder/<class>/*``, or ``folder/images/<class>/*``.

    Raises ``InputError`` when there are fewer than two class folders, or fewer than two images in
    one of them.
    """
    root = Path(folder)
    images = root / "images" if (root / "images").is_dir() else root
    if not images.is_dir():
        raise InputError(f"{root}: no such folder; give an image folder with one folder a class")
    classes = tuple(
        sorted(p.name for p in images.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    paths = tuple(
        (index, path)
        for index, name in enumerate(classes)
        for path in sorted((images / name).iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
    )
    if not paths:
        raise InputError(f"{root}: no images found; expected {images}/<class>/*.jpg")
    _check_classes(images, classes, [index for index, _ in paths])
    return PictureFiles(images, classes, paths)


def load_image_folder(
    folder: str | Path, *, size: int, captions: str | Path | None = None
) -> SceneImages:
    """Read an image folder, one folder a class, and its captions where there are some.

    Images that cannot be read are left out with a warning, and so are captions of images that are
    not there.

    Parameters
    ----------
    folder : holds ``<class>/*`` (or ``images/<class>/*``) and perhaps ``captions.jsonl``, whose
        lines are ``{"image": "<class>/<file>", "captions": ["…", …]}``
    size : every image is resized to ``size × size`` pixels (bilinear, antialiased)
    captions : another file of such lines

    Raises
    ------
    InputError
        when there are fewer than two class folders, or one of them holds fewer than two readable
        images, or the captions are no JSON Lines

    Examples
    --------
    >>> from rssc_geo import load_image_folder
    >>> data = load_image_folder("pictures", size=32)
    >>> data.pixels.shape, data.classes
    ((36, 32, 32, 3), ('Beach', 'Forest', 'River'))
    """
    if captions is not None and not Path(captions).is_file():
        raise InputError(f"{captions}: no such file of captions")
    found = find_pictures(folder)
    pixels = np.empty((len(found.paths), size, size, 3), np.uint8)
    kept: list[tuple[int, str]] = []
    broken: list[str] = []
    for index, path in found.paths:
        try:
            pixels[len(kept)] = read_picture(path, size)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 -- of a damaged file Pillow raises any kind
            broken.append(f"{path} ({one_line(error)})")
            continue
        kept.append((index, path.relative_to(found.root).as_posix()))
    if broken:
        log.warning(
            "%d of %d images cannot be read and are left out, first %s",
            len(broken),
            len(found.paths),
            broken[0],
        )
    labels = np.array([index for index, _ in kept], np.int64)
    _check_classes(found.root, found.classes, labels.tolist())
    names = tuple(name for _, name in kept)
    sentences = _captions(Path(captions or Path(folder) / "captions.jsonl"), names)
    legend = Legend.of_classes(found.classes)
    return SceneImages(pixels[: len(kept)], labels, names, legend, sentences)


def data_sets(dataset: DataSets) -> list[str]:
    """The folders, one or several, as a list."""
    return paths_of(dataset)


def check_data_sets(folders: Sequence[str | Path], taxonomy: str | Path | None) -> None:
    """Refuse data sets and a taxonomy that do not match, from the folders' names alone.

    With a warning of classes and data sets of the taxonomy that no picture is of. Raises
    ``InputError`` as :func:`load_data_sets` does, ``UsageError`` for no folder at all.
    """
    if not folders:
        raise UsageError("give at least one DATASET folder")
    found = [find_pictures(folder).classes for folder in folders]
    legends = _legends(folders, found, taxonomy)
    if taxonomy is not None:
        _warn_of_unused(folders, Legend.joined(legends), taxonomy)


def load_data_sets(
    folders: Sequence[str | Path],
    *,
    size: int,
    taxonomy: str | Path | None = None,
    captions: str | Path | None = None,
) -> SceneImages:
    """Read several image folders as one data set, with the legend of a taxonomy file.

    Parameters
    ----------
    folders : each as for :func:`load_image_folder`; a data set has the name of its folder
    size : as for ``load_image_folder``
    taxonomy : file that states which classes the labels of each data set allow (docs/training.md);
        None: each label is a class, and equal names of several data sets are one class
    captions : as for ``load_image_folder``, for a single folder

    Raises ``InputError`` as ``load_image_folder`` does, where two folders have one name, and where
    the taxonomy is invalid or does not match.
    """
    folders = list(folders)
    if taxonomy is None and len(folders) == 1:
        return load_image_folder(folders[0], size=size, captions=captions)
    if captions is not None and len(folders) > 1:
        raise UsageError("--captions is for one data set; several bring their own captions.jsonl")
    parts = [load_image_folder(folder, size=size, captions=captions) for folder in folders]
    legends = _legends(folders, [part.classes for part in parts], taxonomy)
    starts = np.cumsum([0, *(len(legend.labels) for legend in legends)]).tolist()
    names = [
        f"{data_set}/{name}"
        for data_set, part in zip(_set_names(folders), parts, strict=True)
        for name in part.names
    ]
    labels = [part.labels + start for part, start in zip(parts, starts, strict=False)]
    sentences = tuple(texts for part in parts for texts in part.captions)
    pixels = np.concatenate([part.pixels for part in parts])
    return SceneImages(
        pixels, np.concatenate(labels), tuple(names), Legend.joined(legends), sentences
    )


def _legends(
    folders: Sequence[str | Path],
    labels: Sequence[tuple[str, ...]],
    taxonomy: str | Path | None,
) -> list[Legend]:
    """The legend of each data set."""
    names = _set_names(folders)
    if taxonomy is None:
        classes = tuple(sorted({label for part in labels for label in part}))
        read = Taxonomy({"": classes}, frozenset(), {})
    else:
        read = read_taxonomy(taxonomy)
    return [read.legend(name, part) for name, part in zip(names, labels, strict=True)]


def _warn_of_unused(folders: Sequence[str | Path], legend: Legend, taxonomy: str | Path) -> None:
    """Warn of what a taxonomy has and no picture: names may be misspelled."""
    given = _set_names(folders)
    absent = [name for name in read_taxonomy(taxonomy).sets if name not in given]
    if absent:
        log.warning(
            "%s lists %s under sets, but the data sets are %s",
            taxonomy,
            ", ".join(map(repr, absent)),
            ", ".join(map(repr, given)),
        )
    allowed = np.asarray(legend.allowed.any(0)).tolist()
    if bare := [name for name, some in zip(legend.classes, allowed, strict=True) if not some]:
        log.warning(
            "%s: no data set has pictures of %s, which the model can then not learn",
            taxonomy,
            ", ".join(map(repr, bare)),
        )


def _set_names(folders: Sequence[str | Path]) -> list[str]:
    """Names of the data sets: those of their folders."""
    names = [Path(folder).resolve().name for folder in folders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"two data sets are called {twice[0]!r}, as their folders are; rename one of them"
        )
    return names


def read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    """An image file as uint8 ``(size, size, 3)`` RGB.

    16-bit gray is scaled to 8 bit, transparency dropped. Raises ``ValueError`` for pixels of 32 bit
    and for what is no file, such as a pipe, which may never end; and what Pillow raises.
    """
    if path.exists() and not path.is_file():
        raise ValueError("a folder, pipe or device, no file")
    with Image.open(path) as image:
        # Pillow gives 32 bit for PNG of 16, which is the most that PNG has.
        if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
            raise ValueError("pixels of 32 bit; scale them to 8 bit first")
        gray16 = image.mode.startswith("I")
        eight = (
            Image.fromarray((np.asarray(image) / 257).clip(0, 255).astype(np.uint8))
            if gray16
            else image
        )
        return np.asarray(eight.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def _check_classes(images: Path, classes: tuple[str, ...], labels: list[int]) -> None:
    if len(classes) < 2:
        raise InputError(
            f"{images} has one class folder only ({classes[0]}): there is nothing to tell apart"
        )
    counts = np.bincount(np.array(labels, np.int64), minlength=len(classes))
    few = [f"{name} ({count})" for name, count in zip(classes, counts, strict=True) if count < 2]
    if few:
        raise InputError(
            f"{images}: fewer than two readable images in {', '.join(few)}; add images or remove"
            " the folder"
        )


def _captions(path: Path, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The sentences of each image, none for an image without a line."""
    if not path.is_file():
        return ((),) * len(names)
    written: dict[str, tuple[str, ...]] = {}
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {one_line(error)}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                image, texts = _caption_line(line)
            except ValueError as error:
                raise InputError(
                    f'{path}, line {number}: expected {{"image": "<class>/<file>", "captions":'
                    f' ["…"]}} ({one_line(error)})'
                ) from error
            written[image] = written.get(image, ()) + texts
    unknown = sorted(set(written) - set(names))
    if unknown:
        log.warning(
            "%s: %d captions name images that are not there, first %s",
            path,
            len(unknown),
            unknown[0],
        )
    without = sum(name not in written for name in names)
    if without:
        log.warning(
            "%s: %d of %d images have no caption and are learned without words",
            path,
            without,
            len(names),
        )
    return tuple(written.get(name, ()) for name in names)


def _caption_line(line: str) -> tuple[str, tuple[str, ...]]:
    """The image of a line, and its sentences that have words; ``ValueError`` for another form."""
    entry = parse_json(line)
    image, texts = (
        (entry.get("image"), entry.get("captions")) if isinstance(entry, dict) else (None, None)
    )
    if not isinstance(image, str):
        raise ValueError('no text "image"')  # noqa: TRY004 -- a mistake in the file
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError('"captions" is no list of texts')
    sentences = (" ".join(text.split()) for text in texts)
    return image, tuple(text for text in sentences if text)


def check_shares(val: float, test: float) -> None:
    """Refuse with ``InputError`` shares that leave nothing for validation or training."""
    if val <= 0 or test < 0 or val + test >= 1:
        raise InputError(
            f"validation share {val:g} and test share {test:g} must be above 0 and leave something"
            " to train on"
        )


def stratified_split(
    data: SceneImages, *, seed: int, val: float = 0.1, test: float = 0.1
) -> dict[str, NDArray[np.int64]]:
    """Rows, int64 (n,), of ``train``, ``val`` and ``test``, each label divided alike.

    ``val`` and ``test`` are shares, drawn by ``seed``; each part has an image of every label, at
    the cost of ``test`` first where images are few. A data set is divided the same alone and beside
    others. Images that are equal pixel by pixel always go to ``train``, so that no pair is split;
    they are named in a warning. Raises ``InputError`` when the shares leave nothing to train on.
    """
    check_shares(val, test)
    repeated = _repeated(data)
    parts: dict[str, list[NDArray[np.int64]]] = {"train": [], "val": [], "test": []}
    data_set = None
    for label, named in enumerate(data.legend.sets):
        if named != data_set:
            generator, data_set = np.random.default_rng(seed), named
        indices = generator.permutation(np.flatnonzero(data.labels == label))
        indices = np.concatenate([indices[repeated[indices]], indices[~repeated[indices]]])
        held = max(1, round(len(indices) * val))
        last = min(len(indices) - held - 1, max(1, round(len(indices) * test)) if test else 0)
        cuts = [len(indices) - held - last, len(indices) - last]
        for name, part in zip(parts, np.split(indices, cuts), strict=True):
            parts[name].append(part)
    return {name: np.sort(np.concatenate(pieces)) for name, pieces in parts.items()}


def _repeated(data: SceneImages) -> NDArray[np.bool_]:
    """Whether another image has the same pixels, bool ``(N,)``."""
    first: dict[bytes, int] = {}
    repeated = np.zeros(len(data.pixels), bool)
    pairs = []
    for row, image in enumerate(data.pixels):
        twin = first.setdefault(hashlib.sha256(image.tobytes()).digest(), row)
        if twin != row:
            repeated[[twin, row]] = True
            pairs.append(f"{data.names[twin]} = {data.names[row]}")
    if pairs:
        log.warning(
            "equal images are used for training only (%d pairs): %s",
            len(pairs),
            ", ".join(pairs[:5]),
        )
    return repeated


def deal_folds(
    data: SceneImages, rows: NDArray[np.int64], *, folds: int, seed: int
) -> list[NDArray[np.int64]]:
    """``rows``, int64 (n,), dealt to ``folds`` parts of about equal size at random, by label.

    ``data``: the images whose rows they are; ``seed`` decides which part each goes to.
    Raises ``InputError`` when a label has fewer images than folds.
    """
    generator = np.random.default_rng(seed)
    fold = np.empty(len(rows), np.int64)
    for label, name in enumerate(data.legend.labels):
        places = generator.permutation(np.flatnonzero(data.labels[rows] == label))
        if len(places) < folds:
            raise InputError(
                f"class {name} has {len(places)} training images, fewer than {folds} folds"
            )
        fold[places] = (np.arange(len(places)) + generator.integers(folds)) % folds
    return [rows[fold == number] for number in range(folds)]


def check_captioners(data: SceneImages, rows: NDArray[np.int64], *, folds: int, seed: int) -> None:
    """Refuse with ``InputError`` captions too few for a captioner without each fold.

    And labels too few for the folds, see ``deal_folds``. Arguments are those of ``deal_folds``.
    """
    described = np.array([row for row in rows.tolist() if data.captions[row]], np.int64)
    for held in deal_folds(data, rows, folds=folds, seed=seed):
        if not len(np.setdiff1d(described, held)):
            raise InputError(
                f"only {len(described)} of {len(rows)} training images have a caption, too few for"
                f" captioners of {folds} folds: add captions, or remove them all to train by the"
                " pictures alone"
            )


def caption_pictures(
    folder: str | Path,
    output: str | Path,
    options: CaptionOptions | None = None,
    *,
    progress: Progress | bool | None = None,
) -> CaptionResult:
    """Describe the pictures of a data set and write ``captions.jsonl`` for ``train --captions``.

    Parameters
    ----------
    folder : one folder a class, see ``load_image_folder``
    output : a .jsonl with a line a picture, ``{"image": "<class>/<file>", "captions": ["…"]}``,
        which appears whole or not at all
    options : those of model, computing and captions, and ``overwrite``; what a large captioner has
        written stays in its cache
    progress : as for ``classify``

    Raises ``RsscGeoError``, one clear line.
    """
    started = time.monotonic()
    options = options or CaptionOptions()
    target = Path(output)
    if target.suffix.lower() != ".jsonl":
        raise UsageError(f"{target.name}: captions of pictures are written as .jsonl")
    if options.captioner == "none":
        raise UsageError("--captioner none writes no captions; name one that does")
    check_writable(target, overwrite=options.overwrite)
    if target.exists():
        pictures = find_pictures(folder)
        check_not_input(
            [target], [Path(folder) / "captions.jsonl", *(path for _, path in pictures.paths)]
        )
    card = load_card(options.model, revision=options.revision)
    check_captioner(options, card)
    data = load_image_folder(folder, size=card.input_size[0])

    from rssc_geo.captioning import NoCaptioner
    from rssc_geo.inference import load_predictor

    predictor = load_predictor(PredictorOptions(**values_of(options, DescribingOptions)))
    if isinstance(predictor.captioner, NoCaptioner):
        raise UsageError("the model brings no captioner of its own; name one with --captioner")
    count = len(data.names)
    with (
        atomic_write(target, overwrite=options.overwrite) as made,
        made.open("w", encoding="utf-8") as file,
        reporting(progress) as report,
    ):
        for start in range(0, count, predictor.compute.batch_size):
            pixels = data.pixels[start : start + predictor.compute.batch_size]
            captions = predictor(pixels, np.ones(pixels.shape[:3], bool)).captions
            for name, text in zip(data.names[start:], captions, strict=False):
                line = {"image": name, "captions": [text] if text else []}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
            report("caption", start + len(captions), count)
    seconds = time.monotonic() - started
    return CaptionResult(target, count, seconds, str(predictor.compute.device), ())
