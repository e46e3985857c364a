"""The cache of captions that large models have written.

It is an SQLite file that all runs and processes of a user share. The key of a caption is a hash of
all it depends on: the tile's pixels and mask, captioner, prompt and parameters. Each caption has a
checksum; a damaged one is requested again. An error of the file gives a warning and never stops the
run. A file that does not have the cache's mark is not touched.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from platformdirs import user_cache_path

from rssc_geo.captioning.base import CaptionBatch, Captioner
from rssc_geo.errors import OutputError, one_line
from rssc_geo.locks import check_journal, file_number

if TYPE_CHECKING:
    from rssc_geo.models import CaptionSource

log = logging.getLogger(__name__)

T = TypeVar("T")

FOLDER_VARIABLE = "RSSC_GEO_CACHE"
_APPLICATION_ID = 0x52534743  # "RSGC"
_SCHEMA = 2  # the user version, and in the name: changes with the table
_FILE = f"captions-{_SCHEMA}.sqlite"
_BUSY_S = 30.0
_READ, _WRITE = "read", "write"
_CREATE = """
    CREATE TABLE captions (
        key BLOB PRIMARY KEY, caption TEXT NOT NULL, captioner TEXT NOT NULL, mark BLOB NOT NULL
    ) WITHOUT ROWID
