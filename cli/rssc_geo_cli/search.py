"""``rssc-geo search``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from rssc_geo.options import PrintOptions, SearchOptions, SearchTargetOptions
from rssc_geo_cli.console import say, show_result
from rssc_geo_cli.options import command

_SHOWN = 10


@command("search", SearchTargetOptions, SearchOptions, PrintOptions)
@click.argument("archive", type=click.Path())
@click.argument("words", required=False)
def search_command(
    target: SearchTargetOptions,
    options: SearchOptions,
    printing: PrintOptions,
    *,
    archive: str,
    words: str | None,
) -> None:
    """Find the cells of ARCHIVE that fit WORDS, an example (--like), or both.

    ARCHIVE is a folder that `index` made. The best come first.
    """
    from rssc_geo.archive.search import search

    result = search(archive, words, target.output, options)
    show_result(result.as_dict(), printing, _tell)


def _tell(values: Mapping[str, Any]) -> None:
    for hit in values["hits"][:_SHOWN]:
        about = " ".join(filter(None, (hit["class"], (hit["date"] or "")[:10])))
        place = f"{hit['lat']:.5f},{hit['lon']:.5f}"
        line = f"{hit['rank']:>3} {hit['score']:6.3f} {place} {hit['scene']}: {about}"
        say(f"{line}. {hit['caption']}" if hit["caption"] else line)
    if len(values["hits"]) > _SHOWN:
        say(f"and {len(values['hits']) - _SHOWN} more")
    say(f"among {values['searched']} cells, {values['search_s'] * 1000:.0f} ms")
    for path in values["outputs"]:
        click.echo(path)
