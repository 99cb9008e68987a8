"""Lines as ProFTPD 1.3.8, vsftpd 3.0.3 and pure-ftpd 1.0.50 wrote them; nothing is made up.

wu-ftpd is no longer to be had: its lines are those that its manual, xferlog(5), describes.
"""

from __future__ import annotations

import calendar
import os
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchman.transfer_logs import line as one_line
from watchman.transfer_logs import line_formats
from watchman.transfer_logs.line import LogLine

NS = 1_000_000_000


def at(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    return int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1))) * NS


def at_utc(*fields: int) -> int:
    return calendar.timegm((*fields, 0, 0, 0)) * NS


XFERLOG = {
    b"Thu Nov 26 15:48:20 2026 0 127.0.0.1 300000 /srv/root/complete.bin b _ i r up ftp 0 * c": (
        LogLine(
            b"/srv/root/complete.bin",
            False,
            "up",
            "127.0.0.1",
            300_000,
            None,
            0.0,
            "ftp",
            True,
            at(2026, 11, 26, 15, 48, 20),
        )
    ),
    b"Thu Nov 26 15:48:25 2026 0 127.0.0.1 123456 /srv/root/abort.bin a _ i r up ftp 0 * i": (
        LogLine(
            b"/srv/root/abort.bin",
            False,
            "up",
            "127.0.0.1",
            123_456,
            None,
            0.0,
            "ftp",
            False,
            at(2026, 11, 26, 15, 48, 25),
        )
    ),
    b"Thu Nov 26 15:48:58 2026 1 127.0.0.1 20 /root/x_b___i_r_root_ftp_0_*_c b _ i a "
    b"<no_password> ftp 0 * c": (
        LogLine(
            b"/root/x_b___i_r_root_ftp_0_*_c",
            False,
            "<no_password>",
            "127.0.0.1",
            20,
            None,
            1.0,
            "ftp",
            True,
            at(2026, 11, 26, 15, 48, 58),
        )
    ),
    b"Thu Nov 26 15:49:09 2026 0 127.0.0.1 1 /srv/root/lat\xe9.csv b _ i r up ftp 1 * c": (
        LogLine(
            b"/srv/root/lat\xe9.csv",
            False,
            "up",
            "127.0.0.1",
            1,
            None,
            0.0,
            "ftp",
            True,
            at(2026, 11, 26, 15, 49, 9),
        )
    ),
}
NO_UPLOADS = {
    "xferlog": [
        b"Thu Nov 26 15:48:23 2026 0 127.0.0.1 300000 /srv/root/complete.bin b _ o r up ftp 0 * c",
        b"Thu Nov 26 15:48:24 2026 0 127.0.0.1 20 /srv/root/renamed.bin a _ d r up ftp 0 * c",
    ],
    "vsftpd": [
        b'Thu Nov 26 15:48:57 2026 [pid 13594] CONNECT: Client "127.0.0.1"',
        b'Thu Nov 26 15:48:57 2026 [pid 13606] [daemon] OK LOGIN: Client "127.0.0.1", anon '
        b'password "<no_password>"',
        b'Thu Nov 26 15:49:00 2026 [pid 13939] [daemon] OK DOWNLOAD: Client "127.0.0.1", '
        b'"/root/complete.bin", 300000 bytes, 558035.71Kbyte/sec',
        b'Thu Nov 26 15:49:12 2026 [pid 14867] [daemon] OK MKDIR: Client "127.0.0.1", '
        b'"/root/sub dir"',
    ],
    "clf": [b'127.0.0.1 - up [26/Nov/2026:15:48:59 -0000] "GET /srv/root/complete.bin" 200 300000'],
    "stats": [b"1795708139 6b0854eb.3635 up 127.0.0.1 D 300000 0 /srv/root/complete.bin"],
    "w3c": [
        b"#Software: Pure-FTPd 1.0.50",
        b"#Fields: date time c-ip cs-method cs-uri-stem sc-status cs-username sc-bytes",
        b"2026-11-26 15:49:00 127.0.0.1 []sent /srv/root/complete.bin 226 up 300000",
    ],
}


@pytest.mark.parametrize("line", XFERLOG)
def test_xferlog(line: bytes) -> None:
    assert line_formats.parser("xferlog")(line) == XFERLOG[line]