"""
_MARK_AT, _MARK = 68, _APPLICATION_ID.to_bytes(4)
"""Where SQLite keeps the application id in a file (https://sqlite.org/fileformat.html)."""
_QUERY_VALUES = 500  # in one query, within the limits of all versions of SQLite
# Of the perceptual hash: parts a side, and steps of color and texture.
_PARTS, _COLOR_STEP, _TEXTURE_STEP = 4, 16, 8


class LargeCaptioner(Captioner, Protocol):
    """A captioner whose captions are cached."""

    @property
    def parameters(self) -> Mapping[str, str | int | float | None]:
        """Everything that its captions depend on beside the tile and the name."""


@runtime_checkable
class StreamingCaptioner(Protocol):
    """A captioner that yields each caption at once: none is lost when a later one fails."""

    def stream_captions(self, batch: CaptionBatch) -> Iterator[tuple[int, str]]:
        """Places in the batch with their captions, in any order."""


def default_path() -> Path:
    """The cache's path: in $RSSC_GEO_CACHE, else in the platform's folder for caches."""
    given = os.environ.get(FOLDER_VARIABLE)
    folder = Path(given).expanduser() if given else user_cache_path("rssc-geo", appauthor=False)
    return folder / _FILE


class CaptionCache:
    """Captions by key.

    ``path``: of the file; by default that of ``default_path``. Every call opens the file again,
    which is safe across processes, threads and network folders.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = default_path() if path is None else Path(path)
        self._given_up: set[str] = set()

    def get(self, keys: Iterable[bytes]) -> dict[bytes, str]:
        """The captions found, by key."""
        wanted = list(keys)
        damaged: list[bytes] = []

        def read(connection: sqlite3.Connection) -> dict[bytes, str]:
            found: dict[bytes, str] = {}
            damaged.clear()
            for start in range(0, len(wanted), _QUERY_VALUES):
                some = wanted[start : start + _QUERY_VALUES]
                marks = ", ".join("?" * len(some))
                query = (
                    "SELECT key, CAST(caption AS BLOB), CAST(captioner AS BLOB), mark"  # noqa: S608 -- question marks alone
                    f" FROM captions WHERE key IN ({marks})"
                )
                for key, caption, captioner, mark in connection.execute(query, some):
                    if mark == _checksum(key, caption, captioner):
                        found[key] = caption.decode()
                    else:
                        damaged.append(key)
            return found

        found = self._try(read, _READ) or {}
        if damaged:
            log.warning("%s: %d damaged captions are requested again", self.path, len(damaged))
            rows = [(key,) for key in damaged]
            self._try(
                lambda connection: connection.executemany(
                    "DELETE FROM captions WHERE key = ?", rows
                ),
                _WRITE,
            )
        return found

    def put(self, captions: Mapping[bytes, str], *, captioner: str) -> None:
        """Keep captions that ``captioner`` wrote. The first caption of a key stays."""
        rows = [
            (key, caption, captioner, _checksum(key, caption.encode(), captioner.encode()))
            for key, caption in captions.items()
        ]
        self._try(
            lambda connection: connection.executemany(
                "INSERT OR IGNORE INTO captions VALUES (?, ?, ?, ?)", rows
            ),
            _WRITE,
        )

    def info(self) -> dict[str, Any]:
        """Path, size in bytes, number of captions, and of each captioner's.

        Raises ``OutputError`` where it cannot be read.
        """
        counts: dict[str, int] = {}
        if self.path.exists():
            with self._opened_or_error() as connection:
                counts = dict(
                    connection.execute(
                        "SELECT captioner, count(*) FROM captions GROUP BY captioner ORDER BY 1"
                    )
                )
        size = self.path.stat().st_size if self.path.exists() else 0
        return {
            "path": str(self.path),
            "bytes": size,
            "captions": sum(counts.values()),
            "captioners": counts,
        }

    def clear(self) -> int:
        """Delete all captions, also a damaged file set aside; how many there were.

        Raises ``OutputError`` where that fails.
        """
        try:
            if _is_marked(self._aside):
                self._aside.unlink()
            if not self.path.exists():
                return 0
        except OSError as error:
            raise self._unusable(error) from error
        with self._opened_or_error() as connection:
            count = connection.execute("DELETE FROM captions").rowcount
            connection.commit()
            connection.execute("VACUUM")
        return int(count)

    @property
    def _aside(self) -> Path:
        return self.path.with_name(self.path.name + ".damaged")

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """A connection; what was changed is committed at the end.

        With a rollback journal, since WAL fails on network folders. Raises ``OutputError`` where a
        file of others has the journal's name, and errors of SQLite and of the file system.
        """
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        check_journal(self.path)
        with closing(sqlite3.connect(self.path, timeout=_BUSY_S)) as connection, connection:
            _prepare(connection)
            yield connection

    @contextmanager
    def _opened_or_error(self) -> Iterator[sqlite3.Connection]:
        """A connection for what a user asked for: failures are ``OutputError``."""
        try:
            with self._opened() as connection:
                yield connection
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> OutputError:
        return OutputError(
            f"the cache of captions {self.path} cannot be used ({one_line(error)}): delete it if it"
            " is one"
        )

    def _try(self, work: Callable[[sqlite3.Connection], T], kind: str) -> T | None:
        """The result of ``work``; None where the cache cannot be used.

        ``kind``: reading or writing. A file that cannot be written is read on; one that cannot be
        read is not used any more. A damaged file is set aside first.
        """
        if kind in self._given_up:
            return None
        try:
            opened = file_number(self.path)
            try:
                with self._opened() as connection:
                    return work(connection)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                if file_number(self.path) == opened:  # else another process has set it aside
                    self._set_aside(error)
                with self._opened() as connection:
                    return work(connection)
        except (sqlite3.Error, OSError, OutputError) as error:
            self._given_up |= {_READ, _WRITE} if kind == _READ else {_WRITE}
            reason = one_line(error)
            log.warning("captions are not cached: %s cannot be used (%s)", self.path, reason)
            return None

    def _set_aside(self, error: Exception) -> None:
        """Rename the damaged file, in place of an earlier one.

        Raises ``sqlite3.OperationalError`` for a file of others, ``OSError`` where that fails.
        """
        if not _is_marked(self.path):
            raise _no_cache() from error
        if os.path.lexists(self._aside) and not _is_marked(self._aside):
            raise FileExistsError(f"it is damaged, and {self._aside.name} is in the way") from error
        log.warning(
            "%s is damaged (%s): set aside as %s, starting again",
            self.path,
            one_line(error),
            self._aside.name,
        )
        # Else the journal is played into the new file.
        self.path.with_name(self.path.name + "-journal").unlink(missing_ok=True)
        self.path.replace(self._aside)


class CachedCaptioner:
    """A captioner that is called only for tiles that the cache lacks.

    ``share``: wholly valid tiles that look the same (``perceptual_hash``) share one caption, that
    of the first such tile, in this run or an earlier one with the same cache. Which tile that is
    depends on earlier captions.
    """

    def __init__(
        self, captioner: LargeCaptioner, cache: CaptionCache, *, share: bool = False
    ) -> None:
        self._captioner, self._cache, self.share = captioner, cache, share
        identity = {
            "name": captioner.name,
            "parameters": dict(captioner.parameters),
            "shared": share,
        }
        self._identity = json.dumps(identity, sort_keys=True, ensure_ascii=False).encode()
        self._shared: dict[bytes, str] = {}  # of this run: sharing works without the cache too
        self.asked = 0

    @property
    def name(self) -> str:
        """That of the captioner itself."""
        return self._captioner.name

    @property
    def source(self) -> CaptionSource:
        """That of the captioner itself."""
        return self._captioner.source

    @property
    def parameters(self) -> Mapping[str, str | int | float | None]:
        """Those of the captioner itself."""
        return self._captioner.parameters

    def caption(self, batch: CaptionBatch) -> list[str]:
        """One caption a tile; each new one is kept at once, even if a later one fails."""
        keys = [
            self._key(pixels, mask) for pixels, mask in zip(batch.pixels, batch.mask, strict=True)
        ]
        known = {key: self._shared[key] for key in keys if key in self._shared}
        known |= self._cache.get(set(keys) - known.keys())
        first = {key: place for place, key in reversed(list(enumerate(keys))) if key not in known}
        places = sorted(first.values())
        if places:
            asked = CaptionBatch(
                batch.pixels[places], batch.mask[places], batch.image_tokens[places]
            )
            known |= self._ask(asked, [keys[place] for place in places])
        if self.share:
            self._shared |= {key: known[key] for key in keys}
        return [known[key] for key in keys]

    def _ask(self, batch: CaptionBatch, keys: list[bytes]) -> dict[bytes, str]:
        """New captions, kept one by one where the captioner yields them so."""
        if isinstance(self._captioner, StreamingCaptioner):
            written = {}
            for place, caption in self._captioner.stream_captions(batch):
                written[keys[place]] = caption
                self._cache.put({keys[place]: caption}, captioner=self.name)
        else:
            written = dict(zip(keys, self._captioner.caption(batch), strict=True))
            self._cache.put(written, captioner=self.name)
        self.asked += len(written)
        return written

    def _key(self, pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> bytes:
        """32 bytes of a hash of all that the caption depends on."""
        digest = hashlib.sha256(self._identity)
        if self.share and mask.all():
            digest.update(b"like" + perceptual_hash(pixels))
        else:
            digest.update(
                json.dumps(pixels.shape).encode() + pixels.tobytes() + np.packbits(mask).tobytes()
            )
        return digest.digest()


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the table in a new file; ``sqlite3.OperationalError`` for another kind of file."""
    found = _kind(connection)
    if found is None:
        connection.execute("BEGIN IMMEDIATE")
        found = _kind(connection)  # another process may have been faster
        if found is None:
            connection.execute(_CREATE)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_SCHEMA}")
            found = _APPLICATION_ID, _SCHEMA
        connection.commit()
    if found != (_APPLICATION_ID, _SCHEMA):
        raise _no_cache()


