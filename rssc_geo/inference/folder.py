"""Results that are a folder: they appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rasterio.errors import RasterioError

from rssc_geo.errors import OutputError, one_line


@contextmanager
def whole_folder(target: Path, *, index: str, overwrite: bool) -> Iterator[Path]:
    """A new folder to write into, which becomes ``target`` when the block ends without an exception.

    ``index``: the file that every such result holds; with ``overwrite`` an existing folder is replaced if it holds one.
    An empty folder is used. Raises ``OutputError`` when the folder exists, is something else, or cannot be written.
    """
    taken = target.exists() and not (target.is_dir() and not any(target.iterdir()))
    if taken and not overwrite:
        raise OutputError(f"{target} exists; choose another folder or add --overwrite")
    if taken and not (target / index).is_file():
        raise OutputError(f"{target} holds no {index}, so it is not an earlier result; it is not replaced")
    part = target.with_name(target.name + ".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        yield part
        if target.exists():
            shutil.rmtree(target)
        os.replace(part, target)
    except (OSError, RasterioError) as error:
        raise OutputError(f"{target} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
