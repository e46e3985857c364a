"""GDAL: its names of files, its settings, its errors."""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError, RPCError

from rssc_geo.errors import InputError, one_line
from rssc_geo.files import local_file

GDAL_ERRORS = (RasterioError, CPLE_BaseError, CRSError, RPCError)
"""All classes of errors where GDAL fails; rasterio passes its own (CPLE) on from warps, copies and
properties."""

_REMOTE_ENV = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "VSI_CACHE": "TRUE"}
# A server that accepts connections and does not respond gives an error after a while.
_PATIENCE_ENV = {
    "GDAL_HTTP_CONNECTTIMEOUT": "10",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1",  # bytes a second
    "GDAL_HTTP_LOW_SPEED_TIME": "15",  # seconds
}
# Folders in local archives are listed, so that files beside a raster (masks, world files, headers)
# count there as well.
_NETWORK = re.compile(
    r"(?<![a-z])(?:ftp|https?|s3|gs|az|oss)://"
    r"|/vsi(?:curl|s3|gs|az|adls|oss|swift|webhdfs|hdfs)(?:_streaming)?[/?]"
)
_COUNTS = {
    ".xml": rb"<(SRS|GeoTransform|GCPList|NoDataValue|ColorTable|ColorInterp|MDI key=\"NODATA)\b",
    ".hdr": rb"^ENVI",
}
"""Contents of a file beside a raster that change how the raster is read."""
_LOOK_BYTES = 1 << 20
_ARCHIVES = (
    (".zip", "/vsizip/", "/NAME.tif"),
    (".tar", "/vsitar/", "/NAME.tif"),
    (".tar.gz", "/vsitar/", "/NAME.tif"),
    (".tgz", "/vsitar/", "/NAME.tif"),
    (".gz", "/vsigzip/", ""),
)
"""Ends of their names, the file systems of GDAL that read them, and what lies in them."""
_SCHEMES = {
    "file": "",
    "zip": "/vsizip",
    "tar": "/vsitar",
    "gzip": "/vsigzip",
    "ftp": "/vsicurl",
    "http": "/vsicurl",
    "https": "/vsicurl",
    "s3": "/vsis3",
    "gs": "/vsigs",
    "az": "/vsiaz",
    "oss": "/vsioss",
}
"""rasterio's schemes of URLs, and GDAL's names of the file systems."""


def is_remote(path: str) -> bool:
    """Whether the path is a URL or one of GDAL's virtual file systems."""
    return "://" in path or path.startswith("/vsi")


def gdal_name(path: str) -> str:
    """The name by which GDAL, in a VRT, opens what the user named, and nothing else.

    The files that GDAL lists for a raster do not suffice: the second picture of a file, a variable,
    or a choice of bands are only part of the user's name.
    """
    scheme, mark, rest = path.partition("://")
    parts = scheme.split("+")
    if mark and all(part in _SCHEMES for part in parts):
        systems = "".join(_SCHEMES[part] for part in parts)
        archive, _, inside = rest.rpartition("!")
        address = f"{parts[-1]}://" if parts[-1] in ("ftp", "http", "https") else ""
        name = f"{archive}/{inside.lstrip('/')}" if archive else rest
        return f"{systems}/{address}{name}" if systems else name
    return os.path.abspath(path) if os.path.exists(path) else path


def gdal_env(dataset: str, *, cache_bytes: int | None = None) -> rasterio.Env:
    """GDAL's settings for a raster: no Python code of a VRT is run.

    On the network folders are not listed, reads are cached, and a missing response is an error.

    ``cache_bytes`` is the size of the block cache: GDAL's own grows to 5 % of the machine's memory.
    The user's ``GDAL_CACHEMAX`` and ``GDAL_HTTP_…`` are left in force.
    """
    options: dict[str, str | int] = {"GDAL_VRT_ENABLE_PYTHON": "NO"}
    if _NETWORK.search(dataset[:4096]):
        options.update(_REMOTE_ENV)
        own = {name: value for name, value in _PATIENCE_ENV.items() if name not in os.environ}
        options.update(own)
    if cache_bytes is not None and "GDAL_CACHEMAX" not in os.environ:
        options["GDAL_CACHEMAX"] = cache_bytes
    return rasterio.Env(**options)


