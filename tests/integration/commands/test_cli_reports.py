"""The commands that report and act on deliveries, typed as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from tests.waiting import wait_until
from watchman.journal import Journal, NewDelivery
from watchman.model import Route, State, Version

ROUTE = Route("local", "tasks.load")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.kill()


def version(path: Path) -> Version:
    status = path.stat()
    return Version(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def record(site: Site, *deliveries: tuple[Path, Path | None]) -> None:
    """Put deliveries that failed into the journal of a site where nothing runs."""
    state = site.top / "var"
    state.mkdir(mode=0o700, exist_ok=True)
    journal = Journal(str(state))
    news = []
    for number, (source, final) in enumerate(deliveries, 1):
        there = source if source.exists() else final
        assert there is not None
        target = None if final is None else str(final)
        news.append(NewDelivery(f"id-{number}", str(source), target, version(there), 1, ROUTE))
    journal.record(news)
    journal.note([(n, State.FAILED, "refused: too large") for n in range(1, len(news) + 1)])
    journal.close()


LINES = {"history", "failed"}


def told(site: Site, *arguments: str) -> Any:
    done = site.notify(*arguments, "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return parsed(done.stdout) if arguments[0] in LINES else json.loads(done.stdout)


def make(site: Site, *names: str) -> list[Path]:
    paths = [site.data / name for name in names]
    for path in paths:
        path.write_text(path.name)
    return paths


def test_nothing_has_run_yet(site: Site) -> None:
    assert told(site, "history") == []
    assert told(site, "failed") == []
    assert site.notify("failed").stdout == "nothing failed\n"
    assert site.notify("retry", "--all").returncode == 1
    status = site.notify("status", "--json")
    assert status.returncode == 1
    assert json.loads(status.stdout)["state"] == "inactive"
    assert not (site.top / "var").exists()


def test_history_of_what_was_sent(site: Site) -> None:
    site.start()
    first, second = make(site, "1.csv", "2.csv")
    wait_until(lambda: len(sent(site)) == 2, 20, "both are sent", interval=0.3)
    (found,) = told(site, "history", "data/1.csv")
    assert found["source"] == found["final"] == str(first)
    assert (found["state"], found["task"], found["broker"]) == ("sent", "tasks.load", "local")
    assert {item["source"] for item in told(site, "history", "data")} == {str(first), str(second)}
    assert len(told(site, "history", "--limit", "1")) == 1
    lines = site.notify("history", str(first)).stdout.splitlines()
    assert lines[0].endswith(f"  {first}")
    assert lines[1].startswith("    sent ")
    status = site.status()
    assert [(part["broker"], part["state"], part["count"]) for part in status["deliveries"]] == [
        ("local", "sent", 2)
    ]
    assert status["last_arrival"]
    assert status["last_sent"]
    site.stop()
    # Of the journal's time and the sender's, which is a moment later, the last that is known.
    assert site.status()["last_sent"] >= status["last_sent"]
    assert len(told(site, "history")) == 2


def sent(site: Site) -> list[dict[str, Any]]:
    return [item for item in told(site, "history") if item["state"] == "sent"]


def test_failed_and_discard(site: Site) -> None:
    one, two = make(site, "1.csv", "2.csv")
    record(site, (one, None), (two, None))
    found = told(site, "failed")
    assert [(item["seq"], item["reason"]) for item in found] == [
        (1, "refused: too large"),
        (2, "refused: too large"),
    ]
    assert "refused: too large" in site.notify("failed").stdout
    done = site.notify("discard", "2", "77", "data/none")
    assert done.returncode == 1
    assert done.stdout == f"2 is discarded: {two}\n"
    assert done.stderr.splitlines() == [
        "notify: no failed delivery: 77; 'notify failed' lists them",
        "notify: no failed delivery: data/none; 'notify failed' lists them",
    ]
    assert two.exists()
    (gone,) = told(site, "history", str(two))
    assert gone["state"] == "vanished"
    assert gone["reason"].startswith("discarded by ")
    assert [item["seq"] for item in told(site, "failed")] == [1]


def test_discard_removes_what_was_left_of_moving(site: Site) -> None:
    """Half a copy goes, a source that was set aside comes back; and nothing of anybody else."""
    one, two = make(site, "1.csv", "2.csv")
    store = site.top / "store"
    store.mkdir()
    record(site, (one, store / "1.csv"), (two, store / "2.csv"))
    (store / ".watchman-id-1.tmp").write_text("half")
    (store / ".watchman-id-1.mark.tmp").write_text("12345\n")
    (store / ".watchman-id-2.tmp").write_text("of another delivery")
    one.rename(one.with_name(".watchman-id-1.tmp"))
    assert site.notify("discard", "1").returncode == 0
    assert one.read_text() == "1.csv"
    assert sorted(path.name for path in store.iterdir()) == [".watchman-id-2.tmp"]
    assert sorted(path.name for path in site.data.iterdir()) == ["1.csv", "2.csv"]


def test_discard_leaves_what_is_being_moved_again(site: Site) -> None:
    """The same identity arrived once more: its copy is under way."""
    (one,) = make(site, "1.csv")
    store = site.top / "store"
    store.mkdir()
    record(site, (one, store / "1.csv"))
    journal = Journal(str(site.top / "var"))
    journal.record([NewDelivery("id-1", str(one), str(store / "1.csv"), version(one), 1, ROUTE)])
    journal.close()
    (store / ".watchman-id-1.tmp").write_text("half")
    assert site.notify("discard", "1").returncode == 0
    assert (store / ".watchman-id-1.tmp").exists()


@pytest.mark.parametrize("command", ["retry", "discard"])
@pytest.mark.parametrize("arguments", [[], ["--all", "1"]])
def test_usage(site: Site, command: str, arguments: list[str]) -> None:
    done = site.notify(command, *arguments)
    assert done.returncode == 2
    assert "--all" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        *("discard", "retry", "history", "where", "match", "backup", "init", "hold", "release"),
        *("resend --yes", "discard --yes 1", "web --auth", "status --config"),
    ],
)
def test_an_empty_argument_means_nothing(site: Site, command: str) -> None:
    """It is that of a shell's variable which is not set: here is not what was meant."""
    one, two = make(site, "1.csv", "2.csv")
    record(site, (one, None), (two, None))
    done = site.notify(*command.split(), "")
    assert done.returncode == 2, done.stdout
    assert "names nothing" in done.stderr
    assert len(told(site, "failed")) == 2


