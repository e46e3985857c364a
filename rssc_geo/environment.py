"""Environment variables that torch reads when it is loaded."""

from __future__ import annotations

import os


def prepare_torch() -> None:
    """Set them for shared machines and large tensors, where the user has not; call before torch.

    Without ``OMP_WAIT_POLICY`` threads spin while they wait for each other, which slows a machine
    with other work fivefold. Without ``THP_MEM_ALLOC_ENABLE``, on Linux, half of the time of a
    block of fine cells goes into allocating its large tensors, 4 KB at a time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
