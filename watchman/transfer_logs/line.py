"""One line of a transfer log that is about an upload, as any of the formats tells it."""

from __future__ import annotations

import functools
import re
import time
from calendar import timegm
from collections.abc import Callable
from typing import NamedTuple

MONTHS = {
    name: n for n, name in enumerate(b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(), 1)
}


_SET_BACK = 3600
"""Seconds by which clocks are set back in autumn: so many, or half of that on Lord Howe Island."""
_AHEAD = 300
"""Seconds by which the clock of whoever has written a line may be ahead."""


class LogLine(NamedTuple):
    """An upload as a transfer log tells it."""

    path: bytes
    """As the server writes it: perhaps inside a chroot, perhaps with characters replaced."""
    exact: bool
    """Whether the format keeps all characters of the path."""
    user: str
    host: str
    """The client's name or address."""
    transferred: int
    """Bytes of this transfer: where it was resumed or appended, fewer than the file has."""
    size: int | None
    """Bytes of the whole file, where the format tells."""
    seconds: float | None
    """How long the transfer took, where the format tells; xferlog has whole seconds."""
    protocol: str
    complete: bool
    """What the server says: most say it too where a client was killed."""
    ended_ns: int
    """When it was over, by the server's clock, to the second or better; 0 where it is not told."""


Parser = Callable[[bytes], "LogLine | None"]
"""Reads a line without its newline. None where it is about no upload; raises ValueError."""


def text(raw: bytes) -> str:
    """Return a user or host as text that everybody can store and send."""
    return raw.decode("utf-8", "backslashreplace")


def number(raw: bytes, digits: int = 18) -> int:
    """Return a number that a log has. Raises ValueError for what is beyond all sizes and times."""
    if len(raw) > digits:
        raise ValueError("no number")
    return int(raw)


def epoch_ns(raw: bytes) -> int:
    """Return a time in seconds since the epoch as one in ns. Raises ValueError."""
    return number(raw, 10) * 1_000_000_000


def moment(year: bytes, month: bytes, day: bytes, clock: bytes, zone: bytes | None) -> int:
    """Return a time in ns since the epoch. ``month`` is a number or an English abbreviation.

    ``zone`` is like ``+0100``; empty for UTC, None for this machine's time. Of a time that was
    twice, when the clock was set back, it is the later one unless that is yet to come: a line that
    seemed to be an hour older than its file would be taken for that of another upload. Raises
    ValueError.
    """
    earlier, later = _readings(year, month, day, clock, zone)
    if earlier != later and later > time.time() + _AHEAD:
        return earlier * 1_000_000_000
    return later * 1_000_000_000


@functools.lru_cache(maxsize=64)
def _readings(
    year: bytes, month: bytes, day: bytes, clock: bytes, zone: bytes | None
) -> tuple[int, int]:
    """Return the first and the last time that may be meant, in s; mostly they are the same.

    Lines come in bursts: the last times are remembered.
    """
    of_year = MONTHS.get(month) or (int(month) if month.isdigit() else 0)
    hour, minute, second = (int(part) for part in clock.split(b":"))
    if not (
        1 <= of_year <= 12 and 1 <= int(day) <= 31 and hour < 24 and minute < 60 and second < 62
    ):
        raise ValueError("no time")
    fields = (int(year), of_year, int(day), hour, minute, second, 0, 0, -1)
    try:
        if zone is None:
            return _local_readings(int(time.mktime(fields)))
        seconds = timegm(fields)
    except (OverflowError, ValueError, OSError) as error:
        raise ValueError("no time") from error
    if zone:
        ahead = int(zone[1:3]) * 3600 + int(zone[3:5]) * 60
        seconds -= -ahead if zone.startswith(b"-") else ahead
    return seconds, seconds


def _local_readings(seconds: int) -> tuple[int, int]:
    """Return the first and the last time at which the clock shows what it shows at one."""
    shown = time.localtime(seconds)[:6]
    alike = [
        other
        for other in range(seconds - _SET_BACK, seconds + _SET_BACK + 1, _SET_BACK // 2)
        if time.localtime(other)[:6] == shown
    ]
    return alike[0], alike[-1]


CLF_TIME = rb"\[(\d\d)/(\w{3})/(\d{4}):(\d\d:\d\d:\d\d) ([+-]\d{4})\]"
_CLF_TIME = re.compile(CLF_TIME)


def clf_moment(stamp: bytes) -> int:
    """Return ``[26/Nov/2026:15:48:20 +0100]`` in ns since the epoch. Raises ValueError."""
    found = _CLF_TIME.fullmatch(stamp)
    if found is None:
        raise ValueError("no time")
    day, month, year, clock, zone = found.groups()
    return moment(year, month, day, clock, zone)
