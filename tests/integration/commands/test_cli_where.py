"""``notify where``: one file's story, beside a running daemon and without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import AS_NOBODY, Site
from tests.json_lines import parsed
from tests.waiting import wait_until
from watchman.cli import main
from watchman.journal import Journal, NewDelivery
from watchman.model import Route, State, Version


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    yield found
    found.kill()


def where(site: Site, *arguments: str, status: int = 0) -> str:
    done = site.notify("where", *arguments)
    assert (done.returncode, done.stderr) == (status, ""), done
    assert all(line.isprintable() for line in done.stdout.split("\n"))
    return done.stdout


def wait_for(site: Site, name: str, words: str) -> str:
    """Return what is told of a name when those words are in it."""

    def told() -> str:
        found = site.notify("where", name).stdout
        return found if words in found else ""

    return wait_until(told, 30, words, interval=0.3)


def test_nothing_has_run_yet(site: Site) -> None:
    assert "not seen here; nothing is recorded yet" in where(site, "storm.csv", status=1)
    path = site.data / "storm.csv"
    path.write_text("x")
    told = where(site, "storm.csv")
    assert told.splitlines()[0] == str(path)
    assert "not known as it is: the next look at it makes task tasks.load on broker local" in told
    assert not (site.top / "var").exists()


def test_each_end_has_its_line(site: Site) -> None:
    (site.data / "before.csv").write_text("x")
    store = site.top / "store"
    store.mkdir()
    (site.data / "moved").mkdir()
    site.configure(
        f"MOVES = {{{str(site.data / 'moved')!r}: {str(store)!r}}}\n"
        f"DRY_RUN = [{str(site.data)!r} + '/dry*']\n"
    )
    site.start()
    for name in ("plain.csv", "plain.txt", "dry.csv", "up.part", "moved/far.csv", "moved/far.txt"):
        (site.data / name).write_text(name)
    told = wait_for(site, "plain.csv", " sent as ")
    head, *lines = told.splitlines()
    assert head == str(site.data / "plain.csv")
    assert "complete, 9 bytes: delivery " in lines[0]
    assert lines[1].strip() == f"in the watch {site.data}"
    assert lines[2].strip() == f"pattern {site.data}/*.csv: task tasks.load on broker local"
    assert lines[4].split(maxsplit=1) == ["now", "it is there, as it was seen"]
    told = wait_for(site, "far.csv", " sent as ")
    assert f"moved to {store}/far.csv" in told
    assert f"now                  {store}/far.csv is there" in told
    assert f"moved to {store}/far.txt" in wait_for(site, "far.txt", "no pattern matches: no task")
    assert wait_for(site, str(store / "far.csv"), " sent as ").startswith(str(site.data))
    assert "no task: no pattern matched it" in wait_for(site, "plain.txt", "no task")
    assert "no task: DRY_RUN matched it" in wait_for(site, "dry.csv", "no task")
    assert "there before the first run" in where(site, "before.csv")
    assert "ignored by `*.part`" in where(site, "up.part")
    assert "ignored by `*.part`" in where(site, "gone.part", status=1)
    assert "not seen here; the history begins at " in where(site, "none.csv", status=1)
    assert "it lies in no watched directory" in where(site, "/none/none.csv", status=1)
    (site.top / "outside.csv").write_text("x")
    assert "not below any watch" in where(site, str(site.top / "outside.csv"))
    os.unlink(site.data / "plain.csv")
    assert "nothing is at that path" in where(site, "plain.csv")
    (found,) = parsed(where(site, "far.csv", "--json"))
    task_id = found["deliveries"][0]["task_id"]
    assert where(site, task_id).splitlines()[0] == str(site.data / "moved/far.csv")


def test_what_is_open_is_told_with_who_has_it_open(site: Site) -> None:
    site.start()
    path = site.data / "open.csv"
    with path.open("w") as file:
        file.write("half")
        file.flush()
        told = where(site, "open.csv")
        assert f"open for writing by process {os.getpid()} (" in told
        assert ", 4 bytes" in told
        (found,) = parsed(where(site, "open.csv", "--json"))
        assert found["now"]["seen"] == "busy"
        assert [one["pid"] for one in found["now"]["writers"]] == [os.getpid()]
    wait_for(site, "open.csv", " sent as ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_what_this_user_cannot_see_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path)
    for path in (tmp_path, *tmp_path.parents):
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)
    path = site.data / "open.csv"
    site.prefix = AS_NOBODY
    with path.open("w") as file:
        file.write("half")
        file.flush()
        told = where(site, str(path))
    assert "whether it is open for writing cannot be told by this user; root can" in told


def test_several_of_one_name_are_the_newest_first(site: Site) -> None:
    for number in range(7):
        (site.data / f"d{number}").mkdir()
    site.start()
    for number in range(7):
        (site.data / f"d{number}/storm.csv").write_text("x")
        wait_for(site, str(site.data / f"d{number}/storm.csv"), " sent as ")
    told = where(site, "storm.csv")
    head = told.splitlines()[0]
    assert head == "5 files are storm.csv, the newest first; 2 more: --limit shows them"
    paths = [line for line in told.splitlines() if line.startswith("/")]
    assert paths == [str(site.data / f"d{number}/storm.csv") for number in (6, 5, 4, 3, 2)]
    assert where(site, "storm.csv", "--limit", "7").splitlines()[0] == (
        "7 files are storm.csv, the newest first"
    )
    again = site.data / "d3/storm.csv"
    again.write_text("another")
    wait_until(lambda: where(site, str(again)).count(" sent as ") == 2, 30, "two", interval=0.3)
    assert "superseded by a later upload, delivery " in where(site, str(again))


def test_a_name_with_brackets_is_found_as_it_stands(site: Site) -> None:
    site.start()
    (site.data / "data[1].csv").write_text("x")
    told = wait_for(site, "data[1].csv", "sent as")
    assert told.splitlines()[0] == str(site.data / "data[1].csv")
    listed = site.notify("history", "data[1].csv")
    assert listed.stdout.splitlines()[0].endswith("/data[1].csv"), listed
    site.stop()
    (site.data / "more[2].csv").write_text("x")
    assert where(site, "more[2].csv").splitlines()[0] == str(site.data / "more[2].csv")


def test_what_is_partial_says_why_it_waits(site: Site) -> None:
    quarantine = site.top / "quarantine"
    task = "{'broker': 'local', 'task': 'tasks.load', 'complete': 'gzip', 'incomplete_after': %s}"
    asked = f"PATTERNS = [({str(site.data)!r} + '/*.gz', {task})]\n"
    asked += f"QUARANTINE = {str(quarantine)!r}\n"
    site.configure(asked % 3600)
    path = site.data / "cut.gz"
    site.start()
    path.write_bytes(b"\x1f\x8b\x08")
    told = wait_for(site, "cut.gz", "waits since")
    assert "it ends in the middle of what is compressed" in told
    assert "the next look at it" not in told
    site.stop()
    site.configure(asked % 1)
    site.start()
    told = wait_for(site, "cut.gz", "waits to be moved")
    assert "  incomplete, 3 bytes: delivery 1" in told
    assert "no pattern matches" not in told
    assert f"{quarantine}/cut.gz is not there yet" in told
    quarantine.mkdir()
    assert f"{quarantine}/cut.gz is there" in wait_for(site, "cut.gz", "failed: incomplete: ")


def test_what_waits_says_for_what(site: Site) -> None:
    site.configure("BROKERS = {'local': 'redis://127.0.0.1:1/0'}\n")
    site.start()
    (site.data / "1.csv").write_text("x")
    told = wait_for(site, "1.csv", " because ")
    assert "waits for broker local since " in told
    assert "refused" in told
    site.stop()
    assert "waits for broker local; watchman is not running: 'notify start'" in where(site, "1.csv")
    site.configure("BROKERS = {'other': 'filesystem://'}\nPATTERNS = []\n")
    told = where(site, "1.csv")
    assert "waits for broker local, which is not in BROKERS any more" in told
    assert "a pattern that is no more: task tasks.load on broker local" in told


def test_a_terminal_has_colours_and_a_pager_and_a_pipe_neither(site: Site) -> None:
    site.start()
    (site.data / "1.csv").write_text("x")
    wait_for(site, "1.csv", " sent as ")
    site.stop()
    pager = site.top / "pager"
    pager.write_text("#!/bin/sh\necho PAGED\ncat\n")
    pager.chmod(0o755)

    def shown(command: str, **more: str) -> str:
        done = subprocess.run(
            ["script", "-qec", f"{sys.executable} -m watchman {command}", "/dev/null"],
            cwd=site.top,
            env={**site.environment, "PAGER": f"{pager}", "TERM": "xterm", **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            text=True,
        )
        return done.stdout

    for command in ("history", "where 1.csv"):
        assert "PAGED" in shown(command)
        bare = shown(f"{command} --no-pager")
        assert "PAGED" not in bare
        assert "\x1b[32msent" in bare
        assert "\x1b" not in shown(f"{command} --no-pager", NO_COLOR="1")
        assert "\x1b" not in site.notify(*command.split()).stdout


def test_what_may_never_have_come_there_is_not_said_to_be_there_no_more(site: Site) -> None:
    state = site.top / "var"
    state.mkdir(mode=0o700)
    journal = Journal(str(state))
    store = site.top / "store"
    for name, end in {"gone": State.VANISHED, "bad": State.FAILED, "sent": State.SENT}.items():
        path, version = str(site.data / f"{name}.csv"), Version(1, 2, 3, 4)
        route = Route("local", "tasks.load")
        journal.record([NewDelivery(name, path, str(store / f"{name}.csv"), version, 5, route)])
        journal.note([(journal.last_seq(), end, "")])
    journal.close()
    assert where(site, "gone.csv").endswith(f"{store}/gone.csv is not there\n")
    assert where(site, "bad.csv").endswith(f"{store}/bad.csv is not there\n")
    assert where(site, "sent.csv").endswith(f"{store}/sent.csv is not there any more\n")


def record_sent(site: Site, paths: list[str]) -> None:
    state = site.top / "var"
    state.mkdir(mode=0o700)
    journal = Journal(str(state))
    route = Route("local", "tasks.load")
    journal.record(
        [
            NewDelivery(f"id-{n}", path, f"/store{path}", Version(1, n, 3, n), n * 10**9, route)
            for n, path in enumerate(paths, 1)
        ]
    )
    journal.note([(n, State.SENT, "") for n in range(1, len(paths) + 1)])
    journal.close()


def test_a_file_of_many_deliveries_hides_no_other_of_its_name(site: Site) -> None:
    often, once = str(site.data / "a/x.csv"), str(site.data / "b/x.csv")
    record_sent(site, [once, *[often] * 250])
    told = where(site, "x.csv")
    assert told.splitlines()[0] == "2 files are x.csv, the newest first"
    assert [line for line in told.splitlines() if line.startswith("/")] == [often, once]
    assert " sent as id-1\n" in told
    one, other = parsed(where(site, "x.csv", "--json"))
    assert (one["path"], len(one["deliveries"]), one["left_out"]) == (often, 20, 230)
    assert (other["path"], len(other["deliveries"])) == (once, 1)


def test_where_the_time_is_too_short_for_all_deliveries_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site = Site(tmp_path)
    often, once = str(site.data / "a/x.csv"), str(site.data / "b/x.csv")
    record_sent(site, [once, *[often] * 250])
    monkeypatch.setattr("watchman.commands.where._WORK", -1.0)
    with pytest.raises(SystemExit) as ended:
        main(["where", "--config", str(site.top / "config.py"), "x.csv"])
    told = capsys.readouterr()
    assert ended.value.code == 0
    assert told.err.startswith("notify: x.csv: older deliveries were not looked at, for lack of t")
    assert " sent as id-1\n" in told.out


def test_json_says_beside_it_that_files_are_left_out(site: Site) -> None:
    record_sent(site, [str(site.data / f"{n}/x.csv") for n in range(7)])
    done = site.notify("where", "x.csv", "--json")
    assert (done.returncode, len(parsed(done.stdout))) == (0, 5)
    assert done.stderr == "notify: 2 more files are x.csv: --limit shows them\n"
    assert len(parsed(where(site, "x.csv", "--json", "--limit", "5"))) == 5


def test_what_an_earlier_process_said_is_no_reason_now(site: Site) -> None:
    """The one that runs opens its journal, and has said nothing yet."""
    site.configure("BROKERS = {'local': 'redis://127.0.0.1:1/0'}\n")
    pid = site.start()
    (site.data / "1.csv").write_text("x")
    wait_for(site, "1.csv", " because ")
    site.hang(pid)
    path = site.top / "var/status.json"
    written = json.loads(path.read_text())
    assert written["brokers"]["local"]["trouble"]
    path.write_text(json.dumps({**written, "run_ns": written["run_ns"] - 1}))
    told = where(site, "1.csv")
    assert "waits for broker local" in told
    assert "because" not in told


def test_a_directory_that_was_announced_is_known(site: Site) -> None:
    site.configure(
        f"WATCHES = [{{'path': {str(site.data)!r}, 'kind': 'directories'}}]\n"
        f"PATTERNS = [('*', {{'broker': 'local', 'task': 'tasks.load'}})]\n"
    )
    site.start()
    made = site.top / "made"
    made.mkdir()
    made.rename(site.data / "whole")
    wait_for(site, "whole", " sent as ")
    (site.data / "whole/more").touch()
    told = where(site, "whole")
    assert told.endswith("it is there, as it was seen\n")
    assert parsed(where(site, "whole", "--json"))[0]["now"]["known"]
    site.stop()
    made.mkdir()
    made.rename(site.data / "later")
    assert "the next look at it makes task tasks.load" in where(site, "later")


def test_a_directory_in_a_watch_for_files_gets_no_task(site: Site) -> None:
    (site.data / "dir.csv").mkdir()
    told = where(site, "dir.csv")
    assert "no task: it is a directory, and the watch is for files" in told
    assert "makes task" not in told
