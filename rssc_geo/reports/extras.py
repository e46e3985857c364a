"""What is made beside a map once it is in place: a picture, a layer to review, a page.

None of it can harm the map.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from rssc_geo.errors import OutputError, RsscGeoError, UsageError, one_line
from rssc_geo.inference import Plan, spare_the_input
from rssc_geo.output import check_file

log = logging.getLogger(__name__)

_FORMS = {
    "--preview": ((".png",), "the picture is a PNG; name it .png"),
    "--report": ((".html", ".htm"), "the report is a web page; name it .html"),
}


def check_extra(option: str, path: Path, *, plan: Plan, overwrite: bool) -> None:
    """Refuse before the work starts the file of ``--preview`` or ``--report`` that could not be written at its end."""
    suffixes, form = _FORMS[option]
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {path}: {form}")
    check_file(path, overwrite=overwrite)
    spare_the_input(plan, path)


def make_extras(output: Path, makers: Mapping[str, Callable[[], Path | None]]) -> list[Path]:
    """Make all that can be made, by what people call it ("the report"); the files that belong to
    the results.

    Raises ``OutputError`` that says what is missing, and that the map ``output`` is complete.
    """
    files, missing = [], []
    for name, make in makers.items():
        try:
            file = make()
        except (RsscGeoError, OSError) as error:
            log.debug("traceback", exc_info=error)
            missing.append(f"{name} could not be made ({_reason(error)})")
            continue
        if file is not None:
            files.append(file)
    if missing:
        raise OutputError(
            f"{output} is complete, but {' and '.join(missing)}: mend that, then make all anew with"
            " --overwrite"
        )
    return files


def _reason(error: BaseException) -> str:
    """Why, without an ``OutputError``'s own words on how to go on.

    Those are about a map that is not there yet.
    """
    if isinstance(error, OutputError) and error.__cause__ is not None:
        error = error.__cause__
    return (isinstance(error, OSError) and error.strerror) or one_line(error)
