"""The project's program with its libraries loaded: most of a short run is loading PyTorch.

``start`` makes a process under the project's Python that has loaded the libraries, but no model,
and the program that the plugin is given. That one hands its arguments, folder, environment and
standard streams to the process, which makes a copy of itself for them: the copy runs the program's
own ``main``. The program ends as the copy ends, passes signals on, and where it is killed the copy
is killed too.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

_MOST = 1 << 20  # bytes of arguments and environment


def start(python: Path, root: Path, folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """The process, and the program that runs in copies of it; ``root``: the checkout."""
    address, program = folder / "socket", folder / "rssc-geo"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -IS {__file__} {address} "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join((str(root), str(root / "cli")))
    process = subprocess.Popen(
        [python, __file__, "--serve", address],
        env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    return process, program


def _load() -> None:
    import importlib
    import pkgutil

    from rssc_geo.environment import prepare_torch

    prepare_torch()
    import rssc_geo
    import rssc_geo_cli

    for package in (rssc_geo, rssc_geo_cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def _serve(address: str) -> None:
    _load()
    gc.freeze()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(address)
        door.listen(16)
        os.write(1, b"ready\n")
        while True:
            # Standard input ends with the tests.
            ready, _, _ = select.select([door, 0], [], [])
            if 0 in ready:
                break
            caller, _ = door.accept()
            if os.fork() == 0:
                door.close()
                _watch(caller)
            caller.close()
            _reap(os.WNOHANG)
    _reap(0)


def _reap(how: int) -> None:
    """Take up the processes that have ended; whoever measures this one's time counts theirs too."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, how)[0]:
            pass


def _watch(caller: socket.socket) -> None:
    """Run a copy for a caller and tell how it ended; end it where the caller goes."""
    message, streams, _, _ = socket.recv_fds(caller, _MOST, 3)
    asked = json.loads(message)
    copy = os.fork()
    if copy == 0:
        caller.close()
        _run(asked, streams)  # returns never
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(copy)
    while True:
        ready, _, _ = select.select([caller, ended], [], [])
        if ended in ready:
            break
        number = caller.recv(1)
        os.kill(copy, number[0] if number else signal.SIGKILL)
        if not number:
            break
    _, status = os.waitpid(copy, 0)
    try:
        caller.sendall(b"%d" % status)
    finally:
        os._exit(0)


def _run(asked: dict[str, object], streams: list[int]) -> None:
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    sys.argv = asked["arguments"]
    for name, number in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, open(number, "w", encoding="utf-8", buffering=1, closefd=False))  # noqa: SIM115
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    from rssc_geo_cli.main import main

    try:
        main()
    except SystemExit as ended:
        # As Python ends, but without taking down the modules, which this process has from another.
        threading._shutdown()
        atexit._run_exitfuncs()
        os._exit(int(ended.code or 0))


def _ask(address: str, arguments: list[str]) -> None:
    """As the plugin's child: have a copy run, then end as it did."""
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    caller.connect(address)
    asked = {
        "arguments": [str(Path(address).with_name("rssc-geo")), *arguments],
        "folder": os.getcwd(),
        "environment": dict(os.environ),
    }
    socket.send_fds(caller, [json.dumps(asked).encode()], [0, 1, 2])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda came, _frame: caller.send(bytes([came])))
    status = int(caller.recv(16) or signal.SIGKILL)
    if os.WIFSIGNALED(status):
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        _serve(sys.argv[2])
    else:
        _ask(sys.argv[1], sys.argv[2:])
