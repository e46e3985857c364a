"""Options of messages, of the run, and of the result's path."""

from __future__ import annotations

from dataclasses import dataclass

from rssc_geo.options.declaration import OUTPUT, RUN, Options, option
from rssc_geo.options.kinds import COUNT, FILE, FLAG, INTEGER, Kind, choice


@dataclass(frozen=True, kw_only=True)
class PrintOptions(Options):
    """Messages of a command, and the file that sets its other options."""

    config: str | None = option(
        "Options from a file: TOML, keys as the options; [classify] for one command.",
        RUN,
        FILE,
        default=None,
        path=True,
    )
    json: bool = option("Print one JSON object on stdout.", RUN, FLAG, default=False)
    verbose: int = option(
        "More messages, with their times; -vv: all of them.",
        RUN,
        INTEGER,
        default=0,
        short="v",
        count=True,
    )
    quiet: bool = option("Errors only.", RUN, FLAG, default=False, short="q")
    log_json: bool = option("Messages on stderr as JSON Lines.", RUN, FLAG, default=False)
    log_file: str | None = option(
        "Append the messages to a file too, with their times, and those of -v.",
        RUN,
        FILE,
        default=None,
        path=True,
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions(PrintOptions):
    """Progress of a long command."""

    progress: str = option(
        "json: JSON Lines on stdout.",
        RUN,
        choice("auto", "bar", "json", "none"),
        default="auto",
    )
    exit_on_stdin_eof: bool = option(
        "Stop when standard input closes; for programs that start this one.",
        RUN,
        FLAG,
        default=False,
    )


@dataclass(frozen=True, kw_only=True)
class ServeOptions(PrintOptions):
    """How long ``serve`` waits for work."""

    idle: int = option("End after this time without a request.", RUN, COUNT, default=900, unit="s")


@dataclass(frozen=True, kw_only=True)
class ScenesRunOptions(RunOptions):
    """How a run over many scenes ends."""

    fail_on: str = option(
        "Failures that give an exit code: any (4: some are new, 5: all are known from an earlier"
        " run), only new ones (4), none.",
        RUN,
        choice("any", "new", "none"),
        default="any",
    )


@dataclass(frozen=True, kw_only=True)
class BatchRunOptions(ScenesRunOptions):
    """How a batch runs."""

    dry_run: bool = option(
        "Show what would be done, its size and an estimate of the time.", RUN, FLAG, default=False
    )


@dataclass(frozen=True, kw_only=True)
class TargetOptions(Options):
    """The path of the result."""

    output: str = option(
        "The result.", OUTPUT, Kind("PATH", str), default="", short="o", path=True, required=True
    )


@dataclass(frozen=True, kw_only=True)
class OverwriteOptions(Options):
    """Whether a result may replace an earlier one."""

    overwrite: bool = option(
        "Replace existing results.", OUTPUT, FLAG, default=False, commandline_only=True
    )
