"""Times as people write them: ``14:05``, ``yesterday``, ``2h``, ``2026-11-25``, ISO 8601.

Of our own: the libraries that read such words guess. ``dateutil`` takes ``10`` for the tenth of
this month, ``dateparser`` takes month and day for one another. What is no time here is an error
that shows what is.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import NamedTuple

import click

FIRST, LAST = -(1 << 63), (1 << 63) - 1
"""What SQLite can compare, ns; some 292 years before and after 1970."""
FORMS = "14:05, yesterday, 2h (ago), 2026-11-26, 2026-11-26T14:30, '2026-11-26 14:30:05+01:00'"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_DAY, _SECOND = datetime.timedelta(days=1), datetime.timedelta(seconds=1)
_NONE = datetime.timedelta(0)
_MICROSECOND = datetime.timedelta(microseconds=1)
_UNITS = {
    "s": 1, "sec": 1, "second": 1, "seconds": 1,
    "m": 60, "min": 60, "mins": 60, "minute": 60, "minutes": 60,
    "h": 3600, "hour": 3600, "hours": 3600,
    "d": 86_400, "day": 86_400, "days": 86_400,
    "w": 604_800, "week": 604_800, "weeks": 604_800,
}  # fmt: skip
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_AGO = re.compile(r"(\d{1,9}) ?([a-z]+)( ago)?", re.ASCII)
_CLOCK = re.compile(r"(?:(today|yesterday) )?(\d{1,2}):(\d\d)(?::(\d\d))?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class Moment(NamedTuple):
    """What a text names: a moment, or a day or a second with a beginning and an end."""

    begin: datetime.datetime
    """Without a time zone: local time."""
    length: datetime.timedelta


def since(text: str) -> int:
    """Return the beginning of what is named, in ns since the epoch. Raises BadParameter.

    Local time, unless it names its time zone. ``14:05`` is the last one that has been: today's, or
    yesterday's; ``2h`` is so long ago.
    """
    return _ns(parsed(text, _now()).begin)


def until(text: str) -> int:
    """Return the last ns of the day, or of the second, that is named; the rest as :func:`since`.

    Of a second that was twice, when a clock was set back, it is the later one's.
    """
    begin, length = parsed(text, _now())
    if length is _SECOND:
        begin = begin.replace(microsecond=0)
        found = max(_ns(begin.replace(fold=fold)) for fold in (0, 1))
        return found if found in {FIRST, LAST} else min(found + 10**9 - 1, LAST)
    try:
        end = begin + length  # before there is a time zone: a day may have 23 hours
    except OverflowError:
        return LAST
    found = _ns(end)
    return found - 1 if length and FIRST < found < LAST else found


def _now() -> datetime.datetime:
    return datetime.datetime.now()


def parsed(text: str, now: datetime.datetime) -> Moment:
    """Return what a text names at ``now``, a local time. Raises BadParameter."""
    words = " ".join(text.lower().split())
    for form in _FORMS:
        try:
            found = form(words, now)
        except (ValueError, OverflowError):
            found = None
        if found is not None:
            return found
    raise click.BadParameter(f"{text!a} is no time; write one like {FORMS}")


def _day(words: str, now: datetime.datetime) -> Moment | None:
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if words in _WEEKDAYS:  # the last one before today
        back = (today.weekday() - _WEEKDAYS.index(words) - 1) % 7 + 1
        return Moment(today - back * _DAY, _DAY)
    days = {"today": 0, "yesterday": 1}.get(words)
    return None if days is None else Moment(today - days * _DAY, _DAY)


def _moment(words: str, now: datetime.datetime) -> Moment | None:
    return Moment(now, _NONE) if words == "now" else None


def _ago(words: str, now: datetime.datetime) -> Moment | None:
    match = _AGO.fullmatch(words)
    if match is None or match[2] not in _UNITS:
        return None
    # By the clock of the world: two hours are two hours in the night of the change, too.
    past = now.astimezone(datetime.timezone.utc) - datetime.timedelta(
        seconds=int(match[1]) * _UNITS[match[2]]
    )
    return Moment(past, _NONE)


def _clock(words: str, now: datetime.datetime) -> Moment | None:
    match = _CLOCK.fullmatch(words)
    if match is None:
        return None
    day, hour, minute, second = match.groups()
    begin = now.replace(hour=int(hour), minute=int(minute), second=int(second or 0), microsecond=0)
    if day == "yesterday" or (day is None and begin > now):
        begin -= _DAY
    return Moment(begin, _SECOND)


def _iso(words: str, _now: datetime.datetime) -> Moment | None:
    if _DATE.fullmatch(words[:10]) is None:
        return None  # newer Pythons take 20261126, and 2026-W48
    text = words.upper()
    begin = datetime.datetime.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] == "Z" else text)
    if len(text) == 10:
        return Moment(begin, _DAY)
    return Moment(begin, _SECOND)


_FORMS: tuple[Callable[[str, datetime.datetime], Moment | None], ...] = (
    _day,
    _moment,
    _ago,
    _clock,
    _iso,
)


def _ns(moment: datetime.datetime) -> int:
    try:
        past = moment.astimezone(datetime.timezone.utc) - _EPOCH
    except (OverflowError, ValueError, OSError):  # at the ends of the calendar
        return FIRST if moment.year < 1970 else LAST
    return min(max(past // _MICROSECOND * 1000, FIRST), LAST)
