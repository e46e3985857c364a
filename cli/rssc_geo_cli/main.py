"""The ``rssc-geo`` program: commands are imported when they are called, errors end in one line."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
from types import FrameType

import click

_COMMANDS = {
    "classify": "classify a raster into land-use polygons",
    "zero-shot": "map a raster into classes named by words",
    "caption": "describe the tiles of a raster in words",
    "explain": "show why cells are given their class",
    "batch": "map many scenes, on this machine or a cluster",
    "info": "show what the program sees in a raster and what it would do",
    "models": "list model bundles, show a model's card; the cache of captions",
    "evaluate": "measure a model on labeled pictures or polygons",
    "train": "train a model on a folder of pictures, one folder a class",
    "tile": "export a raster's tiles as georeferenced chips",
}
INTERRUPTED = 130


class _LazyGroup(click.Group):
    """A group that knows its commands' names and help, and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = importlib.import_module(
            f"rssc_geo_cli.{cmd_name.replace('-', '_')}"
        ).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _print_version(ctx: click.Context, _param: click.Parameter, asked: bool) -> None:
    if asked:
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
    """Run the program; the exit code is 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    signal.signal(signal.SIGTERM, _terminate)
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Interpreter shutdown waits for library threads; after an interruption the promise is "within a
    # second".
    os._exit(code) if code == INTERRUPTED else sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; every failure is one line on stderr."""
    from rssc_geo.errors import RsscGeoError

    # Torch's threads else spin while they wait for each other, which slows a machine that has other
    # work fivefold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = cli.main(arguments, prog_name="rssc-geo", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        _say(error.format_message())
        return 2 if isinstance(error, click.UsageError) else 1
    except RsscGeoError as error:
        _say(str(error))
        return error.exit_code
    except (KeyboardInterrupt, click.Abort) as error:
        _say(str(error) or "interrupted; run the same command again to go on where it stopped")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except MemoryError:
        _say("out of memory; close other programs or use smaller batches (--batch-size)")
        return 1
    except Exception as error:  # the last net: a traceback is for -vv, never for a user
        logging.getLogger("rssc_geo").debug("traceback", exc_info=True)
        _say(
            f"internal error, please report it: {type(error).__name__}: {error} (-vv shows the"
            " traceback)"
        )
        return 1
    return code if isinstance(code, int) else 0


def _say(message: str) -> None:
    click.echo(f"rssc-geo: error: {' '.join(message.split())}", err=True)


if __name__ == "__main__":
    main()
