"""From the declarations in ``rssc_geo.options`` to click.

Every command's parameters, their environment variables and the keys of a configuration file are
made here. What was given on the command line counts before the environment, that before the file,
that before the default.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem
from rich_click import RichCommand, RichOption

from rssc_geo.errors import UsageError
from rssc_geo.files import check_name, check_not_input
from rssc_geo.options import (
    COMMANDS,
    ENVIRONMENT_PREFIX,
    GROUPS,
    Option,
    PrintOptions,
    SourceOptions,
    all_options,
    options_of,
)
from rssc_geo_cli.config import configuration
from rssc_geo_cli.console import set_up_logging

log = logging.getLogger(__name__)

_OTHER_VARIABLES = {"RSSC_GEO_API_KEY", "RSSC_GEO_CACHE"}


@dataclass(frozen=True, slots=True)
class Alternatives:
    """A command that does one of two things, each with its own options.

    ``first``, ``second``: the dataclasses; ``hints``: when to use each, for the message about an
    option of the other.
    """

    first: type
    second: type
    hints: tuple[str, str]


class Chosen:
    """What a callback gets for ``Alternatives``: called with a dataclass, it gives its options."""

    def __init__(self, alternatives: Alternatives) -> None:
        self._alternatives = alternatives

    def __call__(self, group: type) -> Any:
        """The options of ``group``; ``UsageError`` where one of the other alone was given."""
        both = self._alternatives
        other, hint = (
            (both.second, both.hints[1]) if group is both.first else (both.first, both.hints[0])
        )
        own = {found.name for found in options_of(group)}
        context = click.get_current_context()
        for found in options_of(other):
            given = context.get_parameter_source(found.name) is ParameterSource.COMMANDLINE
            if found.name not in own and given:
                raise UsageError(f"{found.flag} {hint}")
        return _build(group, context.params)


def command(name: str, *groups: type | Alternatives) -> Callable[[Callable[..., Any]], RichCommand]:
    """Make a click command of a function.

    The function is called with one instance of each group, in their order, and with the command's
    click arguments by keyword. It returns the exit code, or None for 0. Where one of the groups is
    a ``PrintOptions``, logging is set up by it before.
    """
    own = _options(groups)
    names = {found.name for found in own}
    written = {found.name for found in own if found.is_written}

    def decorate(function: Callable[..., Any]) -> RichCommand:
        def callback(**values: Any) -> Any:
            _check_results(values, written)
            made = [
                Chosen(group) if isinstance(group, Alternatives) else _build(group, values)
                for group in groups
            ]
            for options in made:
                if isinstance(options, PrintOptions):
                    set_up_logging(options)
            arguments = {key: value for key, value in values.items() if key not in names}
            return function(*made, **arguments)

        arguments = getattr(function, "__click_params__", [])
        parameters = [*reversed(arguments), *map(_parameter, own)]
        return _Command(name=name, callback=callback, params=parameters, help=function.__doc__)

    return decorate


class _Command(RichCommand):
    """A command that checks the environment before it is parsed."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = [parameter for parameter in self.params if isinstance(parameter, _Parameter)]
        _check_environment([parameter.declaration for parameter in own])
        return super().parse_args(ctx, args)


class _Parameter(RichOption):
    """A click option that knows its declaration."""

    declaration: Option


class _Type(click.ParamType["Any"]):
    """Convert text as the declaration states; values of a configuration file pass unchanged."""

    def __init__(self, option: Option) -> None:
        self._option = option
        self.name = option.declaration.kind.name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert text, with ``UsageError`` for an invalid one."""
        del param, ctx
        return self._option.parse(value) if isinstance(value, str) else value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Completions for a shell: the choices, or files."""
        del ctx, param
        if self._option.declaration.path:
            return [CompletionItem(incomplete, type="file")]
        choices = filter(None, self._option.declaration.kind.choices)
        return [CompletionItem(name) for name in choices if name.startswith(incomplete)]


def _parameter(option: Option) -> _Parameter:
    declaration = option.declaration
    names = [
        option.name,
        option.flag + (f"/{declaration.negative}" if declaration.negative else ""),
    ]
    if declaration.short:
        names.append(f"-{declaration.short}")
    settings: dict[str, Any] = {
        "help": declaration.help + (f" In {declaration.unit}." if declaration.unit else ""),
        "panel": declaration.group,
        "envvar": option.variable,
        "required": declaration.required,
    }
    if isinstance(option.default, bool):
        settings |= {"is_flag": True, "default": option.default}
        settings |= {"show_default": bool(declaration.negative)}
    elif declaration.count:
        settings |= {"count": True}
    else:
        shown = option.default not in (None, "", ())
        settings |= {"type": _Type(option), "multiple": declaration.multiple}
        settings |= {"metavar": declaration.words or declaration.kind.name, "show_default": shown}
        if not declaration.required:
            settings["default"] = option.default
        if declaration.words:
            settings["nargs"] = len(declaration.words.split())
    if option.name == "config":
        settings |= {"is_eager": True, "callback": _read_config}
    made = _Parameter(names, **settings)
    made.declaration = option
    return made


