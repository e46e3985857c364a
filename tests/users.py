"""Permissions, which concern root as well once it has given up its privileges. No test itself."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_VERSION = 0x20080522  # of the structures of capset(2)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Make the calls of the block as a user whom permissions of files concern.

    In this thread, and those that it starts. Does nothing where the user is not root.
    """
    if os.geteuid() != 0:
        yield
        return
    permitted = _permitted()
    _set_effective(0, permitted)
    try:
        yield
    finally:
        _set_effective(permitted, permitted)


def give_up_privileges() -> None:
    """The same until the process ends."""
    if os.geteuid() == 0:
        _set_effective(0, 0)


def _permitted() -> int:
    with open("/proc/self/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["CapPrm"], 16)


def _set_effective(effective: int, permitted: int) -> None:
    words = [
        word for half in (0, 32) for word in (effective >> half, permitted >> half, 0)
    ]  # of each half: effective, permitted, inheritable
    header = (ctypes.c_uint32 * 2)(_VERSION, 0)
    data = (ctypes.c_uint32 * 6)(*(word & 0xFFFFFFFF for word in words))
    if ctypes.CDLL(None, use_errno=True).capset(header, data):
        raise OSError(ctypes.get_errno(), "capset")
