"""Where the daemon's files go when they cannot be where they should."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from watchman.daemon import pidfile, places
from watchman.errors import WatchmanError


def the_private_one(site: Site) -> Path:
    (found,) = site.temporary.glob("watchman-*")
    status = found.stat()
    assert stat.S_IMODE(status.st_mode) == 0o700
    return found


def test_a_log_dir_that_cannot_be_made(site: Site) -> None:
    (site.top / "file").touch()
    site.configure(f"LOG_DIR = {str(site.top / 'file/log')!r}\n")
    done = site.notify("start")
    assert done.returncode == 0, done.stderr
    private = the_private_one(site)
    assert f"file/log/watchman.out cannot be written: Not a directory; using {private}" in (
        done.stderr
    )
    assert f"output in {private}/watchman.out" in done.stdout
    assert "Watching 1 director" in (private / "watchman.out").read_text()
    assert "cannot be written" in (private / "watchman.err").read_text()
    site.stop()
    assert (private / "watchman.out").exists()


def test_who_may_not_look_is_told_so_in_a_line(users_site: Site) -> None:
    site = users_site
    (site.top / "var").mkdir()
    (site.top / "var/journal.db").touch()
    (site.top / "var").chmod(0)
    for question in ("status", "history", "health", "metrics"):
        done = site.notify(question)
        assert done.returncode > 0
        (line,) = f"{done.stdout}{done.stderr}".splitlines()
        assert "Permission denied" in line
        assert "try it as the user" in line


def test_a_read_only_log_dir(users_site: Site) -> None:
    site = users_site
    log_dir = site.top / "log"
    log_dir.mkdir(0o555)
    site.configure(f"LOG_DIR = {str(log_dir)!r}\n")
    done = site.notify("start")
    assert done.returncode == 0, done.stderr
    assert "log/watchman.err cannot be written: Permission denied; using" in done.stderr
    assert (the_private_one(site) / "watchman.out").exists()
    assert list(log_dir.iterdir()) == []
    assert site.status()["state"] == "active"
    site.stop()


@pytest.mark.parametrize("obstacle", ["directory", "symlink", "fifo"])
def test_something_in_the_place_of_the_pid_file(site: Site, obstacle: str) -> None:
    site.pid_file.parent.mkdir(mode=0o700)
    victim = site.top / "victim"
    victim.write_text("precious")
    if obstacle == "directory":
        site.pid_file.mkdir()
    elif obstacle == "symlink":
        site.pid_file.symlink_to(victim)
    else:
        os.mkfifo(site.pid_file)
    done = site.notify("start")
    assert done.returncode == 0, done.stderr
    private = the_private_one(site)
    assert f"PID_FILE: {site.pid_file} cannot be written" in done.stderr
    assert (private / "watchman.pid").exists()
    assert site.status()["state"] == "active"
    assert site.notify("start").returncode == 1
    site.stop()
    assert not (private / "watchman.pid").exists()
    assert victim.read_text() == "precious"
    assert os.path.lexists(site.pid_file)
    assert site.notify("stop").returncode == 1


@pytest.mark.parametrize("trap", ["symlink", "open", "file"])
def test_a_private_directory_that_is_not_private(tmp_path: Path, trap: str) -> None:
    private = tmp_path / "watchman-0-trap"
    aim = tmp_path / "aim"
    aim.mkdir(mode=0o700)
    if trap == "symlink":
        private.symlink_to(aim)
    elif trap == "open":
        private.mkdir(mode=0o700)
        private.chmod(0o770)
    else:
        private.touch()
    place = places.DaemonFile("PID_FILE", "/dev/null/watchman.pid", str(private))
    assert list(place.candidates()) == [place.path]
    with pytest.raises(WatchmanError, match="nor can"):
        place.use(pidfile.claim)
    assert list(aim.iterdir()) == []


def test_a_private_directory_of_somebody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    place = places.DaemonFile("PID_FILE", "/dev/null/watchman.pid", str(private))
    assert list(place.candidates()) == [place.path, place.substitute]
    owner = private.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert list(place.candidates()) == [place.path]
