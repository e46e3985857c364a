"""Install the backend into a virtual environment of its own, and remove it again."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

from qgis.core import QgsFeedback

from . import network, settings
from .child import ChildError, ask, run_child
from .i18n import tr
from .place import bundled_wheel, folder, python_path
from .python_search import PythonMissingError, suitable_python
from .torch_build import CPU, Build, choose_build

_NO_SPACE = ("No space left on device", "not enough space on the disk")
_FULL_GB = 0.05
_TELLS_PROGRESS = (24, 1)  # since this pip: a line of how many bytes of a download have come
_DOWNLOAD = re.compile(r"Progress (\d+) of (\d+)")
_TORCH_SHARE = (10.0, 60.0)  # of the progress, in percent
_LARGE = 50_000_000  # bytes of a download that takes half of the progress that is left
_PINNED = re.compile(r"rssc-geo==[\w.+!-]+( --hash=sha256:[0-9a-f]{64})+")
_HASHED_URL = re.compile(r"https?://\S+\.whl#sha256=[0-9a-f]{64}")
# What pip says of a connection; what it says afterwards, that a package has no version, misleads.
_NETWORK = re.compile(
    r"connection broken by '(?P<broken>.*)': /|Could not fetch URL (?P<fetch>.*)"
    r"|HTTP error (?P<http>.*)"
)
_OBJECT = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>:? ?")


class InstallError(Exception):
    """The backend could not be installed; the message says what was met and what to do."""


class _StepError(InstallError):
    """A step failed, but perhaps not from another index."""


Log = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """Where the packages come from.

    Attributes
    ----------
    rssc_geo : wheel of rssc-geo, or a pinned and hashed requirement; empty: the bundled wheel
    index : an index instead of PyTorch's and the usual one
    wheels : a folder of wheels, or a page of links; without an index nothing else is asked
    constraints : a file of versions; with hashes it says of all that is installed what it has to be
    build : ``cpu``, ``cuda`` or empty for what fits the computer
    """

    rssc_geo: str = ""
    index: str = ""
    wheels: str = ""
    constraints: str = ""
    build: str = ""

    @classmethod
    def chosen(cls) -> Sources:
        """As the settings have them."""
        names = ("INSTALL_FROM", "INDEX", "WHEELS", "CONSTRAINTS", "BUILD")
        return cls(*(settings.get(getattr(settings, name)) for name in names))

    @property
    def options(self) -> list[str]:
        """What every call of pip gets."""
        found = ["--index-url", self.index] if self.index else []
        if self.wheels:
            found += ["--find-links", self.wheels, *([] if self.index else ["--no-index"])]
        return found

    @property
    def offline(self) -> bool:
        """Whether the network is not asked at all."""
        return bool(self.wheels) and not self.index and "://" not in self.wheels

    @property
    def hashed(self) -> bool:
        """Whether the constraints say by hashes what each package has to be."""
        if not self.constraints:
            return False
        with open(self.constraints, encoding="utf-8") as file:
            return "--hash=" in file.read()

    def check(self) -> None:
        """Raise ``InstallError`` for what cannot be installed from, before anything is done."""
        source = self.rssc_geo
        if not source and not bundled_wheel():
            raise InstallError(
                tr(
                    "This copy of the plugin carries no wheel of rssc-geo. Choose one under"
                    " Settings ▸ Options ▸ RSSC Geo, Install from."
                )
            )
        pinned = _PINNED.fullmatch(source) or _HASHED_URL.fullmatch(source)
        if source and not pinned and not (source.endswith(".whl") and os.path.isfile(source)):
            raise InstallError(
                tr(
                    "'{source}' is neither a wheel on this computer nor pinned by a hash: choose a"
                    " file rssc_geo-….whl, rssc-geo==VERSION --hash=sha256:… or"
                    " https://….whl#sha256=…; the name rssc-geo alone may be anyone's."
                ).format(source=source)
            )
        for path in (self.constraints, "" if "://" in self.wheels else self.wheels):
            if path and not os.path.exists(path):
                raise InstallError(tr("{path} does not exist.").format(path=path))


def install(sources: Sources, *, feedback: QgsFeedback, log: Log) -> None:
    """Make the environment and install rssc-geo with all it needs into it.

    A stopped installation goes on when it is started again: what pip has downloaded and installed
    is kept. An environment that works is not given up before the new one does. Raises
    ``InstallError``; returns early when ``feedback`` is cancelled.
    """
    sources.check()
    _recover()
    try:
        python = suitable_python()
    except PythonMissingError as error:
        raise InstallError(str(error)) from error
    build = choose_build(sources.build, log)
    check_space(build)
    log(
        tr("{build} build, into {folder}, with {python}").format(
            build=build.title, folder=folder(), python=python
        )
    )
    fresh = not _pip_version()
    if fresh and os.path.isdir(folder()):
        os.replace(folder(), _aside())  # it may only have been too slow to answer
    done = False
    try:
        _fill(_Work(sources, build, feedback, log), python if fresh else "")
        done = not feedback.isCanceled()
    except _DiskFullError as error:
        if fresh:
            remove()
            raise InstallError(
                tr(
                    "The disk of {folder} is full. What was installed was deleted; free some space"
                    " and try again."
                ).format(folder=folder())
            ) from error
        raise InstallError(
            tr("The disk of {folder} is full; free some space and try again.").format(
                folder=folder()
            )
        ) from error
    finally:
        if done:
            shutil.rmtree(_aside(), ignore_errors=True)
        _recover()


def remove() -> None:
    """Delete the environment. Raises ``InstallError`` naming the file that cannot be deleted."""
    try:
        shutil.rmtree(folder())
    except FileNotFoundError:
        return
    except OSError as error:
        raise InstallError(
            tr("{file} cannot be deleted ({reason}); close what uses it and try again").format(
                file=error.filename, reason=error.strerror
            )
        ) from error


def check_space(build: Build) -> None:
    """Raise ``InstallError`` when the disk has too little room for a build."""
    free_gb = _free_gb()
    if free_gb < build.disk_gb:
        raise InstallError(
            tr(
                "The backend ({build} build) needs {needed:g} GB on the disk of {folder}, which has"
                " {free:.1f} GB free. Free some space, or choose another place under Settings ▸"
                " Options ▸ RSSC Geo, and install again."
            ).format(build=build.title, needed=build.disk_gb, folder=folder(), free=free_gb)
        )


def _free_gb() -> float:
    place = folder()
    while not os.path.isdir(place) and os.path.dirname(place) != place:
        place = os.path.dirname(place)
    return shutil.disk_usage(place).free / 1e9


def _aside() -> str:
    """Where an environment waits that did not answer, until the new one works."""
    return f"{folder()}.before"


def _recover() -> None:
    """Put an environment that waits back to its place: the new one was not finished."""
    if os.path.isdir(_aside()):
        shutil.rmtree(folder(), ignore_errors=True)
        os.replace(_aside(), folder())


def _pip_version() -> tuple[int, ...]:
    """(major, minor) of the environment's pip, () when there is none.

    An update of the Python it was made from breaks it.
    """
    try:
        answer = ask([python_path(), "-c", "import pip; print(pip.__version__)"])
    except ChildError:
        return ()
    return tuple(map(int, re.findall(r"\d+", answer)[:2]))


class _DiskFullError(InstallError):
    """A step filled the disk."""


@dataclass
class _Work:
    """What the steps of one installation share."""

    sources: Sources
    build: Build
    feedback: QgsFeedback
    log: Log
    first_network_error: str = ""


def _fill(work: _Work, python: str) -> None:
    """The steps; with ``python`` the environment is made first."""
    if python:
        _run(work, tr("making the environment"), [python, "-m", "venv", folder()], (0, 4))
    if not work.feedback.isCanceled():
        _update_pip(work)
    with tempfile.TemporaryDirectory() as downloads:
        wheel = _wheel(work, downloads)
        if work.sources.hashed:
            _install_locked(work, wheel)
        else:
            _install_torch(work)
            title, constraints = tr("installing rssc-geo"), _constraints(work.sources)
            _pip(work, title, ["install", "--upgrade", *constraints, wheel], (60, 97))
        # A wheel of the version that is there already is not taken by the step before.
        again = ["install", "--force-reinstall", "--no-deps", wheel]
        _pip(work, tr("finishing"), again, (97, 100), index=["--no-index"])


def _update_pip(work: _Work) -> None:
    """One that tells its progress and knows the system's certificates, where it can be had."""
    have = _pip_version()
    wheels = work.sources.wheels if work.sources.offline else ""
    in_reach = not wheels or any(name.startswith("pip-") for name in os.listdir(wheels))
    if have < _TELLS_PROGRESS and in_reach:
        _pip(work, tr("updating pip"), ["install", "--upgrade", "pip"], (4, 5))
        if work.first_network_error:  # pip is content with what is there
            raise _StepError(_network_message(tr("updating pip"), work))