def test_two_slashes_in_front_are_one(site: Site) -> None:
    (path,) = make(site, "a.csv")
    record(site, (path, None))
    for command in ("history", "where", "match"):
        plain, doubled = (site.notify(command, f"{more}{path}") for more in ("", "/"))
        assert (doubled.returncode, doubled.stdout) == (0, plain.stdout)
    done = site.notify("hold", f"/{site.data}")
    assert (done.returncode, done.stdout.split(":")[0]) == (0, str(site.data))


def test_retry_finds_out_which_step_is_left(site: Site) -> None:
    destination = site.top / "dst"
    destination.mkdir()
    here, replaced = make(site, "here.csv", "replaced.csv")
    moved = destination / "moved.csv"
    moved.write_text("x")
    record(
        site,
        (here, destination / "here.csv"),
        (site.data / "moved.csv", moved),
        (replaced, destination / "replaced.csv"),
    )
    # Another file of that name came after the recorded one had gone.
    replaced.write_text("something longer")
    done = site.notify("retry", "--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "1 is moving again",
        "2 is ready again",
        "3 is moving again",
    ]


def test_a_running_daemon_picks_a_retry_up(site: Site) -> None:
    site.start()
    make(site, "1.csv")
    wait_until(lambda: len(sent(site)) == 1, 20, "it is sent", interval=0.3)
    journal = Journal(str(site.top / "var"))
    journal.note([(1, State.FAILED, "as if refused")])
    journal.close()
    assert site.notify("retry", "1").stdout.startswith("1 is ready again: ")
    wait_until(lambda: len(sent(site)) == 1, 25, "it is sent again", interval=0.3)


