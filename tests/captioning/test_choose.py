"""Captioners by name and with their options."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rssc_geo.captioning import (
    AdaptiveCaptioner,
    CachedCaptioner,
    caption_threshold,
    check_captioner,
    describe_captioner,
    make_captioner,
)
from rssc_geo.errors import UsageError
from rssc_geo.models import Model
from rssc_geo.options import CaptionerOptions, PredictorOptions

SERVER = "openai:http://localhost:8000/v1#llava"


def named(captioner: str | None = SERVER, **options: Any) -> CaptionerOptions:
    return CaptionerOptions(captioner=captioner, **options)


def test_names(small_model: Model) -> None:
    bare = dataclasses.replace(small_model, decoder=None, vocabulary=None)
    assert make_captioner(small_model).name == "compact"
    assert make_captioner(bare).name == "none"
    assert make_captioner(small_model, named("none")).name == "none"
    with pytest.raises(UsageError, match="brings no captioner"):
        make_captioner(bare, named("compact"))
    for wrong in ("llava", "hff:x", "hf", ""):
        with pytest.raises(UsageError, match="unknown"):
            make_captioner(small_model, named(wrong))


def test_a_server_is_asked_what_the_options_say(small_model: Model, tmp_path: Path) -> None:
    options = PredictorOptions(
        captioner=SERVER,
        prompt="closed",
        caption_tokens=50,
        caption_cache=str(tmp_path / "c.sqlite"),
    )
    captioner = make_captioner(small_model, options)
    assert isinstance(captioner, CachedCaptioner)
    assert (captioner.name, captioner.source) == (SERVER, "written")
    assert captioner.parameters["max_tokens"] == 50
    assert "Field; River, wide; Town <b>" in str(captioner.parameters["prompt"])


def test_only_uncertain_tiles_go_to_the_large_captioner(small_model: Model) -> None:
    captioner = make_captioner(small_model, named(caption_when="uncertain:0.8"))
    assert isinstance(captioner, AdaptiveCaptioner)
    assert (captioner.first.name, captioner.second.name, captioner.threshold) == (
        "compact",
        SERVER,
        0.8,
    )
    assert caption_threshold(named(caption_when="uncertain")) == 0.9
    assert caption_threshold(named()) is None
    for wrong in (
        "never",
        "uncertain:x",
        "uncertain:0",
        "uncertain:1.5",
        "uncertain:nan",
        "always:0.5",
    ):
        with pytest.raises(UsageError, match="--caption-when"):
            make_captioner(small_model, named(caption_when=wrong))


def test_a_model_that_needs_captions_gets_them_always(small_model: Model) -> None:
    card = dataclasses.replace(
        small_model.card, network={**small_model.card.network, "learned_queries": 0}
    )
    needy = dataclasses.replace(small_model, card=card)
    assert make_captioner(needy, named()).name == SERVER
    with pytest.raises(UsageError, match="nothing without captions"):
        make_captioner(needy, named(caption_when="uncertain"))
    with pytest.raises(UsageError, match="needs captions"):
        make_captioner(needy, named("none"))


def test_descriptions_tell_runs_apart(small_model: Model) -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"prompt": "free"},
        {"caption_tokens": 9},
        {"share_captions": True},
        {"caption_when": "uncertain"},
        {"caption_when": "uncertain:0.5"},
    ]
    described = [
        describe_captioner(make_captioner(small_model, named(**change))) for change in changes
    ]
    assert len(set(described)) == len(changes)
    where = named(caption_cache="elsewhere.sqlite", caption_requests=2, caption_timeout=5)
    assert describe_captioner(make_captioner(small_model, where)) == described[0]
    assert describe_captioner(make_captioner(small_model, named("compact"))) == "compact"
    beam = make_captioner(small_model, named("compact", caption_beam=3))
    assert describe_captioner(beam) == "compact, beam of 3"


WRONG: list[tuple[CaptionerOptions, str]] = [
    (named("compact", caption_when="uncertain"), "hf:… or openai:…"),
    (named(None, prompt="free"), "hf:… or openai:…"),
    (named(caption_beam=2), "--caption-beam is for the model's own captioner"),
    (named("none", caption_beam=2), "--caption-beam is for the model's own captioner"),
    (named(prompt="publishd"), "--prompt 'publishd' is unknown"),
    (named("openai:localhost"), "is not openai:http://host:port/v1#model"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_cannot_be_meant_is_refused_before_anything_is_loaded(
    small_model: Model, options: CaptionerOptions, message: str
) -> None:
    for refuse in (
        lambda: check_captioner(options, small_model.card),
        lambda: make_captioner(small_model, options),
    ):
        with pytest.raises(UsageError) as caught:
            refuse()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_options_are_checked_without_torch() -> None:
    code = (
        "import sys; from rssc_geo.captioning import check_captioner;"
        "from rssc_geo.models import load_card; from rssc_geo.options import CaptionerOptions;"
        f"check_captioner(CaptionerOptions(captioner={SERVER!r}), load_card('compact'));"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
