"""Work in batches that shrink when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from rssc_geo.errors import RsscGeoError

log = logging.getLogger(__name__)

T = TypeVar("T")


class ShrinkingBatches:
    """Runs work on tiles in batches of ``size``.

    When memory runs out, this and all later batches are halved.
    """

    def __init__(self, size: int, *, device: torch.device) -> None:
        self.size = size
        self._device = device

    def __call__(self, run: Callable[[slice], T], count: int) -> Iterator[T]:
        """The results of ``run`` for the slices of ``range(count)``, in order, each as it is ready.

        Raises ``RsscGeoError`` when a single tile does not fit.
        """
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            try:
                done = run(slice(start, stop))
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
            else:
                yield done
                start = stop
                continue
            # Outside the handler, whose traceback keeps the batch's tensors alive.
            self._shrink(stop - start)

    def _shrink(self, failed: int) -> None:
        """Halve the size, from that of the batch that failed."""
        if failed == 1:
            raise RsscGeoError(
                f"out of memory on {self._device} with a single tile; use another --device"
            )
        self.size = (failed + 1) // 2
        log.warning("out of memory on %s: continuing with batches of %d", self._device, self.size)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out.

    CUDA and NumPy raise their own classes; MPS and torch's allocator on the CPU only have a
    message.
    """
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
        words in str(error) for words in ("out of memory", "can't allocate memory")
    )
