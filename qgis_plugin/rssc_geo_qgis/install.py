"""Install the backend into a virtual environment in the QGIS profile, and remove it again."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qgis.core import QgsApplication, QgsFeedback

from .child import ask, run_child

REQUIREMENT = "rssc-geo>=0.1,<1"
OLDEST_PYTHON = (3, 11)

_NO_SPACE = ("No space left on device", "not enough space on the disk")
_FULL_GB = 0.05
_TELLS_PROGRESS = (24, 1)  # since this pip: a line of how many bytes of a download have come
_DOWNLOAD = re.compile(r"Progress (\d+) of (\d+)")
_LARGE = 50_000_000  # bytes of a download that takes half of the progress that is left


class InstallError(Exception):
    """The backend could not be installed; the message says what was met and what to do."""


@dataclass(frozen=True)
class Build:
    """Which PyTorch is installed.

    ``index`` is where pip finds it ('' = PyPI), ``disk_gb`` what everything takes at most.
    """

    name: str
    index: str
    disk_gb: float


CPU = Build("CPU", "https://download.pytorch.org/whl/cpu", 3.0)
CUDA = Build("CUDA", "https://download.pytorch.org/whl/cu126", 12.0)
APPLE = Build("Apple", "", 3.0)

Log = Callable[[str], None]


def folder() -> str:
    """The environment's folder in the user's profile."""
    return os.path.join(QgsApplication.qgisSettingsDirPath(), "rssc_geo", "venv")


def program_path() -> str:
    """Where the installed program is, or would be."""
    return _in_environment("rssc-geo")


def python_path() -> str:
    """The environment's own Python."""
    return _in_environment("python")


def choose_build() -> Build:
    """CUDA where NVIDIA's driver answers, Apple's on macOS, else CPU, a quarter of the size."""
    if sys.platform == "darwin":
        return APPLE
    try:
        return CUDA if "GPU 0" in ask(["nvidia-smi", "-L"]) else CPU
    except (OSError, subprocess.SubprocessError):
        return CPU


def install(requirement: str, *, feedback: QgsFeedback, log: Log) -> None:
    """Make the environment and install ``requirement`` into it.

    The requirement is a name, wheel, folder or address that pip understands. A stopped
    installation goes on when it is started again: what pip has downloaded and installed is kept.
    Raises ``InstallError``; returns early when ``feedback`` is cancelled.
    """
    python, build = suitable_python(), choose_build()
    check_space(build)
    log(f"{build.name} build, into {folder()}, with {python}")
    if not _pip_version():
        _run(
            ["making the environment", python, "-m", "venv", "--clear", "--upgrade-deps", folder()],
            (0, 5),
            feedback,
            log,
        )
    bar = "raw" if _pip_version() >= _TELLS_PROGRESS else "off"
    pip = [
        python_path(),
        "-m",
        "pip",
        "install",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar",
        bar,
    ]
    index = ["--index-url", build.index] if build.index else []
    _run(["installing PyTorch", *pip, *index, "torch", "torchvision"], (5, 60), feedback, log)
    _run(["installing rssc-geo", *pip, "--upgrade", requirement], (60, 100), feedback, log)


def remove() -> None:
    """Delete the environment. Raises ``InstallError`` naming the file that cannot be deleted."""
    try:
        shutil.rmtree(folder())
    except FileNotFoundError:
        return
    except OSError as error:
        raise InstallError(
            f"{error.filename} cannot be deleted ({error.strerror}); close what uses it and try"
            " again"
        ) from error


def check_space(build: Build) -> None:
    """Raise ``InstallError`` when the disk of the profile has too little room for a build."""
    free_gb = _free_gb()
    if free_gb < build.disk_gb:
        raise InstallError(
            f"The backend ({build.name} build) needs {build.disk_gb:g} GB on the disk of"
            f" {folder()}, which has {free_gb:.1f} GB free. Free some space and install again."
        )


def _free_gb() -> float:
    place = folder()
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return shutil.disk_usage(place).free / 1e9


def suitable_python() -> str:
    """A Python that can make the environment: QGIS's own where possible.

    Raises ``InstallError`` when none is found.
    """
    met = []
    for candidate in dict.fromkeys(_candidates()):
        try:
            answer = ask(
                [candidate, "-c", "import sys, venv, ensurepip; print(*sys.version_info[:2])"]
            )
        except (OSError, subprocess.SubprocessError) as error:
            lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
            met.append(f"{candidate}: {lines[-1] if lines else 'does not run'}")
            continue
        version = tuple(int(number) for number in answer.split())
        if version >= OLDEST_PYTHON:
            return candidate
        met.append(f"{candidate}: version {answer.strip().replace(' ', '.')}")
    wanted = ".".join(map(str, OLDEST_PYTHON))
    raise InstallError(
        f"No Python {wanted} or newer with venv was found (tried {'; '.join(met) or 'none'})."
        " Debian and Ubuntu: sudo apt install python3-venv. Elsewhere: install Python from"
        " python.org."
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
            if os.path.isfile(path):
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
        found = shutil.which(name, path=path)
        if found:
            yield found


def _in_environment(name: str) -> str:
    parts = ("Scripts", f"{name}.exe") if os.name == "nt" else ("bin", name)
    return os.path.join(folder(), *parts)


def _pip_version() -> tuple[int, ...]:
    """(major, minor) of the environment's pip, () when there is none.

    An update of the Python it was made from breaks it.
    """
    try:
        answer = ask([python_path(), "-c", "import pip; print(pip.__version__)"])
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(map(int, re.findall(r"\d+", answer)[:2]))


def _run(step: list[str], share: tuple[float, float], feedback: QgsFeedback, log: Log) -> None:
    """One step, moving the progress through its share of the whole.

    Its title comes first in ``step``.
    """
    title, *arguments = step
    if feedback.isCanceled():
        return
    reached, end = share
    error = ""

    def show(line: str) -> None:
        nonlocal reached
        # pip does not know how much is to come: each line, or download by its size, takes a part of
        # what is left.
        download = _DOWNLOAD.fullmatch(line)
        done, total = (int(download[1]), max(int(download[2]), 1)) if download else (1, 1)
        part = (end - reached) * (total / (total + _LARGE) if download else 0.04)
        feedback.setProgress(reached + part * min(done / total, 1))
        if done >= total:
            reached += part
        if not download:
            log(line)

    def complain(line: str) -> None:
        nonlocal error
        if not error or line.startswith("ERROR"):
            error = line
        log(line)

    log(f"{title} …")
    feedback.setProgress(reached)
    finished = run_child(arguments, feedback=feedback, on_stdout=show, on_stderr=complain)
    if finished.cancelled:
        log("stopped; what was downloaded is kept, Install backend goes on from there")
    elif finished.code != 0:
        # pip takes back what it could not finish, venv does not say why it failed: either sign
        # counts.
        if any(words in error for words in _NO_SPACE) or _free_gb() < _FULL_GB:
            remove()
            raise InstallError(
                f"The disk of {folder()} is full. What was installed was deleted; free some space"
                " and try again."
            )
        raise InstallError(f"{title} failed: {error or f'code {finished.code}'}")
