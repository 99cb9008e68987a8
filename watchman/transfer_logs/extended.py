"""ProFTPD's ExtendedLog, read by the LogFormat that it is written by.

Most fields have a form of their own; a few may hold anything, a file's name above all. Where a line
can be read in two ways it is nobody's: each is read with the longest and with the shortest that
every field can be, and where these agree there is no third. That takes time with the number of
such fields, therefore there may be two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from watchman.transfer_logs.line import LogLine, Parser, clf_moment, epoch_ns, moment, number, text

MOST_WILD = 2
"""Fields that may hold anything. A line of 8 KB with two takes 10 ms at the worst."""
LONGEST = 8192
"""Bytes of a line: what is longer is none."""

_UPLOADS = frozenset({b"STOR", b"APPE", b"STOU"})
_NUMBER, _ANY = rb"\d+|-", rb".*"
_HOST, _USER = rb"[\w.:%-]+", rb'[^\s|,;"]+'
_FIELDS = {
    "%a": ("address", _HOST),
    "%h": ("host", _HOST),
    "%u": ("user", _USER),
    "%U": ("sent_user", _USER),
    "%b": ("transferred", _NUMBER),
    "%{file-size}": ("size", _NUMBER),
    "%T": ("seconds", rb"[\d.]+|-"),
    "%{transfer-millisecs}": ("milliseconds", _NUMBER),
    "%m": ("method", rb"[\w-]+"),
    "%r": ("command", _ANY),
    "%s": ("code", _NUMBER),
    "%{transfer-status}": ("status", rb"\w+|-"),
    "%{protocol}": ("protocol", rb"[\w-]+"),
    "%f": ("path", _ANY),
    "%F": ("client_path", _ANY),
    "%t": ("stamp", rb"\[[^\]]*\]"),
    "%{iso8601}": ("iso", rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+"),
    "%{epoch}": ("epoch", rb"\d+"),
    # Of no use here, but of a known form.
    "%c": ("", _USER),
    "%D": ("", _ANY),
    "%d": ("", _ANY),
    "%{file-offset}": ("", _NUMBER),
    "%{transfer-type}": ("", rb"\w+|-"),
    "%{millisecs}": ("", _NUMBER),
    "%{microsecs}": ("", _NUMBER),
    "%{pid}": ("", _NUMBER),
    "%P": ("", _NUMBER),
    "%p": ("", _NUMBER),
    "%L": ("", _HOST),
    "%l": ("", _USER),
    "%g": ("", _USER),
    "%V": ("", _HOST),
    "%R": ("", rb"[\d.]+|-"),
    "%I": ("", _NUMBER),
    "%O": ("", _NUMBER),
}
_PIECE = re.compile(r"%%|%(?:\{([^}]*)\})?[A-Za-z]|%\{[^}]+\}|[^%]+|%")
_STRFTIME = {
    **dict.fromkeys("dmHMSyCIeUWVjGguw", rb"[ \d]+"),
    **dict.fromkeys("abABhp", rb"\w+"),
    **dict.fromkeys("YsN", rb"\d+"),
    "z": rb"(?:\+|-)\d{4}",
    "Z": rb"[\w-]+",
    "T": rb"\d\d:\d\d:\d\d",
    "R": rb"\d\d:\d\d",
    "F": rb"\d+-\d\d-\d\d",
    "D": rb"\d\d/\d\d/\d\d",
}


class _Compiled(NamedTuple):
    longest: re.Pattern[bytes]
    shortest: re.Pattern[bytes]
    names: frozenset[str]


def wrong_with(log_format: str) -> str:
    """Say why lines by this LogFormat cannot be used; empty if they can."""
    try:
        compiled = _compile(log_format)
    except ValueError as error:
        return str(error)
    for wanted, needed in (
        ({"path", "client_path"}, "no file name: write %f"),
        ({"transferred", "size"}, "no size: write %b"),
        ({"method", "command"}, "no command: write %m"),
        ({"code", "status"}, "no outcome: write %{transfer-status}, or %s"),
    ):
        if not wanted & compiled.names:
            return f"has {needed}"
    return ""


def parser(log_format: str, *, utc: bool = False) -> Parser:
    """Return the parser for a LogFormat as proftpd.conf has it. Raises ValueError.

    ``utc``: as for the other formats.
    """
    compiled, zone = _compile(log_format), b"" if utc else None
    return lambda line: _parse(compiled, line, zone)


def _compile(log_format: str) -> _Compiled:
    pieces = list(_pieces(log_format.replace('\\"', '"')))
    wild = [piece for piece, _, pattern in pieces if pattern == _ANY]
    if len(wild) > MOST_WILD:
        shown = ", ".join(wild)
        raise ValueError(
            f"has {len(wild)} fields that may hold anything ({shown}), and no more than "
            f"{MOST_WILD} can be told apart: leave out all but %f"
        )
    names = [name for _, name, _ in pieces if name]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        piece = next(piece for piece, name, _ in pieces if name == twice[0])
        raise ValueError(f"has {piece} twice")
    return _Compiled(_regex(pieces, b""), _regex(pieces, b"?"), frozenset(names))


def _pieces(log_format: str) -> Iterator[tuple[str, str, bytes]]:
    """Yield (what is written, name of the field, its form); text of its own has no name."""
    for found in _PIECE.finditer(log_format):
        piece = found[0]
        if piece == "%":
            raise ValueError("has a single %: write %% for one")
        if not piece.startswith("%") or piece == "%%":
            yield piece, "", re.escape(piece.replace("%%", "%").encode())
        elif piece.endswith("}t"):
            yield piece, "", _strftime(found[1])
        else:
            yield (piece, *_FIELDS.get(piece, ("", _ANY)))


def _strftime(form: str) -> bytes:
    parts = re.split(r"%(.)", form)
    known = [_STRFTIME.get(letter) for letter in parts[1::2]]
    if None in known:
        raise ValueError(f"has a time of unknown form, %{{{form}}}t: write %t or %{{iso8601}}")
    between = [re.escape(piece.encode()) for piece in parts[::2]]
    return between[0] + b"".join(
        (one or b"") + two for one, two in zip(known, between[1:], strict=True)
    )


def _regex(pieces: list[tuple[str, str, bytes]], lazy: bytes) -> re.Pattern[bytes]:
    parts = []
    for piece, name, pattern in pieces:
        if not piece.startswith("%") or piece == "%%":
            parts.append(pattern)
            continue
        # Whichever alternative and repetition is taken, it is the longest, or the shortest.
        bent = re.sub(rb"(?<!\\)([+*])", rb"\1" + lazy, pattern)
        parts.append(
            (b"(?P<%s>%s)" if name else b"(%s)") % ((name.encode(), bent) if name else (bent,))
        )
    return re.compile(b"".join(parts), re.DOTALL)


def _parse(compiled: _Compiled, line: bytes, zone: bytes | None) -> LogLine | None:
    if len(line) > LONGEST:
        raise ValueError("too long")
    found = compiled.longest.fullmatch(line)
    if found is None:
        raise ValueError("not by this LogFormat")
    other = compiled.shortest.fullmatch(line)
    if other is None or found.regs != other.regs:
        raise ValueError("it can be read in two ways")
    fields = found.groupdict()
    method = fields.get("method") or fields.get("command", b"").partition(b" ")[0]
    transferred, size = _integer(fields.get("transferred")), _integer(fields.get("size"))
    if method not in _UPLOADS or (transferred is None and size is None):
        return None  # another command, or nothing was transferred
    path = fields.get("path") or fields.get("client_path", b"")
    if transferred is None:
        transferred = size or 0
    return LogLine(
        path,
        True,
        _first(fields, "user", "sent_user"),
        _first(fields, "host", "address"),
        transferred,
        size,
        _seconds(fields),
        _first(fields, "protocol") or "ftp",
        _is_complete(fields),
        _ended_ns(fields, zone),
    )


def _is_complete(fields: dict[str, bytes]) -> bool:
    status = fields.get("status", b"-")
    if status != b"-":
        return status == b"success"
    # SFTP and SCP have no such code where all is well.
    return fields.get("code", b"-").startswith((b"2", b"-"))


def _first(fields: dict[str, bytes], *names: str) -> str:
    return next((text(fields[name]) for name in names if fields.get(name, b"-") != b"-"), "")


def _integer(raw: bytes | None) -> int | None:
    return None if raw is None or raw == b"-" else number(raw)


def _seconds(fields: dict[str, bytes]) -> float | None:
    milliseconds = _integer(fields.get("milliseconds"))
    if milliseconds is not None:
        return milliseconds / 1000
    seconds = fields.get("seconds", b"-")
    if seconds == b"-":
        return None
    number(seconds.partition(b".")[0] or b"0")
    return float(seconds)


def _ended_ns(fields: dict[str, bytes], zone: bytes | None) -> int:
    if "epoch" in fields:
        return epoch_ns(fields["epoch"])
    if "stamp" in fields:
        return clf_moment(fields["stamp"])
    if "iso" in fields:
        day, clock = fields["iso"].split()
        year, month, of_month = day.split(b"-")
        return moment(year, month, of_month, clock.split(b",")[0], zone)
    return 0