def test_the_password_of_an_anonymous_user_may_hold_anything() -> None:
    line = (
        b"Thu Nov  6 15:49:09 2026 0 ::1 1 /srv/a.csv b _ i a me b _ i r root ftp 0 * i ftp 0 * c"
    )
    found = line_formats.parser("xferlog")(line)
    assert found is not None
    assert (found.path, found.user, found.host) == (
        b"/srv/a.csv",
        "me b _ i r root ftp 0 * i",
        "::1",
    )
    assert found.complete


def test_times_without_a_zone_may_be_utc() -> None:
    (line, *_) = XFERLOG
    found = line_formats.parser("xferlog", utc=True)(line)
    assert found is not None
    assert found.ended_ns == at_utc(2026, 11, 26, 15, 48, 20)


@pytest.mark.parametrize(
    ("name", "size", "seconds"),
    [
        (b'"/root/complete.bin", 300000 bytes, 23586.57Kbyte/sec', 300_000, 0.012),
        (b'"/root/empty.bin", 0.00Kbyte/sec', 0, None),
        (b'"/root/q"uo\'te.csv", 1 bytes, 0.28Kbyte/sec', 1, None),
        (b'"/root/a", 5 bytes, 9.00Kbyte/sec", 1 bytes, 1.08Kbyte/sec', 1, 0.001),
    ],
)
def test_vsftpds_own_log(name: bytes, size: int, seconds: float | None) -> None:
    head = b'Thu Nov 26 15:48:58 2026 [pid 13612] [daemon] OK UPLOAD: Client "127.0.0.1", '
    found = line_formats.parser("vsftpd")(head + name)
    assert found is not None
    assert found.path == name[1:].rpartition(b'"')[0]
    assert (found.user, found.host, found.transferred) == ("daemon", "127.0.0.1", size)
    assert found.complete
    assert found.seconds == pytest.approx(seconds, abs=0.001)
    assert found.ended_ns == at(2026, 11, 26, 15, 48, 58)


def test_vsftpd_calls_some_uploads_failed() -> None:
    head = b'Thu Nov 26 15:48:58 2026 [pid 1] [up] FAIL UPLOAD: Client "127.0.0.1", "/a.csv"'
    assert line_formats.parser("vsftpd")(head) is None
    found = line_formats.parser("vsftpd")(head + b", 5 bytes, 1.00Kbyte/sec")
    assert found is not None
    assert not found.complete


@pytest.mark.parametrize(
    ("quoted", "path"),
    [
        (b"/srv/root/with%20space.csv", b"/srv/root/with space.csv"),
        (b"/srv/root/lat%E9.csv", b"/srv/root/lat\xe9.csv"),
        (b"/srv/root/q%22uo%27te.csv", b"/srv/root/q\"uo'te.csv"),
        (b"/srv/root/x%20b%20_%20ftp%200%20%2A%20c", b"/srv/root/x b _ ftp 0 * c"),
    ],
)
def test_pureftpd_quotes_names_as_in_urls(quoted: bytes, path: bytes) -> None:
    clf = b'127.0.0.1 - up [26/Nov/2026:15:48:57 -0000] "PUT ' + quoted + b'" 200 30'
    w3c = b"2026-11-26 15:48:57 127.0.0.1 []created " + quoted + b" 226 up 30"
    for name, line in (("clf", clf), ("w3c", w3c)):
        found = line_formats.parser(name)(line)
        ended = at_utc(2026, 11, 26, 15, 48, 57)
        assert found == LogLine(path, True, "up", "127.0.0.1", 30, None, None, "ftp", True, ended)


def test_the_offset_of_clf_is_heeded() -> None:
    line = b'127.0.0.1 - up [26/Nov/2026:15:48:57 +0130] "PUT /a" 200 30'
    found = line_formats.parser("clf")(line)
    assert found is not None
    assert found.ended_ns == at_utc(2026, 11, 26, 14, 18, 57)


def test_pureftpds_stats() -> None:
    line = b"1795708150 6b0854f3.39eb up 127.0.0.1 U 1 2 /srv/root/x b _ i r root ftp 0 * c"
    assert line_formats.parser("stats")(line) == LogLine(
        b"/srv/root/x b _ i r root ftp 0 * c",
        True,
        "up",
        "127.0.0.1",
        1,
        None,
        2.0,
        "ftp",
        True,
        1_795_708_150 * NS,
    )


