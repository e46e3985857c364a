"""``--captioner openai:http://host:port/v1#model``: a server that speaks OpenAI's chat completions.

vLLM, SGLang, Ollama, LM Studio, ``transformers serve`` and the paid services have that API
(https://platform.openai.com/docs/api-reference/chat). The key, where one is needed, comes from the
environment variable RSSC_GEO_API_KEY and goes to no other address: redirects are not followed.
"""

from __future__ import annotations

import base64
import io
import ipaddress
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx2
import numpy as np
from numpy.typing import NDArray

from rssc_geo.captioning.base import CaptionBatch, tile_image
from rssc_geo.captioning.prompts import tidy_answer
from rssc_geo.deadlines import Deadline
from rssc_geo.errors import RsscGeoError, UsageError, one_line
from rssc_geo.options import CaptionerOptions
from rssc_geo.texts import parse_json

if TYPE_CHECKING:
    from rssc_geo.models import CaptionSource

log = logging.getLogger(__name__)

KEY_VARIABLE = "RSSC_GEO_API_KEY"
ATTEMPTS = 5  # attempts for each tile; waits that the server asks for do not count
_DEFAULTS = CaptionerOptions()
_CONNECT_S = 10.0
_LONGEST_WAIT_S = 300.0  # longest wait that a server may ask for, summed over a tile
_ANSWER_BYTES = 1 << 20
_GO_ON = "check the server and run the same command again; it continues where it stopped"
# Worth another attempt, as are 500 and above (RFC 9110, RFC 6585, RFC 8470).
_TRANSIENT = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A server and a model of it.

    ``base``: the address that ``/chat/completions`` is added to; ``model``: its name there.
    """

    base: str
    model: str


def parse_address(text: str) -> ServerAddress:
    """The parts of ``http://host:port/v1#model``.

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


