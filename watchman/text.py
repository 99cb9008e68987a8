"""Showing names, times and numbers that uploaders chose, safely."""

from __future__ import annotations

import itertools
import os
import re
import sys
from datetime import datetime, timezone

PATHS = sys.getfilesystemencoding(), "surrogateescape"
"""What str.encode and bytes.decode take for a path: half the time of os.fsencode, os.fsdecode."""

# All that could forge or disguise a log line: C0 and C1 controls, lone surrogates (bytes that are
# not UTF-8), line and paragraph separators, the marks that turn the direction of writing, and
# what is not seen. The joiners U+200C and U+200D belong to the spelling of some languages.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def normal_path(path: str) -> str:
    """Return an absolute path as all paths are compared: normalised, with one slash in front.

    os.path leaves two, which POSIX allows to mean something else; on Linux they do not.
    """
    found = os.path.normpath(path)
    return found[1:] if found.startswith("//") else found


def printable(text: str) -> str:
    r"""Return ``text`` with every control character and stray byte escaped, as in ``\x0a``.

    A byte that is not UTF-8 (a lone surrogate in Python) shows as ``\xNN``, the byte itself.
    """
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(_escape, text)


def describe(error: BaseException) -> str:
    """Return an error's type and words; its ``__str__`` may raise as well."""
    name = type(error).__name__
    try:
        words = str(error)
    except BaseException:  # noqa: BLE001 — an exception class of the user's own
        words = ""
    return f"{name}: {words}" if words else name


def moment(ns: int) -> str:
    """Return a time, in ns since the epoch, in the user's time zone.

    One that no calendar here has (before the year 1, after 9999) is returned as a number.
    """
    try:
        return f"{datetime.fromtimestamp(ns // 10**9).astimezone():%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns after 1970"


def iso(ns: int) -> str | None:
    """Return a time, in ns since the epoch, as ISO 8601 in UTC; None where no calendar has it.

    To the microsecond, and never later: ``--since`` with it means what it is of.
    """
    try:
        second = datetime.fromtimestamp(ns // 10**9, timezone.utc)
        return second.replace(microsecond=ns % 10**9 // 1000).isoformat()
    except (OverflowError, ValueError, OSError):
        return None


def span(seconds: float) -> str:
    """Return a length of time in its largest unit, and the next where that is short: ``2 h 5 min``.

    Whole seconds below a minute; what is negative, by a clock that was set, is none.
    """
    left = max(0, int(seconds))
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for (name, length), (smaller, rest) in itertools.pairwise(units):
        if left >= length:
            more = left % length // rest
            short = left < 10 * length and more and smaller != "s"
            return f"{left // length} {name}" + (f" {more} {smaller}" if short else "")
    return f"{left} s"


def ago(ns: int) -> str:
    """Return how long ago something was, in ns."""
    return f"{span(ns / 1e9)} ago"


def counted(number: int, one: str, many: str = "", *, or_more: bool = False) -> str:
    """Return a number with its noun: ``1 task``, ``1,204 deliveries``, ``1 or more tasks``."""
    many = many or (f"{one[:-1]}ies" if one.endswith("y") else f"{one}s")
    noun = one if number == 1 and not or_more else many
    return f"{number:,}{' or more' if or_more else ''} {noun}"


def size(number: float) -> str:
    """Return a number of bytes as people read it: ``1 byte``, ``812 bytes``, ``1.5 GB``."""
    for unit, least in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= least:
            amount = number / least
            return f"{amount:,.0f} {unit}" if amount >= 100 else f"{amount:.1f} {unit}"
    return counted(int(number), "byte")


def rate(number: float) -> str:
    """Return how much there is of something a second: with a decimal where it is small."""
    return f"{number:,.0f}/s" if number >= 10 or not number else f"{number:.1f}/s"


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    if code > 0xFFFF:
        return f"\\U{code:08x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


MAIN_IS_GONE, PART_IS_GONE = "the main file of its set, ", "a part of its set, "
"""How the reason begins of a delivery that is not sent since something else of its set is gone."""


def part_is_gone(path: str, reason: str, *, is_main: bool) -> str:
    """Return why nothing is sent of a set: one of its files has vanished, for a reason."""
    part = MAIN_IS_GONE if is_main else PART_IS_GONE
    return f"{part}{printable(path.rpartition('/')[2])}: {reason}"


def remedy_for_part(reason: str, which: str = "") -> str:
    """Return what to do about what has failed with a part of its set; empty for another reason.

    ``which`` stands behind the commands.
    """
    if reason.startswith(MAIN_IS_GONE):
        return f"upload the set again, and drop this with 'notify discard{which}'"
    if reason.startswith(PART_IS_GONE):
        without = f"run 'notify retry{which}' to have the set sent without that"
        return f"{without}, or drop it with 'notify discard{which}'"
    return ""
