"""Train the whole network, encoders included, on pictures and captions: on one processor or many
GPUs.

Under ``torchrun`` or ``accelerate launch`` each process takes its share of every batch. After each
epoch the work folder holds all that is needed to go on, and the weights of the epoch best on the
validation part. The test part is looked at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from rssc_geo.errors import InputError, UsageError
from rssc_geo.models import ModelCard, load_card, save_bundle
from rssc_geo.training.data import SceneImages, Split, load_image_folder, stratified_split
from rssc_geo.training.end_to_end_batches import FullBatches
from rssc_geo.training.end_to_end_options import FullRecipe, load_encoders, new_full_model
from rssc_geo.training.layers import keep_no_activations, train_layers, train_mode
from rssc_geo.training.metrics import fit_temperature, overall_accuracy
from rssc_geo.training.options import TrainOptions
from rssc_geo.training.readme import bundle_readme
from rssc_geo.training.run import Clock, describe, figures, open_work, spare_bundle
from rssc_geo.training.runlog import RunLog
from rssc_geo.training.stages.encoder import mixed_precision, normalize, to_input

log = logging.getLogger(__name__)

_STEP_EPOCHS = 20


def train_full(
    dataset: Path,
    output: Path,
    *,
    options: TrainOptions,
    recipe: FullRecipe,
    work: Path,
    device: torch.device,
    command: str = "",
    progress: Callable[[str, int, int], None] | None = None,
) -> ModelCard:
    """Train by ``recipe`` and write a bundle; what ``train`` does with ``options.full``. Arguments
    as there.

    Returns the card as written. Raises ``InputError`` when the loss is no number (the work folder
    keeps the last good epoch) or captions are missing that the network needs, and what the encoders
    and the data set raise.
    """
    run = _FullRun(
        options, recipe, dataset=dataset, output=output, work=work, device=device, progress=progress
    )
    run.learn()
    return run.finish(command)


class _FullRun:
    """The data, the model, and everything that changes while it learns."""

    def __init__(
        self,
        options: TrainOptions,
        recipe: FullRecipe,
        *,
        dataset: Path,
        output: Path,
        work: Path,
        device: torch.device,
        progress: Callable[[str, int, int], None] | None,
    ) -> None:
        self.clock = Clock(work)
        self.options, self.recipe, self.output, self.work, self.progress = (
            options,
            recipe,
            output,
            work,
            progress,
        )
        spare_bundle(output)
        self.accelerator = _accelerator(recipe, device)
        self.device: torch.device = self.accelerator.device
        torch.manual_seed(options.seed)
        encoders = load_encoders(recipe)
        size = encoders[0].size if encoders is not None else load_card(options.start).input_size[0]
        self.data = load_image_folder(dataset, size=size, captions=recipe.captions)
        self.split: Split = stratified_split(
            self.data, seed=options.seed, val=options.val, test=options.test
        )
        self.model = new_full_model(options, recipe, encoders, self.data.classes)
        _check_captions(self.model.card, self.data)
        if self.model.card.needs_captions:
            self.recipe = recipe = dataclasses.replace(recipe, silent=0.0)
        self.network = self.model.network
        train_layers(self.network.image_encoder, recipe.image_layers, what="image")
        train_layers(self.network.text_encoder, recipe.text_layers, what="text")
        if recipe.checkpointing:
            keep_no_activations(self.network)
        self.learned = [value for value in self.network.parameters() if value.requires_grad]
        kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
        optimizer = kind(self.learned, lr=recipe.learning_rate)
        self.batch_size = min(recipe.batch_size, len(self.split["train"]))
        if self.batch_size < self.accelerator.num_processes * recipe.accumulate:
            raise UsageError(
                f"a batch of {self.batch_size} cannot be divided among"
                f" {self.accelerator.num_processes} processes and {recipe.accumulate} parts: give a"
                " larger --batch-size or a smaller --accumulate"
            )
        with self.accelerator.main_process_first():
            open_work(work, dataset=dataset, options=options)
            self.clock.go_on()
        self.steps = math.ceil(len(self.split["train"]) / self.batch_size)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _factor(recipe, self.steps))
        self.parallel, self.optimizer = self.accelerator.prepare(self.network, optimizer)
        self.forward = torch.compile(self.parallel) if recipe.compile else self.parallel
        self.state: dict[str, float] = {"epoch": 0, "best": -1.0, "since": 0}

    def learn(self) -> None:
        """All epochs that an earlier run has not done.

        The best one's weights lie in the work folder at the end.
        """
        last, state = self.work / "full.last.pt", self.state
        if last.is_file():
            self._load(last)
            log.info("epochs 1 to %d of %d were done before", state["epoch"], self.recipe.epochs)
        with contextlib.ExitStack() as stack:
            leads = self.accelerator.is_main_process
            record = stack.enter_context(contextlib.closing(RunLog(self.work))) if leads else None
            while state["epoch"] < self.recipe.epochs and state["since"] < self.recipe.patience:
                self._report()
                self._next_epoch(record)
                if leads:
                    self._save(last)
                    self.clock.keep()
        self._report()
        self.accelerator.wait_for_everyone()

    def _next_epoch(self, record: RunLog | None) -> None:
        """Train and validate.

        The first process, which has the ``record``, keeps the weights if they are the best yet.
        """
        state, started = self.state, time.monotonic()
        loss = self._epoch(int(state["epoch"]))
        if not math.isfinite(loss):
            raise InputError(
                f"training stopped in epoch {state['epoch'] + 1}: the loss is {loss}. {self.work}"
                " holds the last good epoch; run again in another --work folder with a lower"
                " --learning-rate"
            )
        accuracy = overall_accuracy(
            self._logits("val").argmax(1), self.data.labels[self.split["val"]]
        )
        better = accuracy > state["best"]
        state["epoch"] += 1
        state["since"] = 0 if better else state["since"] + 1
        state["best"] = max(accuracy, state["best"])
        if record is not None:
            log.info(
                "epoch %d/%d, loss %.3f, validation %.4f (%.0f s)",
                state["epoch"], self.recipe.epochs, loss, accuracy, time.monotonic() - started,
            )  # fmt: skip
            record("full", int(state["epoch"]), {"loss": loss, "validation_accuracy": accuracy})
            if better:
                save_file(_plain(self.network), self.work / "full.safetensors")

    def _report(self) -> None:
        if self.progress is not None and self.accelerator.is_main_process:
            done = (
                self.recipe.epochs
                if self.state["since"] >= self.recipe.patience
                else int(self.state["epoch"])
            )
            self.progress("full", done, self.recipe.epochs)

    def _epoch(self, epoch: int) -> float:
        """One pass over the training part.

        The mean loss of this process, or the first that is no number.
        """
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        random = np.random.default_rng((self.options.seed, epoch))
        order = np.resize(random.permutation(self.split["train"]), self.steps * self.batch_size)
        parts = [np.array_split(step, processes)[rank] for step in np.split(order, self.steps)]
        rows = [piece for part in parts for piece in np.array_split(part, self.recipe.accumulate)]
        torch.manual_seed(
            int(np.random.default_rng((self.options.seed, epoch, rank)).integers(2**62))
        )  # for dropout
        batches = FullBatches(
            self.model, self.data, rows, self.recipe, seed=(self.options.seed, epoch, rank)
        )
        train_mode(self.parallel)
        losses = []
        for images, ids, mask, targets in DataLoader(
            batches,
            batch_size=None,
            num_workers=self.recipe.workers,
            pin_memory=self.device.type == "cuda",
        ):
            with self.accelerator.accumulate(self.parallel):
                with mixed_precision(self.device):
                    logits = self.forward(
                        *(value.to(self.device, non_blocking=True) for value in (images, ids, mask))
                    )
                loss = F.cross_entropy(logits.float(), targets.to(self.device, non_blocking=True))
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    self.accelerator.clip_grad_norm_(self.learned, self.recipe.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
                if self.accelerator.sync_gradients:
                    self.schedule.step()
            losses.append(loss.detach())
        return float(self.accelerator.reduce(torch.stack(losses).mean(), reduction="mean"))

    @torch.no_grad()
    def _logits(self, part: str, *, silent: bool = False) -> np.ndarray:
        """Logits float32 ``(B, C)`` of a part, each process computing its share; ``silent``.

        Without captions.
        """
        rows = self.split[part]
        mine = np.arange(len(rows))[
            self.accelerator.process_index :: self.accelerator.num_processes
        ]
        self.network.eval()
        found = np.empty((len(mine), len(self.data.classes)), np.float32)
        for start in range(0, len(mine), self.batch_size):
            chosen = rows[mine[start : start + self.batch_size]].tolist()
            images = normalize(
                to_input(self.data.pixels[chosen]), self.model.card.mean, self.model.card.std
            )
            texts = ["" if silent else " ".join(self.data.captions[row]) for row in chosen]
            ids, mask = self.model.tokenize(texts)
            with mixed_precision(self.device):
                logits = self.network(*(value.to(self.device) for value in (images, ids, mask)))
            found[start : start + self.batch_size] = logits.float().cpu().numpy()
        from accelerate.utils import gather_object

        whole = np.empty((len(rows), len(self.data.classes)), np.float32)
        for places, values in gather_object([(mine, found)]):
            whole[places] = values
        return whole

    def finish(self, command: str) -> ModelCard:
        """The best epoch.

        Temperature on the validation part, figures, bundle (written by the first process).
        """
        self.network.load_state_dict(load_file(self.work / "full.safetensors"))
        labels = {part: self.data.labels[rows] for part, rows in self.split.items()}
        spoken = {part: self._logits(part) for part in ("val", "test") if len(labels[part])}
        temperature = fit_temperature(spoken["val"], labels["val"])
        accuracy = {
            "validation": figures(spoken["val"], labels["val"], self.data, temperature=temperature)
        }
        if "test" in spoken:
            accuracy["test"] = figures(
                spoken["test"], labels["test"], self.data, temperature=temperature
            )
            if not self.model.card.needs_captions:
                silent = self._logits("test", silent=True)
                accuracy["test_no_captions"] = figures(
                    silent, labels["test"], self.data, temperature=temperature
                )
        seconds = self.clock.keep() if self.accelerator.is_main_process else 0.0
        told = describe(
            self.options, self.split, seconds=seconds, device=self.device, command=command
        )
        told = {
            **told,
            "captions": sum(map(bool, self.data.captions)),
            "processes": self.accelerator.num_processes,
        }
        card = dataclasses.replace(
            self.model.card, temperature=round(temperature, 4), accuracy=accuracy, training=told
        )
        if self.accelerator.is_main_process:
            model = dataclasses.replace(self.model, card=card, network=self.network.cpu())
            card = save_bundle(self.output, model, readme=bundle_readme(card))
        self.accelerator.wait_for_everyone()
        return card

    def _save(self, path: Path) -> None:
        """Write all of it; a crash leaves the file as it was."""
        content = {"network": _plain(self.network), "state": dict(self.state)}
        content |= {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }
        part_file = path.with_suffix(".part")
        torch.save(content, part_file)
        os.replace(part_file, path)

    def _load(self, path: Path) -> None:
        """Go on from what :meth:`_save` wrote."""
        saved = torch.load(path, map_location="cpu", weights_only=True)
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.state.update(saved["state"])


def _accelerator(recipe: FullRecipe, device: torch.device) -> Any:
    """Accelerate's view of the processes there are: one, or those of ``accelerate launch``."""
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError:
        raise UsageError(
            "training at full size needs accelerate: pip install 'rssc-geo[train]'"
        ) from None
    if device.index is not None:
        torch.cuda.set_device(device)
    # A text encoder's pooler, say, is not used; without the flag the processes would wait for its
    # gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        cpu=device.type == "cpu",
        gradient_accumulation_steps=recipe.accumulate,
        kwargs_handlers=[unused],
    )


def _check_captions(card: ModelCard, data: SceneImages) -> None:
    silent = [name for name, texts in zip(data.names, data.captions, strict=True) if not any(texts)]
    if len(silent) == len(data.names):
        raise InputError(
            "no picture has a caption, and this network is there to read them: give --captions"
            " FILE.jsonl"
        )
    if silent and card.needs_captions:
        raise InputError(
            f"{len(silent)} of {len(data.names)} pictures have no caption, first {silent[0]}; this"
            " recipe needs one of each"
        )


def _factor(recipe: FullRecipe, steps: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by in a step, counted from 0."""
    if recipe.schedule == "step":
        return lambda step: 0.1 ** (step // steps // _STEP_EPOCHS)
    total = recipe.epochs * steps

    def cosine(step: int) -> float:
        done = min(1.0, max(0, step - steps) / max(1, total - steps))
        return min((step + 1) / steps, 0.5 * (1 + math.cos(math.pi * done)))

    return cosine


def _plain(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
