"""Deadlines of requests: a server that sends a byte now and then does not keep a run waiting.

The time-outs of HTTP libraries are for a single read: a server that sends single bytes, or one
interim response after another, never exceeds them.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
import urllib.request
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
from typing import Any, Self


class Deadline:
    """Cuts a request's connection when its time is up, in whatever state it is.

    ``passed``: whether it was.
    """

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def hold(self, connection: socket.socket) -> None:
        """The connection that is to be cut from now on."""
        with self._lock:
            self._socket = connection
        if self.passed:
            self._cut()

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Httpcore's ``trace`` extension: gets the connection when there is one."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            self.hold(info["return_value"].get_extra_info("socket"))

    def _cut(self) -> None:
        with self._lock:
            self.passed = True
            if self._socket is not None:
                with contextlib.suppress(OSError):  # closed already
                    self._socket.shutdown(socket.SHUT_RDWR)


def open_url(
    request: str | urllib.request.Request, deadline: Deadline, *, timeout_s: float
) -> HTTPResponse:
    """The response of a web server, as of ``urllib.request.urlopen``.

    ``timeout_s``: for a single read; ``deadline``: for the whole, also while it is read. Raises
    ``OSError``, ``ValueError`` and ``http.client.HTTPException``.
    """
    opener = urllib.request.build_opener(_Handler(deadline))
    answer: HTTPResponse = opener.open(request, timeout=timeout_s)
    return answer


class _Watched(HTTPConnection):
    """A connection that a deadline cuts."""

    def __init__(self, deadline: Deadline, *place: Any, **settings: Any) -> None:
        super().__init__(*place, **settings)
        self._deadline = deadline

    def connect(self) -> None:
        super().connect()
        self._deadline.hold(self.sock)


class _WatchedTls(_Watched, HTTPSConnection):
    """The same, encrypted."""


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """In place of urllib's own two."""

    def __init__(self, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline

    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(functools.partial(_Watched, self._deadline), req)

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(functools.partial(_WatchedTls, self._deadline), req)
