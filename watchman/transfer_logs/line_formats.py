r"""The fixed formats of transfer logs: xferlog, vsftpd's own, and three of pure-ftpd.

In none of them can a name feign another field. xferlog has no space in a name: servers write ``_``
for it (vsftpd also ``?`` for what is not ASCII), and what follows a name has a fixed form. CLF and
W3C lines of pure-ftpd quote names as in URLs, its ``stats`` lines end with the name. In vsftpd's
lines the name stands between the first ``Client "…", "`` and the numbers at the end.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from watchman.transfer_logs.line import (
    CLF_TIME,
    LogLine,
    Parser,
    clf_moment,
    epoch_ns,
    moment,
    number,
    text,
)

_DATE = rb"\w{3} (\w{3}) +(\d{1,2}) (\d\d:\d\d:\d\d) (\d{4})"

# xferlog(5): date, seconds, host, bytes, name, type, action, direction, access, user, service,
# method of authentication, id, completion. The user may have spaces: the password of an anonymous
# one stands there.
_XFERLOG = re.compile(
    _DATE + rb" (\d+) (\S+) (\d+) (\S+) [ab] \S+ ([oid]) [agr] (.*) (\S+) [01] \S+ ([ci])"
)
_VSFTPD = re.compile(
    _DATE + rb' \[pid \d+\] (?:\[([^\]]*)\] )?(OK|FAIL) (\w+): Client "([^"]*)"(.*)'
)
_VSFTPD_UPLOAD = re.compile(rb', "(.*)"(?:, (\d+) bytes)?, (\d+(?:\.\d+)?)Kbyte/sec')
_VSFTPD_OTHER = re.compile(_DATE + rb" \[pid \d+\] ")
_CLF = re.compile(rb"(\S+) - (\S+) (" + CLF_TIME + rb') "(PUT|GET) (\S+)" 200 (\d+)')
_STATS = re.compile(rb"(\d+) [0-9a-f]+\.[0-9a-f]+ (\S+) (\S+) ([UD]) (\d+) (\d+) (.+)")
_W3C = re.compile(
    rb"(\d{4})-(\d\d)-(\d\d) (\d\d:\d\d:\d\d) (\S+) \[\](created|sent) (\S+) 226 (\S*) (\d+)"
)


def _xferlog(line: bytes, zone: bytes | None) -> LogLine | None:
    found = _XFERLOG.fullmatch(line)
    if found is None:
        raise ValueError("no line of an xferlog")
    month, day, clock, year, seconds, host, size, name, direction, user, service, status = (
        found.groups()
    )
    if direction != b"i":
        return None
    ended_ns = moment(year, month, day, clock, zone)
    complete = status == b"c"
    protocol = text(service)
    return LogLine(
        name,
        False,
        text(user),
        text(host),
        number(size),
        None,
        float(number(seconds)),
        protocol,
        complete,
        ended_ns,
    )


def _vsftpd(line: bytes, zone: bytes | None) -> LogLine | None:
    found = _VSFTPD.fullmatch(line)
    if found is None or found[7] != b"UPLOAD":
        if found is None and _VSFTPD_OTHER.match(line) is None:
            raise ValueError("no line of vsftpd")
        return None
    month, day, clock, year, user, status, _, host, rest = found.groups()
    upload = _VSFTPD_UPLOAD.fullmatch(rest)
    if upload is None:
        if status == b"FAIL":
            return None  # refused: nothing was transferred
        raise ValueError("no upload of vsftpd")
    name, size, rate = upload.groups(b"0")
    # KiB a second, to the hundredth: what is next to nothing tells nothing.
    seconds = number(size) / 1024 / float(rate) if float(rate) >= 1 else None
    ended_ns = moment(year, month, day, clock, zone)
    complete = status == b"OK"
    return LogLine(
        name,
        False,
        text(user or b""),
        text(host),
        number(size),
        None,
        seconds,
        "ftp",
        complete,
        ended_ns,
    )


def _clf(line: bytes, _: bytes | None) -> LogLine | None:
    found = _CLF.fullmatch(line)
    if found is None:
        raise ValueError("no CLF line of pure-ftpd")
    host, user, stamp, *_parts, method, name, size = found.groups()
    if method != b"PUT":
        return None
    path = unquote_to_bytes(name)
    return LogLine(
        path, True, text(user), text(host), number(size), None, None, "ftp", True, clf_moment(stamp)
    )


def _stats(line: bytes, _: bytes | None) -> LogLine | None:
    found = _STATS.fullmatch(line)
    if found is None:
        raise ValueError("no stats line of pure-ftpd")
    ended, user, host, direction, size, seconds, name = found.groups()
    if direction != b"U":
        return None
    ended_ns = epoch_ns(ended)
    return LogLine(
        name,
        True,
        text(user),
        text(host),
        number(size),
        None,
        float(number(seconds)),
        "ftp",
        True,
        ended_ns,
    )


def _w3c(line: bytes, _: bytes | None) -> LogLine | None:
    if line.startswith(b"#"):
        return None
    found = _W3C.fullmatch(line)
    if found is None:
        raise ValueError("no W3C line of pure-ftpd")
    year, month, day, clock, host, method, name, user, size = found.groups()
    if method != b"created":
        return None
    ended_ns = moment(year, month, day, clock, b"")
    path = unquote_to_bytes(name)
    return LogLine(
        path, True, text(user), text(host), number(size), None, None, "ftp", True, ended_ns
    )


_FORMATS = {"xferlog": _xferlog, "vsftpd": _vsftpd, "clf": _clf, "stats": _stats, "w3c": _w3c}
NAMES = tuple(_FORMATS)


def parser(name: str, *, utc: bool = False) -> Parser:
    """Return the parser of a format, one of NAMES.

    ``utc``: times in lines that say nothing of their zone are UTC, and not this machine's.
    """
    parse, zone = _FORMATS[name], b"" if utc else None
    return lambda line: parse(line, zone)
