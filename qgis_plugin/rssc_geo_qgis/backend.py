"""Find the program ``rssc-geo``, ask it what it can do, and say in one line what is wrong.

Asking starts the program and takes a while: that is done off the main thread, and what it answered
is remembered until the program changes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from . import settings
from .child import ChildError, ChildStoppedError, ask, which
from .i18n import tr
from .options import Described, Option, options_of, read, shipped
from .place import program_path

MINIMUM = (0, 1)
"""Oldest version (major, minor) whose commands and messages the plugin understands."""


class BackendError(Exception):
    """No usable backend; the message says what was met and what to do."""


@dataclass(frozen=True)
class Backend:
    """A program that answered: where it is, its version, the names of its commands.

    ``described``: its own list of options, where it is another version than the plugin's.
    """

    program: str
    version: str
    commands: frozenset[str]
    described: Described | None = None

    def require(self, command: str, options: Iterable[str] = ()) -> None:
        """Raise ``BackendError`` when the program lacks the command, or these options of it."""
        self._require_command(command)
        self._require_options(command, options, self.options(command) if options else frozenset())

    def require_known(self, command: str, options: Iterable[str] = ()) -> None:
        """The same from what is remembered alone: options that were not asked for pass."""
        self._require_command(command)
        known = _options.get((*_identity(self.program), command))
        if known is not None:
            self._require_options(command, options, known)

    def options(self, command: str) -> frozenset[str]:
        """The long options of a command, from its help.

        Raises ``BackendError`` when it does not answer.
        """
        key = (*_identity(self.program), command)
        if key not in _options:
            try:
                text = ask([self.program, command, "--help"])
            except ChildError as error:
                raise BackendError(
                    tr("The backend {program} does not answer ({reason}). {how}").format(
                        program=self.program, reason=error, how=how_to_get()
                    )
                ) from error
            _options[key] = frozenset(re.findall(r"--[a-z][a-z-]*", text))
        return _options[key]

    def _require_command(self, command: str) -> None:
        if command not in self.commands:
            raise self._lacks(tr("command '{command}'").format(command=command))

    def _require_options(self, command: str, options: Iterable[str], known: frozenset[str]) -> None:
        for option in options:
            if option not in known:
                raise self._lacks(
                    tr("option {option} of '{command}'").format(option=option, command=command)
                )

    def _lacks(self, missing: str) -> BackendError:
        return BackendError(
            tr(
                "The backend at {program} (version {version}) has no {missing} yet. Update it:"
                " Plugins ▸ RSSC Geo ▸ Install backend."
            ).format(program=self.program, version=self.version, missing=missing)
        )


# What was answered, by program and the time it was changed. A broken program is not started again
# for every algorithm either.
_answers: dict[tuple[str, float], Backend | str] = {}
_options: dict[tuple[str, float, str], frozenset[str]] = {}


def find_backend() -> Backend:
    """The backend of the settings, else the one the plugin installed, else the one on PATH.

    Asks it where that was not done before, which takes a moment: not for the main thread. Raises
    ``BackendError`` when there is none, or it does not answer as it should.
    """
    key = _identity(program_in_use())
    if key not in _answers:
        _answers[key] = _ask(key[0])
    return _good(_answers[key])


def known_backend() -> Backend | None:
    """The same from what is remembered, at once; None when it was not asked yet.

    Raises ``BackendError`` when there is none, or when it did not answer as it should.
    """
    answer = _answers.get(_identity(program_in_use()))
    return None if answer is None else _good(answer)


def check_known(command: str, options: Iterable[str] = ()) -> None:
    """Raise ``BackendError`` when it is known that the command cannot run; at once.

    What is not known yet is found out when the command runs, off the main thread.
    """
    backend = known_backend()
    if backend is not None:
        backend.require_known(command, options)


def options_in_use(command: str) -> tuple[Option, ...]:
    """The options of a command of the program in use, as far as it is known; at once."""
    try:
        backend = known_backend()
    except BackendError:  # told where it is to run
        backend = None
    return options_of(command, backend.described if backend else None)


def program_in_use() -> str:
    """The full name of the program, which was not asked yet.

    Raises ``BackendError`` when there is none.
    """
    program = settings.get(settings.PROGRAM)
    if program and not os.path.isfile(program):
        raise BackendError(
            tr(
                "The backend {program}, named in Settings ▸ Options ▸ RSSC Geo, does not exist."
                " Choose the program rssc-geo there, or leave the field empty."
            ).format(program=program)
        )
    installed = program_path()
    program = program or (installed if os.path.isfile(installed) else which("rssc-geo"))
    if not program:
        raise BackendError(
            tr(
                "The backend (the program rssc-geo, which does the work) is not installed. {how}"
            ).format(how=how_to_get())
        )
    return os.path.abspath(program)


def forget() -> None:
    """Ask again at the next call: the backend was installed, updated or removed."""
    _answers.clear()
    _options.clear()


def how_to_get() -> str:
    """What to do where there is no backend."""
    return tr(
        "Plugins ▸ RSSC Geo ▸ Install backend installs it; in Settings ▸ Options "
        "▸ RSSC Geo an existing one can be chosen."
    )


def _identity(program: str) -> tuple[str, float]:
    try:
        return program, os.stat(program).st_mtime
    except OSError:
        return program, 0.0


def _good(answer: Backend | str) -> Backend:
    if isinstance(answer, str):
        raise BackendError(answer)
    return answer


def _ask(program: str) -> Backend | str:
    """The backend, or what is wrong with it."""
    try:
        version = ask([program, "--version"]).strip()
        commands = _commands(ask([program, "--help"]))
    except ChildStoppedError as error:
        raise _not_asked(program, error) from error
    except ChildError as error:
        return tr("The backend {program} does not run ({reason}). {how}").format(
            program=program, reason=error, how=how_to_get()
        )
    found = re.fullmatch(r"rssc-geo (\d+)\.(\d+)\S*", version)
    if found is None:
        return tr("{program} is not rssc-geo: it calls itself {version}. {how}").format(
            program=program, version=repr(version[:60]), how=how_to_get()
        )
    if (int(found[1]), int(found[2])) < MINIMUM:
        return tr(
            "The backend {program} is version {version}, this plugin needs {wanted} or newer."
            " Update it: Plugins ▸ RSSC Geo ▸ Install backend."
        ).format(program=program, version=version.split()[1], wanted=".".join(map(str, MINIMUM)))
    number = version.split()[1]
    return Backend(program, number, commands, _described(program, number))


def _described(program: str, version: str) -> Described | None:
    """The program's own list of options; None of the plugin's version, or where it has no list."""
    if version == shipped().version:
        return None
    try:
        return read(ask([program, "info", "--json"]))
    except ChildStoppedError as error:
        raise _not_asked(program, error) from error
    except (ChildError, ValueError):
        return None


def _not_asked(program: str, reason: ChildError) -> BackendError:
    return BackendError(
        tr("The backend {program} could not be queried: {reason}").format(
            program=program, reason=reason
        )
    )


def _commands(help_text: str) -> frozenset[str]:
    _, _, listed = help_text.partition("Commands")  # with a frame around them, or without
    return frozenset(re.findall(r"^(?:│ |  )([a-z][a-z-]*)\s", listed, flags=re.MULTILINE))
