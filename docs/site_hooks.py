"""What mkdocs.yml hooks into the building of the site.

Pages that lie elsewhere, the page of all options, and our form of docstrings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

if TYPE_CHECKING:
    from rssc_geo.options import Option

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "plugin.md": "qgis_plugin/README.md",
    "compact.md": "rssc_geo/models/bundles/compact/README.md",
    "architecture.md": "ARCHITECTURE.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "security.md": "SECURITY.md",
}
"""Pages of the site, and the file of the repository that each is."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/, and the one of the options."""
    files.append(File.generated(config, "options.md", content=options_page()))
    for page, source in ELSEWHERE.items():
        files.append(
            File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8"))
        )
    return files


def options_page() -> str:
    """The page of all options, from their declarations."""
    from rssc_geo.options import COMMANDS, SHARED, all_options, options_of

    commands: dict[str, list[str]] = {}
    for name, group in COMMANDS.items():
        for option in options_of(group):
            commands.setdefault(option.flag, []).append(f"`{name}`")
    for words, group in SHARED.items():
        for option in options_of(group):
            commands.setdefault(option.flag, [words])
    lines = [_OPTIONS_HEAD]
    heading = ""
    for option in sorted(all_options(), key=_place):
        declaration = option.declaration
        if declaration.group != heading:
            heading = declaration.group
            lines += [f"## {heading}", "", "| option | value | default | what it is | of |"]
            lines.append("|---|---|---|---|---|")
        flags = [f"`{text}`" for text in (option.flag, declaration.negative) if text]
        value = declaration.words or declaration.kind.name
        if declaration.unit:
            value += f", {declaration.unit}"
        default = "" if option.default in (None, "", ()) else f"`{option.default}`"
        marks = " *Command line and Python alone.*" if declaration.commandline_only else ""
        marks += " *A row of a manifest may set it.*" if declaration.row else ""
        cells = (
            " / ".join(flags),
            value,
            default,
            declaration.help + marks,
            ", ".join(commands[option.flag]),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _place(option: Option) -> int:
    from rssc_geo.options import GROUPS

    return GROUPS.index(option.declaration.group)


_OPTIONS_HEAD = """# Options

Every option can be given on the command line (`--tile-size 400m`), in the environment
(`RSSC_GEO_TILE_SIZE=400m`), in a configuration file (`--config FILE.toml`), and in Python
(`ClassifyOptions(tile_size="400m")`). What is given on the command line counts before the
environment, that before the file, that before the default.

A configuration file is TOML. Keys at the top hold for every command that has the option, those in a
table for that command alone, or for the commands of that group (`[batch]`):

```toml
device = "cpu"

[classify]
cell-size = "100m"
bands = [4, 3, 2]
```

Options that destroy, override a refusal or run code are taken from the command line and from Python
alone. Paths are meant from the working folder; those in a batch manifest from the manifest's.
"""


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that leave docs/ in the repository stay within the site."""
    up = "../" * page.file.src_uri.count("/")
    for name, source in ELSEWHERE.items():
        markdown = markdown.replace(f"]({up}../{source})", f"]({up}{name})")
    return markdown


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Options without a default have an empty field.

    Mkdocs-click 0.9 shows there how click 8.3 marks them.
    """
    return html.replace("<code>Sentinel.UNSET</code>", "")


_ITEM = re.compile(r"^((?:\*{0,2}\w+)(?:, \*{0,2}\w+)*) : (.+)$")
_ROLE = re.compile(r":(?:func|class|meth|mod):(?=`)")


class OneLineItems(griffe.Extension):
    """Our docstrings say ``name : what it is`` on one line, as types are in the signature.

    Numpydoc reads a type there.
    """

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite a docstring into the form that the parser takes for names with descriptions."""
        if obj.docstring is not None:
            obj.docstring.value = _described(_ROLE.sub("", obj.docstring.value))


def _described(text: str) -> str:
    head, *sections = re.split(r"(?=^(?:Parameters|Attributes)\n-{3,}$)", text, flags=re.MULTILINE)
    parts = [_section(section) for section in sections]
    return "\n\n".join(
        part
        for part in (head.rstrip(), *(prose for _, prose in parts), *(items for items, _ in parts))
        if part
    )


def _section(text: str) -> tuple[str, str]:
    """A section with descriptions under their names, and the prose after it."""
    title, line, *rest = text.rstrip().split("\n")
    items = [title, line]
    for number, row in enumerate(rest):
        item = _ITEM.match(row)
        if item:
            items += [item[1], f"    {item[2]}"]
        elif row and not row.startswith(" ") and not rest[number - 1]:
            after = rest[number:]
            if len(after) > 1 and set(after[1]) == {"-"}:  # another section, which the parser finds
                return "\n".join(items + after), ""
            return "\n".join(items).rstrip(), "\n".join(after)
        else:
            items.append(row)
    return "\n".join(items), ""
