"""``notify hold`` and ``notify release``, as an operator meets them, and the exit status."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

from tests.acceptance.daemon.site import Site
from tests.waiting import wait_until


def counts(site: Site) -> dict[str, int]:
    return {one["state"]: one["count"] for one in site.status()["deliveries"]}


def test_held_without_a_daemon_and_through_restarts(site: Site) -> None:
    site.start()
    site.stop()
    done = site.notify("hold", "task:tasks.load")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "task:tasks.load: held; no daemon runs, and the next one obeys\n"
    site.start()
    for name in ("a", "b", "c"):
        (site.data / f"{name}.csv").touch()
    wait_until(lambda: counts(site) == {"ready": 3})
    assert site.notify("restart").returncode == 0
    [held] = wait_until(lambda: [one for one in site.status()["held"] if one["waiting"] == 3])
    assert (held["kind"], held["name"]) == ("task", "tasks.load")
    listed = site.notify("hold").stdout
    assert listed.startswith("task:tasks.load  3 deliveries waiting, the oldest ")
    shown = site.notify("status")
    assert "task:tasks.load  3 tasks" in shown.stdout.partition("\nHeld ")[2]
    assert shown.returncode == 0  # it is as the operator wants it
    assert site.notify("hold", "task:tasks.load").stdout == "task:tasks.load: is held already\n"
    done = site.notify("release", "--all")
    assert done.stdout == "task:tasks.load: released, 3 deliveries waited\n"
    wait_until(lambda: counts(site) == {"sent": 3})
    assert site.notify("hold").stdout == "nothing is held\n"
    assert json.loads(site.notify("hold", "--json").stdout) == []
    site.stop()


def test_what_is_obeyed_at_once(site: Site) -> None:
    site.start()
    done = site.notify("hold", "local", str(site.data / "anna"))
    assert done.stdout == f"local: held\n{site.data}/anna: held\n"
    (site.data / "a.csv").touch()
    wait_until(lambda: counts(site) == {"ready": 1})
    assert site.notify("release", "local").returncode == 0
    wait_until(lambda: counts(site) == {"sent": 1})
    site.stop()


def test_mistakes_are_one_line(site: Site) -> None:
    site.start()
    for name, words in (
        ("lokal", "there is no broker lokal (there are: local); for a task say task:lokal"),
        ("task:x", "no pattern sends task x; there are: tasks.load"),
        ("/nowhere", "/nowhere is neither below a watch or a destination of MOVES, nor above one"),
    ):
        done = site.notify("hold", name)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"notify: {words}")
        assert len(done.stderr.splitlines()) == 1
    done = site.notify("release", "local")
    assert done.returncode == 1
    assert done.stderr == "notify: local is not held; 'notify hold' lists what is\n"
    assert site.notify("release").returncode == 2
    assert site.notify("release", "--all", "local").returncode == 2
    assert site.notify("hold", "task:").returncode == 2
    assert site.notify("release", "--all").stdout == "nothing is held\n"
    site.stop()


def test_without_a_configuration_that_can_be_used(site: Site) -> None:
    site.start()
    (site.top / "config.py").write_text("BROKERS = ")
    done = site.notify("hold", "local")
    assert done.returncode == 0, done.stderr
    assert "is not checked" in done.stderr
    assert site.notify("release", "--all").returncode == 0
    site.configure()
    site.stop()


def test_the_exit_status_says_how_it_stands(site: Site) -> None:
    assert site.notify("status").returncode == 1
    late = site.top / "late"
    site.configure(f"WATCHES += [{{'path': {str(late)!r}}}]\n")
    site.start()
    assert site.notify("status").returncode == 2
    late.mkdir()
    wait_until(lambda: site.notify("status").returncode == 0, 20)
    site.stop()
    assert site.notify("status").returncode == 1
    done = site.notify("status", "--nonsense")
    assert done.returncode == 2
    assert done.stderr.startswith("Usage:")
    assert site.notify("status", "--watch", "--json").returncode == 2


def in_terminal(site: Site, columns: int, *arguments: str, **environment: str) -> str:
    """Run a command in a terminal; return what it shows."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "watchman", *arguments],
        cwd=site.top,
        env={**site.environment, "COLUMNS": str(columns), "LINES": "40", "TERM": "xterm"}
        | environment,
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    shown = b""
    try:
        while piece := os.read(master, 1 << 16):
            shown += piece
    except OSError:
        pass  # it has ended: a terminal says so by EIO
    finally:
        os.close(master)
        process.wait(30)
    return shown.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colours_and_lines_that_fit(site: Site) -> None:
    long = site.data / ("long" * 12)
    long.mkdir()
    late = site.top / "late"
    site.configure(f"WATCHES += [{{'path': {str(late)!r}}}]\n")
    site.start()
    assert site.notify("hold", str(long)).returncode == 0
    assert "\x1b[" in in_terminal(site, 80, "status")
    plain = in_terminal(site, 80, "status", NO_COLOR="1")
    assert "\x1b[" not in plain
    words = [line for line in plain.splitlines() if len(line) > 80]
    # What is longer is a path, and stands alone.
    assert all(len(line.split()) == 1 for line in words), words
    assert f"\n  {long}\n    0 tasks" in plain
    assert "\x1b" not in site.notify("status").stdout
    helped = in_terminal(site, 80, "history", "--help")
    assert all(len(line) <= 80 for line in helped.splitlines())
    assert "9223372036854775807" not in helped
    site.stop()


def test_it_is_shown_again_and_again(site: Site) -> None:
    site.start()
    with site.popen("status", "--watch", "0.2") as process:
        assert process.stdout is not None
        seen = 0
        for line in process.stdout:
            assert "\x1b" not in line
            seen += line.startswith("watchman is active")
            if seen == 3:
                break
        process.stdout.close()  # whoever read it has gone
        process.wait(30)
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (0, "")
    site.stop()
