"""A bundle's README.md, written from its card."""

from __future__ import annotations

from collections.abc import Sequence

from rssc_geo.models import ModelCard
from rssc_geo.training.metrics import Measured, Scores


def bundle_readme(card: ModelCard) -> str:
    """The model card as text: purpose, training data, evaluation."""
    (low, high), foot = card.gsd_range_m, card.footprint
    training = card.training
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {v['overall_accuracy']:.4f} | {v['average_accuracy']:.4f} |"
        f" {v['kappa']:.4f} | {v['expected_calibration_error']:.4f} |"
        for name, v in card.accuracy.items()
        if "kappa" in v
    )
    images = training["images"]
    return f"""# {card.name} {card.version}

{card.description}

- Input: RGB, {card.input_size[0]} × {card.input_size[1]} pixels,
  footprint {foot.minimum_m:g} to {foot.maximum_m:g} m (preferred {foot.preferred_m:g} m),
  rasters of {low:g} to {high:g} m a pixel.
- Classes: {", ".join(c.name for c in card.classes)}.
- Data: {training["data"]}.
- Split: {images["train"]} images for training, {images["val"]} for validation (epochs, temperature,
  and whether the own captions are read), {images["test"]} for the test, evaluated once; seed
  {training["seed"]}.
- Training took {training["minutes"]:g} minutes on {training["device"]}.
- License of these weights: {card.license}.
- To classify, the network {_reading(card)}.

To reproduce: `{training["command"]}`

| part | overall accuracy | average accuracy | kappa | calibration error |
|---|---|---|---|---|
{rows}

Accuracies are of single runs; a label that allows several classes is right with any of them. "own
captions": the classifier reads what the embedded captioner wrote; "no captions": the picture alone;
"human captions": all that people wrote about the picture. Calibration errors are larger than they
could be on these pictures: the temperature is chosen for other imagery.{_of_windows(card)}

Limits: {_limits(card)}
"""


def _of_windows(card: ModelCard) -> str:
    if card.window_temperature is None:
        return ""
    return (
        " On fine maps, where it is\nlower, confidence is near the share of the land whose kind"
        " (water, forest, fields, built) is right."
    )


def _limits(card: ModelCard) -> str:
    if not card.tells_unknown:
        return (
            "every scene gets one of the class names, also one that shows none of them, then"
            " usually with\nlow confidence."
        )
    figures = [
        f"{share:.1%} of {what}"
        for name, what in (
            ("test", "the test pictures"),
            ("made_up", "made-up pictures that are none"),
        )
        if (share := card.accuracy.get("unknown", {}).get(name)) is not None
    ]
    measured = f" ({', '.join(figures)})" if figures else ""
    return (
        f"what is less familiar than {1 - card.unknown_below:.2%} of crops of the validation\n"
        f"pictures is `Unknown`{measured};\nwhere more than a fifth of a raster, without plain"
        f" water, is\nless familiar than {1 - card.unknown_raster_below:.2%}, or none of it has a"
        " color, all of it is. All else gets one of the class names."
    )


def _reading(card: ModelCard) -> str:
    if card.needs_captions:
        return "reads a caption of each picture, and needs one: give a --captioner"
    if "captions" in card.training:
        return "reads the captions of a --captioner, and the picture alone where there is none"
    if card.captioner is None:
        return "reads no captions: it was trained without"
    if card.reads_own_captions:
        own, none = (
            card.accuracy.get(f"test_{name}_captions", {}).get("overall_accuracy")
            for name in ("own", "no")
        )
        measured = f" (test: {own:.4f} with them, {none:.4f} with none)" if own and none else ""
        return (
            f"reads the captions it writes itself: that was better on the validation part{measured}"
        )
    return "does not read the captions it writes itself: that was no better on the validation part"


def polygons_readme(card: ModelCard, measured: Measured | None, warnings: Sequence[str]) -> str:
    """The README.md of a bundle trained on polygons.

    Its data, its evaluation (None: it has none), weaknesses of its labels (``warnings``).
    """
    patches = ", ".join(
        f"{_cell(name)} {count}" for name, count in card.training["patches"].items()
    )
    lines = [
        f"# {card.name} {card.version}",
        "",
        card.description,
        "",
        f"- Classes and patches: {patches}.",
        (
            f"- Tiles of {card.footprint.preferred_m:g} m a side. License of these weights:"
            f" {card.license}."
        ),
        (
            f"- Made with `{card.training['command']}`."
            if card.training["command"]
            else "- Made through the Python API."
        ),
        "",
    ]
    if measured is None:
        lines.append(
            "Not measured: all labels lie in one place, so that nothing apart from them was left to"
            " test on."
        )
    else:
        lines += _evaluation(measured)
    if warnings:
        lines += [
            "",
            "What is weak about the labels:",
            "",
            *(f"- {_cell(warning)}" for warning in warnings),
        ]
    return "\n".join(lines) + "\n"


def _evaluation(measured: Measured) -> list[str]:
    """How the patches were tested, the figures, and a table of the classes."""
    scores, (tested, of), (low, high) = measured.scores, measured.counts, measured.interval
    lines = [
        (
            "Measured on labels of their own, which nothing learned touches."
            if measured.by_labels_apart
            else "Measured by cross-validation in blocks of space: patches near a tested one"
            " were not learned from."
        ),
        "",
        (
            f"{tested} of {of} patches were tested. {_figures(scores)} The overall accuracy"
            f" lies between {low:.3f} and {high:.3f} with 95 %."
        ),
        "",
        "| class | precision | recall | F1 | tested | taken for |",
        "|---|---|---|---|---|---|",
    ]
    names = list(scores.per_class)
    for code, (name, row) in enumerate(scores.per_class.items()):
        wrong = [
            (count, other)
            for other, count in enumerate(scores.confusion[code].tolist())
            if count and other != code
        ]
        taken = ", ".join(
            f"{_cell(names[other])} {count}" for count, other in sorted(wrong, reverse=True)
        )
        lines.append(
            f"| {_cell(name)} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} |"
            f" {row.support} of {measured.tested[name][1]} | {taken} |"
        )
    return lines


def _figures(scores: Scores) -> str:
    return (
        f"Overall accuracy {scores.overall_accuracy:.3f}, average accuracy"
        f" {scores.average_accuracy:.3f}, kappa {scores.kappa:.3f}, calibration error"
        f" {scores.expected_calibration_error:.3f}."
    )


def _cell(text: str) -> str:
    """Text as it is, inside Markdown."""
    escaped = "".join(
        f"\\{character}" if character in r"\`*_[]<>|#" else character for character in text
    )
    return " ".join(escaped.split())
