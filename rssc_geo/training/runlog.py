"""What a training run tells while it goes: JSON Lines always, TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping
from pathlib import Path


class RunLog:
    """Writes ``metrics.jsonl`` into ``folder``, and event files for TensorBoard beside it when that is installed."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = None
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))

    def __call__(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Record the values of one step (an epoch) of a stage."""
        self._file.write(
            json.dumps({"time": round(time.time(), 1), "stage": stage, "step": step, **values})
            + "\n"
        )
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()
