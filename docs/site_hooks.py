"""What mkdocs.yml hooks into the building of the site: pages that lie elsewhere, and our form of docstrings."""

from __future__ import annotations

import re
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "plugin.md": "qgis_plugin/README.md",
    "compact.md": "rssc_geo/models/bundles/compact/README.md",
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
}
"""Pages of the site, and the file of the repository that each is."""


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside docs/."""
    for page, source in ELSEWHERE.items():
        files.append(
            File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8"))
        )
    return files


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
    """A section with descriptions under their names, and the prose after it, which the parser would take for items."""
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
