"""Captions from a server over real HTTP, with and without errors."""

from __future__ import annotations

import logging
import socket
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest
import torch

from rssc_geo.captioning import ATTEMPTS, KEY_VARIABLE, CaptionBatch, ServerCaptioner
from rssc_geo.errors import RsscGeoError, UsageError
from rssc_geo.options import CaptionerOptions
from tests.chat_server import ChatServer, completion, refusal


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    with ChatServer() as chat:
        yield chat


def tiles(count: int) -> CaptionBatch:
    """Tiles of one color each: 10, 20, 30 and so on."""
    shades = 10 * np.arange(1, count + 1, dtype=np.uint8)
    pixels = np.broadcast_to(shades[:, None, None, None], (count, 24, 32, 3)).copy()
    return CaptionBatch(pixels, np.ones((count, 24, 32), bool), torch.zeros(count, 1, 1))


def ask(
    server: ChatServer, *, requests: int = 8, tokens: int = 192, timeout_s: float = 0.4
) -> ServerCaptioner:
    options = CaptionerOptions(
        caption_requests=requests, caption_tokens=tokens, caption_timeout=timeout_s
    )
    address = server.captioner.removeprefix("openai:")
    return ServerCaptioner(address, prompt="What is there?", options=options, backoff_s=0.01)


def color(shade: int) -> str:
    return f"A field of color [{shade}, {shade}, {shade}]."


def test_each_tile_gets_its_own_caption(server: ChatServer) -> None:
    captioner = ask(server, requests=3, tokens=77)
    assert captioner.caption(tiles(9)) == [color(10 * k) for k in range(1, 10)]
    assert server.most_at_once <= 3
    request = server.requests[0]
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("eye", 77, 0)
    assert request["messages"][0]["content"][1] == {"type": "text", "text": "What is there?"}
    assert server.keys == [None] * 9
    assert captioner.name == server.captioner


def test_the_picture_is_exact_and_holes_are_not_black(server: ChatServer) -> None:
    batch = tiles(1)
    batch.pixels[0, :, ::2] = 30
    batch.mask[0, :12] = False
    batch.pixels[0, :12] = 0
    ask(server).caption(batch)
    (seen,) = server.pictures
    assert (seen[12:] == batch.pixels[0, 12:]).all()
    assert (seen[:12] == 20).all()


@pytest.mark.parametrize(
    "fault",
    [
        refusal(500, "boom"),
        refusal(503),
        refusal(429),
        (200, {}, b"<html>busy</html>"),
        (200, {}, b'{"choices": []}'),
        (200, {}, b"[]"),
        (200, {"Content-Encoding": "gzip"}, b"not gzip"),
        completion(""),
        completion("  \n "),
        completion(None),
        completion([{"type": "text"}]),
        "close",
        "hang",
        "trickle",
    ],
    ids=str,
)
def test_passing_faults_cost_an_attempt(server: ChatServer, fault: object) -> None:
    server.faults = deque([fault, fault])
    assert ask(server).caption(tiles(1)) == [color(10)]
    assert len(server.requests) == 3


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_holds_back_every_request(server: ChatServer, form: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)
    header = "1" if form == "seconds" else format_datetime(until, usegmt=True)
    server.faults = deque([refusal(429, **{"Retry-After": header})] * (ATTEMPTS + 3))
    began = datetime.now(UTC)
    written = ask(server, requests=ATTEMPTS + 3, timeout_s=5.0).caption(tiles(ATTEMPTS + 3))
    assert written[0] == color(10)
    assert (datetime.now(UTC) - began).total_seconds() >= 0.9


def test_waits_that_the_server_asks_for_are_no_failed_attempts(server: ChatServer) -> None:
    server.faults = deque([refusal(429, **{"Retry-After": "0"})] * (2 * ATTEMPTS))
    assert ask(server).caption(tiles(1)) == [color(10)]


def test_a_wait_that_is_too_long_ends_the_run(server: ChatServer) -> None:
    server.faults = deque([refusal(429, "daily limit", **{"Retry-After": "86400"})])
    with pytest.raises(
        RsscGeoError, match=r"asks to wait 86400 s \(429 Too Many Requests: daily limit\)"
    ):
        ask(server).caption(tiles(1))


