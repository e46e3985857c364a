"""One command of the backend.

Its messages into QGIS's log and progress bar, its failure as one line.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from qgis.core import QgsProcessingException, QgsProcessingFeedback

from . import settings
from .backend import Backend, BackendError
from .child import Finished, run_child
from .i18n import tr

_SPANS = {
    "read": (0.0, 10.0),
    "look": (10.0, 80.0),
    "learn": (80.0, 100.0),
    "write": (95.0, 100.0),
}
"""The part of the whole, in percent, that a stage is: those of training, and what comes last."""
_OTHER_SPAN = (0.0, 95.0)
_ERROR = "rssc-geo: error: "
_WARNING = "warning: "
_KILLED = (-9, 137)


def run_command(
    backend: Backend,
    arguments: Sequence[str],
    feedback: QgsProcessingFeedback,
    *,
    modes: Sequence[str] | None = None,
    reworded: Callable[[str], str] = str,
) -> dict[str, Any] | None:
    """Run a command of the backend, its name first in ``arguments``.

    ``modes``: how it is to tell of itself; None: as its help says that it can.
    ``reworded``: its messages for who has called it by other names. Returns what it printed last as
    JSON, ``None`` when the user stopped it. Raises ``QgsProcessingException`` with its own message
    when it failed.
    """
    modes = _modes(backend, arguments[0]) if modes is None else modes
    line = [backend.program, *arguments, *modes]
    feedback.pushCommandInfo(shlex.join(line))
    output = _Output(feedback, reworded)
    try:
        finished = run_child(
            line,
            feedback=feedback,
            on_stdout=output.read,
            on_stderr=output.log,
            environment=settings.environment(),
        )
    except OSError as error:
        raise QgsProcessingException(
            tr("The backend {program} cannot be started: {reason}").format(
                program=backend.program, reason=error.strerror
            )
        ) from error
    if finished.cancelled:
        return None
    if finished.code != 0:
        raise QgsProcessingException(reworded(_failure(finished)))
    for line in _told(output.values):
        feedback.pushInfo(line)
    return output.values


def _told(values: Mapping[str, Any]) -> list[str]:
    """A result for people; its files are outputs."""
    if scores := values.get("scores"):
        return _scores_told(scores)
    if "transitions" in values:
        return [_change_told(values)]
    if "hits" in values:
        told = tr("{hits} cells found among {searched}")
        return [told.format(hits=len(values["hits"]), searched=values["searched"])]
    if "archive" in values:
        told = tr("The archive holds {cells} cells of {scenes} scenes")
        return [told.format(**values["archive"])]
    return _classes_told(values)


def _scores_told(scores: Mapping[str, Any]) -> list[str]:
    """How right a model is, in all and for each class."""
    overall = tr("Overall accuracy {accuracy:.1%}, by cross-validation").format(
        accuracy=scores["overall_accuracy"]
    )
    row = tr("{name}: F1 {f1:.2f}, {support} patches")
    return [
        overall,
        *(row.format(name=name, **figures) for name, figures in scores["per_class"].items()),
    ]


def _change_told(values: Mapping[str, Any]) -> str:
    """How much changed between dates."""
    found = values["class_change"]
    told = tr(
        "{changed} of {cells} cells changed their class, in {regions} regions: {area:,.1f} ha,"
        " {within:,.1f} ha of it within a group of classes. {kept:,.1f} ha changed to other"
        " ground of the same class."
    )
    return told.format(
        changed=found["cells"],
        cells=values["cells"],
        regions=found["regions"],
        area=found["area_m2"] / 1e4,
        within=found["within_group_m2"] / 1e4,
        kept=(values["changed_m2"] - found["area_m2"]) / 1e4,
    )


def _classes_told(values: Mapping[str, Any]) -> list[str]:
    """How much there is of each class of a map; nothing for what has no classes with areas."""
    classes = [entry for entry in values.get("classes", ()) if isinstance(entry, dict)]
    whole = sum(entry["area_m2"] for entry in classes) or 1.0
    lines = [
        f"{entry['title']}: {entry['area_m2'] / 1e4:,.1f} ha, {entry['area_m2'] / whole:.1%}"
        for entry in sorted(classes, key=lambda entry: -entry["area_m2"])
    ]
    if not lines:
        return []
    head = tr("{cells} cells in {regions} regions")
    return [head.format(cells=values["cells"], regions=values["regions"]), *lines]


def _modes(backend: Backend, command: str) -> list[str]:
    try:
        known = backend.options(command)
    except BackendError as error:
        raise QgsProcessingException(str(error)) from error
    # Processing has asked before it lets a file be replaced.
    also = [option for option in ("--overwrite", "--exit-on-stdin-eof") if option in known]
    return ["--progress=json" if "--progress" in known else "--json", *also]


def percent_of(stage: str, done: float, total: float) -> float:
    """The share of a whole run that is done, from the progress of a stage."""
    start, end = _SPANS.get(stage, _OTHER_SPAN)
    return start + (end - start) * done / max(total, 1.0)


def _failure(finished: Finished) -> str:
    """The backend's own message; if it was killed before it could write one, the known facts."""
    if finished.last_error.startswith(_ERROR):
        return finished.last_error.removeprefix(_ERROR)
    told = tr("The backend ended with code {code} and no message of its own")
    parts = [told.format(code=finished.code)]
    if finished.code in _KILLED:
        parts.append(tr("the computer may be out of memory"))
    if finished.last_error:
        parts.append(tr("its last line: {line}").format(line=finished.last_error))
    return "; ".join(parts)


class _Output:
    """Takes the backend's lines.

    Events move a percentage that never goes back, the last object is the result.
    """

    def __init__(self, feedback: QgsProcessingFeedback, reworded: Callable[[str], str]) -> None:
        self.values: dict[str, Any] = {}
        self._reworded = reworded
        self._feedback = feedback
        self._reached = 0.0
        self._stage = ""

    def read(self, text: str) -> None:
        """A line of stdout."""
        try:
            event = json.loads(text)
        except ValueError:
            event = text
        if not isinstance(event, dict):
            self._feedback.pushConsoleInfo(text)
        elif event.get("event") == "progress":
            self._show(event)
        else:
            self.values.update(event)

    def log(self, text: str) -> None:
        """A line of stderr; the error is not shown here, it is raised at the end."""
        if text.startswith(_WARNING):
            self._feedback.pushWarning(self._reworded(text.removeprefix(_WARNING)))
        elif text and not text.startswith(_ERROR):
            self._feedback.pushConsoleInfo(text)

    def _show(self, event: Mapping[str, Any]) -> None:
        stage, done, total = (
            str(event.get("stage", "")),
            float(event["done"]),
            float(event["total"]),
        )
        if stage != self._stage:
            self._stage = stage
            self._feedback.setProgressText(f"{stage} …")
        self._reached = max(self._reached, percent_of(stage, done, total))
        self._feedback.setProgress(self._reached)
