"""Lines and arrivals find each other, whichever comes first, and nothing else does."""

from __future__ import annotations

import pytest

from watchman.model import Version
from watchman.transfer_logs import line_matching
from watchman.transfer_logs.line import LogLine
from watchman.transfer_logs.line_matching import Arrival, Matching
from watchman.transfer_logs.mapping import Prefixes, fold

NS = 1_000_000_000
NOW = 1_795_708_100 * NS
AT = 1000.0
"""Seconds of the monotonic clock."""
PATH = b"/srv/ftp/a.csv"
LINE = LogLine(PATH, True, "anna", "10.0.0.1", 10, None, 0.5, "ftp", True, NOW)


def arrival(size: int = 10, *, path: bytes = PATH, seq: int = 1, written: int = NOW) -> Arrival:
    return Arrival(seq, path, Version(1, 2, size, written, written))


def found(matching: Matching, *lines: LogLine, of: Arrival) -> bool:
    """Say whether an arrival is told its uploader, before or after the lines: it must be equal."""
    for line in lines[:-1]:
        matching.logged(line.path, line, AT)
    other = Matching()
    for line in lines[:-1]:
        other.logged(line.path, line, AT)
    other.arrived(of, AT)
    told = other.logged(lines[-1].path, lines[-1], AT)
    matching.logged(lines[-1].path, lines[-1], AT)
    upload = matching.arrived(of, AT)
    assert (told is None) == (upload is None)
    assert told is None or told == (of, upload)
    return upload is not None


def test_a_line_is_for_the_file_of_its_path_and_size() -> None:
    assert found(Matching(), LINE, of=arrival())
    assert not found(Matching(), LINE, of=arrival(11))
    assert not found(Matching(), LINE, of=arrival(path=b"/srv/ftp/b.csv"))


def test_an_incomplete_upload_is_nobodys() -> None:
    assert not found(Matching(), LINE._replace(complete=False), of=arrival())


def test_the_last_line_of_a_path_counts() -> None:
    made = Matching()
    made.logged(PATH, LINE, AT)
    made.logged(PATH, LINE._replace(user="bert"), AT)
    upload = made.arrived(arrival(), AT)
    assert upload is not None
    assert upload.user == "bert"


def test_a_resumed_upload_has_the_bytes_of_all_its_transfers() -> None:
    begun = LINE._replace(transferred=30, complete=False)
    more = LINE._replace(transferred=50, complete=False)
    rest = LINE._replace(transferred=20)
    assert found(Matching(), begun, rest, of=arrival(50))
    assert found(Matching(), begun, more, rest, of=arrival(100))
    assert found(Matching(), begun, more, rest, of=arrival(70))
    assert found(Matching(), begun, more, rest, of=arrival(20))
    assert not found(Matching(), begun, more, rest, of=arrival(80))


def test_a_log_that_tells_the_files_size_is_believed() -> None:
    line = LINE._replace(transferred=5, size=15)
    assert found(Matching(), line, of=arrival(15))
    assert not found(Matching(), line, of=arrival(5))


