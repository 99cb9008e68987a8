"""What the operating system does not allow is told in one line: what has run out, what to raise."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from tests.checkout import require_open_checkout
from tests.servers import require
from tests.waiting import wait_until
from watchman import limits

PROGRAM = Path(__file__).with_name("limited.py")
UID = 65530  # nobody has it: the limit counts the processes of a user
CAPABILITIES = "+dac_override,+dac_read_search"


def as_somebody() -> list[str]:
    """Root has no limit on processes; whom it becomes here can still read everything."""
    if os.geteuid() != 0:
        return []
    require_open_checkout()
    command = [require("setpriv"), f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
    return [*command, f"--inh-caps={CAPABILITIES}", f"--ambient-caps={CAPABILITIES}"]


class Limited:
    """``notify`` under a limit, until it ends or says that it watches."""

    def __init__(self, site: Site, name: str, number: int, command: str = "run") -> None:
        argv = [sys.executable, str(PROGRAM), name, str(number), command]
        if name == "NPROC":
            argv = [*as_somebody(), *argv]
        log = site.top / "log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                argv, cwd=site.top, env=site.environment, stdout=file, stderr=subprocess.STDOUT
            )
        try:
            wait_until(
                lambda: process.poll() is not None or b" Watching " in log.read_bytes(),
                30,
                "it watches, or ends",
            )
        finally:
            process.terminate()
            self.status = process.wait(30)
        # What Python itself says where it has no memory for its own end either.
        ends = "MemoryError", "Exception ignored"
        lines = log.read_text().splitlines()
        self.lines = [line for line in lines if name != "AS" or not line.startswith(ends)]

    @property
    def watched(self) -> bool:
        return any(" Watching " in line for line in self.lines)

    def told(self, words: str) -> bool:
        """Whether it has ended with status 1 and nothing but that one line."""
        return self.status == 1 and len(self.lines) == 1 and words in self.lines[0]


THREADS = "notify: no further thread or process can be started: "
MEMORY = "notify: out of memory: "


@pytest.fixture
def open_site(site: Site) -> Site:
    """Root's files, which it gives away: a file's owner is asked for a lease."""
    site.configure("MOVES = {}\n")
    if os.geteuid() == 0:
        for path in (site.top, *site.top.rglob("*")):
            os.chown(path, UID, UID)
    return site


@pytest.mark.parametrize("number", range(1, 9))
def test_threads_that_cannot_be_started(open_site: Site, number: int) -> None:
    limited = Limited(open_site, "NPROC", number)
    if number == 1:
        assert limited.told(THREADS), limited.lines
        assert "(ulimit -u)" in limited.lines[0]
    assert limited.watched or limited.told(THREADS), limited.lines
    assert limited.status in (0, 1)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_start_says_it_as_well(open_site: Site, number: int) -> None:
    limited = Limited(open_site, "NPROC", number, "start")
    assert limited.told(THREADS), limited.lines


@pytest.mark.parametrize("more", [0, 1 << 20, 4 << 20, 12 << 20, 24 << 20, 48 << 20])
def test_memory_that_is_not_there(site: Site, more: int) -> None:
    limited = Limited(site, "AS", more)
    # SQLite says "disk I/O error" where it gets no memory.
    told = [limited.told(words) for words in (THREADS, MEMORY, "journal.db cannot be opened")]
    assert any(told) or (more and limited.watched), limited.lines


@pytest.mark.parametrize("command", ["run", "start"])
@pytest.mark.parametrize("number", [8, 20, 60, 127])
def test_too_few_open_files(site: Site, number: int, command: str) -> None:
    limited = Limited(site, "NOFILE", number, command)
    assert limited.told(
        f"notify: too many open files: {number} are allowed (ulimit -n); raise it to 4096"
    ), limited.lines


def test_as_few_open_files_as_are_enough(site: Site) -> None:
    limited = Limited(site, "NOFILE", limits.LEAST_DESCRIPTORS)
    assert limited.watched, limited.lines
    assert limited.status == 0


def test_the_cause_of_an_error_counts() -> None:
    try:
        try:
            raise OSError(errno.EMFILE, "Too many open files")
        except OSError as error:
            raise RuntimeError("no event loop") from error
    except RuntimeError as error:
        found = limits.explain(error)
    assert found is not None
    assert found.startswith("too many open files: ")


@pytest.mark.parametrize(
    "error", [RuntimeError("other"), OSError(errno.EACCES, "x"), OSError(errno.EAGAIN, "x", "/f")]
)
def test_other_errors_are_not_limits(error: Exception) -> None:
    assert limits.explain(error) is None
