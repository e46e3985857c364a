"""Models as local files: from a folder, from inside the program, or from the Hugging Face hub.

Nothing else in the program downloads models. Files from the hub are kept in the hub's cache;
``HF_HUB_OFFLINE`` is honored, as by everything that uses ``huggingface_hub``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from rssc_geo.errors import BundleError, one_line

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_NONE: Mapping[str, Path] = MappingProxyType({})


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a hub id, "owner/name"."""
    return _HUB_ID.fullmatch(name) is not None


def fetch(
    name: str | Path,
    files: Sequence[str],
    *,
    what: str,
    revision: str | None = None,
    embedded: Mapping[str, Path] = _NONE,
) -> Path:
    """The folder of a model: an existing folder first, then an embedded name, then a hub id.

    Parameters
    ----------
    name : a folder, a key of ``embedded``, or a hub id
    files : patterns of the files that are fetched from the hub; files in subfolders never are
    what : the model's name in messages, such as "model 'owner/name'"
    revision : branch, tag or commit on the hub; a folder has none
    embedded : folders that come with the program, by name

    Raises ``BundleError``, one line, for a name that is none of these, for links out of the folder,
    or where the hub has no such files.
    """
    folder, text = Path(name).expanduser(), str(name)
    if folder.is_dir():
        check_inside(folder, files, what=what)
        return folder
    if text in embedded:
        return embedded[text]
    if folder.exists():
        raise BundleError(f"{what} is a file, not a folder{_list(embedded)}")
    if not is_hub_id(text):
        other = " or embedded model" if embedded else ""
        raise BundleError(f"{what} is no folder, hub id (owner/name){other}{_list(embedded)}")
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            text, revision=revision, allow_patterns=list(files), ignore_patterns=["*/*"]
        )
    except Exception as error:  # the network can make the library raise anything
        raise _not_fetched(what, text, error, revision=revision) from error
    return Path(found)


def check_inside(folder: Path, files: Sequence[str], *, what: str) -> None:
    """Refuse files of a model that are links out of its folder, or no files at all.

    ``files``: their names or patterns. In the hub's cache a folder of ``snapshots`` holds links
    into the ``blobs`` beside it, which belong to it. Raises ``BundleError``.
    """
    home = folder.resolve()
    homes = [home]
    if home.parent.name == "snapshots":
        homes.append(home.parents[1] / "blobs")
    for path in sorted({path for pattern in files for path in folder.glob(pattern)}):
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):  # Python 3.12 and before: a link to itself
            target = path
        if not any(target.is_relative_to(inside) for inside in homes):
            raise BundleError(
                f"{what}: {one_line(path.name)} is a link out of its folder, which is not followed:"
                " put the file itself there"
            )
        if not path.is_file() and not path.is_dir():
            raise BundleError(f"{what}: {one_line(path.name)} is no file; get the folder anew")


def fetch_file(name: str, file: str, *, what: str, other: str = "") -> Path:
    """One file of a folder, or of a hub repository.

    ``other``: further valid types of names, for the message ("timm model"). Raises ``BundleError``,
    one line, where there is no such file.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / file).is_file():
            raise BundleError(f"{what}: the folder holds no {file}")
        return folder / file
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(hf_hub_download(name, file))
    except HFValidationError:
        kinds = f"folder, hub id (owner/name) or {other}" if other else "folder or hub id"
        raise BundleError(f"{what} is no {kinds}") from None
    except LocalEntryNotFoundError as error:  # is an EntryNotFoundError: no network, no cache
        raise _not_fetched(what, name, error) from error
    except EntryNotFoundError as error:
        raise BundleError(f"{what}: the hub's repository holds no {file}") from error
    except Exception as error:  # gated, unknown, or any error of the network
        raise _not_fetched(what, name, error) from error


def _not_fetched(
    what: str, repository: str, error: Exception, *, revision: str | None = None
) -> BundleError:
    """The message for a hub id for which there is no folder and the hub has no files."""
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return BundleError(
            f"{what}: its owner gives access on request; ask for it on the model's page and log in"
            " with 'hf auth login'"
        )
    if isinstance(error, RevisionNotFoundError):
        return BundleError(f"{what}: the hub has no revision {revision!r} of it")
    at = f" --revision {revision}" if revision else ""
    return BundleError(
        f"{what}: no such folder, and not available from the hub ({one_line(error)}); "
        f"fetch it beforehand with 'hf download {repository}{at}', or pass a folder"
    )


def _list(embedded: Mapping[str, Path]) -> str:
    return f"; embedded: {', '.join(embedded)}" if embedded else ""
