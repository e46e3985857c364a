"""The gradient loop of every training stage: steps, epochs, early stopping, checkpoints.

A stage is a ``Task``: its network, batches, loss and validation. :func:`fit` takes its optimizer
steps. Learning-rate schedules, weight averaging and mixed precision that stages share are here too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from rssc_geo.errors import InputError
from rssc_geo.training.kept import is_kept, keeping

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")
Report = Callable[[int, Mapping[str, float]], None]
"""Called with the number of epochs done and the figures of the last one."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """Settings of a stage's run.

    Attributes
    ----------
    work : existing folder for the stage's files
    device : where it computes
    seed : of every random choice
    report : called after each epoch
    """

    work: Path
    device: torch.device
    seed: int = 0
    report: Report | None = None


class Task(Generic[Batch]):
    """The training of a stage; a subclass gives ``batches`` and ``loss``, and others if need be.

    Attributes
    ----------
    name : of the stage, for messages
    network : to be trained; everything that a checkpoint restores
    parallel : ``network`` as several processes share it, if it is not the network itself
    average : moving average of ``network``, updated after each step, if any
    generators : random generators besides torch's own that a checkpoint restores
    """

    name: str
    network: nn.Module
    parallel: nn.Module | None = None
    average: AveragedModel | None = None
    generators: Sequence[torch.Generator] = ()

    def train_mode(self) -> None:
        """Put the network into training mode; called before each epoch."""
        self.network.train()

    def batches(self, epoch: int) -> Iterable[Batch]:
        """The batches of an epoch, counted from 0; each is made when its step needs it."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch, a scalar in float32."""
        raise NotImplementedError

    def validate(self, epoch: int) -> float | None:  # noqa: ARG002 -- for those that need it
        """Validation accuracy after an epoch; None where there is no validation."""
        return None

    def competes(self, epoch: int) -> bool:  # noqa: ARG002 -- for those that need it
        """Whether the validation accuracy of this epoch is comparable with that of the others."""
        return True

    def details(self, epoch: int) -> Mapping[str, float]:  # noqa: ARG002 -- for those that need it
        """Further figures of an epoch for the report."""
        return {}

    def keep(self) -> None:
        """Keep the current weights, where no file is made of them."""

    def weights(self) -> Mapping[str, torch.Tensor]:
        """The contents of the file of the best weights."""
        return self.network.state_dict()


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """The length of a task's training, and its files.

    Attributes
    ----------
    epochs : at most so many
    clip : largest norm of the gradient of all trained parameters; None: not clipped
    patience : epochs without a better validation accuracy before the end; None: never
    later_wins : of epochs with equal validation accuracy the last one is kept, not the first
    checkpoint : safetensors file with everything needed to continue, written after each epoch and
        read at the start if it exists, is undamaged, and is of the same training
    weights : file of the best epoch's weights, which the checkpoint requires; None: ``task.keep``
        is called instead
    made_of : identity of the inputs of all three, see ``rssc_geo.training.kept.identity``
    log_epochs : log a line for each epoch
    """

    epochs: int
    clip: float | None = 1.0
    patience: int | None = None
    later_wins: bool = False
    checkpoint: Path | None = None
    weights: Path | None = None
    made_of: str = ""
    log_epochs: bool = True


@dataclass(slots=True)
class LoopState:
    """The state of a loop.

    Attributes
    ----------
    epoch : epochs done
    best : best validation accuracy so far, -1 before the first
    stale : epochs since the best one
    loss : mean loss of the last epoch
    """

    epoch: int = 0
    best: float = -1.0
    stale: int = 0
    loss: float = math.nan


class Processes(Protocol):
    """The interface of ``accelerate.Accelerator`` that the loop uses."""

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes and logs."""

    @property
    def sync_gradients(self) -> bool:
        """Whether the gradient of a whole batch has been accumulated."""

    def accumulate(self, *models: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """Context of one part of a batch."""

    def backward(self, loss: torch.Tensor) -> None:
        """Compute gradients."""

    def clip_grad_norm_(self, parameters: Any, max_norm: float) -> Any:
        """Clip the gradient's norm."""

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:
        """Combine a tensor over all processes."""


class _OneProcess:
    """One process without accumulation, without the accelerate package."""

    is_main_process = True
    sync_gradients = True

    def accumulate(self, *_: nn.Module) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, parameters: Iterable[torch.Tensor], max_norm: float) -> torch.Tensor:
        return nn.utils.clip_grad_norm_(parameters, max_norm)

    def reduce(self, tensor: torch.Tensor, reduction: str) -> torch.Tensor:  # noqa: ARG002 -- there is one process
        return tensor


