"""The ``rssc-geo`` program: commands are imported when they are called, errors are one line."""

from __future__ import annotations

import _thread
import atexit
import importlib
import io
import itertools
import json
import logging
import math
import os
import signal
import sys
import threading
import time
from types import FrameType

import click

from rssc_geo.environment import prepare_torch
from rssc_geo_cli.groups import CommandGroup

_COMMANDS = {
    "classify": ("classify", "classify_command"),
    "zero-shot": ("zero_shot", "zero_shot_command"),
    "caption": ("caption", "caption_command"),
    "explain": ("explain", "explain_command"),
    "batch": ("batch", "batch_group"),
    "embed": ("embed", "embed_command"),
    "index": ("index", "index_command"),
    "search": ("search", "search_command"),
    "info": ("info", "info_command"),
    "models": ("models", "models_group"),
    "refine": ("refine", "refine_command"),
    "areas": ("areas", "areas_command"),
    "change": ("change", "change_command"),
    "assess": ("assess", "assess_group"),
    "evaluate": ("evaluate", "evaluate_command"),
    "train": ("train", "train_command"),
    "tile": ("tile", "tile_command"),
    "serve": ("serve", "serve_command"),
}
"""Module and name of each command, in the order of the help."""
_HIDDEN = ("serve",)
"""Called by programs only."""
INTERRUPTED = 130
_STOPS = (signal.SIGINT, signal.SIGTERM)
_TRUE = ("1", "true", "t", "yes", "y", "on")
_GRACE_S = 5
"""Seconds after an interruption within which another one is ignored."""
_SOON_S = 0.05


class _LazyGroup(CommandGroup):
    """A group that imports a command only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return [name for name in _COMMANDS if name not in _HIDDEN]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        found: click.Command = getattr(importlib.import_module(f"rssc_geo_cli.{module}"), name)
        return found


def _print_version(ctx: click.Context, _param: click.Parameter, value: object) -> None:
    if value:
        from importlib.metadata import version

        click.echo(f"rssc-geo {version('rssc-geo')}")
        ctx.exit()


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def cli() -> None:
    """Land-use maps from any GeoTIFF, by scene classification with words."""


class _Interruption:
    """The signal handler; further interruptions do not disturb the end of the program."""

    def __init__(self) -> None:
        self.over = False  # the last message is being written and is not interrupted
        self.came = False
        self._last = -math.inf

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.over and now - self._last > _GRACE_S:
            self._last, self.came = now, True
            raise KeyboardInterrupt

    def lost(self, lost: sys.UnraisableHookArgs) -> None:
        """Hook for exceptions that Python cannot raise, as in a finalizer: repeat interruptions."""
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            sys.__unraisablehook__(lost)
            return
        self._last = -math.inf
        threading.Thread(target=_interrupt_soon, name="rssc-geo interrupt", daemon=True).start()


_interruption = _Interruption()


def _interrupt_soon() -> None:
    """Interrupt the main thread again, once it has left code from which no exception propagates."""
    time.sleep(_SOON_S)
    if hasattr(signal, "pthread_kill"):  # wakes it, too
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main(signal.SIGINT)


def main() -> None:
    """Run the program.

    The exit code is 0 done, 1 failed, 2 wrong usage, 3 nothing to classify, 130 interrupted.
    """
    try:
        for number in _STOPS:
            signal.signal(number, _interruption)
        sys.unraisablehook = _interruption.lost
        _open_streams()
        _speak_utf8()
        logging.captureWarnings(capture=True)  # so that all of stderr has the form asked for
        code = run(sys.argv[1:])
        _interruption.over = True
    except KeyboardInterrupt as error:  # before the first was reported, or after the work was done
        code = _tell_interruption(sys.argv[1:], error)
    code = _flush(code)
    if code == INTERRUPTED:
        # Interpreter shutdown waits for library threads; after an interruption the promise is
        # "within a second".
        os._exit(code)
    for number in _STOPS:  # the work is done: waiting for threads of libraries may be cut short
        signal.signal(number, lambda *_: os._exit(code))
    atexit.register(_ignore_stops)
    sys.exit(code)


def _flush(code: int) -> int:
    """Flush buffered output; the exit code, 1 where a result could not be written."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _leave_stdout()
            code = code or 1
    return code


