"""``notify resend``, and ``retry`` and ``discard`` with options, typed as an operator would."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import embedded
from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from tests.waiting import wait_until
from watchman.directory_identity import identify
from watchman.journal import Archive, Journal, NewDelivery, archive, sealing
from watchman.model import Route, State, Version

ROUTE = Route("local", "tasks.load")
SENT = "message(s) in the broker's directory"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.kill()


def messages(site: Site) -> list[tuple[str, str]]:
    """Return (source, task id) of every message that the broker has."""
    return [(one["watchman_source"], one["id"]) for one in embedded.headers(site.top / "var")]


def history(site: Site, *arguments: str) -> list[dict[str, Any]]:
    done = site.notify("history", "--json", "--all", *arguments)
    assert done.returncode == 0, done
    return parsed(done.stdout)


def upload(site: Site, *names: str) -> list[str]:
    paths = [site.data / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
    return [str(path) for path in paths]


def sent(site: Site, count: int) -> list[tuple[str, str]]:
    """Wait until the broker has so many messages, and the journal says so."""
    wait_until(lambda: len(messages(site)) >= count, 40, SENT, interval=0.2)
    states = lambda: [one["state"] for one in history(site)]  # noqa: E731 — the shortest name
    wait_until(lambda: states().count("sent") == count, 20, "noted", interval=0.3)
    return messages(site)


def test_a_running_daemon_sends_the_second_task(site: Site) -> None:
    site.start()
    one, two = upload(site, "1.csv", "2.csv")
    first = dict(sent(site, 2))
    done = site.notify("resend", one, "--yes")
    assert (done.returncode, done.stderr) == (0, ""), done
    again, total = done.stdout.splitlines()
    assert again.startswith(("1 is sent again as ", "2 is sent again as "))
    assert again.endswith(f": {one}")
    assert total == "1 delivery sent again"
    every = sent(site, 3)
    (new_id,) = {task_id for source, task_id in every if source == one} - {first[one]}
    assert uuid.UUID(new_id).version == 4
    assert new_id in again
    # An upload after that is told from it, and loses nothing.
    (three,) = upload(site, "3.csv")
    assert {source for source, _ in sent(site, 4)} == {one, two, three}
    assert sorted({row["seq"] for row in history(site)}) == [1, 2, 3, 4]
    told = site.notify("where", one).stdout
    name = pwd.getpwuid(os.getuid()).pw_name
    assert "a second task for delivery " in told
    assert f"by {name} (uid {os.getuid()}" in told
    # A time that is set makes no other delivery of it, whichever delivery is known there.
    os.chmod(one, 0o600)
    assert site.notify("resend", "--id", new_id.upper(), "--same-id", "--yes").returncode == 0
    assert [task_id for source, task_id in sent(site, 5) if source == one].count(new_id) == 2


def test_the_newest_of_a_file_and_only_what_is_still_so(site: Site) -> None:
    paths = upload(site, "a/1.csv", "a/2.csv", "a/3.csv", "b/4.csv")
    site.configure(f"MOVES = {{{str(site.data / 'b')!r}: {str(site.top / 'store')!r}}}\n")
    (site.top / "store").mkdir()
    state = fill(site, paths, str(site.top / "store/4.csv"))
    os.rename(paths[3], site.top / "store/4.csv")
    os.unlink(paths[0])
    Path(paths[1]).write_text("another upload")
    done = site.notify("resend", "--directory", str(site.data), "--yes", "--json")
    assert done.returncode == 1
    told = {one["source"]: one for one in parsed(done.stdout)}
    assert {source: one["left_out"] for source, one in told.items()} == {
        paths[0]: "it is not there any more",
        paths[1]: "it has changed since it was sent",
        paths[2]: "",
        paths[3]: "",
    }
    assert done.stderr.count(" is left out: ") == 2
    waiting = [one for one in history(site) if one["state"] == "ready"]
    assert {one["source"] for one in waiting} == {paths[2], paths[3]}
    assert {one["seq"] for one in waiting} == {told[path]["resent_seq"] for path in paths[2:]}
    # What waits already is not sent a third time.
    done = site.notify("resend", paths[2], "--yes")
    assert done.returncode == 1
    assert "has not been sent yet" in done.stderr
    site.start()
    assert {source for source, _ in wait_for_messages(site, 2)} == {paths[2], paths[3]}
    assert state.exists()


def wait_for_messages(site: Site, count: int) -> list[tuple[str, str]]:
    wait_until(lambda: len(messages(site)) >= count, 40, SENT, interval=0.2)
    return messages(site)


def fill(site: Site, paths: list[str], final: str) -> Path:
    """Put a delivery that was sent for each path there, the first two in the archive, too."""
    state = site.top / "var"
    state.mkdir(mode=0o700)
    journal = Journal(str(state))
    for path in paths:
        status = os.stat(path)
        numbers = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
        version = Version(*numbers, status.st_ctime_ns)
        there = final if path is paths[-1] else None
        journal.record([NewDelivery(f"id-{path}", path, there, version, 1000, ROUTE)])
    journal.note([(seq, State.SENT, "") for seq in range(1, len(paths) + 1)])
    sealing.seal(str(state), sealing.mark([]), 1, 3)
    work = Archive(journal)
    now = 0.0
    while work.active:
        now += 10
        work.step(now, idle=lambda: True)
    work.close()
    journal.close()
    assert len(archive.files(str(state))) == 1
    return state


def test_brackets_in_a_name_mean_no_other_file(site: Site) -> None:
    site.start()
    with_brackets, _ = upload(site, "data[1].csv", "data1.csv")
    sent(site, 2)
    for name in ("data[1].csv", with_brackets):
        done = site.notify("resend", "--yes", "--json", name)
        assert done.returncode == 0, done
        assert [one["source"] for one in parsed(done.stdout)] == [with_brackets]
        sent(site, 3 if name == "data[1].csv" else 4)


def test_without_a_terminal_it_has_to_be_said(site: Site) -> None:
    paths = upload(site, "1.csv", "2.csv")
    fill(site, paths, paths[1])
    before = history(site)
    done = site.notify("resend", "--task", "tasks.load")
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no terminal to ask on: say --yes to do it" in done.stderr
    done = site.notify("resend")
    assert done.returncode == 2
    assert "name what to send again by number, task id, path or an option" in done.stderr
    done = site.notify("resend", "none.csv", "7", "--yes")
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == (
        "notify: nothing that was sent: none.csv; 'notify where' tells what became of it"
    )
    assert site.notify("resend", "--task", "none", "--yes").stdout == (
        "nothing of the kind was sent\n"
    )
    assert history(site) == before


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1)])
def test_on_a_terminal_it_is_asked(site: Site, answer: str, status: int) -> None:
    paths = upload(site, "1.csv", "2.csv")
    fill(site, paths, paths[1])
    command = f"{sys.executable} -m watchman resend --task tasks.load; echo status $?"
    done = subprocess.run(
        ["script", "-qc", command, "/dev/null"],
        cwd=site.top,
        env=site.environment,
        input=f"{answer}\n".encode(),
        capture_output=True,
        check=True,
    )
    assert b"Send a second task for 2 deliveries? [y/N]" in done.stdout
    assert f"status {status}".encode() in done.stdout
    waiting = [one for one in history(site) if one["state"] == "ready"]
    assert len(waiting) == (2 if answer == "y" else 0)


def test_a_broker_or_pattern_that_is_gone_is_said(site: Site) -> None:
    paths = upload(site, "1.csv", "2.csv")
    fill(site, paths, paths[1])
    site.configure("PATTERNS = []\n")
    done = site.notify("resend", paths[0], "--yes")
    assert done.returncode == 0
    assert "no pattern leads to task tasks.load on broker local any more: 1 delivery" in done.stderr
    site.configure("BROKERS = {'other': 'filesystem://'}\nPATTERNS = []\n")
    done = site.notify("resend", paths[1], "--yes")
    assert done.returncode == 1
    assert "is left out" in done.stderr
    assert "there is no broker local in BROKERS" in done.stderr


def failures(site: Site, paths: list[str]) -> None:
    state = site.top / "var"
    state.mkdir(mode=0o700)
    journal = Journal(str(state))
    for number, path in enumerate(paths, 1):
        status = os.stat(path)
        version = Version(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        route = ROUTE._replace(task=f"tasks.t{number % 2}")
        journal.record([NewDelivery(f"id-{number}", path, None, version, number, route)])
    why = {1: "refused: too large", 2: "refused: no such queue"}
    journal.note([(n, State.FAILED, why.get(n, "other")) for n in range(1, len(paths) + 1)])
    journal.close()


def test_failed_with_options_and_in_sum(site: Site) -> None:
    failures(site, upload(site, *(f"{number}.csv" for number in range(1, 6))))
    seqs = lambda *more: [  # noqa: E731 — the shortest name
        one["seq"] for one in parsed(site.notify("failed", "--json", *more).stdout)
    ]
    assert seqs() == [1, 2, 3, 4, 5]
    assert seqs("--reason", "REFUSED") == [1, 2]
    assert seqs("--task", "tasks.t1", "--directory", str(site.data)) == [1, 3, 5]
    assert seqs("--since", "yesterday") == []
    assert seqs("--broker", "none") == []
    assert site.notify("failed", "--broker", "none").stdout == "nothing of the kind failed\n"
    done = site.notify("failed", "--limit", "2")
    assert done.stderr.startswith("notify: 3 more than these 2 are left out; ")
    lines = site.notify("failed", "--summary").stdout.splitlines()
    assert lines[0].endswith("  10 min     1 h     1 d     1 w   older  time since arrival")
    assert lines[1].split()[:6] == ["5", "0", "0", "0", "0", "5"]
    assert lines[2].split()[0] == "2"
    assert "tasks.t1 on local" in lines[2]
    assert lines[3].strip() == "other"
    groups = parsed(site.notify("failed", "--summary", "--json").stdout)
    assert sorted((one["reason"], one["task"], one["count"], one["older"]) for one in groups) == [
        ("other", "tasks.t0", 1, 1),
        ("other", "tasks.t1", 2, 2),
        ("refused: no such queue", "tasks.t0", 1, 1),
        ("refused: too large", "tasks.t1", 1, 1),
    ]


def test_retry_and_discard_with_options(site: Site) -> None:
    paths = upload(site, *(f"{number}.csv" for number in range(1, 6)))
    failures(site, paths)
    done = site.notify("retry", "--reason", "refused")
    assert (done.returncode, done.stdout) == (2, "")
    assert "say --yes" in done.stderr
    done = site.notify("retry", "--reason", "refused", "--yes")
    assert done.stdout.splitlines() == [f"{n} is ready again: {paths[n - 1]}" for n in (1, 2)]
    assert "no pattern leads to task tasks.t1 on broker local any more: 1 delivery" in done.stderr
    done = site.notify("discard", str(site.data), "--task", "tasks.t1", "--yes")
    assert done.stdout.splitlines() == [f"{n} is discarded: {paths[n - 1]}" for n in (3, 5)]
    assert site.notify("discard", "--all", "3").returncode == 2
    assert site.notify("discard").returncode == 2
    assert site.notify("discard", "--all").stdout == f"4 is discarded: {paths[3]}\n"
    assert "tried again by " in site.notify("where", paths[0]).stdout


def test_retry_and_discard_take_a_mere_name(site: Site) -> None:
    for above in ("anna", "bert"):
        (site.data / above).mkdir()
    names = ("anna/1.csv", "bert/1.csv", "anna/2.csv", "bert/3.csv", "data[4].csv")
    paths = upload(site, *names)
    failures(site, paths)
    assert site.notify("discard", "2.csv").stdout == f"3 is discarded: {paths[2]}\n"
    assert site.notify("retry", "bert/3.csv").stdout == f"4 is ready again: {paths[3]}\n"
    assert site.notify("discard", "data[4].csv").stdout == f"5 is discarded: {paths[4]}\n"
    # Of several it asks.
    done = site.notify("discard", "1.csv")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"1  {paths[0]}\n2  {paths[1]}\n")
    assert "say --yes" in done.stderr
    done = site.notify("discard", "?.csv", "--yes")
    assert done.stdout.splitlines() == [f"{n} is discarded: {paths[n - 1]}" for n in (1, 2)]
    done = site.notify("retry", "1.csv")
    assert done.returncode == 1
    assert done.stderr == "notify: no failed delivery: 1.csv; 'notify failed' lists them\n"


def test_retry_and_discard_mean_no_other_file_by_brackets(site: Site) -> None:
    paths = upload(site, "data1.csv", "data[1].csv", "more1.csv", "more[1].csv", "last1.csv")
    failures(site, paths)
    done = site.notify("discard", "--yes", paths[1])
    assert done.stdout.splitlines() == [f"2 is discarded: {paths[1]}"]
    done = site.notify("retry", "--yes", paths[3])
    assert done.stdout.splitlines() == [f"4 is ready again: {paths[3]}"]
    done = site.notify("discard", "--yes", f"{site.data}/[lm]*1.csv")
    assert done.stdout.splitlines() == [f"{n} is discarded: {paths[n - 1]}" for n in (3, 5)]


def test_a_whole_directory_gets_a_second_task(site: Site) -> None:
    site.configure(
        f"WATCHES = [{{'path': {str(site.data)!r}, 'kind': 'directories'}}]\n"
        "PATTERNS = [('*', {'broker': 'local', 'task': 'tasks.load'})]\n"
    )
    site.start()
    made = site.top / "made"
    made.mkdir()
    made.rename(site.data / "whole")
    [(_, first)] = sent(site, 1)
    (site.data / "whole/more").touch()  # what is in it may change
    assert "1 is sent again as 2" in site.notify("resend", "1", "--yes").stdout
    found = sent(site, 2)
    assert [source for source, _ in found] == [str(site.data / "whole")] * 2
    assert len({first, *(task_id for _, task_id in found)}) == 2
    assert [one["state"] for one in history(site)] == ["sent", "sent"]
    # Another one in its place is not what was sent.
    site.stop()
    (site.data / "whole").rename(site.top / "away")
    (site.data / "whole").mkdir()
    done = site.notify("resend", "1", "--yes")
    assert "is left out" in done.stderr
    assert "it has changed since it was sent" in done.stderr


def test_a_directory_that_is_still_at_its_source_is_moved_again(site: Site) -> None:
    """Whatever stands at its destination."""
    source, final = site.data / "whole", site.top / "store/whole"
    for path in (source, final):
        path.mkdir(parents=True)
    state = site.top / "var"
    state.mkdir(mode=0o700)
    directory = os.open(source, os.O_PATH)
    found = identify("", directory)
    os.close(directory)
    assert found is not None
    journal = Journal(str(state))
    new = NewDelivery("id", str(source), str(final), found[0], 5, ROUTE, kind="directories")
    journal.record([new])
    journal.note([(1, State.FAILED, "refused")])
    journal.close()
    assert site.notify("retry", "1").stdout == f"1 is moving again: {source}\n"
