"""A bundle's README.md, written from its card."""

from __future__ import annotations

from rssc_geo.models.card import ModelCard


def bundle_readme(card: ModelCard) -> str:
    """The model card for people: what it is for, what it was trained on, how it was measured."""
    low, high = card.gsd_range_m
    training = card.training
    rows = "\n".join(
        f"| {name.replace('_', ' ')} | {v['overall_accuracy']:.4f} | {v['average_accuracy']:.4f} | {v['kappa']:.4f} |"
        f" {v['expected_calibration_error']:.4f} |"
        for name, v in card.accuracy.items()
    )
    images = training["images"]
    return f"""# {card.name} {card.version}

{card.description}

- Input: RGB, {card.input_size[0]} × {card.input_size[1]} pixels, footprint {card.footprint.minimum_m:g} to
  {card.footprint.maximum_m:g} m (preferred {card.footprint.preferred_m:g} m), rasters of {low:g} to {high:g} m a pixel.
- Classes: {", ".join(c.name for c in card.classes)}.
- Data: {training["data"]}.
- Split: {images["train"]} images for training, {images["val"]} for validation (epochs, temperature, and whether the own captions
  are read), {images["test"]} for the test, looked at once; seed {training["seed"]}.
- Training took {training["minutes"]:g} minutes on {training["device"]}.
- Licence of these weights: {card.licence}.
- To classify, the network {_reading(card)}.

To reproduce: `{training["command"]}`

| part | overall accuracy | average accuracy | kappa | calibration error |
|---|---|---|---|---|
{rows}

Accuracies are of single runs. "own captions": the classifier reads what the embedded captioner wrote; "no captions":
learned queries stand in; "human captions": the first sentence that a person wrote about the picture.

Limits: every scene gets one of the class names, also one that shows none of them, then usually with low confidence.
"""


def _reading(card: ModelCard) -> str:
    if card.captioner is None:
        return "reads no captions: it was trained without"
    if card.reads_own_captions:
        return "reads the captions it writes itself: that was better on the validation part"
    return "does not read the captions it writes itself: that was no better on the validation part"
