"""``notify history`` with its options, over the journal and its archive, typed as a user would."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from watchman.commands.times import since, until
from watchman.journal import Archive, Journal, NewDelivery, archive, sealing
from watchman.model import Route, State, Version

DAY = 86_400_000_000_000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.kill()


def noon(day: int) -> int:
    """Return the noon of a day in November 2026, local time, in ns."""
    return int(datetime.datetime(2026, 11, day, 12).timestamp()) * 1_000_000_000


def fill(site: Site) -> Path:
    """Put one delivery for each day from 1 to 30 there; most of them into the archive."""
    state = site.top / "var"
    state.mkdir(mode=0o700)
    journal = Journal(str(state))
    news = [
        NewDelivery(
            f"id-{day}",
            f"/up/{day % 2}/{day}.csv",
            None,
            Version(1, day, 2, 3),
            noon(day),
            Route("ab"[day % 3 == 0], f"t{day % 5}"),
        )
        for day in range(1, 31)
    ]
    journal.record(news)
    ends = {7: State.FAILED, 8: State.VANISHED, 9: State.VANISHED}
    why = {8: "discarded by me", 9: "gone"}
    journal.note([(n, ends.get(n, State.SENT), why.get(n, "")) for n in range(1, 31)])
    for _ in range(2):
        sealing.seal(str(state), sealing.mark(archive.files(str(state))), 10, 10)
        work = Archive(journal)
        while work.active:
            work.step(time.monotonic(), idle=(1).__bool__)
        work.close()
    journal.close()
    assert len(archive.files(str(state))) == 2
    return state


def days(site: Site, *arguments: str, status: int = 0) -> list[int]:
    done = site.notify("history", "--json", *arguments)
    assert done.returncode == status, done
    return [item["seq"] for item in parsed(done.stdout)]


def test_each_option_alone_and_together(site: Site) -> None:
    fill(site)
    every = list(range(30, 0, -1))
    assert days(site) == every
    assert days(site, "--since", "2026-11-20") == list(range(30, 19, -1))
    assert days(site, "--until", "2026-11-03") == [3, 2, 1]
    assert days(site, "--since", "2026-11-03T12:00", "--until", "2026-11-05 11:59:59") == [4, 3]
    assert days(site, "--until", "2026-11-03T12:00") == [3, 2, 1]
    assert days(site, "--state", "failed") == [7]
    assert days(site, "--state", "vanished") == [9]
    assert days(site, "--state", "discarded") == [8]
    assert days(site, "--state", "sent") == [day for day in every if day not in {7, 8, 9}]
    assert days(site, "--broker", "b") == [day for day in every if day % 3 == 0]
    assert days(site, "--task", "t4") == [29, 24, 19, 14, 9, 4]
    assert days(site, "--id", "id-12") == [12]
    assert days(site, "/up/1", "--task", "t4", "--until", "2026-11-24") == [19, 9]
    assert days(site, "19.csv", "--since", "2026-11-19") == [19]
    assert days(site, "--limit", "3", "--until", "2026-11-25") == [25, 24, 23]
    assert days(site, "--all") == every
    assert days(site, "--directory", "/up/1") == [day for day in every if day % 2]
    assert days(site, "--directory", "/up", "--task", "t1") == [26, 21, 16, 11, 6, 1]
    assert days(site, "/up/0", "--directory", "/up/1", status=1) == []
    assert days(site, "--directory", "/up/*") == []  # no pattern
    assert days(site, "--reason", "GONE") == [9]
    assert days(site, "--reason", "by m") == [8]
    assert days(site, "--reason", "100%") == []


def test_how_many_are_left_out_is_said_whatever_is_asked(site: Site) -> None:
    fill(site)
    for arguments, left_out in (
        ((), 27), (("--task", "t4"), 3), (("--directory", "/up/1"), 12), (("*9.csv",), 0),
    ):  # fmt: skip
        done = site.notify("history", "--limit", "3", *arguments)
        said = [line.split()[1] for line in done.stderr.splitlines()]
        assert said == ([str(left_out)] if left_out else []), arguments


def test_an_option_without_a_value_is_a_usage_error(site: Site) -> None:
    for option in ("--reason", "--directory"):
        done = site.notify("history", option, "")
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{option} is empty" in done.stderr.splitlines()[-1]


def test_a_time_that_ends_before_it_begins_is_a_usage_error(site: Site) -> None:
    asked = "--since", "2026-11-25", "--until", "2026-11-24"
    for command in (["history"], ["failed"], ["retry", "--yes"], ["resend", "--yes"]):
        done = site.notify(*command, *asked)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert done.stderr.splitlines()[-1] == (
            "Error: --until (2026-11-24 23:59:59) is before --since (2026-11-25 00:00:00): nothing "
            "can have arrived between them"
        )
    assert site.notify("history", "--since", "2026-11-24", "--until", "2026-11-24").returncode == 0


def test_a_task_id_is_meant_in_any_case_of_its_letters(site: Site) -> None:
    task_id = "0123abcd-0123-5123-a123-0123456789ab"
    state = site.top / "var"
    state.mkdir(mode=0o700)
    journal = Journal(str(state))
    about = "/up/1.csv", None, Version(1, 1, 2, 3), noon(1), Route("a", "t")
    journal.record([NewDelivery(task_id, *about)])
    journal.note([(1, State.SENT, "")])
    journal.close()
    assert days(site, "--id", task_id.upper()) == [1]
    assert site.notify("where", task_id.upper()).stdout.startswith("/up/1.csv\n")
    done = site.notify("resend", task_id.upper(), "--yes")
    assert "1 is left out: /up/1.csv" in done.stderr


def test_what_is_not_there_is_said(site: Site) -> None:
    fill(site)
    assert site.notify("history", "--state", "moving").stdout == "nothing of the kind is recorded\n"
    done = site.notify("history", "/up/1/19.csv", "--until", "2026-11-18")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing of the kind is recorded of /up/1/19.csv" in done.stderr
    done = site.notify("history", "--since", "next year")
    assert done.returncode == 2
    assert "'next year' is no time; write one like 14:05, yesterday, 2h (ago)," in done.stderr
    assert days(site, "--id", os.fsdecode(b"\xff")) == []


def test_a_part_that_cannot_be_read_is_said_after_the_rest(site: Site) -> None:
    state = fill(site)
    _, older = archive.files(str(state))
    with open(older.path, "r+b") as file:
        file.truncate(5000)
    assert days(site, status=1) == [
        day for day in range(30, 0, -1) if day not in range(1, 7) and day not in range(8, 12)
    ]
    done = site.notify("history", "--since", "2026-11-29")
    assert done.stdout.count("sent") == 2
    (line,) = done.stderr.splitlines()
    for asked in ((), ("--task", "t1")):  # neither counted, nor looked at
        done = site.notify("history", "--limit", "2", *asked)
        assert done.stderr.startswith("notify: at least ")
        assert " more than these 2 are left out" in done.stderr
    assert line.startswith(f"notify: the part {older.path} of the history cannot be read: ")
    assert "or remove it" in line
    os.unlink(older.path)
    assert days(site, "--until", "2026-11-12") == [12, 7]


def test_times_of_all_kinds() -> None:
    second = 1_000_000_000
    assert since("1970-01-01T00:00:01Z") == second
    assert since("1970-01-01T02:00:01.5+02:00") == 1_500_000_000
    assert until("1970-01-01T00:00:01.5+00:00") == 2 * second - 1
    assert until("1970-01-01T00:00Z") == second - 1
    beginning = since("2026-11-26")
    assert beginning == noon(26) - DAY // 2
    assert until("2026-11-26") == beginning + DAY - 1
    assert since("0001-01-01") == until("0001-01-01") == -(1 << 63)
    assert since("9999-12-31") == until("9999-12-31") == (1 << 63) - 1
    for text in ("", "soon", "2026-13-01", "2026-11-26T25:00", "Z", "\udcff"):
        for kind in (since, until):
            with pytest.raises(click.BadParameter):
                kind(text)
