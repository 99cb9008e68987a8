"""notify scan: a bar on a terminal and nowhere else, and what is younger than a time."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from watchman.text import iso

TWO_DAYS_NS = 2 * 86400 * 10**9


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    for number in range(3):
        (found.data / f"d{number}").mkdir()
        (found.data / f"d{number}/a.csv").write_text("1")
    yield found
    found.kill()


def on_terminal(site: Site, *arguments: str) -> str:
    """Return all that the command writes to a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "watchman", *arguments],
        cwd=site.top,
        env={**site.environment, "COLUMNS": "80", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65536):
            written += piece
    except OSError:  # EIO: the other end is closed
        pass
    finally:
        os.close(ours)
    assert process.wait(30) == 0
    return written.decode()


def test_a_bar_on_a_terminal_does_not_spoil_the_lines(site: Site) -> None:
    written = on_terminal(site, "scan")
    assert "directories" in written
    assert "100%" in written
    # What does not fit into 80 columns goes on in the next line.
    whole = re.sub(r"\r\n {4}(?=\()", "  ", written)
    shown = [re.split(r"\r\x1b\[K", line)[-1] for line in whole.split("\r\n")]
    for number in range(3):
        (line,) = [line for line in shown if f"/d{number}/a.csv" in line]
        assert line.startswith(f"{site.data}/d{number}/a.csv  (complete; ")
    assert "3 not known; 3 complete" in written


def test_a_watch_that_cannot_be_read_is_no_file_that_is_not_known(site: Site) -> None:
    site.configure(f"WATCHES += [{{'path': {str(site.top / 'late')!r}}}]\n")
    shown = site.notify("scan").stdout
    assert f"{site.top}/late  (unreadable; No such file or directory)\n" in shown
    assert "\n3 not known; 3 complete, 1 unreadable; 3 × existing is 'new'" in shown


def test_no_bar_in_a_pipe(site: Site) -> None:
    done = site.notify("scan")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\r" not in done.stdout
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 4


def test_since_leaves_out_what_is_older(site: Site) -> None:
    changed = (site.data / "d1/a.csv").stat().st_ctime_ns
    before, after = iso(changed - TWO_DAYS_NS), iso(changed + TWO_DAYS_NS)
    assert before is not None
    assert after is not None
    everything = json.loads(site.notify("scan", "--json").stdout)
    assert len(everything) == 3
    assert {one["changed_ns"] for one in everything} == {
        path.stat().st_ctime_ns for path in site.data.glob("*/a.csv")
    }
    assert json.loads(site.notify("scan", "--json", "--since", before).stdout) == everything
    assert site.notify("scan", "--since", after).stdout == "0 not known\n"


def test_what_cannot_be_told_is_told_so(site: Site) -> None:
    done = site.notify("scan", "--since", "sometime")
    assert done.returncode == 2
    done = site.notify("scan", "--send", "--since", "2026-01-01")
    assert done.returncode == 2
    assert "--since is for the report" in done.stderr
