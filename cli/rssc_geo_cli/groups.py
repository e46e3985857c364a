"""Groups of commands."""

from __future__ import annotations

import difflib

import click
from rich_click import RichGroup


class CommandGroup(RichGroup):
    """A group that tells what to do about a command that it does not have."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the arguments name; fails with a hint where there is none."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            close = difflib.get_close_matches(name, self.list_commands(ctx), 1)
            hint = f"did you mean {close[0]}?" if close else f"{ctx.command_path} --help lists them"
            asked = f"{ctx.command_path} {name}".partition(" ")[2]
            ctx.fail(f"there is no command {asked!r}: {hint}")
        return super().resolve_command(ctx, args)