def fit(
    task: Task[Batch],
    optimizer: torch.optim.Optimizer,
    schedule: LRScheduler,
    options: LoopOptions,
    *,
    report: Report | None = None,
    processes: Processes | None = None,
) -> LoopState:
    """Train a task epoch by epoch, from its checkpoint if there is one; return the final state.

    Each step: loss, gradient, clipping, optimizer, schedule (per step), moving average. After each
    epoch: validation, the weights kept if it was the best, checkpoint, report.

    Parameters
    ----------
    task : what is trained
    optimizer : of the trained parameters
    schedule : stepped once an optimizer step
    options : length and files
    report : called by the first process before the first epoch (with no values) and after each
    processes : an ``accelerate.Accelerator`` whose ``prepare`` has seen network and optimizer, for
        several processes or accumulated gradients; default: this process alone

    Raises
    ------
    InputError
        when the mean loss of an epoch is not finite; the checkpoint keeps the last good epoch

    """
    loop = _Loop(task, optimizer, schedule, options, processes or _OneProcess())
    return loop.run(report)


class _Loop(Generic[Batch]):
    """A task with its optimizer and schedule while it is trained."""

    def __init__(
        self,
        task: Task[Batch],
        optimizer: torch.optim.Optimizer,
        schedule: LRScheduler,
        options: LoopOptions,
        processes: Processes,
    ) -> None:
        self._task, self._optimizer, self._schedule = task, optimizer, schedule
        self._options, self._processes = options, processes
        self._learned = [p for group in optimizer.param_groups for p in group["params"]]
        self._state = LoopState()

    def run(self, report: Report | None) -> LoopState:
        """The remaining epochs."""
        options, state = self._options, self._state
        is_main = self._processes.is_main_process
        call_report = report if report is not None and is_main else _ignore
        if options.checkpoint is not None and self._load(options.checkpoint):
            log.info(
                "%s: epochs 1 to %d of %d were done before",
                self._task.name, state.epoch, options.epochs,
            )  # fmt: skip
        call_report(state.epoch, {})
        while state.epoch < options.epochs and not self._stopped_early():
            values = self._next_epoch()
            if options.checkpoint is not None and is_main:
                self._save(options.checkpoint)
            call_report(state.epoch, values)
        if state.epoch < options.epochs:
            call_report(options.epochs, {})
        return state

    def _stopped_early(self) -> bool:
        return self._options.patience is not None and self._state.stale >= self._options.patience

    def _next_epoch(self) -> dict[str, float]:
        """Train, validate, and keep the weights if they are the best yet."""
        task, options, state = self._task, self._options, self._state
        started, epoch = time.monotonic(), state.epoch
        state.loss = self._steps(epoch)
        if not math.isfinite(state.loss):
            raise InputError(_diverged(task.name, epoch + 1, state.loss, options.checkpoint))
        accuracy = task.validate(epoch)
        state.epoch += 1
        values = {**task.details(epoch), "loss": state.loss}
        if accuracy is not None:
            values["validation_accuracy"] = accuracy
            if task.competes(epoch):
                better = accuracy > state.best or (options.later_wins and accuracy == state.best)
                state.stale = 0 if better else state.stale + 1
                state.best = max(accuracy, state.best)
                if better and self._processes.is_main_process:
                    self._keep()
        if options.log_epochs and self._processes.is_main_process:
            log.info(
                "%s: epoch %d/%d, loss %.3f%s (%.0f s)",
                task.name, state.epoch, options.epochs, state.loss,
                "" if accuracy is None else f", validation {accuracy:.4f}",
                time.monotonic() - started,
            )  # fmt: skip
        return values

    def _keep(self) -> None:
        """Keep the current weights: no epoch was better on the validation part."""
        if self._options.weights is None:
            self._task.keep()
        else:
            with keeping(self._options.weights, self._options.made_of) as made:
                save_file(plain(self._task.weights()), made)

    def _steps(self, epoch: int) -> float:
        """One pass over the batches; the mean loss over all processes."""
        task, processes = self._task, self._processes
        task.train_mode()
        losses = []
        for batch in task.batches(epoch):
            with processes.accumulate(task.parallel or task.network):
                loss = task.loss(batch)
                processes.backward(loss)
                if processes.sync_gradients and self._options.clip is not None:
                    processes.clip_grad_norm_(self._learned, self._options.clip)
                self._optimizer.step()
                # After the step: while gradients accumulate, accelerate skips both.
                self._optimizer.zero_grad(set_to_none=True)
                if processes.sync_gradients:
                    self._schedule.step()
                    if task.average is not None:
                        task.average.update_parameters(task.network)
            losses.append(loss.detach())
        return float(processes.reduce(torch.stack(losses).mean(), reduction="mean"))

    def _save(self, path: Path) -> None:
        """Write everything needed to continue; a crash leaves the file unchanged."""
        task = self._task
        tensors = {f"network.{name}": value for name, value in task.network.state_dict().items()}
        if task.average is not None:
            state = task.average.state_dict()
            tensors |= {f"average.{name}": value for name, value in state.items()}
        optimizer = self._optimizer.state_dict()
        for number, values in optimizer["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in values.items()}
        tensors |= {
            f"generator.{number}": generator.get_state()
            for number, generator in enumerate((torch.default_generator, *task.generators))
        }
        rest = {
            "loop": dataclasses.asdict(self._state),
            "schedule": self._schedule.state_dict(),
            "groups": optimizer["param_groups"],
        }
        with keeping(path, self._options.made_of) as made:
            save_file(plain(tensors), made, metadata={"state": json.dumps(rest)})

    def _load(self, path: Path) -> bool:
        """Continue from the checkpoint of ``_save``, if it exists and is valid."""
        made_of, weights = self._options.made_of, self._options.weights
        if not is_kept(path, made_of):
            return False
        task, tensors = self._task, load_file(path)
        with safe_open(path, "pt") as file:
            rest = json.loads(file.metadata()["state"])
        if weights is not None and rest["loop"]["best"] >= 0 and not is_kept(weights, made_of):
            return False

        def part(prefix: str) -> dict[str, torch.Tensor]:
            return {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix)
            }

        task.network.load_state_dict(part("network."))
        if task.average is not None:
            task.average.load_state_dict(part("average."))
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in part("optimizer.").items():
            place, name = key.split(".", 1)
            moments.setdefault(int(place), {})[name] = value
        self._optimizer.load_state_dict({"state": moments, "param_groups": rest["groups"]})
        self._schedule.load_state_dict(rest["schedule"])
        for number, generator in enumerate((torch.default_generator, *task.generators)):
            generator.set_state(tensors[f"generator.{number}"])
        for name, value in rest["loop"].items():
            setattr(self._state, name, value)
        return True


