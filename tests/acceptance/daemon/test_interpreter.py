"""Nothing rests on docstrings or asserts being there, and nothing that Python warns of is done."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.acceptance.daemon.site import Site
from tests.checkout import ROOT, environment
from tests.waiting import wait_until
from watchman.cli import main
from watchman.commands.groups import every

WAYS = {
    "optimized": {"PYTHONOPTIMIZE": "2"},
    "strict": {"PYTHONWARNINGS": "error"},
    "development": {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"},
}


def said(*arguments: str, **changes: str) -> tuple[int, str, str]:
    """Run watchman with changes to its environment; return its status and all that it prints."""
    argv = [sys.executable, "-m", "watchman", *arguments]
    own = environment(PYTHONPATH=str(ROOT), **changes)
    done = subprocess.run(argv, env=own, capture_output=True, text=True, timeout=100, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("command", ["", *every(main)])
def test_help_is_the_same_without_docstrings(command: str) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    usual = said(*arguments)
    assert (usual[0], usual[2]) == (0, "")
    assert usual[1].partition("\n\n  ")[2].partition("\n\nOptions:\n")[0]  # what it is for
    assert said(*arguments, PYTHONOPTIMIZE="2") == usual


@pytest.mark.parametrize("way", WAYS)
def test_the_demo(way: str) -> None:
    status, output, errors = said("demo", "--once", **WAYS[way])
    assert (status, errors) == (0, "")
    assert output.endswith("All 4 uploads became tasks, and the worker received them.\n")
    assert "Warning" not in output


@pytest.mark.parametrize("way", WAYS)
def test_the_daemon(way: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in WAYS[way].items():
        monkeypatch.setenv(name, value)
    site.start()
    (site.data / "a.csv").write_text("1")
    wait_until(lambda: site.status()["deliveries"], what="it is sent")
    assert site.notify("reload").returncode == 0
    for command in ("check", "status", "history", "failed", "scan", "match", "retry", "discard"):
        extra = {"match": ["x"], "retry": ["--all"], "discard": ["--all"]}.get(command, [])
        done = site.notify(command, *extra)
        assert (done.returncode, done.stderr) == (0, ""), (command, done.stderr)
    assert site.notify("stop").returncode == 0
    for file in (site.out, site.err):
        text = os.fsdecode(file.read_bytes())
        assert "Warning" not in text
        assert "Traceback" not in text