class _TransientError(Exception):
    """Worth another attempt, after ``wait_s`` seconds where the server named them."""

    def __init__(self, reason: str, *, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class _StoppedError(Exception):
    """Another tile has failed."""


class ServerCaptioner:
    """Sends each tile to a server, several at a time.

    Parameters
    ----------
    address : see ``parse_address``
    prompt : the question
    options : ``caption_tokens``, ``caption_requests`` and ``caption_timeout`` are read
    backoff_s : wait after the first failure, doubled after each one
    """

    source: CaptionSource = "written"

    def __init__(
        self,
        address: str,
        *,
        prompt: str,
        options: CaptionerOptions = _DEFAULTS,
        backoff_s: float = 0.5,
    ) -> None:
        self._server = parse_address(address)
        self._prompt, self._max_tokens = prompt, options.caption_tokens
        self._requests, self._timeout_s = options.caption_requests, options.caption_timeout
        self._backoff_s = backoff_s
        self._key = os.environ.get(KEY_VARIABLE, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise UsageError(f"{KEY_VARIABLE} holds characters that no key has")
        # The limits by their usual name; the name that this server takes instead is remembered.
        self._limits: dict[str, object] = {"max_tokens": self._max_tokens, "temperature": 0}
        self._open_at = 0.0  # on the monotonic clock: no request before

    @property
    def name(self) -> str:
        """The address and the model, never the key."""
        return f"openai:{self._server.base}#{self._server.model}"

    @property
    def parameters(self) -> dict[str, str | int | float | None]:
        """Everything that a caption depends on beside the tile and the name."""
        return {"prompt": self._prompt, "max_tokens": self._max_tokens, "temperature": 0.0}

    def caption(self, batch: CaptionBatch) -> list[str]:
        """One caption a tile; see ``stream_captions``."""
        written = dict(self.stream_captions(batch))
        return [written[index] for index in range(len(batch.pixels))]

    def stream_captions(self, batch: CaptionBatch) -> Iterator[tuple[int, str]]:
        """Places in the batch with their captions, in any order.

        Raises ``RsscGeoError`` where a tile has none after all attempts, once the requests in
        progress have been answered and their captions yielded.
        """
        stop = threading.Event()
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        failure: BaseException | None = None
        client = self._client(headers)
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

    def _client(self, headers: dict[str, str]) -> httpx2.Client:
        """One connection a request, so that each can be cut; to this machine without proxies."""
        try:
            return httpx2.Client(
                headers=headers,
                timeout=httpx2.Timeout(self._timeout_s, connect=_CONNECT_S),
                limits=httpx2.Limits(max_keepalive_connections=0),
                trust_env=not _is_loopback(httpx2.URL(self._server.base).host),
            )
        except (ImportError, ValueError, httpx2.InvalidURL) as error:
            raise UsageError(
                f"the proxy in the environment cannot be used ({one_line(error)}): unset ALL_PROXY,"
                " HTTP_PROXY and HTTPS_PROXY, or name the server in NO_PROXY"
            ) from error

    def _hide(self, text: str) -> str:
        """A server's message without the key, in case it repeats the request."""
        return text.replace(self._key, "…") if self._key else text

    def _ask(
        self,
        client: httpx2.Client,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        stop: threading.Event,
    ) -> str:
        """The caption of one tile; where there is none, ``stop`` is set: no other is started."""
        try:
            return self._try_again(client, pixels, mask, stop)
        except BaseException:
            stop.set()
            raise

    def _try_again(
        self,
        client: httpx2.Client,
        pixels: NDArray[np.uint8],
        mask: NDArray[np.bool_],
        stop: threading.Event,
    ) -> str:
        """The caption of one tile, after one attempt or several."""
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
            "stream": False,
        }
        attempt, waited_s = 1, 0.0
        while not stop.wait(max(0.0, self._open_at - time.monotonic())):
            try:
                return self._answer(client, request)
            except _TransientError as error:
                reason, wait_s = str(error), error.wait_s
            if wait_s is not None:
                wait_s = max(wait_s, self._backoff_s)
                waited_s += wait_s
                if waited_s > _LONGEST_WAIT_S:
                    raise RsscGeoError(
                        f"{self._server.base} asks to wait {wait_s:.0f} s ({reason}): {_GO_ON}"
                    )
                # For all requests, not for this one alone.
                self._open_at = max(self._open_at, time.monotonic() + wait_s)
            elif attempt == ATTEMPTS:
                raise RsscGeoError(
                    f"{self._server.base} gave no caption in {attempt} attempts ({reason}):"
                    f" {_GO_ON}"
                )
            else:
                wait_s = self._backoff_s * 2 ** (attempt - 1)
                attempt += 1
            log.info("%s: %s; again in %.1f s", self._server.base, reason, wait_s)
            # Random, so that requests do not come all at once.
            stop.wait(wait_s * random.uniform(1.0, 1.3))  # noqa: S311 -- no secret
        raise _StoppedError

    def _answer(self, client: httpx2.Client, request: dict[str, object]) -> str:
        """One attempt."""
        limits = self._limits
        response, body = self._send(client, {**request, **limits})
        if response.status_code != httpx2.codes.OK:
            if adapted := _adapt(limits, response.status_code, body):
                self._limits = adapted
                return self._answer(client, request)
            raise self._refusal(response, body)
        # Again after tidying, which may join parts that were separate.
        caption = self._hide(_read_caption(body, self._hide))
        if not caption:
            raise _TransientError("the answer is empty")
        return caption

    def _send(
        self, client: httpx2.Client, request: dict[str, object]
    ) -> tuple[httpx2.Response, bytes]:
        """The answer to a request, with its body."""
        body = bytearray()
        with Deadline(self._timeout_s) as deadline:
            try:
                with client.stream(
                    "POST",
                    f"{self._server.base}/chat/completions",
                    json=request,
                    extensions={"trace": deadline.watch},
                ) as response:
                    for piece in response.iter_bytes():
                        body += piece
                        if len(body) > _ANSWER_BYTES:
                            raise _TransientError("the answer does not end")
            except httpx2.TimeoutException as error:
                raise _TransientError(f"no answer within {self._timeout_s:g} s") from error
            except (httpx2.RequestError, httpx2.InvalidURL, OSError, ValueError) as error:
                if deadline.passed:
                    raise _TransientError(f"no answer within {self._timeout_s:g} s") from error
                raise _TransientError(one_line(self._hide(str(error)) or error)) from error
        if deadline.passed:
            raise _TransientError(f"no answer within {self._timeout_s:g} s")
        return response, bytes(body)

    def _refusal(self, response: httpx2.Response, body: bytes) -> Exception:
        """The exception for a status that is not 200."""
        status, base = response.status_code, self._server.base
        answer = f"{status} {one_line(self._hide(response.reason_phrase) or ' ')}"
        if message := self._hide(_message(body)):
            answer += f": {one_line(message)}"
        if status in _TRANSIENT or status >= 500:
            return _TransientError(
                answer, wait_s=_retry_after_s(response.headers.get("Retry-After"))
            )
        if response.has_redirect_location:
            return RsscGeoError(
                f"{base} redirects ({status}), which is not followed: give the final address"
            )
        if status in (401, 403):
            hint = (
                f"the key in {KEY_VARIABLE} is not accepted"
                if self._key
                else f"it requires a key: set {KEY_VARIABLE}"
            )
            return RsscGeoError(f"{base} refuses access ({answer}); {hint}")
        return RsscGeoError(
            f"{base} refuses the request ({answer}); is the address right, is there a model"
            f" {self._server.model!r}, and does it take images?"
        )


def _data_url(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    """The tile as a PNG in a data URL (RFC 2397)."""
    file = io.BytesIO()
    tile_image(pixels, mask).save(file, format="png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _read_caption(body: bytes, hide: Callable[[str], str]) -> str:
    """The caption in a chat completion; ``_TransientError`` where there is none."""
    try:
        choice = parse_json(body)["choices"][0]
        text, cut = choice["message"]["content"], choice.get("finish_reason") == "length"
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _TransientError("the answer is not a chat completion") from error
    if isinstance(text, list):
        text = "".join(map(_part, text))
    if text is not None and not isinstance(text, str):
        raise _TransientError("the answer is not text")
    return tidy_answer(hide(text or ""), cut=cut)


def _part(part: object) -> str:
    """The text of a part, as some servers cut an answer; "" for one of thoughts."""
    text = part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None
    return text if isinstance(text, str) else ""


def _message(body: bytes) -> str:
    """The message of a refusal, in any of the usual forms; empty where it is not JSON."""
    try:
        found = parse_json(body)
    except ValueError:
        return ""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return found if isinstance(found, str) else ""


def _adapt(limits: dict[str, object], status: int, body: bytes) -> dict[str, object] | None:
    """``limits`` in the form that the server takes; None if it refused something else."""
    message = _message(body)
    if status not in (400, 422):
        return None
    if "max_tokens" in limits and ("max_tokens" in message or "max_completion_tokens" in message):
        others = {name: value for name, value in limits.items() if name != "max_tokens"}
        return {"max_completion_tokens": limits["max_tokens"], **others}
    if "temperature" in limits and "temperature" in message:
        return {name: value for name, value in limits.items() if name != "temperature"}
    return None


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        name = host.rstrip(".").lower()
        return name == "localhost" or name.endswith(".localhost")


def _retry_after_s(value: str | None) -> float | None:
    """Seconds to wait by a Retry-After header, a number or a date (RFC 9110, 10.2.3).

    None where there is none.
    """
    if value is None:
        return None
    if value.isascii() and value.strip().isdigit():
        return float(value)
    try:
        then = parsedate_to_datetime(value)
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        return max(0.0, (then - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError, TypeError):
        return None
