"""Questions and ``stop`` need no valid configuration: the places of the last start count."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from watchman import config
from watchman.config import load_own, remember
from watchman.errors import ConfigError
from watchman.model import Config

BROKEN = {
    "syntax": "WATCHES = [(",
    "exception": "1 / 0",
    "exit": "raise SystemExit",
    "no path": "STATE_DIR = 5",
}
QUESTIONS = [("status",), ("history",), ("failed",), ("retry", "--all"), ("discard", "--all")]
QUESTIONS += [("backup", "backup.tar")]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("broken", [*BROKEN, "missing"])
def test_they_work_while_the_configuration_is_broken(
    site: Site, broken: str, elsewhere: bool
) -> None:
    if elsewhere:
        site.configure(f"STATE_DIR = {str(site.top / 'state')!r}\n")
        site.pid_file = site.top / "state/watchman.pid"
        site.out = site.top / "state/log/watchman.out"
    pid = site.start()
    file = site.top / "config.py"
    file.unlink()
    if broken in BROKEN:
        file.write_text(BROKEN[broken])
    for question in QUESTIONS:
        done = site.notify(*question)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == 1
        assert "; until then the places of the last start are used, such as " in done.stderr
    assert site.status()["pid"] == pid
    assert site.notify("reload").returncode == 78
    assert site.notify("restart").returncode == 78
    assert site.pid == pid
    assert site.out.exists()
    done = site.notify("stop")
    assert (done.returncode, done.stdout) == (0, "Watching has been stopped.\n")


def test_without_a_start_it_is_a_mistake(site: Site) -> None:
    (site.top / "config.py").write_text("WATCHES = [(")
    for question in (*QUESTIONS, ("stop",)):
        done = site.notify(*question)
        assert done.returncode == 78
        assert done.stderr.startswith("notify: config.py, line 1: syntax error")
        assert "until then" not in done.stderr


def test_a_new_start_by_default_forgets_other_places(site: Site) -> None:
    record = site.top / ".config.py.places"
    site.configure("STATE_DIR = 'state'\n")
    site.pid_file = site.top / "state/watchman.pid"
    site.start()
    assert json.loads(record.read_text()) == {
        "state_dir": f"{site.top}/state",
        "pid_file": f"{site.top}/state/watchman.pid",
        "log_dir": f"{site.top}/state/log",
    }
    site.stop()
    site.configure()
    site.pid_file = site.top / "var/watchman.pid"
    site.start()
    assert not record.exists()
    site.stop()


def loaded(site: Site, more: str) -> Config:
    site.configure(more)
    return config.load(str(site.top / "config.py"), environ={})


@pytest.mark.parametrize(
    "words", ["", "{", "5", "[]", '{"state_dir": "/x"}', "[" * 60000, "fifo", "link", "relative"]
)
def test_a_record_that_is_none_is_not_used(site: Site, words: str) -> None:
    remember(loaded(site, "STATE_DIR = 'state'\n"))
    record = site.top / ".config.py.places"
    content = record.read_text()
    (site.top / "config.py").unlink()
    if words == "fifo":
        record.unlink()
        os.mkfifo(record)
    elif words == "link":
        record.rename(site.top / "elsewhere")
        record.symlink_to("elsewhere")
    elif words == "relative":
        record.write_text(content.replace(str(site.top), "."))
    else:
        record.write_text(words)
    with pytest.raises(ConfigError):
        load_own(str(site.top / "config.py"), environ={})


def test_the_other_place_where_the_first_cannot_be_written(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.top / "var").mkdir()
    found = loaded(site, "STATE_DIR = 'state'\n")
    real = os.open

    def denied(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and Path(path).parent == site.top:
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", denied)
        remember(found)
    (site.top / "config.py").write_text("(")
    assert (site.top / "var/config.py.places").exists()
    assert load_own(str(site.top / "config.py"), environ={}).state_dir == f"{site.top}/state"


def test_the_other_places_go_with_state_dir(site: Site) -> None:
    found = loaded(site, "STATE_DIR = '/srv/state'\nLOG_DIR = '/srv/logs'\n")
    assert (found.pid_file, found.log_dir) == ("/srv/state/watchman.pid", "/srv/logs")


def test_what_a_killed_process_left_keeps_no_places_from_being_kept(site: Site) -> None:
    # In a container each start has the process id of the one before.
    (site.top / f".config.py.places.{os.getpid()}").write_text("{")
    remember(loaded(site, "STATE_DIR = 'state'\n"))
    assert (site.top / ".config.py.places").exists()