def test_scan_reports_and_changes_nothing(site: Site) -> None:
    site.start()
    make(site, "known.csv")
    wait_until(lambda: len(sent(site)) == 1, 20, "it is sent", interval=0.3)
    site.stop()
    assert told(site, "scan") == []
    complete, unmatched, ignored = make(site, "new.csv", "new.txt", "new.part")
    (site.data / "below").mkdir()
    odd = os.fsencode(site.data / "below") + b"/\xff.csv"
    Path(os.fsdecode(odd)).write_text("1")
    (site.data / "link.csv").symlink_to(complete)
    before = {path.name: path.stat().st_mtime_ns for path in (site.top / "var").iterdir()}
    with (site.data / "busy.csv").open("w") as writer:
        writer.write("half")
        writer.flush()
        found = {item["path"]: item for item in told(site, "scan")}
    assert {path: (item["state"], item["note"]) for path, item in found.items()} == {
        str(complete): ("complete", ""),
        str(unmatched): ("complete", "no pattern matches"),
        os.fsdecode(odd): ("complete", ""),
        str(site.data / "busy.csv"): ("being written", ""),
    }
    assert found[str(complete)]["task"] == "tasks.load"
    text = site.notify("scan").stdout
    assert "below/\\xff.csv  (complete; tasks.load)" in text
    assert text.endswith("\n4 not known; 4 complete; 3 × to be sent, 1 × no pattern matches\n")
    assert {p.name: p.stat().st_mtime_ns for p in (site.top / "var").iterdir()} == before
    assert str(ignored) not in text


def test_scan_before_the_first_run(site: Site) -> None:
    make(site, "old.csv")
    (found,) = told(site, "scan")
    assert found["note"] == "existing is 'new': what is there before the first run is not sent"


def test_scan_send(site: Site) -> None:
    done = site.notify("scan", "--send")
    assert done.returncode == 1
    assert done.stderr == (
        "notify: nothing runs with this configuration; 'notify start' starts it\n"
    )
    pid = site.start()
    done = site.notify("scan", "--send")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Process {pid} catches up now")
    make(site, "1.csv")
    wait_until(lambda: len(sent(site)) == 1, 20, "it works on", interval=0.3)
    assert site.pid == pid


def test_while_the_rest_of_the_configuration_is_wrong(site: Site) -> None:
    pid = site.start()
    site.data.rmdir()
    site.configure("BROKERS = 5\n")
    assert site.status()["pid"] == pid
    assert told(site, "history") == []
    site.stop()


def test_check_has_json_for_mistakes_and_warnings(site: Site) -> None:
    site.configure("HISTORY_DAYS = 0\n")
    done = site.notify("check", "--json")
    assert done.returncode == 78
    assert done.stderr.startswith("notify: HISTORY_DAYS: is 0; ")
    line = done.stderr.removeprefix("notify: ").rstrip()
    assert json.loads(done.stdout) == [
        {"subject": "configuration", "ok": False, "detail": line, "remedy": ""}
    ]
    site.configure("CELERY_ROUTES = {}\n")
    done = site.notify("check", "--json")
    first, *rest = json.loads(done.stdout)
    assert (first["subject"], first["ok"]) == ("configuration", True)
    assert first["detail"].startswith("CELERY_ROUTES: is ignored here; ")
    assert {"subject": f"pattern {site.data}/*.csv", "ok": True, "detail": "goes to celery",
            "remedy": ""} in rest  # fmt: skip