def test_a_line_that_is_older_than_the_file_is_of_another_upload() -> None:
    assert found(Matching(), LINE, of=arrival(written=NOW + NS // 2))
    assert not found(Matching(), LINE, of=arrival(written=NOW + 60 * NS))
    # An uploader may set any time; one that the log does not tell is no reason to refuse.
    future = arrival()._replace(version=Version(1, 2, 10, NOW + 9999 * NS, NOW))
    assert found(Matching(), LINE, of=future)
    assert found(Matching(), LINE._replace(ended_ns=0), of=arrival(written=NOW + 60 * NS))


def test_characters_that_servers_replace_are_alike() -> None:
    line = LINE._replace(path=b"/srv/ftp/a_b_____.csv", exact=False)
    real = arrival(path=b"/srv/ftp/a b?\xc3\xbc\t_.csv")
    assert fold(real.path) == line.path
    assert found(Matching(), line, of=real)
    assert not found(Matching(), line._replace(exact=True), of=real)


def test_an_arrival_that_was_told_waits_no_longer() -> None:
    made = Matching()
    assert made.arrived(arrival(), AT) is None
    assert made.waits(PATH, AT)
    told = made.logged(PATH, LINE, AT)
    assert told is not None
    assert made.waits(PATH, AT)  # until that is on disk
    made.settled(told[0], AT)
    assert not made.waits(PATH, AT)


def test_a_later_arrival_is_not_settled_with_an_earlier() -> None:
    made = Matching()
    made.arrived(arrival(seq=1), AT)
    made.arrived(arrival(seq=2), AT)
    made.settled(arrival(seq=1), AT)
    assert made.waits(PATH, AT)


def test_the_verdict_of_a_log() -> None:
    made = Matching()
    version = arrival().version
    assert made.verdict(PATH, version, AT) is None
    made.logged(PATH, LINE._replace(complete=False), AT)
    assert made.verdict(PATH, version, AT) is False
    made.logged(PATH, LINE, AT)
    assert made.verdict(PATH, version, AT) is True
    assert made.verdict(PATH, version._replace(size=99), AT) is None
    later = version._replace(mtime_ns=NOW + 60 * NS, changed_ns=NOW + 60 * NS)
    assert made.verdict(PATH, later, AT) is None


ALIKE = LINE._replace(path=b"/srv/ftp/??.csv", exact=False)
UMLAUT = "/srv/ftp/ä.csv".encode()


def test_an_upload_that_broke_off_says_nothing_of_one_that_is_only_written_alike() -> None:
    made = Matching()
    version = arrival(1000).version
    made.logged(ALIKE.path, ALIKE._replace(transferred=1000), AT)
    broken = ALIKE._replace(transferred=3, complete=False, user="eve")
    made.logged(broken.path, broken, AT)
    assert made.verdict(UMLAUT, version, AT) is True
    upload = made.arrived(arrival(1000, path=UMLAUT), AT)
    assert upload is not None
    assert upload.user == "anna"
    assert made.verdict(UMLAUT, version._replace(size=3), AT) is False
    assert made.verdict(UMLAUT, version._replace(size=4), AT) is None
    # Its own name, in which nothing was replaced, it needs no size for.
    assert made.verdict(broken.path, version._replace(size=4), AT) is False


def test_what_broke_off_before_the_last_line_says_nothing_of_a_file_of_another_size() -> None:
    made = Matching()
    made.logged(PATH, LINE._replace(exact=False, transferred=5, complete=False), AT)
    made.logged(PATH, LINE._replace(exact=False, transferred=7), AT)
    assert made.verdict(PATH, arrival(20).version, AT) is None
    assert made.verdict(PATH, arrival(12).version, AT) is True


CYRILLIC = [f"/srv/ftp/{name}.csv".encode() for name in ("данные", "график", "погода")]


def test_whole_names_that_others_would_write_alike_are_told_apart() -> None:
    assert len(set(map(fold, CYRILLIC))) == 1
    made, other = Matching(), Matching()
    for seq, path in enumerate(CYRILLIC):
        made.logged(path, LINE._replace(path=path, user=str(seq)), AT)
        assert other.arrived(arrival(path=path, seq=seq), AT) is None
    for seq, path in enumerate(CYRILLIC):
        of = arrival(path=path, seq=seq)
        assert made.verdict(path, of.version, AT) is True
        upload = made.arrived(of, AT)
        assert upload is not None
        assert upload.user == str(seq)
        assert other.waits(path, AT)
        told = other.logged(path, LINE._replace(path=path, user=str(seq)), AT)
        assert told == (of, upload)
        other.settled(of, AT)
        assert not other.waits(path, AT)


def test_who_waits_for_a_line_is_told_of_its_own_or_of_all_that_are_written_alike() -> None:
    made = Matching()
    for path in CYRILLIC:
        made.await_line(path, AT)
    assert made.take_awaited(CYRILLIC[0], AT, exact=True) == [CYRILLIC[0]]
    assert made.take_awaited(CYRILLIC[0], AT, exact=True) == []
    made.await_line(CYRILLIC[0], AT)
    assert made.take_awaited(CYRILLIC[1], AT, exact=False) == [CYRILLIC[n] for n in (1, 0, 2)]
    assert made.take_awaited(fold(CYRILLIC[1]), AT, exact=False) == []
    for number in range(20):
        made.await_line(b"/srv/ftp/" + bytes([200 + number]), AT)
    newest = [b"/srv/ftp/" + bytes([200 + number]) for number in range(19, 11, -1)]
    assert made.take_awaited(b"/srv/ftp/_", AT, exact=False) == newest


def test_only_the_line_before_counts_of_those_that_are_written_alike() -> None:
    made = Matching()
    for size in (1, 2, 3):
        made.logged(ALIKE.path, ALIKE._replace(transferred=size * 100), AT)
    sizes = [made.verdict(UMLAUT, arrival(size * 100).version, AT) for size in (1, 2, 3)]
    # The first one was of a file that the others may have resumed.
    assert sizes[1:] == [True, True]
    transfer = made._transfers.get(fold(UMLAUT), AT)
    assert transfer is not None
    assert transfer.earlier is not None
    assert transfer.earlier.earlier is None


def test_memory_is_bounded_by_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_matching, "MOST_LINES", 3)
    monkeypatch.setattr(line_matching, "MOST_ARRIVALS", 3)
    made = Matching()
    paths = [b"/srv/%d" % number for number in range(5)]
    for path in paths:
        made.logged(path, LINE._replace(path=path), AT)
    told = [made.arrived(arrival(path=path), AT) is not None for path in paths]
    assert told == [False, False, True, True, True]
    assert [made.waits(path, AT) for path in paths] == [True, True, False, False, False]
    later = AT + line_matching.KEEP_LINES + 1
    assert made.arrived(arrival(path=paths[4]), later) is None
    assert not made.waits(paths[0], later)


@pytest.mark.parametrize(
    ("prefixes", "path", "user", "expected"),
    [
        ({}, b"/srv/ftp/a.csv", "anna", b"/srv/ftp/a.csv"),
        ({}, b"a.csv", "anna", None),
        ({"/": "/srv/ftp"}, b"/a.csv", "anna", b"/srv/ftp/a.csv"),
        ({"/": "/srv/ftp/{user}"}, b"/x/a.csv", "anna", b"/srv/ftp/anna/x/a.csv"),
        ({"/": "/srv/ftp", "/home/": "/data/"}, b"/home/a.csv", "anna", b"/data/a.csv"),
        ({"/home": "/data"}, b"/homes/a.csv", "anna", None),
        ({"/": "/srv/ftp/{user}"}, b"/a.csv", "..", None),
        ({"/": "/srv/ftp/{user}"}, b"/a.csv", "anna/../bert", None),
        ({"/": "/srv/ftp/{user}"}, b"/a.csv", "", None),
        ({"/": "/srv/ftp/{user}"}, b"/../bert/a.csv", "anna", b"/srv/ftp/anna/bert/a.csv"),
        ({"/": "/srv/ftp"}, b"//x//./a.csv", "anna", b"/srv/ftp/x/a.csv"),
    ],
)
def test_where_a_path_leads(
    prefixes: dict[str, str], path: bytes, user: str, expected: bytes | None
) -> None:
    assert Prefixes(prefixes).path(LINE._replace(path=path, user=user)) == expected


def test_which_files_a_log_may_be_about() -> None:
    assert Prefixes({}).may_lead_to("/any")
    mapped = Prefixes({"/": "/srv/ftp/{user}/in"})
    assert mapped.may_lead_to("/srv/ftp/anna/in/a.csv")
    assert not mapped.may_lead_to("/srv/ftps/a.csv")
    begun = Prefixes({"/": "/srv/ftp/up-{user}", "/data": "/data/"})
    assert begun.may_lead_to("/srv/ftp/up-anna/a.csv")
    assert not begun.may_lead_to("/srv/ftp/anna/a.csv")
    assert begun.may_lead_to("/data/a.csv")
    assert not begun.may_lead_to("/database/a.csv")
