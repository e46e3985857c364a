"""The work folder of a training: what it was made for, its time and its log."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rssc_geo.errors import InputError, OutputError
from rssc_geo.files import atomic_write, make_folders, write_error
from rssc_geo.locks import FileLock
from rssc_geo.progress import Progress
from rssc_geo.texts import parse_json
from rssc_geo.training.data import SceneImages
from rssc_geo.training.kept import SCHEMA
from rssc_geo.training.options import TrainingRecipe

if TYPE_CHECKING:
    from rssc_geo.training.loop import Report

_LOCK = "lock.rssc-geo"
_OPTIONS = "options.json"
_LONGEST_S = 10 * 366 * 86400
_PARTS = ("seed", "val", "test", "folds", "views")


class WorkFolder:
    """The folder where a training keeps its results, so that it can be continued.

    The clock starts when it is made; nothing is written before ``open``. ``progress`` is
    called after each epoch of a stage.
    """

    def __init__(self, path: Path, *, progress: Progress | None = None) -> None:
        self.path = path
        self._progress = progress
        self._started, self._before = time.monotonic(), 0.0
        self._log: _RunLog | None = None
        self._lock: FileLock | None = None

    def open(self, data: SceneImages, recipe: TrainingRecipe, *, locks: bool = True) -> None:
        """Make the folder, or continue in it; called after all other checks.

        ``locks``: whether the folder is closed to other processes, as one of those that train
        together does for all. Raises ``InputError`` for a folder of other data or options,
        ``OutputError`` for one in use or with files of others, and where it cannot be written.
        """
        _make_folder(self.path)
        if locks:
            self._lock = FileLock(self.path / _LOCK, taken=self.path)
        made_for = {
            "schema": SCHEMA,
            "pictures": data.fingerprint(),
            **dataclasses.asdict(recipe),
        }
        del made_for["taxonomy"]  # paths; the contents are in the fingerprint
        text = json.dumps(made_for, default=str, indent=1)
        file = self.path / _OPTIONS
        if file.is_file() and _content(file) != text.encode():
            raise InputError(
                f"{self.path} holds a run of {_difference(file, json.loads(text))}; choose another"
                " --work folder or remove it"
            )
        with atomic_write(file) as made:
            made.write_bytes(text.encode())
        with contextlib.suppress(OSError, ValueError):  # an unknown time is no reason
            before = float((self.path / "seconds.txt").read_text(encoding="utf-8"))
            self._before = before if 0 <= before < _LONGEST_S else 0.0

    def part(self, number: int) -> Path:
        """The folder of one of several trainings of a stage, made; of the first, this one.

        Raises ``OutputError``.
        """
        if number == 0:
            return self.path
        folder = self.path / f"training_{number + 1}"
        make_folders(folder)
        return folder

    def reporter(self, stage: str, total: int) -> Report:
        """A function to call after each of the ``total`` epochs of a stage: log, progress."""

        def report(epoch: int, values: Mapping[str, float]) -> None:
            self.keep_time()
            if values:
                if self._log is None:
                    self._log = _RunLog(self.path)
                self._log.write(stage, epoch, values)
            if self._progress is not None:
                self._progress(stage, epoch, total)

        return report

    def keep_time(self) -> float:
        """Write down, and return, the seconds that all runs together have taken so far."""
        seconds = self._before + time.monotonic() - self._started
        with atomic_write(self.path / "seconds.txt") as made:
            made.write_text(f"{seconds:.1f}", encoding="utf-8")
        return seconds

    def close(self) -> None:
        """Close the log, and open the folder to other processes."""
        if self._log is not None:
            self._log.close()
            self._log = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None


@contextmanager
def sharing_work(work: Path, *, recipe: TrainingRecipe) -> Iterator[None]:
    """Hold a work folder for further training on an encoder, made anew or its training's.

    Raises ``InputError`` for a folder of other parts of the data, ``OutputError`` for one in use or
    with files of others, and where it cannot be written.
    """
    _make_folder(work)
    with FileLock(work / _LOCK, taken=work):
        file = work / _OPTIONS
        made_for = {name: getattr(recipe, name) for name in _PARTS}
        if not file.is_file():
            with atomic_write(file) as made:
                made.write_text(json.dumps(made_for), encoding="utf-8")
        try:
            recorded = parse_json(_content(file))
            wrong = [name for name, value in made_for.items() if recorded[name] != value]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{file} does not tell what {work} was made with; choose another --work folder"
            ) from error
        if wrong:
            name = wrong[0]
            raise InputError(
                f"{work} was made with {name} {recorded[name]}, not {made_for[name]}; choose"
                " another --work folder"
            )
        yield


def _make_folder(work: Path) -> None:
    """Make a work folder; raise ``OutputError`` where it cannot be, or holds files of others."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        there = sorted(work.iterdir())
    except OSError as error:
        raise write_error(work, error) from error
    if work / _OPTIONS in there:
        return
    for entry in there:  # ours come after the options; hidden ones are of the system, or killed
        if not entry.name.startswith((".", _LOCK)) and entry.is_file():
            raise OutputError(
                f"{work} holds {entry.name}, which is of no training: choose another --work folder"
            )


def _content(file: Path) -> bytes:
    """A file of the work folder; ``InputError`` where it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(
            f"{file} cannot be read ({error.strerror}); choose another --work folder"
        ) from error


def _difference(file: Path, made_for: Mapping[str, object]) -> str:
    """The difference of a work folder's file of options, in words."""
    try:
        told = dict(parse_json(_content(file)))
    except (ValueError, TypeError):
        return "unknown options (its options.json is damaged)"
    if told.get("schema") != SCHEMA:
        return "another version of this program"
    differing = [name for name, value in made_for.items() if told.get(name) != value]
    return "other pictures, labels or captions" if differing == ["pictures"] else "other options"


class _RunLog:
    """Appends to ``metrics.jsonl``, and to event files where TensorBoard is installed."""

    def __init__(self, folder: Path) -> None:
        self._path, self._board = folder / "metrics.jsonl", None
        try:
            self._file = self._path.open("a+b")
            if self._is_cut():
                self._file.write(b"\n")
            if importlib.util.find_spec("tensorboard"):
                from torch.utils.tensorboard import SummaryWriter

                self._board = SummaryWriter(str(folder / "tensorboard"))
        except OSError as error:
            raise write_error(self._path, error) from error

    def _is_cut(self) -> bool:
        """Whether a killed run has left a part of a line at the end."""
        if not self._file.seek(0, os.SEEK_END):
            return False
        self._file.seek(-1, os.SEEK_END)
        return self._file.read() != b"\n"

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step (an epoch) of a stage."""
        line = {"time": round(time.time(), 1), "stage": stage, "step": step, **values}
        try:
            self._file.write(json.dumps(line).encode() + b"\n")
            self._file.flush()
            if self._board is not None:
                for name, value in values.items():
                    self._board.add_scalar(f"{stage}/{name}", value, step)
        except OSError as error:
            raise write_error(self._path, error) from error

    def close(self) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()