def _options(groups: Sequence[type | Alternatives]) -> list[Option]:
    """The options of all groups, each flag once."""
    found: dict[str, Option] = {}
    for group in groups:
        members = (group.first, group.second) if isinstance(group, Alternatives) else (group,)
        for member in members:
            for option in options_of(member):
                found.setdefault(option.flag, option)
    return sorted(found.values(), key=lambda option: GROUPS.index(option.declaration.group))


def _build(group: type, values: Mapping[str, Any]) -> Any:
    return group(**{found.name: values[found.name] for found in options_of(group)})


def _check_results(values: Mapping[str, Any], written: Collection[str]) -> None:
    """Refuse with ``UsageError`` a file to write that any other names, or that none should name."""
    named: dict[bool, list[str]] = {True: [], False: []}
    for name, value in values.items():
        texts = value if isinstance(value, tuple) else (value,)
        named[name in written] += [text for text in texts if isinstance(text, str)]
    for text in named[True]:
        check_name(Path(text))
    check_not_input([Path(text) for text in named[True] if os.path.isfile(text)], named[False])


# The environment.


def _check_environment(own: Sequence[Option]) -> None:
    """Refuse what the environment must not set; warn of variables that set nothing."""
    known = _OTHER_VARIABLES | {found.variable for found in all_options() if found.variable}
    for name in sorted(os.environ):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in known:
            continue
        flag = "--" + name.removeprefix(ENVIRONMENT_PREFIX).lower().replace("_", "-")
        if any(found.flag == flag for found in own):
            raise UsageError(f"{name}: {flag} is given on the command line alone")
        if not any(found.flag == flag for found in all_options()):
            close = difflib.get_close_matches(name, [text for text in known if text], 1)
            hint = f"; {close[0]} is" if close else ""
            log.warning("the environment variable %s is no option%s", name, hint)


# The configuration file.


def _read_config(ctx: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Make the file's values the defaults of the command."""
    if value is None:
        return None
    own = [p.declaration for p in ctx.command.params if isinstance(p, _Parameter)]
    ctx.default_map = {**(ctx.default_map or {}), **dict(_config_values(value, own, ctx))}
    return value


def _config_values(
    file: str, own: Sequence[Option], ctx: click.Context
) -> Iterator[tuple[str, Any]]:
    """Names and values of the command's options in the file; its own table has precedence.

    Commands of a group (``batch run``, ``batch status``) share a table.
    """
    content = configuration(file)
    table = ctx.command_path.split()[1]
    tables = {name.split()[0] for name in COMMANDS} | {"models"}
    by_key = {found.key: found for found in own}
    known = {found.key for found in all_options()}
    of_table = by_key.keys() | _keys_of_group(ctx)
    values: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            _check_known(file, f"[{key}]", key, tables)
        else:
            _check_known(file, key, _plain(key), known)
            values[_plain(key)] = value
    for key, value in content.get(table, {}).items():
        _check_known(file, f"{key} in [{table}]", _plain(key), of_table)
        values[_plain(key)] = value
    for key, value in values.items():
        if key in by_key:
            yield by_key[key].name, _config_value(file, by_key[key], value)


def _keys_of_group(ctx: click.Context) -> set[str]:
    """The keys of all commands of the group that the command is of; none for one of no group."""
    group = None if ctx.parent is None else ctx.parent.command
    members = group.commands.values() if isinstance(group, click.Group) else ()
    parameters = (parameter for member in members for parameter in member.params)
    return {p.declaration.key for p in parameters if isinstance(p, _Parameter)}


def _check_known(file: str, label: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, list(known), 1)
        hint = f"did you mean {close[0]}?" if close else "see the options page of the docs"
        raise UsageError(f"{file}: {label} is unknown; {hint}")


def _config_value(file: str, option: Option, value: Any) -> Any:
    if option.declaration.commandline_only or option.name == "config":
        raise UsageError(f"{file}: {option.flag} is given on the command line alone")
    try:
        return option.from_plain(value)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None


def _plain(key: str) -> str:
    return key.replace("_", "-")


raster_argument = click.argument("raster", required=False, type=click.Path())


def source_of(raster: str | None, options: SourceOptions) -> str | tuple[str, ...]:
    """The one raster or the three files, exactly one of which must be given."""
    if bool(raster) == bool(options.bands_from):
        raise UsageError(
            "give a raster, or three single-band ones with --bands-from RED GREEN BLUE"
        )
    return options.bands_from or str(raster)