@contextlib.contextmanager
def gdal_errors(label: str) -> Iterator[None]:
    """Turn what GDAL could not read into an ``InputError`` of one line with GDAL's own reason."""
    try:
        yield
    except (*GDAL_ERRORS, OSError) as error:
        # rasterio's own text is general ("Read failed. See previous exception"); the cause has
        # GDAL's reason.
        reason = one_line(error.__cause__ or error)
        if Path(label).is_dir():
            raise InputError(
                f"{label} is a folder that is not a raster as a whole: give a raster file in it"
            ) from error
        raise InputError(
            f"{label} cannot be read as a raster: {reason}{_in_archive(label)}"
        ) from error


def _in_archive(label: str) -> str:
    """How a raster in an archive is named, where an archive alone was; else ""."""
    for end, system, inside in _ARCHIVES:
        if label.lower().endswith(end):
            place = label.removeprefix(system)
            name = f"{system}{place}{inside}"
            return "" if name == label else f" A raster in an archive is named {name}"
    return ""


@contextlib.contextmanager
def unplaced_is_silent() -> Iterator[None]:
    """Keep rasterio silent where a geotransform is missing: an error or a warp of our own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def check_path(path: str) -> None:
    """Refuse with ``InputError`` a path on disk where nothing is."""
    # By ``os.path``: pathlib raises for names that no file can have.
    if is_remote(path) or path.lstrip().startswith("<") or os.path.isfile(path):
        return
    if os.path.isdir(path):
        return  # a Zarr store is one, and others
    if os.path.exists(path):
        raise InputError(f"{path} is no file that can be read twice (a pipe or device): save it")
    # GDAL's names of parts of a file, such as NETCDF:"x.nc":var, are no paths.
    if not re.match(r"\w{2,}:", path):
        try:
            os.stat(path)
        except PermissionError as error:
            raise InputError(f"{path} cannot be read as a raster: {error.strerror}") from error
        except (OSError, ValueError):
            pass
        raise InputError(f"{path} does not exist")


def check_beside(path: str) -> None:
    """Refuse with ``InputError`` a raster beside which lies a file that counts, and would not.

    GDAL passes over sidecars that it may not read, and that are not packed as the raster is.
    """
    _check_beside_packed(path)
    if is_remote(path) or not os.path.isfile(path):
        return
    stem, suffix = os.path.splitext(path)
    world = f".{suffix[1:2]}{suffix[-1:]}w"
    beside = [
        *(path + end for end in (".msk", ".aux.xml", ".ovr", "w")),
        *(stem + end for end in (world, ".wld", ".hdr", ".rpb", ".RPB", "_rpc.txt", "_RPC.TXT")),
    ]
    for file in beside:
        if os.path.exists(file) and not os.access(file, os.R_OK):
            raise InputError(
                f"{file} lies beside {path} and cannot be read (no permission): what it says would"
                " not count"
            )


def _check_beside_packed(path: str) -> None:
    """Refuse a gzipped file beside which lies a sidecar that would only count if it were unpacked.

    GDAL looks for what is named after the packed file, and packed as well (``a.tif.gz.msk``).
    """
    name = gdal_name(path)
    packed = local_file(name) if name.startswith("/vsigzip/") else None
    if packed is None or not packed.endswith(".gz"):
        return
    whole = Path(packed).with_suffix("")
    for beside in (
        f"{whole}.msk",
        f"{whole}.aux.xml",
        f"{whole}.hdr",
        str(whole.with_suffix(".hdr")),
    ):
        for file, opener in ((beside, open), (f"{beside}.gz", gzip.open)):
            counts = _COUNTS.get(Path(beside).suffix, b"")
            with contextlib.suppress(OSError, EOFError, zlib.error), opener(file, "rb") as stream:
                if re.search(counts, stream.read(_LOOK_BYTES)):
                    raise InputError(
                        f"{os.path.basename(file)} lies beside {path}, and would not count, since"
                        f" that is packed: unpack {os.path.basename(packed)} (gunzip -k), or put"
                        " both into a .zip (/vsizip/)"
                    )