def _no_cache() -> sqlite3.OperationalError:
    return sqlite3.OperationalError("it is no cache of captions of this version of the program")


def _is_marked(path: Path) -> bool:
    """Whether a file has the mark of a cache of captions."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        file.seek(_MARK_AT)
        return file.read(len(_MARK)) == _MARK


def _kind(connection: sqlite3.Connection) -> tuple[int, int] | None:
    """The file's application id and version; None for an empty file."""
    kind, version, schema = (
        int(connection.execute(f"PRAGMA {name}").fetchone()[0])
        for name in ("application_id", "user_version", "schema_version")
    )
    return (kind, version) if kind or schema else None


def _checksum(*row: bytes | None) -> bytes:
    """The checksum of a row: key, caption and captioner."""
    return hashlib.blake2b(repr(row).encode(), digest_size=16).digest()


def perceptual_hash(pixels: NDArray[np.uint8]) -> bytes:
    """Coarse color and texture of 4 × 4 parts of a tile (H, W, 3): 64 bytes.

    Equal bytes mean near-identical tiles: open water, one field, bare sand. The usual hashes
    (dHash, pHash) compare a pixel with its neighbors or with the mean, which is noise in such
    tiles; color and spread are not. Like any quantization this separates some tiles that look the
    same, which then costs one more caption. Tiles under 4 pixels a side are compared pixel by
    pixel.
    """
    rows, cols = (side // _PARTS for side in pixels.shape[:2])
    if min(rows, cols) == 0:
        return pixels.tobytes()
    whole = pixels[: rows * _PARTS, : cols * _PARTS].astype(np.float32)
    parts = whole.reshape(_PARTS, rows, _PARTS, cols, 3)
    color = parts.mean((1, 3)) // _COLOR_STEP  # (4, 4, 3)
    texture = parts.std((1, 3)).mean(-1) // _TEXTURE_STEP  # (4, 4)
    return np.concatenate([color.ravel(), texture.ravel()]).astype(np.uint8).tobytes()
