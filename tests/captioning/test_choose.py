"""Captioners by name and with their options."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rssc_geo.captioning import (
    AdaptiveCaptioner,
    CachedCaptioner,
    CaptionOptions,
    describe_captioner,
    make_captioner,
)
from rssc_geo.errors import UsageError
from rssc_geo.models import Model

SERVER = "openai:http://localhost:8000/v1#llava"


def test_names(small_model: Model) -> None:
    bare = dataclasses.replace(small_model, decoder=None, vocabulary=None)
    assert make_captioner(None, small_model).name == "compact"
    assert make_captioner(None, bare).name == "none"
    assert make_captioner("none", small_model).name == "none"
    with pytest.raises(UsageError, match="brings no captioner"):
        make_captioner("compact", bare)
    for wrong in ("llava", "hff:x"):
        with pytest.raises(UsageError, match="unknown"):
            make_captioner(wrong, small_model)


def test_a_server_is_asked_what_the_options_say(small_model: Model, tmp_path: Path) -> None:
    options = CaptionOptions(prompt="closed", max_tokens=50, cache=tmp_path / "c.sqlite")
    captioner = make_captioner(SERVER, small_model, options)
    assert isinstance(captioner, CachedCaptioner)
    assert (captioner.name, captioner.source) == (SERVER, "written")
    assert captioner.parameters["max_tokens"] == 50
    assert "Field; River, wide; Town <b>" in str(captioner.parameters["prompt"])


def test_only_uncertain_tiles_go_to_the_large_captioner(small_model: Model) -> None:
    captioner = make_captioner(SERVER, small_model, CaptionOptions(when="uncertain:0.8"))
    assert isinstance(captioner, AdaptiveCaptioner)
    assert (captioner.first.name, captioner.second.name, captioner.threshold) == (
        "compact",
        SERVER,
        0.8,
    )
    assert CaptionOptions(when="uncertain").threshold == 0.9
    for wrong in (
        "never",
        "uncertain:x",
        "uncertain:0",
        "uncertain:1.5",
        "uncertain:nan",
        "always:0.5",
    ):
        with pytest.raises(UsageError, match="--caption-when"):
            CaptionOptions(when=wrong)


def test_a_model_that_needs_captions_gets_them_always(small_model: Model) -> None:
    card = dataclasses.replace(
        small_model.card, network={**small_model.card.network, "learned_queries": 0}
    )
    needy = dataclasses.replace(small_model, card=card)
    assert make_captioner(SERVER, needy).name == SERVER
    with pytest.raises(UsageError, match="nothing without captions"):
        make_captioner(SERVER, needy, CaptionOptions(when="uncertain"))


def test_descriptions_tell_runs_apart(small_model: Model) -> None:
    changes = [
        {},
        {"prompt": "free"},
        {"max_tokens": 9},
        {"share": True},
        {"when": "uncertain"},
        {"when": "uncertain:0.5"},
    ]
    described = [
        describe_captioner(make_captioner(SERVER, small_model, CaptionOptions(**change)))
        for change in changes
    ]
    assert len(set(described)) == len(changes)
    where = CaptionOptions(cache="elsewhere.sqlite", requests=2, timeout_s=5)
    assert describe_captioner(make_captioner(SERVER, small_model, where)) == described[0]
    assert describe_captioner(make_captioner("compact", small_model)) == "compact"
    assert (
        describe_captioner(make_captioner("compact", small_model, CaptionOptions(beam=3)))
        == "compact, beam of 3"
    )


def test_options_without_effect_are_refused(small_model: Model) -> None:
    with pytest.raises(UsageError, match="hf:… or openai:…"):
        make_captioner("compact", small_model, CaptionOptions(when="uncertain"))
    with pytest.raises(UsageError, match="must be positive"):
        CaptionOptions(requests=0)
    for other in (SERVER, "none"):
        with pytest.raises(UsageError, match="--caption-beam is for the model's own captioner"):
            make_captioner(other, small_model, CaptionOptions(beam=2))
    with pytest.raises(UsageError, match="a beam of 0"):
        CaptionOptions(beam=0)
