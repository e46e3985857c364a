"""Slow, odd or hostile servers: the result is a caption or one line, never the key."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from rssc_geo.captioning import KEY_VARIABLE, CaptionBatch, ServerCaptioner
from rssc_geo.errors import RsscGeoError
from rssc_geo.options import CaptionerOptions
from tests.chat_server import Answer, ChatServer, completion, refusal

KEY = "sk-SECRETKEY-1234567890abcdef"
FUZZ_S = 10.0
ONE_TILE = CaptionBatch(
    np.full((1, 8, 8, 3), 10, np.uint8), np.ones((1, 8, 8), bool), torch.zeros(1, 1, 1)
)


def ask(address: str) -> ServerCaptioner:
    options = CaptionerOptions(caption_requests=1, caption_timeout=0.3)
    return ServerCaptioner(f"{address}#eye", prompt="What?", options=options, backoff_s=0.001)


def outcome(address: str) -> str:
    """The caption or the message; anything else is a failure of the test."""
    try:
        (caption,) = ask(address).caption(ONE_TILE)
    except RsscGeoError as error:
        caption = str(error)
    assert caption
    assert caption.isprintable()
    return caption


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with ChatServer() as chat:
        yield chat


@contextmanager
def raw_server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server with responses that HTTP libraries do not send."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(1 << 16)
                talk(connection)
            except OSError:
                """The client has gone."""

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.mark.parametrize(
    ("start", "again"),
    [(b"HTTP/1.1 200 OK\r\nX-A: ", b"a"), (b"", b"HTTP/1.1 102 Processing\r\n\r\n")],
    ids=["trickled headers", "interim responses"],
)
def test_a_server_that_never_comes_to_the_point_is_left(start: bytes, again: bytes) -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(start)
        while True:
            connection.sendall(again)
            time.sleep(0.02)

    began = time.monotonic()
    with raw_server(talk) as address:
        assert "no answer within 0.3 s" in outcome(address)
    assert time.monotonic() - began < 5


def test_a_reason_phrase_does_not_repeat_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    answer = f"HTTP/1.1 401 Bearer {KEY}\r\nContent-Length: 0\r\n\r\n".encode()
    with raw_server(lambda connection: connection.sendall(answer)) as address:
        message = outcome(address)
    assert "refuses access" in message
    assert KEY not in message


@pytest.mark.parametrize(
    "answer", [completion(f"A field of {KEY}."), refusal(400, f"no {'x' * 160} {KEY}")]
)
def test_a_server_that_echoes_the_key_is_not_quoted(server: ChatServer, answer: Answer) -> None:
    server.faults.append(answer)
    assert "SECRET" not in outcome(server.address)


@pytest.mark.parametrize(
    "answer",
    [
        (200, {}, b"[" * 100_000),
        (500, {}, b"[" * 100_000),
        refusal(429, **{"Retry-After": "\u00b2"}),
        refusal(429, **{"Retry-After": "Mon, 99999999999 Jan 99999999999 00:00:00 GMT"}),
        refusal(503, **{"Retry-After": "Fri, 31 Dec 9999 23:59:59 -2359"}),
        refusal(503, **{"Retry-After": "9" * 400}),
    ],
)
def test_odd_answers_are_plain_errors(server: ChatServer, answer: Answer) -> None:
    server.faults.extend([answer] * 5)
    outcome(server.address)


def test_loopback_is_reached_past_a_proxy(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
    assert outcome(server.address).startswith("A field")


def test_refused_limits_are_asked_for_otherwise_and_remembered(server: ChatServer) -> None:
    server.faults += [
        refusal(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens'."),
        refusal(400, "'temperature' does not support 0"),
    ]
    captioner = ask(server.address)
    captioner.caption(ONE_TILE)
    captioner.caption(ONE_TILE)
    assert len(server.requests) == 4
    for request in server.requests[2:]:
        assert request["max_completion_tokens"] == 192
        assert "max_tokens" not in request
        assert "temperature" not in request


@pytest.mark.parametrize(
    "said",
    [
        "<think>Is it\na pond?</think> A lake.",
        "Is it a pond?</think>A lake.",
        "A lake. <think>Or a pond",
        "<think>Is it <think>a pond</think> or</think>A lake.",
        "[THINK]A pond.[/THINK] A lake.",
        [
            {"type": "thinking", "thinking": [{"type": "text", "text": "A pond."}]},
            {"type": "text", "text": "A "},
            {"type": "text", "text": "lake."},
        ],
    ],
)
def test_thoughts_are_no_caption(server: ChatServer, said: object) -> None:
    server.faults.append(completion(said))
    assert outcome(server.address) == "A lake."


def test_an_answer_of_marks_alone_is_read_in_one_pass(server: ChatServer) -> None:
    server.faults.append(completion("<think>" * 100_000))
    began = time.monotonic()
    assert outcome(server.address).startswith("A field")  # of the next attempt
    assert time.monotonic() - began < 5


@pytest.mark.slow
def test_mutated_answers_end_in_a_caption_or_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    draw = random.Random(17)
    body = completion("A field.")[2]
    sent = b""

    def talk(connection: socket.socket) -> None:
        connection.sendall(sent)

    end = time.monotonic() + FUZZ_S
    with raw_server(talk) as address:
        while time.monotonic() < end:
            header = draw.choice(
                ["Retry-After: 400", "Content-Encoding: gzip", "Location: http://[", "Set-Cookie:"]
            )
            content = draw.choice([body, b"[" * 9_000, KEY.encode(), b'{"error": {"message": 1}}'])
            status = draw.choice([200, 200, 200, 204, 301, 400, 401, 422, 429, 500, 999])
            head = f"HTTP/1.1 {status} {KEY}\r\n{header}\r\nContent-Length: {len(content)}\r\n\r\n"
            answer = bytearray(head.encode() + content)
            for _ in range(draw.randrange(4)):
                answer[draw.randrange(len(answer))] = draw.randrange(256)
            sent = bytes(answer)
            assert KEY not in outcome(address), sent
