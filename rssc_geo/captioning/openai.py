"""``--captioner openai:http://host:port/v1#model``: a server that speaks OpenAI's chat completions.

vLLM, SGLang, Ollama, LM Studio, ``transformers serve`` and the paid services do
(https://platform.openai.com/docs/api-reference/chat). The key, where one is needed, comes from the
environment variable RSSC_GEO_API_KEY and goes to no other address: redirects are not followed.
"""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime, timezone, UTC
from email.utils import parsedate_to_datetime

import httpx2
import numpy as np

from rssc_geo.captioning.base import CaptionBatch
from rssc_geo.captioning.pictures import picture
from rssc_geo.captioning.prompts import tidy_answer
from rssc_geo.errors import RsscGeoError, UsageError, one_line
from rssc_geo.models import CaptionSource

log = logging.getLogger(__name__)

KEY_VARIABLE = "RSSC_GEO_API_KEY"
ATTEMPTS = 5  # of each tile, waits that the server asks for not counted
_CONNECT_S = 10.0
_LONGEST_WAIT_S = 300.0  # that a server may ask for, all the waits of a tile together
_ANSWER_BYTES = 1 << 20
_GO_ON = "see to the server and run the same command again; it goes on where it stopped"
_AGAIN = frozenset(
    {408, 425, 429}
)  # worth another attempt, as are 500 and above (RFC 9110, RFC 6585, RFC 8470)


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """``base`` is the address that ``/chat/completions`` is added to, ``model`` what the server calls the model."""

    base: str
    model: str


def parse_address(text: str) -> ServerAddress:
    """``http://host:port/v1#model`` → its parts.

    Raises ``UsageError`` where there is no http(s) host or no model, and for a password or a query
    in the address: addresses are written to the output.
    """
    base, _, model = text.partition("#")
    try:
        url = httpx2.URL(base)
    except httpx2.InvalidURL as error:
        raise UsageError(f"--captioner openai:{base}: no address ({error})") from error
    if url.userinfo or url.query:
        raise UsageError(
            f"the address of {url.host!r} must hold no password and no query; a key goes into"
            f" {KEY_VARIABLE}"
        )
    if url.scheme not in ("http", "https") or not url.host or not model.strip():
        raise UsageError(
            f"--captioner {f'openai:{text}'!r} is not openai:http://host:port/v1#model"
        )
    return ServerAddress(str(url).rstrip("/"), model.strip())