def test_scan_enters_what_is_no_unit(site: Site) -> None:
    pattern = f"[('{site.data}/*/unit*', {{'broker': 'local', 'task': 't'}})]"
    site.configure(
        f"PATTERNS = {pattern}\nWATCHES = [{{'path': {str(site.data)!r}, 'kind': 'directories',"
        " 'rec': True, 'existing': 'all', 'exclude_filter': ['.*/out$']}]\n"
    )
    for name in ("a/unit1/deep/unit", "a/b/unit2", "out/unit3", "c.tmp/unit4", "a/out", "d"):
        (site.data / name).mkdir(parents=True)
    expected = {str(site.data / name) for name in ("a/unit1", "a/b/unit2")}
    assert {item["path"] for item in told(site, "scan")} == expected
    site.start()
    wait_until(lambda: len(sent(site)) == 2, 20, "both are sent", interval=0.3)
    assert {item["source"] for item in told(site, "history")} == expected
    assert told(site, "scan") == []
    (site.data / "d/unit5").mkdir()
    wait_until(lambda: len(sent(site)) == 3, 20, "what is in an entered one", interval=0.3)


def test_history_finds_a_name_that_is_not_here(site: Site) -> None:
    first, second = make(site, "1.csv", "2.csv")
    record(site, (first, None), (second, None))
    [found] = told(site, "history", "1.csv")  # here is the directory above
    assert found["source"] == str(first)
    done = site.notify("history", "3.csv")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "notify: nothing is recorded of 3.csv\n"
    done = site.notify("history", "1.csv", "/nowhere/2.csv", "--json")
    assert done.returncode == 1
    assert [one["source"] for one in parsed(done.stdout)] == [str(first)]
    assert done.stderr == "notify: nothing is recorded of /nowhere/2.csv\n"


def left_out(number: int, shown: int) -> str:
    return (
        f"notify: {number} more than these {shown} {'is' if number == 1 else 'are'} left out; "
        "--limit shows as many as you like, --all every one\n"
    )


def test_long_lists_are_cut_and_say_so(site: Site) -> None:
    paths = make(site, *(f"{number}.csv" for number in range(105)))
    record(site, *((path, None) for path in paths))
    for command in ("history", "failed"):
        done = site.notify(command)
        assert done.stderr == left_out(5, 100)
        assert done.stdout.count(" on broker ") == 100
        done = site.notify(command, "--limit", "104")
        assert (done.stderr, done.stdout.count(" on broker ")) == (left_out(1, 104), 104)
        done = site.notify(command, "--limit", "105")
        assert (done.stderr, done.stdout.count(" on broker ")) == ("", 105)
    assert len(told(site, "failed")) == 105
    done = site.notify("history", "--json")
    assert (len(parsed(done.stdout)), done.stderr) == (100, left_out(5, 100))
    for command in ("history", "failed"):
        done = site.notify(command, "--all")
        assert (done.stderr, done.stdout.count(" on broker ")) == ("", 105)
        assert site.notify(command, "--all", "--limit", "3").returncode == 2


def test_retry_leaves_what_no_broker_can_take(site: Site) -> None:
    first, second = make(site, "1.csv", "2.csv")
    record(site, (first, None), (second, None))
    site.configure("BROKERS = {'other': 'filesystem://'}\nPATTERNS = []\n")
    done = site.notify("retry", "--all")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        f"notify: {seq} stays failed: there is no broker 'local' in BROKERS; define it again, or "
        f"give it up with 'notify discard {seq}'"
        for seq in (1, 2)
    ]
    assert len(told(site, "failed")) == 2
    site.configure()
    assert site.notify("retry", "1").stdout == f"1 is ready again: {first}\n"


def test_no_color(site: Site) -> None:
    site.configure()
    command = f"{sys.executable} -m watchman check"
    shown = {}
    for value in ("", "1"):
        done = subprocess.run(
            ["script", "-qec", command, "/dev/null"],
            cwd=site.top,
            env={**site.environment, "NO_COLOR": value},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        shown[value] = done.stdout
    assert b"\x1b[32mok" in shown[""]
    assert b"\x1b" not in shown["1"]
    assert b"ok  " in shown["1"]
