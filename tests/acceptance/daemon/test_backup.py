"""A backup made under load, restored elsewhere: what was recorded is there, nothing twice."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import embedded
from tests.acceptance.daemon.site import Site, end
from tests.json_lines import parsed
from tests.servers import require
from tests.waiting import wait_until

FILES = 3000
BACKUPS = 4


def tasks(site: Site) -> dict[str, str]:
    """Return path → task id of what was sent."""
    found = {}
    for headers in embedded.headers(site.top / "var"):
        assert headers["watchman_source"] not in found
        found[headers["watchman_source"]] = headers["id"]
    return found


def history(site: Site, *options: str) -> list[dict[str, Any]]:
    done = site.notify("history", "--json", "--limit", str(10 * FILES), *options)
    assert done.returncode == 0, done.stderr
    return parsed(done.stdout)


class Uploads(threading.Thread):
    """Files that come while the block lasts."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory
        self.done = 0

    def run(self) -> None:
        for number in range(FILES):
            (self._directory / f"{number}.csv").write_text("x" * (number % 7))
            self.done = number + 1

    def __enter__(self) -> Uploads:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.join()


def restored(site: Site, backup: Path, top: Path) -> Site:
    """Unpack a backup as the documentation says, for the same directories elsewhere."""
    top.mkdir()
    other = Site(top)
    other.data.rmdir()
    (top / "config.py").write_text((site.top / "config.py").read_text())
    (top / "var").mkdir(mode=0o700)
    subprocess.run(["tar", "--extract", f"--file={backup}", f"--directory={top}/var"], check=True)
    return other


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "elsewhere"
    for lock in tmp_path.glob("elsewhere/var/lock"):
        end(int(lock.read_text() or 0))


def test_under_load_and_back(site: Site, elsewhere: Path) -> None:
    site.start()
    backup = site.top / "backup.tar"
    with Uploads(site.data) as uploads:
        for number in range(1, BACKUPS + 1):
            share = FILES * number // (BACKUPS + 1)
            wait_until(lambda: uploads.done >= share, 60.0, f"{share} files")  # noqa: B023 — at once
            done = site.notify("backup", "backup.tar")
            assert done.returncode == 0, done.stderr
            assert done.stdout.startswith(f"{backup}: the journal and 0 parts of the history, ")
    wait_until(lambda: len(tasks(site)) == FILES, 60.0, "all tasks")
    site.stop()
    first = tasks(site)
    assert backup.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in site.top.iterdir() if path.name.startswith(".backup")] == []

    other = restored(site, backup, elsewhere)
    before = {one["source"]: one for one in history(other)}
    sent = {path for path, one in before.items() if one["state"] == "sent"}
    assert 0 < len(sent) < FILES, "the last backup was made under load"
    assert all(first[path] == one["task_id"] for path, one in before.items())
    with other.popen("run") as daemon:
        try:
            left = FILES - len(sent)
            wait_until(lambda: len(tasks(other)) >= left, 60.0, f"{left} tasks")
            wait_until(
                lambda: len(history(other, "--state", "sent")) == FILES, 60.0, "all of it is noted"
            )
        finally:
            end(daemon.pid)
    # Nothing of what was sent is sent again; all else is, with the id that tells a worker.
    assert tasks(other) == {path: one for path, one in first.items() if path not in sent}


def test_what_cannot_be_is_said_and_leaves_the_last_one(site: Site) -> None:
    done = site.notify("backup", "b.tar")
    assert done.returncode == 1
    assert done.stderr == f"notify: there is no journal in {site.top}/var: nothing to back up\n"
    site.start()
    (site.top / "b.tar").write_text("the last one")
    done = site.notify("backup", "nowhere/b.tar")
    assert done.returncode == 1
    assert done.stderr.startswith(f"notify: {site.top}/nowhere/b.tar cannot be written: No such ")
    (site.top / "taken.tar").mkdir()
    assert site.notify("backup", "taken.tar").returncode == 1
    # The kernel's limit on the size of files stands for a disk that is full.
    site.prefix = (require("prlimit"), "--fsize=8192")
    done = site.notify("backup", "b.tar")
    site.prefix = ()
    assert done.returncode == 1
    assert done.stderr.startswith(f"notify: the journal cannot be copied to {site.top}/.b.tar.")
    assert done.stderr.endswith("; check the free space there\n")
    site.stop()
    with (site.top / "var/journal.db").open("r+b") as journal:
        journal.seek(4096)
        journal.write(b"\xff" * 4096)
    done = site.notify("backup", "b.tar")
    assert done.returncode == 1
    assert "is damaged (" in done.stderr
    assert (site.top / "b.tar").read_text() == "the last one"
    assert [path.name for path in site.top.iterdir() if path.name.startswith(".b.tar")] == []
