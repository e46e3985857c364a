"""Silent networks: connections are open, and nothing is transferred."""

from __future__ import annotations

import contextlib
import gc
import queue
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rssc_geo import fingerprints
from rssc_geo.batch import PoolLostError, collect_jobs, dask_pool, stac
from rssc_geo.errors import InputError, UsageError
from rssc_geo.inference import PredictorSpec
from rssc_geo.models import load_card
from rssc_geo.options import BatchOptions, PredictorOptions
from rssc_geo.raster import gdal, open_scene

distributed = pytest.importorskip("distributed", reason="the extra 'distributed' is not installed")


@dataclass
class Proxy:
    """Forwards data to another port, until it is made silent."""

    target: int | None
    silent: threading.Event = field(default_factory=threading.Event)
    listener: socket.socket = field(default_factory=socket.socket)
    sockets: list[socket.socket] = field(default_factory=list)

    def start(self) -> int:
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(50)
        threading.Thread(target=self._accept, daemon=True).start()
        return int(self.listener.getsockname()[1])

    def _accept(self) -> None:
        while True:
            try:
                came, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(came)
            if self.target is None or self.silent.is_set():
                continue
            on = socket.create_connection(("127.0.0.1", self.target))
            self.sockets.append(on)
            for pair in ((came, on), (on, came)):
                threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(1 << 16):
                if self.silent.is_set():
                    return
                target.sendall(data)
            target.close()
        except OSError:
            pass

    def stop(self) -> None:
        for each in (self.listener, *self.sockets):
            each.close()


@pytest.fixture
def hole() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    proxy = Proxy(None)
    yield proxy.start()
    proxy.stop()


@pytest.mark.slow
def test_a_web_server_that_says_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, hole: int, tmp_path: Path
) -> None:
    monkeypatch.setitem(gdal._PATIENCE_ENV, "GDAL_HTTP_LOW_SPEED_TIME", "2")
    monkeypatch.setattr(stac, "_PATIENCE_S", 2)
    with pytest.raises(InputError, match="cannot be read as a raster: CURL error"):
        open_scene(f"http://127.0.0.1:{hole}/a.tif")
    jobs = collect_jobs([f"http://127.0.0.1:{hole}/items.json"], str(tmp_path), BatchOptions())
    assert "cannot be read as STAC: timed out" in jobs.problems[0].message


def test_a_server_that_trickles_its_marks_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_NETWORK_S", 1)
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nETag: ")
            while True:
                connection.sendall(b"a")
                time.sleep(0.02)

    threading.Thread(target=talk, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.tif"
    began = time.monotonic()
    fingerprints.fingerprint([url])
    assert time.monotonic() - began < 10
    listener.close()


def test_a_scheduler_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch, hole: int) -> None:
    monkeypatch.setattr(dask_pool, "_PATIENCE_S", 1)
    with pytest.raises(UsageError, match="no Dask scheduler answers there"):
        dask_pool.DaskPool(f"tcp://127.0.0.1:{hole}", PredictorOptions())


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"", b"[]", b"{}", b'{"address": 5}', b'{"address": "nowhere"}', b"7"]
)
def test_a_file_of_no_scheduler_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    monkeypatch.setattr(dask_pool, "_PATIENCE_S", 1)
    file = tmp_path / "scheduler.json"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="no Dask scheduler answers there"):
        dask_pool.DaskPool(str(file), PredictorOptions())


@pytest.mark.filterwarnings("ignore")
def test_what_did_not_connect_is_not_closed_as_garbage(tmp_path: Path) -> None:
    """While the library makes another client, in the thread that holds its lock."""
    file = tmp_path / "scheduler.json"
    file.write_bytes(b"7")
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(UsageError):
            dask_pool.DaskPool(str(file), PredictorOptions())

        def collect() -> None:
            with distributed.utils.LoopRunner._lock:
                gc.collect()

        collecting = threading.Thread(target=collect, daemon=True)
        collecting.start()
        collecting.join(20)
        assert not collecting.is_alive()
    finally:
        gc.enable()


AT_WORK, OVER = threading.Event(), threading.Event()
"""A worker, which is a thread of this process, thinks; the test is over."""


def think() -> None:
    AT_WORK.set()
    OVER.wait(60)


class _Thinker:
    """A worker whose blocks take for ever, or as long as loading does."""

    spec = PredictorSpec(load_card("compact"), "none", "float32")
    batch_size = 1

    def run(self, block: object) -> None:
        del block
        think()


def block() -> Any:
    """As much of a block as a pool looks at."""
    return SimpleNamespace(scene=SimpleNamespace(opening=SimpleNamespace(dataset="/vsicurl/x")))


def load(*_arguments: Any, **_settings: Any) -> Any:
    return _Thinker()


def load_slowly(*_arguments: Any, **_settings: Any) -> Any:
    think()


def fall_silent(proxy: Proxy) -> None:
    """Stop forwarding once a worker has started."""
    assert AT_WORK.wait(60)
    proxy.silent.set()


@pytest.mark.timeout(200)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("when", ["while blocks are at work", "while models are loaded"])
def test_a_cluster_that_falls_silent_is_told(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.setattr(dask_pool, "_PULSE_S", 0.5)
    monkeypatch.setattr(dask_pool, "_SILENCE_S", 2)
    AT_WORK.clear()
    OVER.clear()
    told: queue.SimpleQueue[object] = queue.SimpleQueue()
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, protocol="tcp"
    ) as cluster:
        proxy = Proxy(int(cluster.scheduler_address.rpartition(":")[2]))
        place = f"tcp://127.0.0.1:{proxy.start()}"
        try:
            if when == "while blocks are at work":
                pool = dask_pool.DaskPool(place, PredictorOptions(), load=load)
                pool.submit(block(), told.put)
                fall_silent(proxy)
                assert isinstance(told.get(timeout=60), PoolLostError)
                pool.submit(block(), told.put)
                assert isinstance(told.get(timeout=60), PoolLostError)
                pool.close()
            else:
                threading.Thread(target=fall_silent, args=(proxy,), daemon=True).start()
                with pytest.raises(PoolLostError, match="is gone \\(no answer for 2 s\\)"):
                    dask_pool.DaskPool(place, PredictorOptions(), load=load_slowly)
        finally:
            OVER.set()
            proxy.stop()
