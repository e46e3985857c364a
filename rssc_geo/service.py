"""Requests answered one after another by a process that keeps its models loaded.

A request is a JSON object: ``id``, the name of a ``command``, its arguments (``raster``,
``labels``, ``output``) and its ``options`` by name, as ``rssc_geo.options`` describes them. Every
answer has the request's ``id`` and is the event that the command itself prints with ``--progress
json``: any number of ``progress``, then one ``result`` or ``error``. ``{"cancel": id}`` ends a
request at its next step. An invalid request gets one error as answer and never ends the process. A
client that cannot wait for the next step ends the process: files appear whole or not at all.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rssc_geo.errors import RsscGeoError, UsageError, escaped, one_line, outer_cause
from rssc_geo.options import (
    ClassifyOptions,
    DescribingOptions,
    ExplainOptions,
    InfoOptions,
    ModelOptions,
    PredictorOptions,
    TrainOnPolygonsOptions,
    options_of,
    values_of,
)
from rssc_geo.progress import Progress, ProgressEvents
from rssc_geo.texts import parse_json

if TYPE_CHECKING:
    from rssc_geo.inference import Predictor

log = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], None]
Id = str | int

_INTERRUPTED = 130
_COMMANDS = ("load", "info", "classify", "explain", "train")
"""The commands of requests; ``train`` is that on polygons, ``load`` only loads a model."""
_KEPT = 2
"""Number of models that stay loaded: the one that maps and the one that was trained last."""


class CancelledError(RsscGeoError):
    """A request that was cancelled."""

    exit_code = _INTERRUPTED


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``arguments``: texts by name; ``options``: plain data by name.

    ``cancelled`` is set when it is no longer wanted.
    """

    id: Id
    command: str
    arguments: Mapping[str, str]
    options: Mapping[str, Any]
    cancelled: threading.Event = field(default_factory=threading.Event, compare=False)

    def argument(self, name: str) -> str:
        """An argument of the command; ``UsageError`` where it is not given."""
        if name not in self.arguments:
            raise UsageError(f"{self.command} needs the argument {name!r}")
        return self.arguments[name]

    def read_options(self, group: type) -> Any:
        """The options as an instance of ``group``, a dataclass of ``rssc_geo.options``.

        ``UsageError`` for one that is unknown, or allowed on the command line only.
        """
        known = {option.name: option for option in options_of(group)}
        values = {}
        for name, value in self.options.items():
            if name not in known:
                raise UsageError(f"{self.command} has no option {name!r}")
            if known[name].declaration.commandline_only:
                raise UsageError(f"{known[name].flag} is given on the command line alone")
            if value is not None:
                values[name] = known[name].from_plain(value)
        return group(**values)


Verb = Callable[[Request, Progress], dict[str, Any]]


