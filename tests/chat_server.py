"""A small server on loopback with OpenAI's chat completions, and failures on request."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import numpy as np
from PIL import Image

Answer = tuple[int, dict[str, str], bytes]


def completion(text: object, *, finish_reason: str = "stop") -> Answer:
    """An answer as servers give it."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish_reason,
    }
    return 200, {}, json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def refusal(status: int, message: str = "", **headers: str) -> Answer:
    return status, headers, json.dumps({"error": {"message": message}}).encode()


@dataclass
class ChatServer:
    """Says which color a picture has on average.

    ``faults`` are given first, one a request: an answer, or "close" (in the middle of the answer),
    "trickle" (a byte now and then) or "hang".
    """

    model: str = "eye"
    key: str = ""
    faults: deque[Answer | str] = field(default_factory=deque)
    delay_s: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[np.ndarray] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def captioner(self) -> str:
        return f"openai:{self.address}#{self.model}"

    def __enter__(self) -> Self:
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with chat.lock:
                    chat.at_once += 1
                    chat.most_at_once = max(chat.at_once, chat.most_at_once)
                try:
                    chat._serve(self)
                finally:
                    with chat.lock:
                        chat.at_once -= 1

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Some tests have a client that disconnects."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self.lock:
            self.requests.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            fault = self.faults.popleft() if self.faults else None
        time.sleep(self.delay_s)
        if isinstance(fault, str):
            handler.close_connection = True
            handler.send_response(200)
            handler.send_header("Content-Length", "1000")
            handler.end_headers()
            for _ in range({"close": 1, "hang": 0, "trickle": 20}[fault]):
                handler.wfile.write(b"{")
                handler.wfile.flush()
                time.sleep(0.05)
            if fault == "hang":
                time.sleep(1.0)
            return
        status, headers, content = fault or self._answer(handler, body)
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(content)

    def _answer(self, handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> Answer:
        if handler.path != "/v1/chat/completions":
            return refusal(404, "no such page")
        if self.key and handler.headers.get("Authorization") != f"Bearer {self.key}":
            return refusal(401, f"incorrect key: {handler.headers.get('Authorization')}")
        if body["model"] != self.model:
            return refusal(404, f"The model `{body['model']}` does not exist.")
        (picture,) = (
            part["image_url"]["url"]
            for part in body["messages"][0]["content"]
            if part["type"] == "image_url"
        )
        kind, _, data = picture.partition(";base64,")
        assert kind == "data:image/png"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        with self.lock:
            self.pictures.append(pixels)
        return completion(
            f"A field of color {pixels.reshape(-1, 3).mean(0).round().astype(int).tolist()}."
        )
