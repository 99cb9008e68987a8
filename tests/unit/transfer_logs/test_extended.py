"""ProFTPD's ExtendedLog: lines as ProFTPD 1.3.8 wrote them by the LogFormats here."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchman.transfer_logs import extended
from watchman.transfer_logs.line import LogLine

FULL = "%h|%u|%{protocol}|%m|%b|%T|%s|%{transfer-status}|%{file-size}|%{transfer-millisecs}|%t|%f"
QUOTED = r"%h %l %u %t \"%r\" %s %b \"%f\""
ENDED = 1_795_708_111 * 1_000_000_000
STAMP = b"[26/Nov/2026:15:48:31 +0000]"


def full(method: bytes, rest: bytes, path: bytes) -> bytes:
    return b"127.0.0.1|up|ftp|" + method + b"|" + rest + b"|" + STAMP + b"|" + path


@pytest.mark.parametrize(
    ("line", "transferred", "size", "seconds", "complete"),
    [
        (full(b"STOR", b"1500|0.301|226|success|1500|301", b"/a.bin"), 1500, 1500, 0.301, True),
        (full(b"APPE", b"500|0.000|226|success|1500|0", b"/a.bin"), 500, 1500, 0.0, True),
        (full(b"STOR", b"9|0.702|426|cancelled|-|702", b"/a.bin"), 9, None, 0.702, False),
        (full(b"STOR", b"9|0.301|426|failed|-|301", b"/a.bin"), 9, None, 0.301, False),
    ],
)
def test_the_outcome(
    line: bytes, transferred: int, size: int | None, seconds: float, complete: bool
) -> None:
    assert extended.parser(FULL)(line) == LogLine(
        b"/a.bin", True, "up", "127.0.0.1", transferred, size, seconds, "ftp", complete, ENDED
    )


def test_sftp_has_no_code_where_all_is_well() -> None:
    line = full(b"STOR", b"5000|0.011|-|-|5000|11", b"/a.bin").replace(b"|ftp|", b"|sftp|")
    found = extended.parser(FULL)(line)
    assert found is not None
    assert found.complete
    assert found.protocol == "sftp"


@pytest.mark.parametrize(
    "line",
    [
        full(b"RNTO", b"0|-|250|-|-|-", b"/renamed.bin"),
        full(b"RETR", b"300000|0.001|226|success|300000|1", b"/a.bin"),
        full(b"STOR", b"-|-|501|failed|-|-", b"/rest.bin"),
        full(b"MKD", b"-|-|257|-|-|-", b"/sub dir"),
    ],
)
def test_what_is_no_upload_is_passed_over(line: bytes) -> None:
    assert extended.parser(FULL)(line) is None


def test_a_format_with_quotes_as_in_proftpd_conf() -> None:
    line = b"127.0.0.1 UNKNOWN up " + STAMP + b' "STOR q"uo\'te.csv" 226 1 "/srv/root/q"uo\'te.csv"'
    found = extended.parser(QUOTED)(line)
    assert found is not None
    assert found.path == b"/srv/root/q\"uo'te.csv"
    assert (found.transferred, found.size, found.complete) == (1, None, True)


def test_a_line_that_can_be_read_in_two_ways_is_nobodys() -> None:
    name = b'x" 226 1 "/srv/of/somebody/else'
    line = b"h UNKNOWN up " + STAMP + b' "STOR ' + name + b'" 226 1 "/srv/' + name + b'"'
    with pytest.raises(ValueError, match="in two ways"):
        extended.parser(QUOTED)(line)


@given(st.binary(min_size=1).filter(lambda raw: b"\n" not in raw))
def test_no_name_can_feign_another_field(name: bytes) -> None:
    # Read rightly, or not at all.
    for form, line in (
        (FULL, full(b"STOR", b"15|0.301|226|success|15|301", b"/" + name)),
        (QUOTED, b"h l up " + STAMP + b' "STOR ' + name + b'" 226 15 "/' + name + b'"'),
    ):
        try:
            found = extended.parser(form)(line)
        except ValueError:
            assert form is QUOTED
            continue
        assert found is not None
        assert (found.path, found.transferred, found.user) == (b"/" + name, 15, "up")


@pytest.mark.parametrize("form", ["%b", "%b %{file-size}", "%b %T", "%b %{transfer-millisecs}"])
def test_a_number_beyond_all_sizes_is_none(form: str) -> None:
    parse = extended.parser(f"{form} %m %s %f")
    last = form.count(" ")
    for digits, good in ((2, True), (19, False), (400, False)):
        line = b" ".join([*[b"1"] * last, b"9" * digits, b"STOR 226 /a"])
        if good:
            assert parse(line) is not None
        else:
            with pytest.raises(ValueError, match="no number"):
                parse(line)


def test_the_worst_name_takes_no_time_to_speak_of() -> None:
    name = b'" 226 1 "/' * 380
    line = b"h l up " + STAMP + b' "STOR ' + name + b'" 226 15 "/' + name + b"x"
    begun = time.process_time()
    with pytest.raises(ValueError, match="not by this LogFormat"):
        extended.parser(QUOTED)(line)
    assert time.process_time() - begun < 1.0


@pytest.mark.parametrize(
    ("log_format", "wrong"),
    [
        (FULL, ""),
        (QUOTED, ""),
        ("%h %u %m %s %b %{%Y-%m-%d %H:%M:%S}t %F", ""),
        ("%h %u %m %s %b", "has no file name: write %f"),
        ("%h %u %m %s %f", "has no size: write %b"),
        ("%h %u %b %s %f", "has no command: write %m"),
        ("%h %u %m %b %f", "has no outcome: write %{transfer-status}, or %s"),
        ("%m %b %s %r %f %F", "has 3 fields that may hold anything (%r, %f, %F)"),
        ("%m %b %s %f %S %{note:x}", "has 3 fields that may hold anything (%f, %S, %{note:x})"),
        ("%m %b %s %f %f", "has %f twice"),
        ("%m %b %s %f 100 %", "has a single %"),
        ("%m %b %s %{%Q}t %f", "has a time of unknown form, %{%Q}t"),
    ],
)
def test_what_is_wrong_with_a_format_is_said(log_format: str, wrong: str) -> None:
    said = extended.wrong_with(log_format)
    assert said.startswith(wrong)
    assert bool(said) == bool(wrong)
