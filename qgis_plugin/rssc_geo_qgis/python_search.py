"""Find a Python that can make the backend's environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

from .child import ChildError, ask, which
from .i18n import tr

OLDEST = (3, 11)


class PythonMissingError(Exception):
    """No Python on this computer can make the environment; the message says what was met."""


def suitable_python() -> str:
    """A Python that can make the environment: QGIS's own where possible.

    Raises ``PythonMissingError`` when none is found.
    """
    met = []
    for candidate in dict.fromkeys(_candidates()):
        try:
            answer = ask(
                [candidate, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"]
            )
        except ChildError as error:
            met.append(f"{candidate}: {error}")
            continue
        if tuple(int(number) for number in answer.split()) >= OLDEST:
            return candidate
        version = answer.strip().replace(" ", ".")
        met.append(tr("{python}: version {version}").format(python=candidate, version=version))
    raise PythonMissingError(
        tr(
            "No Python {wanted} or newer with venv was found (tried {met}). Debian and Ubuntu: sudo"
            " apt install python3-venv. Elsewhere: install Python from python.org."
        ).format(wanted=".".join(map(str, OLDEST)), met="; ".join(met) or tr("none"))
    )


def _candidates() -> Iterator[str]:
    windows = os.name == "nt"
    if os.path.basename(sys.executable).lower().startswith("python"):
        yield sys.executable
    # Inside the desktop sys.executable may be QGIS itself; its Python lies beside it or in its
    # prefix.
    beside = os.path.dirname(sys.executable)
    names = (
        ["python3.exe", "python.exe"] if windows else ["python3", os.path.join("bin", "python3")]
    )
    for place in (sys.exec_prefix, beside) if windows else (beside, sys.exec_prefix):
        for name in names:
            path = os.path.join(place, name)
            if os.path.isabs(path) and os.path.isfile(path):
                yield path
    # What macOS starts from its Finder has a PATH without the folders that Python's own installer
    # and Homebrew use.
    more = ("/usr/local/bin", "/opt/homebrew/bin") if sys.platform == "darwin" else ()
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *more))
    # On Windows python.org installs neither of the other names, and nothing but its launcher on
    # PATH unless told to.
    for name in (
        *(("py", "python") if windows else ()),
        "python3",
        *(f"python3.{minor}" for minor in range(11, 15)),
    ):
        found = which(name, path)
        if found:
            yield found