def _wheel(work: _Work, downloads: str) -> str:
    """The wheel of rssc-geo, downloaded and compared with its hash where it is pinned by one."""
    source = work.sources.rssc_geo or bundled_wheel()
    if os.path.isfile(source):
        return source
    arguments = ["download", "--no-deps", "--only-binary=:all:", "--dest", downloads]
    if _PINNED.fullmatch(source):
        requirement = os.path.join(downloads, "requirement.txt")
        with open(requirement, "w", encoding="utf-8") as file:
            file.write(f"{source}\n")
        arguments += ["--require-hashes", "--requirement", requirement]
    else:
        arguments.append(source)
    _pip(work, tr("downloading rssc-geo"), arguments, (5, 10))
    found = [name for name in os.listdir(downloads) if name.endswith(".whl")]
    return os.path.join(downloads, found[0]) if found else ""


def _install_locked(work: _Work, wheel: str) -> None:
    """All that the constraints name, each compared with its hash; then the wheel on top."""
    index = work.sources.options
    if not index and work.build.index:
        index = ["--extra-index-url", work.build.index]
    locked = ["install", "--no-deps", "--require-hashes", "--requirement", work.sources.constraints]
    _pip(work, tr("installing what the constraints name"), locked, (5, 95), index=index)
    _pip(work, tr("installing rssc-geo"), ["install", "--no-deps", wheel], (95, 96))
    _pip(work, tr("checking what was installed"), ["check"], (96, 97), index=[])


