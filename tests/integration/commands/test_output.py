"""Where what is printed goes: to a reader that has seen enough, to a full disk, or to nobody."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.acceptance.daemon.conftest import site as site  # noqa: PLC0414 — a fixture, for this module too
from tests.acceptance.daemon.site import Site
from watchman.journal import Journal, NewDelivery
from watchman.model import Route, State, Version

COMMANDS = ["history --all", "failed --json", "scan", "status"]


@pytest.fixture
def failures(site: Site) -> Site:
    """A site where more has failed, and more is there, than a pipe takes."""
    (site.top / "var").mkdir(mode=0o700)
    journal = Journal(str(site.top / "var"))
    paths = [site.data / f"{number}.csv" for number in range(1000)]
    for path in paths:
        path.touch()
    rows = [
        NewDelivery(f"id-{n}", f"{path}.gone", None, Version(1, n, 1, 1), n, Route("local", "t"))
        for n, path in enumerate(paths)
    ]
    journal.record(rows)
    journal.note([(n, State.FAILED, "refused: too large") for n in range(1, 1001)])
    journal.close()
    return site


def run(site: Site, command: str, ending: str) -> tuple[int, str]:
    shell = f'"$@" {ending}; exit ${{PIPESTATUS[0]}}'
    argv = ["bash", "-c", shell, "bash", sys.executable, "-m", "watchman", *command.split()]
    done = subprocess.run(
        argv, cwd=site.top, env=site.environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr


def test_where_it_goes(failures: Site) -> None:
    for command in COMMANDS:
        ends = 1 if command == "status" else 0
        # What nobody reads is no mistake.
        assert run(failures, command, "| head -n 1") in {(ends, ""), (0, "")}, command
        assert run(failures, command, ">&-") == (ends, ""), command
        said = "notify: standard output cannot be written: No space left on device; have it go "
        assert run(failures, command, ">/dev/full") == (1, f"{said}elsewhere\n"), command
