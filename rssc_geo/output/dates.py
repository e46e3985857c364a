"""Dates of scenes: parsing and writing."""

from __future__ import annotations

from datetime import UTC, datetime

from rssc_geo.errors import UsageError


def parse_date(text: str, option: str) -> datetime:
    """The time of an ISO 8601 date, with or without a time of day; UTC where it names no zone.

    Raises ``UsageError`` that names the option for an invalid date.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {text!r} is no date; write 2024-06-01 or 2024-06-01T10:30:00Z"
        ) from None


def date_text(moment: datetime) -> str:
    """A time in UTC, as in STAC and RFC 3339."""
    # Not strftime, which on some systems writes years before 1000 with fewer digits.
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='seconds')}Z"
