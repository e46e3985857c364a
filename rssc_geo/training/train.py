"""Train a bundle from labeled scene images: ``rssc-geo train`` and ``rssc_geo.train``.

Stages: (1) fine-tune the image encoder; (2) cache what it sees of every picture; (3) captioners,
each on all folds but one, write the captions of the fold they have not seen, and a last one learns
from all; (4) train the fusion on those captions, on people's and on none; (5) temperature on the
validation part, figures, bundle. What a stage has made is kept in the work folder: the same command
goes on where it stopped. The test part is looked at once, at the end.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from rssc_geo.evaluation import FoldCaptioners
from rssc_geo.inference import choose_compute
from rssc_geo.models import CaptionSource, Model, ModelCard, save_bundle
from rssc_geo.progress import Progress
from rssc_geo.training.data import Split, load_image_folder, stratified_split
from rssc_geo.training.metrics import fit_temperature, overall_accuracy
from rssc_geo.training.options import TrainOptions, initial_weights, new_model
from rssc_geo.training.readme import bundle_readme
from rssc_geo.training.run import Clock, describe, figures, open_work, spare_bundle
from rssc_geo.training.runlog import RunLog
from rssc_geo.training.stages.alignment import calibrate_alignment, train_alignment
from rssc_geo.training.stages.captioner import build_vocabulary, decoder_settings, write_captions
from rssc_geo.training.stages.encoder import train_encoder
from rssc_geo.training.stages.features import Features, cache_features
from rssc_geo.training.stages.fusion import logits_of, train_fusion
from rssc_geo.training.stages.sentences import caption_embeddings

log = logging.getLogger(__name__)


def train(
    dataset: str | Path,
    output: str | Path,
    *,
    options: TrainOptions | None = None,
    work: str | Path | None = None,
    device: torch.device | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> ModelCard:
    """Train on an image folder (see :func:`load_image_folder`) and write a bundle.

    Parameters
    ----------
    dataset : one folder a class, and ``captions.jsonl`` where there are captions
    output : the bundle's folder
    work : folder for what the stages make; default ``<output>.work``. It may be removed afterwards
    device : default the fastest there is
    command : noted in the card as the way to reproduce the bundle
    progress : called as ``progress(stage, done, total)``

    Returns the card as written. Raises ``InputError`` and ``UsageError``.
    """
    chosen = options or TrainOptions()
    folder = Path(work or f"{output}.work")
    if chosen.full is not None:
        from rssc_geo.training.end_to_end import train_full

        return train_full(
            Path(dataset), Path(output), options=chosen, recipe=chosen.full, work=folder,
            device=device or choose_compute().device, command=command, progress=progress,
        )  # fmt: skip
    return _Run(chosen, Path(dataset), Path(output), folder, device, progress).train(command)


class _Run:
    """One training run: its data, split, network and log."""

    def __init__(
        self,
        options: TrainOptions,
        dataset: Path,
        output: Path,
        work: Path,
        device: torch.device | None,
        progress: Progress | None,
    ) -> None:
        spare_bundle(output)
        self.clock = Clock(work)
        self.options, self.output, self.work = options, output, work
        self.device = device or choose_compute().device
        self.progress = progress
        self.size = options.encoder.schedule[-1][1]
        self.data = load_image_folder(dataset, size=self.size)
        self.split: Split = stratified_split(
            self.data, seed=options.seed, val=options.val, test=options.test
        )
        self.spoken = any(self.data.captions[row] for row in self.split["train"].tolist())
        open_work(work, dataset=dataset, options=options)
        self.clock.go_on()
        self.log = RunLog(work)
        torch.manual_seed(options.seed)

    def train(self, command: str) -> ModelCard:
        """All stages."""
        options, data, rows = self.options, self.data, self.split["train"]
        model = new_model(options, data)
        weights = train_encoder(
            data,
            self.split,
            options.encoder,
            work=self.work,
            initial=initial_weights(options),
            embeddings=self._embeddings(),
            seed=options.seed,
            device=self.device,
            report=self._reporter("encoder", options.encoder.epochs),
        )
        model.network.image_encoder.backbone.load_state_dict(weights)
        model.network.to(self.device).eval()
        features = cache_features(
            model.network,
            model.card,
            data,
            rows,
            views=options.views,
            seed=options.seed,
            work=self.work,
            device=self.device,
        )
        generated: Sequence[Sequence[str]] = [[""] * len(data.names)] * options.views
        if self.spoken:
            vocabulary = build_vocabulary(
                text for row in rows.tolist() for text in data.captions[row]
            )
            captioners = FoldCaptioners(
                features, data, vocabulary, options.captioner,
                folds=options.folds, seed=options.seed, work=self.work, device=self.device, reporter=self._reporter,
            )  # fmt: skip
            generated = captioners.captions(rows)
            card = dataclasses.replace(
                model.card, captioner=decoder_settings(options.captioner, features, vocabulary)
            )
            model = dataclasses.replace(
                model, card=card, decoder=captioners.of_all(rows), vocabulary=vocabulary
            )
            model = self._align(model, features)
        model = self._fuse(model, features, generated)
        model = self._finish(model, features, command)
        self.log.close()
        return save_bundle(self.output, model, readme=bundle_readme(model.card))

    def _reporter(self, stage: str, total: int) -> Callable[[int, Mapping[str, float]], None]:
        def report(step: int, values: Mapping[str, float]) -> None:
            self.clock.keep()
            if values:
                self.log(stage, step, values)
            if self.progress is not None:
                self.progress(stage, step, total)

        report(0, {})

        return report

    def _embeddings(self) -> np.ndarray | None:
        if self.options.sentence_encoder is None or not self.spoken:
            return None
        file = self.work / "embeddings.npy"
        if not file.is_file():
            learned = set(
                self.split["train"].tolist()
            )  # the others' words must not even shift the center
            captions = [
                texts if row in learned else () for row, texts in enumerate(self.data.captions)
            ]
            np.save(file, caption_embeddings(captions, self.options.sentence_encoder))
        return np.asarray(np.load(file))

    def _align(self, model: Model, features: Features) -> Model:
        alignment = train_alignment(
            model, features, self.data.captions, self.split["train"], seed=self.options.seed
        )
        calibrate_alignment(model, alignment, features, self.data.labels, self.split["val"])
        settings = {
            "image_width": alignment.project.in_features,
            "text_width": alignment.project.out_features,
        }
        card = dataclasses.replace(model.card, alignment=settings)
        return dataclasses.replace(model, card=card, alignment=alignment)

    @property
    def _measured(self) -> tuple[str, ...]:
        """The parts with figures: a split may do without a test part."""
        return ("val", "test") if len(self.split["test"]) else ("val",)

    def _own_captions(self, model: Model, features: Features, part: str) -> list[str]:
        rows = self.split[part]
        if model.decoder is None or model.vocabulary is None:
            return [""] * len(rows)
        return write_captions(
            model.decoder, model.vocabulary, features.tokens[0, rows], device=self.device
        )

    def _fuse(self, model: Model, features: Features, generated: Sequence[Sequence[str]]) -> Model:
        rows = self.split["val"]
        tokens, labels = features.tokens[0, rows], self.data.labels[rows]
        readings: list[tuple[Sequence[str], CaptionSource]] = [([""] * len(rows), "generated")]
        if model.decoder is not None:
            readings.append((self._own_captions(model, features, "val"), "generated"))
            readings.append(
                ([" ".join(self.data.captions[row]) for row in rows.tolist()], "written")
            )

        def validate() -> float:
            found = [
                logits_of(model, tokens, captions, source=source).argmax(1)
                for captions, source in readings
            ]
            return float(np.mean([overall_accuracy(predicted, labels) for predicted in found]))

        report = self._reporter("fusion", self.options.fusion.epochs)
        train_fusion(
            model, features, self.data, generated, self.split["train"], self.options.fusion,
            validate=validate, seed=self.options.seed, report=report,
        )  # fmt: skip
        return model

    def _finish(self, model: Model, features: Features, command: str) -> Model:
        """Decide on validation whether the own captions are read, fit the temperature, measure on the test part."""
        labels = {part: self.data.labels[rows] for part, rows in self.split.items()}

        def logits(
            part: str, captions: Sequence[str], source: CaptionSource = "generated"
        ) -> np.ndarray:
            return logits_of(model, features.tokens[0, self.split[part]], captions, source=source)

        silent = {part: logits(part, [""] * len(labels[part])) for part in self._measured}
        spoken = silent
        if model.decoder is not None:
            spoken = {
                part: logits(part, self._own_captions(model, features, part))
                for part in self._measured
            }
        right = [
            overall_accuracy(found["val"].argmax(1), labels["val"]) for found in (spoken, silent)
        ]
        reads = right[0] > right[1]
        chosen = spoken if reads else silent
        temperature = fit_temperature(chosen["val"], labels["val"])
        log.info("validation: %.4f reading the own captions, %.4f without words", *right)

        def measured(values: np.ndarray, part: str) -> dict[str, float]:
            return figures(values, labels[part], self.data, temperature=temperature)

        accuracy = {"validation": measured(chosen["val"], "val")}
        if "test" in chosen:
            accuracy["test"] = measured(chosen["test"], "test")
            if model.decoder is not None:
                human = [" ".join(self.data.captions[row]) for row in self.split["test"].tolist()]
                accuracy["test_own_captions"] = measured(spoken["test"], "test")
                accuracy["test_no_captions"] = measured(silent["test"], "test")
                accuracy["test_human_captions"] = measured(logits("test", human, "written"), "test")
        training = describe(
            self.options, self.split, seconds=self.clock.keep(), device=self.device, command=command
        )
        card = dataclasses.replace(
            model.card,
            temperature=round(temperature, 4),
            reads_own_captions=reads,
            accuracy=accuracy,
            training=training,
        )
        log.info("%s", accuracy)
        return dataclasses.replace(model, card=card, network=model.network.cpu())
