"""Train the whole network, encoders included, on pictures and captions: one processor or many GPUs.

Under ``torchrun`` or ``accelerate launch`` each process takes its share of every batch. After each
epoch the work folder holds everything needed to continue, and the weights of the epoch best on the
validation part. The test part is evaluated once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, StepLR
from torch.utils.data import DataLoader, Dataset

from rssc_geo.errors import InputError, UsageError
from rssc_geo.models import DualAttentionClassifier, Model, ModelCard, load_card, save_bundle
from rssc_geo.training.augment import augment, normalize, to_input
from rssc_geo.training.data import SceneImages, Split, load_data_sets, stratified_split
from rssc_geo.training.kept import beyond_half, identity
from rssc_geo.training.label_loss import LabelLoss
from rssc_geo.training.loop import (
    LoopOptions,
    StageRun,
    Task,
    fit,
    mixed_precision,
    warmup_cosine,
)
from rssc_geo.training.metrics import fit_temperature, overall_accuracy
from rssc_geo.training.options import EndToEndRecipe, TrainingRecipe, training_record
from rssc_geo.training.readme import bundle_readme
from rssc_geo.training.stages.calibration import accuracy_figures
from rssc_geo.training.start import load_encoders, new_end_to_end_model
from rssc_geo.training.work import WorkFolder

_STEP_EPOCHS = 20
_ZOOM = (0.5, 1.2)
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def train_end_to_end(
    folders: Sequence[str | Path],
    output: Path,
    recipe: TrainingRecipe,
    *,
    work: WorkFolder,
    device: torch.device,
    command: str = "",
) -> ModelCard:
    """Train by ``recipe.end_to_end`` and write a bundle; arguments and result as of ``train``.

    Raises ``InputError`` when the loss is not finite (the work folder keeps the last good epoch) or
    captions are missing that the network needs, and what the encoders and the data set raise.
    """
    own = recipe.end_to_end
    if own is None:
        raise ValueError("the recipe is not one of end-to-end training")
    accelerator = _accelerator(own, device)
    torch.manual_seed(recipe.seed)
    encoders = load_encoders(own)
    size = encoders[0].size if encoders is not None else load_card(recipe.model).input_size[0]
    data = load_data_sets(folders, size=size, taxonomy=recipe.taxonomy, captions=own.captions)
    split = stratified_split(data, seed=recipe.seed, val=recipe.val, test=recipe.test)
    model = new_end_to_end_model(recipe, own, encoders, data.legend)
    _check_captions(model.card, data)
    if model.card.needs_captions:
        own = dataclasses.replace(own, silent=0.0)
    _choose_layers(model.network, own)
    _check_batches(own, pictures=len(split["train"]), processes=accelerator.num_processes)
    with accelerator.main_process_first():
        work.open(data, recipe, locks=accelerator.is_main_process)

    run = StageRun(
        work.path,
        accelerator.device,
        seed=recipe.seed,
        report=work.reporter(_EndToEndTask.name, own.epochs),
    )
    weights = work.path / "end_to_end.safetensors"
    made_of = _made_of(model, data, own, seed=recipe.seed)
    task = _EndToEndTask(model, data, split, own, run=run, accelerator=accelerator)
    optimizer = _optimizer(model.network, own)
    schedule = _schedule(optimizer, own, steps=task.steps)
    task.parallel, prepared = accelerator.prepare(model.network, optimizer)
    task.forward = torch.compile(task.parallel) if own.compile else task.parallel
    options = LoopOptions(
        own.epochs,
        clip=own.clip,
        patience=own.patience,
        checkpoint=work.path / "end_to_end.last.safetensors",
        weights=weights,
        made_of=made_of,
    )
    fit(task, prepared, schedule, options, report=run.report, processes=accelerator)
    accelerator.wait_for_everyone()

    model.network.load_state_dict(load_file(weights))
    card = _with_accuracy(model.card, task)
    record = training_record(
        recipe,
        split,
        seconds=work.keep_time() if accelerator.is_main_process else 0.0,
        device=str(accelerator.device),
        command=command,
    )
    record["captions"] = sum(map(bool, data.captions))
    record["processes"] = accelerator.num_processes
    card = dataclasses.replace(card, training=record)
    if accelerator.is_main_process:
        trained = dataclasses.replace(model, card=card, network=model.network.cpu())
        card = save_bundle(output, trained, readme=bundle_readme(card), overwrite=False)
    accelerator.wait_for_everyone()
    return card


class _EndToEndTask(Task[Batch]):
    """A batch is images ``(B, 3, H, W)``, token ids and mask ``(B, L)``, labels and visible shares.

    Labels and the share of each picture that is visible are ``(B,)``.
    Each process has its own share of it, in ``accumulate`` parts.
    """

    name = "end to end"
    network: DualAttentionClassifier
    parallel: nn.Module
    forward: Any

    def __init__(
        self,
        model: Model,
        data: SceneImages,
        split: Split,
        recipe: EndToEndRecipe,
        *,
        run: StageRun,
        accelerator: Any,
    ) -> None:
        self._model, self._data, self._split, self._recipe = model, data, split, recipe
        self._seed, self._device, self._accelerator = run.seed, run.device, accelerator
        self.network = model.network
        self._label_loss = LabelLoss(data.legend, smoothing=recipe.smoothing)
        self._batch_size = min(recipe.batch_size, len(split["train"]))
        self.steps = math.ceil(len(split["train"]) / self._batch_size)

    def train_mode(self) -> None:
        """Training mode, except for frozen parts."""
        train_mode(self.parallel)

    def batches(self, epoch: int) -> Iterable[Batch]:
        """The process's share of the training part in a random order, filled up from its start."""
        processes, rank = self._accelerator.num_processes, self._accelerator.process_index
        random = np.random.default_rng((self._seed, epoch))
        order = np.resize(random.permutation(self._split["train"]), self.steps * self._batch_size)
        parts = [np.array_split(step, processes)[rank] for step in np.split(order, self.steps)]
        rows = [piece for part in parts for piece in np.array_split(part, self._recipe.accumulate)]
        seed = (self._seed, epoch, rank)
        torch.manual_seed(int(np.random.default_rng(seed).integers(2**62)))  # for dropout
        return DataLoader(
            _Batches(self._model, self._data, rows, self._recipe, seed=seed),
            batch_size=None,
            num_workers=self._recipe.workers,
            pin_memory=self._device.type == "cuda",
        )

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of the labels."""
        *read, labels, visible = batch
        images, ids, mask = (v.to(self._device, non_blocking=True) for v in read)
        with mixed_precision(self._device):
            logits = self.forward(images, ids, mask)
        return self._label_loss(logits.float(), labels, visible)

    def validate(self, epoch: int) -> float:  # noqa: ARG002 -- all epochs alike
        """Accuracy with captions."""
        logits = self.logits("val")
        return overall_accuracy(logits.argmax(1), self._data.truth(logits, self._split["val"]))

    @torch.no_grad()
    def logits(self, part: str, *, silent: bool = False) -> NDArray[np.float32]:
        """Logits float32 ``(N, C)`` of a part of the data, each process computing its share.

        ``silent``: without captions.
        """
        from accelerate.utils import gather_object

        rows, card = self._split[part], self._model.card
        processes, rank = self._accelerator.num_processes, self._accelerator.process_index
        mine = np.arange(len(rows))[rank::processes]
        self.network.eval()
        found = np.empty((len(mine), len(self._data.classes)), np.float32)
        for start in range(0, len(mine), self._batch_size):
            chosen = rows[mine[start : start + self._batch_size]]
            images = normalize(to_input(self._data.pixels[chosen]), card.mean, card.std)
            texts = ["" if silent else " ".join(self._data.captions[r]) for r in chosen.tolist()]
            ids, mask = self._model.tokenize(texts)
            with mixed_precision(self._device):
                logits = self.network(*(value.to(self._device) for value in (images, ids, mask)))
            found[start : start + self._batch_size] = logits.float().cpu().numpy()
        whole = np.empty((len(rows), len(self._data.classes)), np.float32)
        for places, values in gather_object([(mine, found)]):
            whole[places] = values
        return whole

    def figures(
        self, part: str, logits: NDArray[np.float32], temperature: float
    ) -> dict[str, float]:
        """The single numbers of a part, for the card."""
        truth = self._data.truth(logits, self._split[part])
        return accuracy_figures(logits, truth, self._data.classes, temperature=temperature)

    def temperature(self, logits: NDArray[np.float32]) -> float:
        """The temperature that fits logits of the validation part."""
        labels = self._data.labels[self._split["val"]]
        return fit_temperature(logits, self._data.legend.allowed[labels])

    @property
    def has_test_part(self) -> bool:
        """Whether the split has a test part."""
        return len(self._split["test"]) > 0


def _with_accuracy(card: ModelCard, task: _EndToEndTask) -> ModelCard:
    """The card with temperature and figures of the network as it is."""
    logits = task.logits("val")
    temperature = task.temperature(logits)
    accuracy = {"validation": task.figures("val", logits, temperature)}
    if task.has_test_part:
        accuracy["test"] = task.figures("test", task.logits("test"), temperature)
        if not card.needs_captions:
            silent = task.logits("test", silent=True)
            accuracy["test_no_captions"] = task.figures("test", silent, temperature)
    return dataclasses.replace(card, temperature=round(temperature, 4), accuracy=accuracy)


class _Batches(Dataset[Batch]):
    """The parts of batches that a process goes through in an epoch.

    Each is made from its own seed, in any worker.
    """

    def __init__(
        self,
        model: Model,
        data: SceneImages,
        rows: list[NDArray[np.int64]],
        recipe: EndToEndRecipe,
        *,
        seed: tuple[int, ...],
    ) -> None:
        self._model, self._data, self._rows = model, data, rows
        self._recipe, self._seed = recipe, seed

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Batch:
        """Images, token ids, mask, labels and the visible share, as of ``_EndToEndTask``."""
        card, data, recipe, rows = self._model.card, self._data, self._recipe, self._rows[place]
        random = np.random.default_rng((*self._seed, place))
        images, visible = to_input(data.pixels[rows]), torch.ones(len(rows))
        if recipe.augment:
            generator = torch.Generator().manual_seed(int(random.integers(2**62)))
            images, visible = augment(images, generator, size=card.input_size[0], zoom=_ZOOM)
        silent = random.random(len(rows)) < recipe.silent
        texts = [
            "" if without else " ".join(data.captions[row])
            for row, without in zip(rows.tolist(), silent.tolist(), strict=True)
        ]
        ids, mask = self._model.tokenize(texts)
        if recipe.compile:  # one shape, so that the network is compiled once
            room = (0, card.max_tokens - ids.shape[1])
            ids, mask = F.pad(ids, room), F.pad(mask, room)
        labels = torch.from_numpy(data.labels[rows])
        return normalize(images, card.mean, card.std), ids, mask, labels, visible


def _accelerator(recipe: EndToEndRecipe, device: torch.device) -> Any:
    """Accelerate's view of the processes: one, or those of ``accelerate launch``."""
    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
    except ImportError:
        raise UsageError(
            "training end to end needs accelerate: pip install 'rssc-geo[train]'"
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


def _check_batches(recipe: EndToEndRecipe, *, pictures: int, processes: int) -> None:
    """``UsageError`` for batches that cannot be divided."""
    batch_size = min(recipe.batch_size, pictures)
    if batch_size < processes * recipe.accumulate:
        raise UsageError(
            f"a batch of {batch_size} cannot be divided among"
            f" {processes} processes and {recipe.accumulate} parts: give a"
            " larger --batch-size or a smaller --accumulate"
        )


def _made_of(model: Model, data: SceneImages, recipe: EndToEndRecipe, *, seed: int) -> str:
    """The identity of everything on which the weights depend, of the untrained model too."""
    card, start = model.card, model.network.state_dict()
    return identity(
        pictures=data.fingerprint(),
        recipe=recipe,
        seed=seed,
        start=start,
        reading=(card.input_size, card.mean, card.std, card.max_tokens, card.special_tokens),
        tokenizer=model.tokenizer.to_str(),
        **beyond_half(start),
    )


def _check_captions(card: ModelCard, data: SceneImages) -> None:
    without = [n for n, texts in zip(data.names, data.captions, strict=True) if not any(texts)]
    if len(without) == len(data.names):
        raise InputError(
            "no picture has a caption, and this network needs them: give --captions FILE.jsonl"
        )
    if without and card.needs_captions:
        raise InputError(
            f"{len(without)} of {len(data.names)} pictures have no caption, first {without[0]};"
            " this recipe needs one of each"
        )


def _optimizer(network: nn.Module, recipe: EndToEndRecipe) -> torch.optim.Optimizer:
    learned = [value for value in network.parameters() if value.requires_grad]
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(learned, lr=recipe.learning_rate)


def _schedule(
    optimizer: torch.optim.Optimizer, recipe: EndToEndRecipe, *, steps: int
) -> LRScheduler:
    """The learning rate of a recipe; ``steps``: of an epoch."""
    if recipe.schedule == "step":
        return StepLR(optimizer, _STEP_EPOCHS * steps)
    return warmup_cosine(optimizer, warmup=steps, steps=recipe.epochs * steps)


# Trainable layers of the encoders, and saving memory.


def _choose_layers(network: DualAttentionClassifier, recipe: EndToEndRecipe) -> None:
    train_layers(network.image_encoder, recipe.image_layers, what="image")
    train_layers(network.text_encoder, recipe.text_layers, what="text")
    if recipe.checkpointing:
        _checkpoint_activations(network)


def train_layers(encoder: nn.Module, layers: int | None, *, what: str) -> None:
    """Make the last ``layers`` of an encoder trainable, with everything after them.

    0: nothing, None: everything. Layers are the entries of its longest list of equal blocks;
    ``what`` names the encoder. Raises ``UsageError`` where it has fewer of them.
    """
    parameters = list(encoder.named_parameters())
    first = 0
    if layers == 0:
        first = len(parameters)
    elif layers is not None:
        name, blocks = _blocks(encoder)
        if layers > len(blocks):
            raise UsageError(
                f"the {what} encoder has {len(blocks)} layers, of which {layers} cannot be trained"
            )
        start = f"{name}.{len(blocks) - layers}."
        first = next(place for place, (key, _) in enumerate(parameters) if key.startswith(start))
    for place, (_, value) in enumerate(parameters):
        value.requires_grad_(place >= first)


def _blocks(encoder: nn.Module) -> tuple[str, nn.ModuleList | nn.Sequential]:
    lists: list[tuple[str, nn.ModuleList | nn.Sequential]] = [
        (name, module)
        for name, module in encoder.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential))
        and len({type(child) for child in module}) == 1
    ]
    return max(lists, key=lambda found: len(found[1]), default=("", nn.Sequential()))


def train_mode(network: nn.Module) -> None:
    """Training mode, except for frozen parts, whose statistics and dropout are as in evaluation."""
    network.train()
    for module in network.modules():
        values = list(module.parameters())
        if values and not any(value.requires_grad for value in values):
            module.eval()


def _checkpoint_activations(network: DualAttentionClassifier) -> None:
    """Let the encoders compute activations twice instead of keeping them, where supported."""
    how = {"use_reentrant": False}  # the other kind gives frozen layers no gradient to pass on
    for encoder in (network.image_encoder, network.text_encoder):
        backbone: Any = getattr(encoder, "backbone", None)
        # Errors of timm and transformers for a model without support.
        with contextlib.suppress(AssertionError, ValueError):
            if hasattr(backbone, "activation_checkpointing_enable"):
                # Its name from transformers 5 on.
                backbone.activation_checkpointing_enable(how)
            elif hasattr(backbone, "gradient_checkpointing_enable"):
                backbone.gradient_checkpointing_enable(how)
            elif hasattr(backbone, "set_grad_checkpointing"):  # timm
                backbone.set_grad_checkpointing()
