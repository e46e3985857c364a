"""Processor time of commands that need no model, and whether they load torch.

    python benchmarks/startup.py [--repeats 5]

Whole commands, each in a process of its own: user and system time of the child, the least of the
repeats, since other work of the machine only adds. POSIX.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common import dense_scene, verdict

_PROGRAM = """
import atexit, os, sys
note = os.open(sys.argv.pop(1), os.O_WRONLY)
atexit.register(lambda: os.write(note, b"torch" if "torch" in sys.modules else b""))
from rssc_geo_cli.main import main
main()
"""


@dataclass(frozen=True)
class Question:
    """A command, its exit code, and the processor seconds that its answer may take."""

    name: str
    arguments: tuple[str, ...]
    code: int
    seconds: float


def questions(folder: Path) -> list[Question]:
    scene = str(dense_scene(1024))
    taken = folder / "taken.gpkg"
    taken.write_text("a result")
    new = str(folder / "map.gpkg")
    return [
        Question("--help", ("--help",), 0, 0.3),
        Question("info", ("info", scene), 0, 1.5),
        Question("a wrong path", ("classify", str(folder / "no.tif"), "-o", new), 1, 1.0),
        Question("a wrong option", ("classify", scene, "-o", new, "--tile-size", "big"), 2, 1.0),
        Question("a wrong choice", ("classify", scene, "-o", new, "--dtype", "int3"), 2, 1.0),
        Question("an existing output", ("classify", scene, "-o", str(taken)), 1, 1.0),
        Question("an unknown format", ("classify", scene, "-o", f"{folder}/map.xyz"), 2, 1.0),
    ]


def ask(arguments: tuple[str, ...]) -> tuple[float, bool, int, str]:
    """Processor seconds of a command, whether it loaded torch, its exit code and last line."""
    with tempfile.NamedTemporaryFile() as note:
        command = [sys.executable, "-c", _PROGRAM, note.name, *arguments]
        before = os.times()
        # In another folder: python -c would else prefer a checkout that it is started in.
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=tempfile.gettempdir()
        )
        after = os.times()
        spent = after.children_user - before.children_user
        spent += after.children_system - before.children_system
        last = (done.stderr.strip().splitlines() or [""])[-1]
        return spent, note.read() == b"torch", done.returncode, last


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for question in questions(Path(folder)):
            answers = [ask(question.arguments) for _ in range(options.repeats)]
            _, torch, code, last = answers[0]
            seconds = min(answer[0] for answer in answers)
            good &= verdict(
                f"processor seconds of {question.name}", seconds, at_most=question.seconds
            )
            if torch:
                print("    torch was loaded")
            if code != question.code:
                print(f"    exit code {code} instead of {question.code}: {last}")
            good &= not torch and code == question.code
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
