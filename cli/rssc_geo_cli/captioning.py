"""Options of the captioners, shared by the commands that caption."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rssc_geo_cli.options import apply_options

if TYPE_CHECKING:
    from rssc_geo.options import CaptionerOptions

captioner_option = click.option(
    "--captioner",
    metavar="NAME",
    help=(
        "compact (the model's own, the default where it has one), none, hf:ID[@REVISION], hf:FOLDER"
        " or openai:http://HOST:PORT/v1#MODEL (a key goes into the environment as"
        " RSSC_GEO_API_KEY)."
    ),
)
# Left out, each keeps the default of CaptionerOptions.
captioning_options = apply_options(
    click.option(
        "--caption-beam",
        "beam",
        type=int,
        metavar="N",
        help="compact: sentences followed at a time. Default: 1.",
    ),
    click.option(
        "--prompt",
        metavar="TEXT",
        help="What hf: and openai: are asked: published (default), closed, free, or text.",
    ),
    click.option(
        "--caption-tokens",
        "max_tokens",
        type=int,
        metavar="N",
        help="Longest answer, in tokens. Default: 192.",
    ),
    click.option(
        "--share-captions",
        "share",
        is_flag=True,
        default=None,
        help="Tiles that look the same get one caption.",
    ),
    click.option(
        "--caption-cache",
        "cache",
        metavar="FILE",
        help="Where captions are kept. Default: see `models cache --info`.",
    ),
    click.option(
        "--caption-requests",
        "requests",
        type=int,
        metavar="N",
        help="openai: requests at a time. Default: 8.",
    ),
    click.option(
        "--caption-timeout",
        "timeout_s",
        type=float,
        metavar="S",
        help="openai: seconds for an answer. Default: 120.",
    ),
    click.option(
        "--caption-batch-size",
        type=int,
        metavar="N",
        help="hf: tiles a batch. Default: by the device.",
    ),
    click.option("--quantize", metavar="BITS", help="hf: 4bit or 8bit, with bitsandbytes on CUDA."),
    click.option(
        "--trust-remote-code",
        is_flag=True,
        default=None,
        help="hf: run the code that the model brings.",
    ),
)
caption_when_option = click.option(
    "--caption-when",
    "when",
    metavar="WHEN",
    help=(
        "always (default), or uncertain[:0.9]: only tiles whose class is less likely than that"
        " without."
    ),
)
# Of the commands' names and those of CaptionerOptions.
_FIELDS = {
    "beam": "caption_beam",
    "prompt": "prompt",
    "max_tokens": "caption_tokens",
    "share": "share_captions",
    "cache": "caption_cache",
    "requests": "caption_requests",
    "timeout_s": "caption_timeout",
    "quantize": "quantize",
    "trust_remote_code": "trust_remote_code",
    "when": "caption_when",
    "caption_batch_size": "caption_batch_size",
}


def take_caption_options(values: dict[str, Any]) -> CaptionerOptions:
    """Take what belongs to the captioners out of a command's values."""
    from rssc_geo.captioning import caption_threshold, check_numbers
    from rssc_geo.options import CaptionerOptions

    given = {field: values.pop(name, None) for name, field in _FIELDS.items()}
    options = CaptionerOptions(**{k: value for k, value in given.items() if value is not None})
    check_numbers(options)
    caption_threshold(options)
    return options