def test_what_came_before_a_failure_is_given(server: ChatServer) -> None:
    server.faults = deque([refusal(500)] * ATTEMPTS)
    came: dict[int, str] = {}
    with pytest.raises(RsscGeoError, match=f"no caption in {ATTEMPTS} attempts"):
        for place, text in ask(server, requests=1).stream_captions(tiles(3)):
            came |= {place: text}
    assert came == {}
    assert len(server.requests) == ATTEMPTS  # the tiles that waited are not asked about

    server.requests.clear()
    server.faults = deque([completion("One."), completion("Two."), *[refusal(400, "too blue")]])
    with pytest.raises(RsscGeoError, match="too blue"):
        for place, text in ask(server, requests=1).stream_captions(tiles(4)):
            came |= {place: text}
    assert came == {0: "One.", 1: "Two."}


def test_errors_are_one_line_each(server: ChatServer) -> None:
    with pytest.raises(
        RsscGeoError, match=r"404 Not Found: The model `nose` does not exist.\).*'nose'"
    ):
        ServerCaptioner(f"{server.address}#nose", prompt="?").caption(tiles(1))
    with pytest.raises(RsscGeoError, match="no such page"):
        ServerCaptioner(f"{server.address}/v2#eye", prompt="?").caption(tiles(1))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(
        RsscGeoError, match=r"127.0.0.1:\d+/v1 gave no caption in 5 attempts \(.*refused"
    ):
        ServerCaptioner(f"http://127.0.0.1:{port}/v1#eye", prompt="?", backoff_s=0.01).caption(
            tiles(1)
        )
    server.faults = deque([refusal(400, "line one\nline two\x1b[31m")])
    with pytest.raises(RsscGeoError) as caught:
        ask(server).caption(tiles(1))
    assert "line one line two [31m" in str(caught.value)


def test_the_key_comes_from_the_environment_and_is_told_nobody(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    server.key = "sk-right-key"
    with pytest.raises(RsscGeoError, match=f"401 .*set {KEY_VARIABLE}"):
        ask(server).caption(tiles(1))
    monkeypatch.setenv(KEY_VARIABLE, "sk-wrong-key\n")
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(RsscGeoError, match=f"{KEY_VARIABLE} is not accepted") as caught,
    ):
        ask(server).caption(tiles(1))
    assert server.keys[-1] == "Bearer sk-wrong-key"
    assert "incorrect key: Bearer …" in str(caught.value)
    monkeypatch.setenv(KEY_VARIABLE, "sk-right-key")
    captioner = ask(server)
    with caplog.at_level(logging.DEBUG):
        assert captioner.caption(tiles(1)) == [color(10)]
    told = caplog.text + captioner.name + repr(captioner.parameters) + repr(captioner)
    assert "sk-" not in told
    monkeypatch.setenv(KEY_VARIABLE, "two\nlines")
    with pytest.raises(UsageError, match=KEY_VARIABLE):
        ask(server)


def test_the_key_follows_no_redirect(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    with ChatServer() as other:
        server.faults = deque([(307, {"Location": f"{other.address}/chat/completions"}, b"")])
        with pytest.raises(RsscGeoError, match="redirects"):
            ask(server).caption(tiles(1))
        assert other.requests == []


def test_an_answer_cut_short_loses_its_unfinished_sentence(server: ChatServer) -> None:
    server.faults = deque([completion("Rows of houses.\nOverall, this sc", finish_reason="length")])
    assert ask(server).caption(tiles(1)) == ["Rows of houses."]


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:8000/v1#m",
        "ftp://host/v1#m",
        "http://#m",
        "http://host/v1",
        "http://host/v1#",
        "http://me:pw@host/v1#m",
        "http://host/v1?key=abc#m",
        "http://ho st:x/v1#m",
    ],
)
def test_addresses_that_cannot_be_meant(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        ServerCaptioner(address, prompt="?")
    assert "pw" not in str(caught.value)
    assert "abc" not in str(caught.value)
