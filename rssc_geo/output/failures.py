"""The one message for a result that could not be written."""

from __future__ import annotations

from pathlib import Path

from rssc_geo.errors import OutputError


def not_written(made: Path, what: object) -> OutputError:
    """The error for a file in the workshop folder beside the target.

    The part file is kept by then.
    """
    return OutputError(
        f"cannot write {made.name} in {made.parent.parent} ({what}): make room there, then run the"
        " same command again to go on"
    )
