"""Find the program ``rssc-geo``, ask it what it can do, and say in one line what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from . import install, settings
from .child import ask

MINIMUM = (0, 1)
"""Oldest version (major, minor) whose commands and messages the plugin understands."""

HOW_TO_GET = (
    "Plugins ▸ RSSC Geo ▸ Install backend gets it; Settings ▸ Options ▸ RSSC Geo names one that is"
    " there already."
)


class BackendError(Exception):
    """No usable backend; the message says what was met and what to do."""


@dataclass(frozen=True)
class Backend:
    """A program that answered: where it is, its version, the names of its commands."""

    program: str
    version: str
    commands: frozenset[str]

    def require(self, command: str, options: Iterable[str] = ()) -> None:
        """Raise ``BackendError`` when the program lacks the command, or these options of it."""
        missing = ""
        if command not in self.commands:
            missing = f"command '{command}'"
        elif lacking := [option for option in options if option not in self.options(command)]:
            missing = f"option {lacking[0]} of '{command}'"
        if missing:
            raise BackendError(
                f"The backend at {self.program} (version {self.version}) has no {missing} yet. "
                "Update it: Plugins ▸ RSSC Geo ▸ Install backend."
            )

    def options(self, command: str) -> frozenset[str]:
        """The long options of a command, from its help.

        Raises ``BackendError`` when it does not answer.
        """
        try:
            return _options(self.program, _modified(self.program), command)
        except (OSError, subprocess.SubprocessError) as error:
            raise BackendError(
                f"The backend {self.program} does not answer ({_reason(error)}). {HOW_TO_GET}"
            ) from error


def find_backend() -> Backend:
    """The backend of the settings, else the one the plugin installed, else the one on PATH.

    Raises ``BackendError`` when there is none, or it does not answer as it should.
    """
    program = settings.get(settings.PROGRAM)
    if program and not os.path.isfile(program):
        raise BackendError(
            f"The backend {program}, named in Settings ▸ Options ▸ RSSC Geo, does not exist. "
            "Choose the program rssc-geo there, or leave the field empty."
        )
    installed = install.program_path()
    program = program or (
        installed if os.path.isfile(installed) else shutil.which("rssc-geo") or ""
    )
    if not program:
        raise BackendError(f"The backend rssc-geo is not installed. {HOW_TO_GET}")
    answer = _ask(program, _modified(program))
    if isinstance(answer, str):
        raise BackendError(answer)
    return answer


def forget() -> None:
    """Ask again at the next call: the backend was installed, updated or removed."""
    _ask.cache_clear()
    _options.cache_clear()


def _modified(program: str) -> float:
    try:
        return os.stat(program).st_mtime
    except OSError:
        return 0.0


@lru_cache(maxsize=8)
def _ask(program: str, _changed: float) -> Backend | str:
    """The backend, or what is wrong with it.

    A broken program is not started again for every algorithm either.
    """
    try:
        version = ask([program, "--version"])
        commands = _commands(ask([program, "--help"]))
    except (OSError, subprocess.SubprocessError) as error:
        return f"The backend {program} does not run ({_reason(error)}). {HOW_TO_GET}"
    found = re.fullmatch(r"rssc-geo (\d+)\.(\d+)\S*", version.strip())
    if found is None:
        return f"{program} is not rssc-geo: it calls itself {version.strip()[:60]!r}. {HOW_TO_GET}"
    if (int(found[1]), int(found[2])) < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        return (
            f"The backend {program} is version {version.split()[1]}, this plugin needs {wanted} or"
            " newer. Update it: Plugins ▸ RSSC Geo ▸ Install backend."
        )
    return Backend(program, version.split()[1], commands)


@lru_cache(maxsize=32)
def _options(program: str, _changed: float, command: str) -> frozenset[str]:
    return frozenset(re.findall(r"--[a-z][a-z-]*", ask([program, command, "--help"])))


def _commands(help_text: str) -> frozenset[str]:
    _, _, listed = help_text.partition("Commands")  # with a frame around them, or without
    return frozenset(re.findall(r"^(?:│ |  )([a-z][a-z-]*)\s", listed, flags=re.MULTILINE))


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = (error.stderr or "").strip().splitlines()
        return lines[-1] if lines else f"it ended with code {error.returncode}"
    if isinstance(error, subprocess.TimeoutExpired):
        return f"no answer within {error.timeout:.0f} s"
    return getattr(error, "strerror", None) or str(error)
