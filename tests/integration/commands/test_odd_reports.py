"""Names, numbers and times that somebody outside chose: reports show them and never end by them."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from watchman.journal import Journal
from watchman.text import iso, moment, printable

MOST, LEAST = (1 << 63) - 1, -(1 << 63)
NUMBERS = [MOST, LEAST, 0, -1, 1 << 62, 10**18]
NAMES = [
    b"plain.csv", b"new\nline", b"\x1b[31mred\x1b[0m", b"tab\there", b"byte-\xff\xfe",
    b"\xed\xb3\xbf", "größe".encode(), "\u202eevil".encode(), "\u2028".encode(), b"\x7f\x9b",
    b"-rf", b" ",
    b"a" * 255, "\U0001f4a9".encode(), b"\xf4\x90\x80\x80", b"'\"`$(x)",
]  # fmt: skip
INSERT = """INSERT INTO deliveries (seq, task_id, source, final, device, inode, size, mtime_ns,
    arrived_ns, broker, route, kind, state, noted_ns, reason)
    VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)"""
TEXTS = ["plain", "new\nline", "\x1b[2J", "\u202e", "ä", ""]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.kill()


def odd_journal(site: Site) -> int:
    """Fill the journal of a site where nothing runs with rows like no other; how many failed."""
    state = site.top / "var"
    state.mkdir(mode=0o700, exist_ok=True)
    Journal(str(state)).close()
    chance = random.Random(1)
    failed = 0
    connection = sqlite3.connect(state / "journal.db")
    connection.execute("INSERT INTO routes VALUES (1, 'local', ?, '[[], {}, {}]')", ("t\n\x1b",))
    for seq in range(1, 121):
        number = lambda: chance.choice(NUMBERS)  # noqa: E731 — the shortest name for it
        text = lambda: chance.choice(TEXTS)  # noqa: E731 — the same
        source = os.fsencode(site.data) + b"/" + chance.choice(NAMES)
        final = chance.choice([None, source + b".moved"])
        row_state = seq % 6 + 1
        failed += row_state == 4
        row = (
            seq, f"{text()}{seq}", source, final, number(), number(), number(), number(), number(),
            chance.choice(["local", text(), None]), chance.choice([1, None]), "files",
            row_state, number(), text(),
        )  # fmt: skip
        connection.execute(INSERT, row)
    connection.commit()
    connection.close()
    return failed


def good(done: object, *statuses: int) -> str:
    """Return what a command printed, which must be fit for a terminal; nothing on stderr."""
    output, errors = str(getattr(done, "stdout", "")), str(getattr(done, "stderr", ""))
    assert getattr(done, "returncode", None) in statuses, errors
    assert errors == ""
    assert all(line.isprintable() for line in output.split("\n"))
    assert "\u202e" not in output
    return output


def test_reports_of_an_odd_journal(site: Site) -> None:
    failed = odd_journal(site)
    assert good(site.notify("history", "--limit", "1000"), 0).count(" on broker ") > 30
    assert len(parsed(good(site.notify("history", "--json", "--limit", str(MOST)), 0))) == 120
    assert len(parsed(good(site.notify("failed", "--json"), 0))) == failed
    assert good(site.notify("failed"), 0)
    assert "watchman is inactive" in good(site.notify("status"), 1)
    assert json.loads(good(site.notify("status", "--json"), 1))["state"] == "inactive"
    for name in NAMES:
        path = os.fsdecode(os.fsencode(site.data) + b"/" + name)
        done = site.notify("history", "--json", path)
        assert done.returncode == (0 if done.stdout else 1)
        assert all(one["source"] in (path, path + ".moved") for one in parsed(done.stdout))
    done = site.notify("retry", "--all")
    assert done.returncode == 1
    assert all(line.isprintable() for line in done.stderr.splitlines())
    assert done.stdout.count(" again: ") + done.stderr.count(" stays failed: ") == failed
    assert good(site.notify("discard", "--all"), 0).count(" is discarded: ") > 0


def test_scan_and_match_of_odd_names(site: Site) -> None:
    site.configure(
        f"PATTERNS = [({str(site.data)!r} + '/*', {{'broker': 'local', 'task': 't'}})]\n"
    )
    for name in NAMES:
        path = os.path.join(os.fsencode(site.data), name)
        Path(os.fsdecode(path)).write_bytes(b"")
        for seconds in (-(1 << 31), 1 << 33):
            os.utime(path, (seconds, seconds))
    os.truncate(site.data / "plain.csv", 1 << 40)
    os.mkfifo(site.data / "fifo")
    shown = good(site.notify("scan"), 0)
    assert shown.splitlines()[-1].startswith(f"{len(NAMES)} not known; ")
    found = json.loads(good(site.notify("scan", "--json"), 0))
    assert {os.path.basename(os.fsencode(item["path"])) for item in found} == set(NAMES)
    assert max(item["size"] for item in found) == 1 << 40
    paths = [item["path"] for item in found]
    assert good(site.notify("match", *paths), 0)
    assert [one["path"] for one in json.loads(good(site.notify("match", "--json", *paths), 0))] == (
        paths
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("history", "--limit", "0"),
        ("stop", "--timeout", "nan"),
        ("stop", "--timeout", "1e308"),
        ("stop", "--timeout", "inf"),
        ("restart", "--timeout", "-1"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(site: Site, arguments: tuple[str, ...]) -> None:
    done = site.notify(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("Usage: ")


@pytest.mark.parametrize("which", ["9" * 18, "9" * 19, "9" * 5000, "٣", "²", "x" * 5000])
def test_numbers_of_deliveries_that_are_none(site: Site, which: str) -> None:
    (site.top / "var").mkdir(mode=0o700)
    Journal(str(site.top / "var")).close()
    done = site.notify("retry", which)
    assert done.returncode == 1
    assert done.stderr.startswith("notify: no failed delivery: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("pattern", ["[z-a]", "[", "[!", "*" * 200, "[]-a]", "(", "\\"])
def test_patterns_of_history_that_are_odd(site: Site, pattern: str) -> None:
    odd_journal(site)
    done = site.notify("history", pattern)
    assert done.returncode in (0, 1)
    assert done.returncode == 0 or done.stderr == f"notify: nothing is recorded of {pattern}\n"


@pytest.mark.parametrize(
    "mark",
    "\x00\x1b\x7f\x9b\u061c\u180e\u200b\u200e\u200f\u2028\u2029\u202a\u202e\u2060\u2066\u2069\u206f"
    "\ufeff\ufffb\udc80\udcff\ud800\U000e0001\U000e007f",
)
def test_nothing_forges_or_disguises_a_line(mark: str) -> None:
    shown = printable(f"a{mark}b")
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) > 3


def test_what_names_are_spelled_with_is_shown() -> None:
    # A joiner of Persian, one of an emoji, a space of French.
    for name in ("größe", "می\u200cخواهم", "👩\u200d🔬", "données\u202f2", "数据"):
        assert printable(name) == name


def test_times_beyond_any_calendar() -> None:
    assert moment(MOST).startswith("2262-04-1")
    assert moment(253402300800 * 10**9 * 10) == f"{253402300800 * 10**9 * 10} ns after 1970"
    assert iso(10**30) is None
    assert iso(-(10**30)) is None
    assert iso(0) == "1970-01-01T00:00:00+00:00"


def test_a_damaged_journal_counts_nothing(site: Site) -> None:
    state = site.top / "var"
    state.mkdir(mode=0o700)
    Journal(str(state)).close()
    assert "watchman_journal_readable 1.0\n" in site.notify("metrics").stdout
    path = state / "journal.db"
    path.write_bytes(path.read_bytes()[:4096] + os.urandom(path.stat().st_size - 4096))
    done = site.notify("status")
    assert done.returncode == 1
    assert "is damaged" in done.stderr
    assert "Deliveries cannot be counted: the journal cannot be read" in done.stdout
    assert "never" not in done.stdout
    metrics = site.notify("metrics").stdout
    assert "watchman_journal_readable 0.0\n" in metrics
    assert "watchman_sent_total" not in metrics