def _install_torch(work: _Work) -> None:
    """From the first index that has it.

    That of the build, the usual one, that of the build for the CPU; only the user's own where one
    was given.
    """
    usual: list[str] = []
    tries = [work.sources.options]
    if not work.sources.options:
        own = [["--index-url", work.build.index]] if work.build.index else []
        tries = [usual, *own] if _has_own_index() else [*own, usual]
        if work.build.index != CPU.index and work.build.index:
            tries.append(["--index-url", CPU.index])
    packages = ["install", *_constraints(work.sources), "torch", "torchvision"]
    *first, last = tries
    for index in first:
        if _is_installed(work, packages, index):
            return
    _pip(work, tr("installing PyTorch"), packages, _TORCH_SHARE, index=last)


def _is_installed(work: _Work, packages: list[str], index: list[str]) -> bool:
    """Whether an index had PyTorch; where not, the log says why."""
    try:
        _pip(work, tr("installing PyTorch"), packages, _TORCH_SHARE, index=index)
    except _StepError as error:
        work.log(tr("{error}; trying the next index").format(error=error))
        return False
    return True


def _has_own_index() -> bool:
    """Whether the user told pip of an index, by a variable or in its own configuration."""
    if os.environ.get("PIP_INDEX_URL"):
        return True
    try:
        return bool(ask([python_path(), "-m", "pip", "config", "get", "global.index-url"]).strip())
    except ChildError:
        return False


def _constraints(sources: Sources) -> list[str]:
    return ["--constraint", sources.constraints] if sources.constraints else []


def _pip(
    work: _Work,
    title: str,
    arguments: list[str],
    share: tuple[float, float],
    *,
    index: list[str] | None = None,
) -> None:
    """One call of pip, with ``index`` or else what the sources say."""
    command, *rest = arguments
    how = ["--no-input", "--disable-pip-version-check"]
    if command != "check":
        how += ["--retries", os.environ.get("PIP_RETRIES", "2")]
        how += ["--progress-bar", "raw" if _pip_version() >= _TELLS_PROGRESS else "off"]
        how += work.sources.options if index is None else index
    _run(work, title, [python_path(), "-m", "pip", command, *how, *rest], share)


def _run(work: _Work, title: str, arguments: list[str], share: tuple[float, float]) -> None:
    """One step, moving the progress through its share of the whole."""
    if work.feedback.isCanceled():
        return
    progress = _Progress(work, share)
    error = ""

    def complain(line: str) -> None:
        nonlocal error
        met = _NETWORK.search(line)
        if met and not work.first_network_error:
            reason = met["broken"] or met["fetch"] or met["http"]
            work.first_network_error = _OBJECT.sub("", reason)
        if not error or line.startswith("ERROR"):
            error = line
        work.log(line)

    work.log(f"{title} …")
    finished = run_child(
        arguments,
        feedback=work.feedback,
        on_stdout=progress.show,
        on_stderr=complain,
        environment=network.environment(),
    )
    if finished.cancelled:
        work.log(tr("stopped; downloads are kept, and Install backend continues from there"))
    elif finished.code != 0:
        # pip takes back what it could not finish, venv does not say why it failed: either sign
        # counts.
        if any(words in error for words in _NO_SPACE) or _free_gb() < _FULL_GB:
            raise _DiskFullError(error)
        if work.first_network_error:
            raise _StepError(_network_message(title, work))
        raise _StepError(
            tr("{step} failed: {error}").format(
                step=title, error=error or tr("code {code}").format(code=finished.code)
            )
        )


def _network_message(title: str, work: _Work) -> str:
    return tr(
        "{step} failed: {error}. Proxy and certificates are those of QGIS's own options; an index"
        " or a folder of wheels of your own is chosen under Settings ▸ Options ▸ RSSC Geo."
    ).format(step=title, error=work.first_network_error)


class _Progress:
    """Takes pip's lines.

    It does not know how much is to come: each line, or download by its size, takes a part of what
    is left.
    """

    def __init__(self, work: _Work, share: tuple[float, float]) -> None:
        self._work = work
        self._reached, self._end = share
        work.feedback.setProgress(max(self._reached, work.feedback.progress()))

    def show(self, line: str) -> None:
        """Move on by a line of pip, and log it unless it tells of bytes alone."""
        download = _DOWNLOAD.fullmatch(line)
        done, total = (int(download[1]), max(int(download[2]), 1)) if download else (1, 1)
        part = (self._end - self._reached) * (total / (total + _LARGE) if download else 0.04)
        reached = self._reached + part * min(done / total, 1)
        self._work.feedback.setProgress(max(reached, self._work.feedback.progress()))
        if done >= total:
            self._reached += part
        if not download:
            self._work.log(line)