class _AgainError(Exception):
    """Worth another attempt, after ``wait_s`` seconds where the server named them."""

    def __init__(self, reason: str, *, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _StoppedError(Exception):
    """Another tile has failed."""


class ServerCaptioner:
    """Asks a server about each tile, several at a time.

    ``address``: see ``parse_address``; ``prompt``: what is asked; ``max_tokens`` of an answer;
    ``requests``: at most so many at a time; ``timeout_s``: of one attempt; ``backoff_s``: wait
    after the first failure, doubled after each one.
    """

    source: CaptionSource = "written"

    def __init__(
        self,
        address: str,
        *,
        prompt: str,
        max_tokens: int = 192,
        requests: int = 8,
        timeout_s: float = 120.0,
        backoff_s: float = 0.5,
    ) -> None:
        self._server = parse_address(address)
        self._prompt, self._max_tokens = prompt, max_tokens
        self._requests, self._timeout_s, self._backoff_s = requests, timeout_s, backoff_s
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"{KEY_VARIABLE} holds characters that no key has")
        self._open_at = 0.0  # on the monotonic clock: until then the server wants no request

    @property
    def name(self) -> str:
        """The address and the model, never the key."""
        return f"openai:{self._server.base}#{self._server.model}"

    @property
    def parameters(self) -> dict[str, str | int | float | None]:
        """What a caption depends on beside the tile and the name."""
        return {"prompt": self._prompt, "max_tokens": self._max_tokens, "temperature": 0.0}

    def caption(self, batch: CaptionBatch) -> list[str]:
        """One caption a tile; see ``captions_as_they_come``."""
        written = dict(self.captions_as_they_come(batch))
        return [written[index] for index in range(len(batch.pixels))]

    def captions_as_they_come(self, batch: CaptionBatch) -> Iterator[tuple[int, str]]:
        """Places in the batch with their captions, in any order.

        Raises ``RsscGeoError`` where a tile has none after all attempts: after the requests that
        were under way by then have been answered, and their captions given.
        """
        stop = threading.Event()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        failure: BaseException | None = None
        client = httpx2.Client(
            headers=headers, timeout=httpx2.Timeout(self._timeout_s, connect=_CONNECT_S)
        )
        pool = ThreadPoolExecutor(self._requests, thread_name_prefix="rssc-geo captions")
        try:
            places: dict[Future[str], int] = {
                pool.submit(self._ask, client, pixels, mask, stop): place
                for place, (pixels, mask) in enumerate(zip(batch.pixels, batch.mask, strict=True))
            }
            for future in as_completed(places):
                if (error := future.exception()) is None:
                    yield places[future], future.result()
                elif not isinstance(error, _StoppedError):
                    failure = failure or error
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            client.close()
        if failure is not None:
            raise failure

    def _ask(
        self, client: httpx2.Client, pixels: np.ndarray, mask: np.ndarray, stop: threading.Event
    ) -> str:
        """The caption of one tile.

        Sets ``stop`` where there is none, so that no other tile is begun.
        """
        try:
            return self._try_again(client, pixels, mask, stop)
        except BaseException:
            stop.set()
            raise

    def _try_again(
        self, client: httpx2.Client, pixels: np.ndarray, mask: np.ndarray, stop: threading.Event
    ) -> str:
        """The caption of one tile, after as many attempts as it takes."""
        request = {
            "model": self._server.model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": _data_url(pixels, mask)}},
                        {"type": "text", "text": self._prompt},
                    ],
                }
            ],
            "max_tokens": self._max_tokens,
            "temperature": 0,
            "stream": False,
        }
        attempt, waited_s = 1, 0.0
        while not stop.wait(max(0.0, self._open_at - time.monotonic())):
            try:
                return self._answer(client, request)
            except _AgainError as error:
                reason, wait_s = str(error), error.wait_s
            if wait_s is not None:
                wait_s = max(wait_s, self._backoff_s)
                waited_s += wait_s
                if waited_s > _LONGEST_WAIT_S:
                    raise RsscGeoError(
                        f"{self._server.base} asks to wait {wait_s:.0f} s ({reason}): {_GO_ON}"
                    )
                self._open_at = max(
                    self._open_at, time.monotonic() + wait_s
                )  # for all requests, not for this one alone
            elif attempt == ATTEMPTS:
                raise RsscGeoError(
                    f"{self._server.base} gave no caption in {attempt} attempts ({reason}):"
                    f" {_GO_ON}"
                )
            else:
                wait_s = self._backoff_s * 2 ** (attempt - 1)
                attempt += 1
            log.info("%s: %s; again in %.1f s", self._server.base, reason, wait_s)
            stop.wait(wait_s * random.uniform(1.0, 1.3))
        raise _StoppedError

    def _answer(self, client: httpx2.Client, request: dict[str, object]) -> str:
        """One attempt."""
        latest = time.monotonic() + self._timeout_s
        body = bytearray()
        try:
            with client.stream(
                "POST", f"{self._server.base}/chat/completions", json=request
            ) as response:
                for piece in response.iter_bytes():
                    body += piece
                    # A server that sends now and then a byte never exceeds the time-out of a single
                    # read.
                    if time.monotonic() > latest or len(body) > _ANSWER_BYTES:
                        raise _AgainError("the answer does not end")
        except httpx2.TimeoutException as error:
            raise _AgainError(f"no answer within {self._timeout_s:g} s") from error
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _AgainError(one_line(error)) from error
        if response.status_code != httpx2.codes.OK:
            raise self._refusal(response, bytes(body))
        return _read_caption(bytes(body))

    def _refusal(self, response: httpx2.Response, body: bytes) -> Exception:
        """What to raise for a status that is not 200."""
        status, base = response.status_code, self._server.base
        said = f"{status} {response.reason_phrase}".strip()
        if message := _message(body):
            said += f": {message.replace(self._key, '…') if self._key else message}"
        if status in _AGAIN or status >= 500:
            return _AgainError(said, wait_s=_retry_after_s(response.headers.get("Retry-After")))
        if response.has_redirect_location:
            return RsscGeoError(
                f"{base} redirects ({status}), which is not followed: give the final address"
            )
        if status in (401, 403):
            hint = (
                f"the key in {KEY_VARIABLE} is not accepted"
                if self._key
                else f"it wants a key: set {KEY_VARIABLE}"
            )
            return RsscGeoError(f"{base} refuses access ({said}); {hint}")
        return RsscGeoError(
            f"{base} refuses the request ({said}); is the address right, is there a model"
            f" {self._server.model!r}, and does it take pictures?"
        )


def _data_url(pixels: np.ndarray, mask: np.ndarray) -> str:
    """The tile as a PNG in a data URL (RFC 2397)."""
    file = io.BytesIO()
    picture(pixels, mask).save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _read_caption(body: bytes) -> str:
    try:
        choice = json.loads(body)["choices"][0]
        text, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _AgainError("the answer is not a chat completion") from error
    if text is not None and not isinstance(text, str):
        raise _AgainError("the answer is not text")
    caption = tidy_answer(text or "", cut=cut)
    if not caption:
        raise _AgainError("the answer is empty")
    return caption


def _message(body: bytes) -> str:
    """What a refusal says, in the forms in which servers say it; empty where it is not JSON."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(said, dict) and name in said:
            said = said[name]
    return one_line(said) if isinstance(said, str) else ""


def _retry_after_s(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, a number or a date (RFC 9110, 10.2.3).

    None where there is none.
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