@pytest.mark.parametrize("name", NO_UPLOADS)
def test_what_is_no_upload_is_passed_over(name: str) -> None:
    for line in NO_UPLOADS[name]:
        assert line_formats.parser(name)(line) is None, line


@pytest.mark.parametrize("name", line_formats.NAMES)
@given(st.binary(max_size=200).filter(lambda raw: not raw.startswith(b"#")))
def test_any_other_line_is_said_to_be_none(name: str, raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        line_formats.parser(name)(raw)


@pytest.mark.parametrize("digits", [19, 400, 4400])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("xferlog", b"Thu Nov 26 15:48:20 2026 0 h %d /a b _ i r up ftp 0 * c"),
        ("xferlog", b"Thu Nov 26 15:48:20 2026 %d h 1 /a b _ i r up ftp 0 * c"),
        (
            "vsftpd",
            b'Thu Nov 26 15:48:58 2026 [pid 1] [up] OK UPLOAD: Client "h", "/a", %d bytes, '
            b"1.00Kbyte/sec",
        ),
        ("clf", b'h - up [26/Nov/2026:15:48:57 +0130] "PUT /a" 200 %d'),
        ("stats", b"1795708150 6b.39 up h U %d 2 /a"),
        ("stats", b"1795708150 6b.39 up h U 1 %d /a"),
        ("stats", b"%d 6b.39 up h U 1 2 /a"),
        ("w3c", b"2026-11-26 15:48:57 h []created /a 226 up %d"),
    ],
)
def test_a_number_beyond_all_sizes_is_none(name: str, line: bytes, digits: int) -> None:
    """SQLite has no such integer, and a float of it is infinite or an OverflowError."""
    with pytest.raises(ValueError, match="no number"):
        line_formats.parser(name)(line.replace(b"%d", b"9" * digits))
    assert line_formats.parser(name)(line.replace(b"%d", b"99")) is not None


@pytest.fixture
def in_zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def set_zone(name: str) -> None:
        monkeypatch.setitem(os.environ, "TZ", name)
        time.tzset()
        one_line._readings.cache_clear()

    yield set_zone
    monkeypatch.undo()
    time.tzset()
    one_line._readings.cache_clear()


def xferlog_at(written: int) -> int:
    stamp = time.strftime("%a %b %d %H:%M:%S %Y", time.localtime(written)).encode()
    told = line_formats.parser("xferlog")(stamp + b" 0 h 1 /a b _ i r up ftp 0 * c")
    assert told is not None
    return told.ended_ns // NS - written


@pytest.mark.parametrize(
    ("zone", "first", "step"),
    [
        ("Europe/Amsterdam", (2026, 10, 25, 0, 30, 0), 3600),
        ("America/New_York", (2026, 11, 1, 5, 30, 0), 3600),
        ("Australia/Lord_Howe", (2026, 4, 4, 14, 45, 0), 1800),
    ],
)
def test_a_time_that_was_twice_is_the_last_that_has_been(
    zone: str,
    first: tuple[int, ...],
    step: int,
    in_zone: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_zone(zone)
    once = at_utc(*first) // NS
    again = once + step
    assert time.localtime(once)[:6] == time.localtime(again)[:6]
    # Neither depends on what was read before: mktime() goes on from its last answer.
    for before in (once - step, again + step):
        for now, written, wrong in ((once, once, 0), (again, again, 0), (again, once, step)):
            monkeypatch.setattr(time, "time", lambda now=now: now + 1.0)
            assert xferlog_at(before) == 0
            assert xferlog_at(written) == wrong


def test_a_time_that_never_was_is_taken_somehow(in_zone: Callable[[str], None]) -> None:
    in_zone("Europe/Amsterdam")
    told = line_formats.parser("xferlog")(b"Sun Mar 29 02:30:00 2026 0 h 1 /a b _ i r up ftp 0 * c")
    assert told is not None
    assert told.ended_ns in (at_utc(2026, 3, 29, 0, 30, 0), at_utc(2026, 3, 29, 1, 30, 0))


@pytest.mark.parametrize("stamp", [b"Thu Nov 32 15:48:20 2026", b"Thu Nox 26 15:48:20 2026"])
def test_a_day_that_is_none(stamp: bytes) -> None:
    with pytest.raises(ValueError, match="no time"):
        line_formats.parser("xferlog")(stamp + b" 0 h 1 /a b _ i r up ftp 0 * c")