def _ignore_stops() -> None:
    """Python hands signals back to the system as it ends, which would make another exit code."""
    for number in _STOPS:
        signal.signal(number, signal.SIG_IGN)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every failure is one line on stderr.

    With ``--json`` or ``--progress json`` it is an object on stdout too.
    """
    from rssc_geo_cli.config import forget
    from rssc_geo_cli.console import start_logging

    prepare_torch()
    os.environ.setdefault("CPL_LOG", os.devnull)  # what GDAL prints is raised or logged, too
    forget()
    start_logging(as_json=_asks_for_json_logs(arguments))
    try:
        _check_names(arguments)
        code = cli.main(arguments, prog_name="rssc-geo", standalone_mode=False)
    except SystemExit as stop:  # rich-click has shown the help
        return int(stop.code or 0)
    except (KeyboardInterrupt, click.Abort) as error:
        return _tell_interruption(arguments, error)
    except Exception as error:  # noqa: BLE001 -- last resort
        if _interruption.came:  # libraries in other languages raise errors of their own for it
            return _tell_interruption(arguments, KeyboardInterrupt())
        return _tell_error(arguments, error)
    return code if isinstance(code, int) else 0


def _tell_error(arguments: list[str], error: Exception) -> int:
    """Report in one line what failed; the exit code."""
    from rssc_geo.errors import RsscGeoError, outer_cause

    if isinstance(error, click.ClickException):
        usage = isinstance(error, click.UsageError)
        return _tell(arguments, error.format_message(), 2 if usage else 1, type(error).__name__)
    if isinstance(error, RsscGeoError):
        return _tell(arguments, str(error), error.exit_code, type(error).__name__)
    if isinstance(error, BrokenPipeError):
        _leave_stdout()
        return 1
    # A traceback is for -vv, never for a user.
    logging.getLogger("rssc_geo").debug("traceback", exc_info=error)
    if cause := outer_cause(error):
        return _tell(arguments, cause, kind=type(error).__name__)
    return internal_error(arguments, error)


def _tell_interruption(arguments: list[str], error: BaseException) -> int:
    """Report an interruption; further ones are ignored."""
    _interruption.over = True
    message = str(error) or "interrupted; run the same command again to continue where it stopped"
    return _tell(arguments, message, INTERRUPTED, "Interrupted")


def internal_error(arguments: list[str], error: Exception) -> int:
    """Report a bug of the program; the exit code. No test may get here."""
    kind = type(error).__name__
    message = f"internal error, please report it: {kind}: {error} (-vv shows the traceback)"
    return _tell(arguments, message)


def _tell(arguments: list[str], message: str, code: int = 1, kind: str = "internal") -> int:
    """Report on stderr what failed, on stdout too where JSON was asked for; returns ``code``."""
    from rssc_geo.errors import escaped
    from rssc_geo_cli.console import log_failure

    line = escaped(" ".join(message.split()))
    if not log_failure(line):
        click.echo(f"rssc-geo: error: {line}", err=True)
    error = {"message": line, "exit_code": code, "type": kind}
    try:
        if _asks_for_events(arguments):
            click.echo(json.dumps({"event": "error", **error}, ensure_ascii=False))
        elif _asks_for_json(arguments):
            click.echo(json.dumps({"error": error}, ensure_ascii=False))
    except OSError:  # the reader is gone, or the disk is full
        _leave_stdout()
    return code


def _asks_for_events(arguments: list[str]) -> bool:
    """Whether progress is to be JSON."""
    return _asked(arguments, "progress") == "json"


def _asks_for_json(arguments: list[str]) -> bool:
    """Whether the result is to be JSON."""
    return "--json" in arguments or _asked(arguments, "json").lower() in _TRUE


def _asks_for_json_logs(arguments: list[str]) -> bool:
    """Whether messages are to be JSON."""
    return "--log-json" in arguments or _asked(arguments, "log-json").lower() in _TRUE


def _asked(arguments: list[str], key: str) -> str:
    """The text of an option, read without click: usage errors come before it is known.

    From the command line, the environment, or the configuration file, in this order.
    """
    given = ""
    for argument, following in itertools.zip_longest(arguments, arguments[1:], fillvalue=""):
        name, separator, value = argument.partition("=")
        if name == f"--{key}":
            given = value if separator else following
    given = given or os.environ.get(f"RSSC_GEO_{key.upper().replace('-', '_')}", "")
    if given or key == "config":
        return given
    values = _configured(_asked(arguments, "config"))
    table = values.get(arguments[0] if arguments else "")
    own = table if isinstance(table, dict) else {}
    return str(own.get(key, values.get(key, "")))


def _configured(file: str) -> dict[str, object]:
    """What a configuration file sets; nothing where it cannot be read (reported elsewhere)."""
    if not file:
        return {}
    from rssc_geo.errors import UsageError
    from rssc_geo_cli.config import configuration

    try:
        return configuration(file)
    except UsageError:
        return {}


def _leave_stdout() -> None:
    """Discard further output: the reader of the pipe is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_streams() -> None:
    """Replace streams that the caller has closed, for which Python has None, by the null device."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 -- stays open


def _speak_utf8() -> None:
    """Write UTF-8, whatever the code page of the terminal or pipe."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _check_names(arguments: list[str]) -> None:
    """Refuse arguments that are not UTF-8, and a working folder that is gone.

    Where that is gone no name means anything.
    """
    from rssc_geo.errors import UsageError, check_utf8

    try:
        os.getcwd()
    except FileNotFoundError:
        raise UsageError("the working folder no longer exists: change to another") from None
    for argument in arguments:
        check_utf8(argument)


if __name__ == "__main__":
    main()
