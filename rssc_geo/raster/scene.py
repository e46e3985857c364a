"""A raster for the rest of the program: three bands, a mask, a place on Earth.

:func:`open_scene` opens the raster once and fixes everything that must be the same for every tile;
a :class:`Scene` holds only plain values, and :meth:`Scene.open` makes the handles, one for each
thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyproj
import rasterio
from affine import Affine
from rasterio.vrt import WarpedVRT

from rssc_geo.errors import GeoreferenceError, InputError
from rssc_geo.files import local_file, paths_of
from rssc_geo.fingerprints import content_mark, fingerprint
from rssc_geo.geometry import check_earth, ground_sampling, lonlat_bounds, parse_crs
from rssc_geo.raster.gdal import (
    GDAL_ERRORS,
    gdal_env,
    gdal_errors,
    is_remote,
    unplaced_is_silent,
)
from rssc_geo.raster.mask import PixelReader
from rssc_geo.raster.opening import (
    UNSCALED,
    Opening,
    Scales,
    Source,
    open_source,
)
from rssc_geo.raster.separate import open_separate
from rssc_geo.raster.virtual import files_of, may_name_others


@dataclass(frozen=True, slots=True)
class Scene:
    """A raster opened for classification, made by :func:`open_scene`.

    It holds no handle, so that it can be sent to another process.

    Attributes
    ----------
    source, name : the raster as it was given (several files joined by ", "), and a short title
    files : paths of the files that it consists of, as far as they are known
    height, width, transform, crs : pixels, affine from (col, row) to ``crs``, never None
    gsd_m : geodesic meters a pixel at the center along (row, column)
    bands, bands_reason : the 1-based source bands taken as red, green, blue, and why
    dtype : numpy name of the pixels' type
    nodata, mask : the nodata value in force, and in words what makes a pixel invalid
    overviews : available reduction factors
    warnings : for the user
    opening : how its pixels are read
    scales : (scale, offset) of red, green and blue by their tags, as other programs apply them
    bits : of a pixel, where the tags of a file of bytes declare fewer than 8
    palette : whether the pixels are the colors of a palette
    """

    source: str
    name: str
    files: tuple[str, ...]
    height: int
    width: int
    transform: Affine
    crs: pyproj.CRS
    gsd_m: tuple[float, float]
    bands: tuple[int, int, int]
    bands_reason: str
    dtype: str
    nodata: float | None
    mask: str
    overviews: tuple[int, ...]
    warnings: tuple[str, ...]
    opening: Opening
    scales: Scales = UNSCALED
    bits: int | None = None
    palette: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    def open(self) -> rasterio.DatasetReader | WarpedVRT:
        """A new handle for one thread, to be closed by it.

        Its bands ``opening.indexes`` are red, green and blue. Raises ``InputError`` when the raster
        cannot be opened.
        """
        return self.opening.open()

    @contextlib.contextmanager
    def pixel_reader(self, *, cache_bytes: int | None = None) -> Iterator[PixelReader]:
        """Read windows with their masks on a handle of this thread, closed at the end.

        ``cache_bytes`` is the size of GDAL's block cache where the user did not set one. Raises
        ``InputError`` when the raster cannot be opened or read, or is another one by now.
        """
        with (
            gdal_errors(self.source),
            gdal_env(self.opening.dataset, cache_bytes=cache_bytes),
            self.open() as handle,
        ):
            used = (*self.opening.indexes, self.opening.mask_rule.mask_band or 1)
            if handle.shape != self.shape or handle.count < max(used):
                raise InputError(f"{self.source} changed while it was being read: run it again")
            yield PixelReader(handle, self.opening.indexes, self.opening.mask_rule)

    def bounds_lonlat(self) -> tuple[float, float, float, float]:
        """West, south, east, north in WGS84 degrees; west > east across the antimeridian."""
        return lonlat_bounds(self.crs, self.transform, self.shape)

    def content_marks(self) -> dict[str, str]:
        """The ``content_mark`` of each of its files on a disk, by name, whatever its folder.

        Not of a sidecar of statistics, which programs write when they only display a raster.
        """
        places = [place for name in self.files if (place := local_file(name)) is not None]
        return {
            os.path.basename(place): content_mark(Path(place))
            for place in places
            if os.path.isfile(place) and not place.endswith(".aux.xml")
        }

    def fingerprint(self, *, network: bool = True) -> str:
        """SHA-256 that identifies the content cheaply, by its files and how they are read.

        ``network``: servers are asked for the marks of files that lie there.
        """
        fields = (
            self.source,
            self.bands,
            self.nodata,
            self.mask,
            self.shape,
            tuple(self.transform)[:6],
            self.crs.to_wkt(),
            self.dtype,
        )
        marks = fingerprint(self.files, network=network)
        return hashlib.sha256(f"{fields!r}{marks}".encode()).hexdigest()


def open_scene(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    bands: Sequence[int] | None = None,
    nodata: float | None = None,
    assume_crs: str | None = None,
) -> Scene:
    """Open a raster and find its bands, mask, CRS and ground sampling.

    Parameters
    ----------
    source : a path, URL or ``/vsi`` path of anything GDAL reads; or several single-band files (red,
        green, blue)
    bands : three 1-based bands as red, green, blue; default: by color interpretation, by
        description, the first three
    nodata : value that marks invalid pixels, also where the raster carries no such tag
    assume_crs : the CRS of the raster's coordinates, for rasters that carry none or a wrong one

    Raises
    ------
    InputError, GeoreferenceError
        The raster cannot be read, has too few bands, or no usable place on Earth.
    UsageError
        ``bands`` or ``assume_crs`` are invalid.

    Examples
    --------
    >>> from rssc_geo import open_scene
    >>> scene = open_scene("scene.tif")
    >>> scene.shape, scene.bands, scene.mask
    ((300, 300), (1, 2, 3), 'internal mask')
    """
    paths = paths_of(source)
    bands = None if bands is None else [int(band) for band in bands]
    if isinstance(source, str | os.PathLike):
        found = open_source(paths[0], bands=bands, nodata=nodata, assume_crs=assume_crs)
    else:
        found = open_separate(paths, bands=bands, nodata=nodata, assume_crs=assume_crs)
    label = found.opening.label
    crs, notes = _crs_of(found, assume_crs)
    check_earth(crs, label)
    return Scene(
        source=label,
        name=found.name,
        files=all_files(found.files),
        height=found.shape[0],
        width=found.shape[1],
        transform=found.transform,
        crs=crs,
        gsd_m=ground_sampling(crs, found.transform, found.shape, label),
        bands=found.bands.bands,
        bands_reason=found.bands.reason,
        dtype=found.dtype,
        nodata=found.nodata,
        mask=found.mask,
        overviews=found.opening.overviews,
        warnings=(*filter(None, [found.bands.warning]), *notes, *found.notes),
        opening=found.opening,
        scales=found.scales,
        bits=found.bits,
        palette=found.palette,
    )


def _crs_of(found: Source, assume_crs: str | None) -> tuple[pyproj.CRS, list[str]]:
    """The CRS in force, and warnings about the raster's place."""
    label, warp = found.opening.label, found.opening.warp
    by_rpcs = warp is not None and warp.rpc_height_m is not None
    notes = []
    if warp is not None and warp.rpc_height_m is not None:
        notes.append(
            f"{label} is placed by RPCs alone: warped virtually at {warp.rpc_height_m:g} m height, "
            "so that places in hilly country may be off by tens of meters"
        )
    elif warp is not None:
        notes.append(
            f"{label} is placed by ground control points alone: warped virtually between them"
        )
    if assume_crs is not None and not by_rpcs:
        crs = parse_crs(assume_crs, option="--assume-crs")
        if warp is None and found.crs is not None and found.crs != crs:
            notes.append(
                f"{label} has the CRS {found.crs.name!r}; --assume-crs {assume_crs} is used instead"
            )
        return crs, notes
    if found.crs is None:
        raise GeoreferenceError(
            f"{label} has no CRS: name the CRS of its coordinates with --assume-crs (such as"
            " EPSG:32633)"
        )
    return found.crs, notes


def all_files(files: Iterable[str]) -> tuple[str, ...]:
    """The files with those that virtual rasters among them are made of, to any depth.

    GDAL names the files of one level only. Each comes once, in the order in which it is met.
    """
    found = dict.fromkeys(files)
    left = list(found)
    while left:
        name = left.pop()
        virtual = name.lower().endswith(".vrt") if is_remote(name) else may_name_others(name)
        if not virtual:
            continue
        # A virtual raster that cannot be opened by itself has no sources.
        with (
            contextlib.suppress(*GDAL_ERRORS, OSError),
            gdal_env(name),
            unplaced_is_silent(),
            rasterio.open(name) as one,
        ):
            for inner in files_of(one):
                if inner not in found:
                    found[inner] = None
                    left.append(inner)
    return tuple(found)