class Service:
    """Takes requests in one thread, answers them in the one that calls ``run``.

    ``send`` is called from both, with one JSON object each time.

    Examples
    --------
    >>> answers = []
    >>> service = Service(answers.append)
    >>> service.receive('{"id": 7, "command": "info", "raster": "scene.tif"}')
    >>> service.close()
    >>> service.run(idle_s=1.0)
    >>> answers[-1]["id"], answers[-1]["event"], answers[-1]["crs"]
    (7, 'result', 'EPSG:32632')
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: queue.Queue[Request | None] = queue.Queue()
        self._unanswered: list[Request] = []
        self._models: OrderedDict[object, Predictor] = OrderedDict()
        verbs = (self._load, self._info, self._classify, self._explain, self._train)
        self._verbs: dict[str, Verb] = dict(zip(_COMMANDS, verbs, strict=True))

    def receive(self, line: str) -> None:
        """Take a line: a request waits for its turn, a cancellation counts at once."""
        try:
            found = parse_json(line)
        except ValueError as error:
            self._fail(None, UsageError(f"no JSON: {one_line(error)}"))
            return
        wanted = found.get("cancel") if isinstance(found, dict) else None
        if isinstance(wanted, str | int):
            for request in tuple(self._unanswered):
                if request.id == wanted:
                    request.cancelled.set()
            return
        try:
            request = _request(found)
        except UsageError as error:
            known = found.get("id") if isinstance(found, dict) else None
            self._fail(known if isinstance(known, str | int) else None, error)
            return
        self._unanswered.append(request)
        self._waiting.put(request)

    def close(self) -> None:
        """No more requests come; those that wait are answered."""
        self._waiting.put(None)

    def run(self, *, idle_s: float) -> None:
        """Answer until closed, or until no request has come for so many seconds."""
        names = sorted(_COMMANDS)
        self._send({"event": "ready", "rssc_geo": version("rssc-geo"), "commands": names})
        while True:
            try:
                request = self._waiting.get(timeout=idle_s)
            except queue.Empty:
                return
            if request is None:
                return
            self._answer(request)
            del self._unanswered[0]  # they are answered in the order in which they came

    def _answer(self, request: Request) -> None:
        def send(event: dict[str, Any]) -> None:
            self._send({"id": request.id, **event})

        events = ProgressEvents(send)

        def progress(stage: str, done: int, total: int) -> None:
            if request.cancelled.is_set():
                raise CancelledError("cancelled")
            events(stage, done, total)

        try:
            progress("begin", 0, 1)
            result = self._verbs[request.command](request, progress)
        except RsscGeoError as error:
            self._fail(request.id, error)
        except Exception as error:  # last resort, as on the command line
            log.debug("traceback", exc_info=True)
            self._fail(request.id, error)
        else:
            send({"event": "result", **result})

    def _fail(self, known: Id | None, error: Exception) -> None:
        """Answer with an error, in the form of ``--progress json``."""
        name, code = type(error).__name__, 1
        message = outer_cause(error) or (
            f"internal error, please report it: {name}: {one_line(error)}"
        )
        if isinstance(error, RsscGeoError):
            message, code = escaped(" ".join(str(error).split())), error.exit_code
        answer = {"event": "error", "message": message, "exit_code": code, "type": name}
        self._send({"id": known, **answer})

    def _predictor(self, options: PredictorOptions) -> Predictor:
        """The model that the options name, without their choice of classes; loaded if need be."""
        from rssc_geo.inference import choose_compute, load_predictor
        from rssc_geo.models import load_card

        compute = choose_compute(options.device, dtype=options.dtype, batch_size=options.batch_size)
        card = load_card(options.model, revision=options.revision)  # trained again, it is another
        dtype = str(compute.dtype).removeprefix("torch.")
        options = replace(options, dtype=dtype, only_classes=(), exclude_classes=())
        key = (options, card.to_json())
        if key not in self._models:
            while len(self._models) >= _KEPT:
                self._models.popitem(last=False)
            self._models[key] = load_predictor(options)
        self._models.move_to_end(key)
        return self._models[key]

    def _load(self, request: Request, _progress: Progress) -> dict[str, Any]:
        options = request.read_options(ModelOptions)
        card = self._predictor(PredictorOptions(**values_of(options, ModelOptions))).card
        return {"model": f"{card.name} {card.version}", "classes": [c.name for c in card.classes]}

    def _info(self, request: Request, _progress: Progress) -> dict[str, Any]:
        from rssc_geo.inference import describe_run, make_plan
        from rssc_geo.models import load_card

        options = request.read_options(InfoOptions)
        card = load_card(options.model, revision=options.revision)
        return describe_run(make_plan(request.argument("raster"), card, options), card).as_dict()

    def _classify(self, request: Request, progress: Progress) -> dict[str, Any]:
        from rssc_geo.pipelines.classify import classify

        options = request.read_options(ClassifyOptions)
        raster, output = request.argument("raster"), request.argument("output")
        model = self._predictor(PredictorOptions(**values_of(options, DescribingOptions)))
        return classify(raster, output, options, model=model, progress=progress).as_dict()

    def _explain(self, request: Request, progress: Progress) -> dict[str, Any]:
        from rssc_geo.pipelines.explain import explain

        options = request.read_options(ExplainOptions)
        raster, output = request.argument("raster"), request.argument("output")
        model = self._predictor(
            PredictorOptions(
                model=options.model,
                revision=options.revision,
                captioner=options.captioner,
                device=options.device,
                dtype="float32",
            )
        )
        return explain(raster, output, options, model=model, progress=progress).as_dict()

    def _train(self, request: Request, progress: Progress) -> dict[str, Any]:
        from rssc_geo.training.few_shot.train_on_polygons import train_on_polygons

        options = request.read_options(TrainOnPolygonsOptions)
        pair = request.argument("raster"), request.argument("labels")
        output = request.argument("output")
        learned = train_on_polygons([pair], output, options, progress=progress)
        return {"bundle": str(Path(output)), **learned.as_dict()}


_ARGUMENTS = ("raster", "labels", "output")


def _request(found: Any) -> Request:
    """A request from plain data; ``UsageError`` for an invalid one."""
    if not isinstance(found, dict):
        raise UsageError("a request is a JSON object")
    unknown = sorted(set(found) - {"id", "command", "options", *_ARGUMENTS})
    if unknown:
        raise UsageError(f"a request has no {unknown[0]!r}")
    if not isinstance(found.get("id"), str | int):
        raise UsageError("a request needs an id, a text or a whole number")
    command, options = found.get("command"), found.get("options") or {}
    if not isinstance(command, str) or command not in _COMMANDS:
        raise UsageError(f"there is no command {command!r}: {', '.join(_COMMANDS)}")
    arguments = {name: found[name] for name in _ARGUMENTS if name in found}
    if not isinstance(options, dict) or not all(isinstance(v, str) for v in arguments.values()):
        raise UsageError("options are an object, and raster, labels and output are texts")
    return Request(found["id"], command, arguments, options)
