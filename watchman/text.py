"""Showing names, times and numbers that uploaders chose, safely."""

from __future__ import annotations

import re
from datetime import datetime, timezone

# C0 and C1 controls, lone surrogates (bytes that are not UTF-8), line and paragraph separators,
# and the marks that turn the direction of writing: all that could forge or disguise a log line.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return ``text`` with every control character and stray byte escaped, as in ``\x0a``.

    A byte that is not UTF-8 (a lone surrogate in Python) shows as ``\xNN``, the byte itself.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(_escape, text)


def moment(ns: int) -> str:
    """Return a time, in ns since the epoch, in the user's time zone.

    One that no calendar here has (before the year 1, after 9999) is returned as a number.
    """
    try:
        return f"{datetime.fromtimestamp(ns / 1e9).astimezone():%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns after 1970"


def iso(ns: int) -> str | None:
    """Return a time, in ns since the epoch, as ISO 8601 in UTC; None where no calendar has it."""
    try:
        return datetime.fromtimestamp(ns / 1e9, timezone.utc).isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
