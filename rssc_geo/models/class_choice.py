"""The allowed classes, by names of classes and groups in free spelling. No torch here.

Other classes keep their id, color and place in the legend, and have probability 0.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence

from rssc_geo.errors import UsageError
from rssc_geo.models.card import UNKNOWN_CLASS, ModelCard
from rssc_geo.options import ClassChoiceOptions

log = logging.getLogger(__name__)

_NEAREST = 3


def class_choice(card: ModelCard, options: ClassChoiceOptions) -> tuple[int, ...] | None:
    """Ids of the allowed classes of a model, ascending; None: all of them.

    ``exclude_classes`` count after ``only_classes``. A name is that of a class or its title, else
    that of a group, for all its classes; case, spaces and punctuation do not count where they do
    not tell names apart. Raises ``UsageError`` for names that the model does not have, and where no
    class is left.

    Examples
    --------
    >>> from rssc_geo import load_card
    >>> card = load_card("compact")
    >>> class_choice(card, ClassChoiceOptions(only_classes=("Port", "dense residential", "Beach")))
    (12, 15, 33)
    """
    everything = {known.id for known in card.classes}
    only = _ids(card, options.only_classes, "--only-classes") or everything
    chosen = only - _ids(card, options.exclude_classes, "--exclude-classes")
    if not chosen:
        raise UsageError(
            f"--exclude-classes {','.join(options.exclude_classes)} leaves no class of"
            f" {card.name} to choose"
        )
    return None if chosen == everything else tuple(sorted(chosen))


def check_class_choice(card: ModelCard, options: ClassChoiceOptions) -> tuple[int, ...] | None:
    """``class_choice`` before anything is loaded, with a warning where a single class is left."""
    choice = class_choice(card, options)
    if choice is not None and len(choice) == 1:
        log.warning(
            "%s is the only class left to choose: every cell will be that", card.names(choice)[0]
        )
    return choice


def classes_named(card: ModelCard, names: Sequence[str], flag: str) -> tuple[str, ...]:
    """The classes that names of classes and groups mean, ``Unknown`` included.

    Spelling is as free as in ``class_choice``. Raises ``UsageError`` for names that the model does
    not have.
    """
    own = [name for name in names if simplified_name(name) != simplified_name(UNKNOWN_CLASS)]
    unknown = () if len(own) == len(names) else (UNKNOWN_CLASS,)
    return (*card.names(tuple(sorted(_ids(card, own, flag)))), *unknown)


def _ids(card: ModelCard, names: Sequence[str], flag: str) -> set[int]:
    """The ids of classes that names mean.

    Names may contain commas, at which the list was cut: parts that form a known name are joined.
    """
    found: set[int] = set()
    parts = list(names)
    while parts:
        for count in range(len(parts), 0, -1):
            ids = _named(card, ",".join(parts[:count]))
            if ids:
                break
        else:
            raise UsageError(f"{flag}: {_unknown(card, parts[0])}")
        found |= ids
        del parts[:count]
    return found


def _named(card: ModelCard, text: str) -> set[int]:
    """The ids of a name: by exact, else by simplified spelling; of classes, else of a group."""
    for same in (_as_it_is, simplified_name):
        wanted = same(text)
        names = {known.id: {same(known.name), same(known.title)} for known in card.classes}
        ids = {known for known, own in names.items() if wanted and wanted in own}
        ids = ids or {c.id for c in card.classes if wanted and wanted == same(c.group)}
        if ids:
            return ids
    return set()


def _unknown(card: ModelCard, text: str) -> str:
    known = {
        simplified_name(name): name
        for c in card.classes
        for name in (c.group, c.title, c.name)
        if name
    }
    close = difflib.get_close_matches(simplified_name(text), list(known), _NEAREST, cutoff=0.5)
    names = [known[name] for name in close] or [c.name for c in card.classes][:_NEAREST]
    told = "nearest" if close else "it has"
    return (
        f"the model {card.name!r} has no class or group {text.strip()!r}; {told}:"
        f" {', '.join(names)}{'' if close else ', …'}"
    )


def _as_it_is(name: str) -> str:
    return name.strip()


def simplified_name(name: str) -> str:
    """A name for comparisons: without case, spaces and punctuation."""
    return "".join(sign for sign in name.lower() if sign.isalnum())
