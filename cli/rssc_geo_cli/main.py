"""The ``rssc-geo`` program: commands are imported when they are called, errors end in one line."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from types import FrameType

import click
from rich_click import RichGroup

_COMMANDS = {
    "classify": ("classify", "classify_command"),
    "zero-shot": ("zero_shot", "zero_shot_command"),
    "caption": ("caption", "caption_command"),
    "explain": ("explain", "explain_command"),
    "batch": ("batch", "batch_group"),
    "info": ("info", "info_command"),
    "models": ("models", "models_group"),
    "evaluate": ("evaluate", "evaluate_command"),
    "train": ("train", "train_command"),
    "tile": ("tile", "tile_command"),
}
"""Module and name of each command, in the order of the help."""
INTERRUPTED = 130


class _LazyGroup(RichGroup):
    """A group that imports a command only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

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


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the program.

    The exit code is 0 done, 1 failed, 2 wrong usage, 3 nothing to classify, 130 interrupted.
    """
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    if code == INTERRUPTED:
        # Interpreter shutdown waits for library threads; after an interruption the promise is
        # "within a second".
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every failure is one line on stderr."""
    from rssc_geo.errors import RsscGeoError

    # Torch's threads else spin while they wait for each other, which slows a machine that has
    # other work fivefold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = cli.main(arguments, prog_name="rssc-geo", standalone_mode=False)
    except SystemExit as stop:  # rich-click has shown the help
        return int(stop.code or 0)
    except click.ClickException as error:
        _tell(arguments, error.format_message())
        return 2 if isinstance(error, click.UsageError) else 1
    except RsscGeoError as error:
        _tell(arguments, str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        _tell(arguments, 
            str(error) or "interrupted; run the same command again to go on where it stopped"
        )
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        _tell(arguments, "out of memory; close other programs or use smaller batches (--batch-size)")
        return 1
    except Exception as error:  # the last net: a traceback is for -vv, never for a user
        logging.getLogger("rssc_geo").debug("traceback", exc_info=True)
        _tell(arguments, 
            f"internal error, please report it: {type(error).__name__}: {error} (-vv shows the"
            " traceback)"
        )
        return 1
    return code if isinstance(code, int) else 0


def _tell(arguments, message: str) -> None:
    click.echo(f"rssc-geo: error: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    main()