def _diverged(name: str, epoch: int, loss: float, checkpoint: Path | None) -> str:
    problem = f"training stopped in epoch {epoch} ({name}): the loss is {loss}"
    if checkpoint is None:
        return f"{problem}; the training data are too large or not finite"
    return (
        f"{problem}. {checkpoint.parent} holds the last good epoch; run again in another --work"
        " folder with a lower --learning-rate"
    )


def _ignore(_epoch: int, _values: Mapping[str, float]) -> None:
    """A report that does nothing."""


def plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, without gradients."""
    return {name: value.detach().cpu().contiguous() for name, value in tensors.items()}


def one_cycle(optimizer: torch.optim.Optimizer, learning_rate: float, *, steps: int) -> OneCycleLR:
    """Learning rate up for a tenth of the steps, then down along a cosine (Smith and Topin, 2018).

    Very short runs go up for longer: PyTorch divides by zero where the rise is exactly one step.
    """
    return OneCycleLR(
        optimizer, learning_rate, total_steps=steps, pct_start=min(0.9, max(0.1, 1.5 / steps))
    )


def warmup_cosine(
    optimizer: torch.optim.Optimizer,
    *,
    warmup: int,
    steps: int,
    floor: float = 0.0,
    constant: int = 0,
) -> LambdaLR:
    """Learning rates up linearly for ``warmup`` steps, then down along half a cosine.

    ``steps``: of the whole training; ``floor``: share of the rates that is added throughout;
    ``constant``: so many of the last steps keep half of the highest rate, to which it falls before.
    """
    falling = steps - constant
    low = 0.5 if constant else 0.0

    def factor(step: int) -> float:
        done = min(1.0, max(0, step - warmup) / max(1, falling - warmup))
        rate = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))
        return min((step + 1) / warmup, rate) + floor

    return LambdaLR(optimizer, factor)


def read_ahead(batches: Iterator[Batch], *, count: int = 2) -> Iterator[Batch]:
    """The batches in their order, each made in a thread up to ``count`` before it is needed.

    An exception in making a batch is raised where it is needed.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="rssc-geo batches") as thread:
        waiting = deque(thread.submit(next, batches, None) for _ in range(count))
        while (batch := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, batches, None))
            yield batch


def moving_average(network: nn.Module, decay: Callable[[int], float]) -> AveragedModel:
    """Exponential moving average of a network's weights and buffers, in evaluation mode.

    The network's current state is the first value. ``decay``: share of the average that stays in
    the n-th update, counted from 1. Integer buffers follow the network.
    """

    def update(
        kept: Sequence[torch.Tensor], new: Sequence[torch.Tensor], count: torch.Tensor | int
    ) -> None:
        weight = 1 - decay(int(count))
        for average, value in zip(kept, new, strict=True):
            if average.is_floating_point():
                average.lerp_(value, weight)
            else:
                average.copy_(value)

    average = AveragedModel(network, multi_avg_fn=update, use_buffers=True).eval()
    average.update_parameters(network)
    return average


def mixed_precision(device: torch.device) -> torch.autocast:
    """Context in bfloat16 where the hardware supports it, in float32 elsewhere."""
    on_cpu = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # noqa: SLF001 -- no public function
    return torch.autocast(
        device.type, torch.bfloat16, enabled=bool(device.type == "cuda" or on_cpu)
    )
