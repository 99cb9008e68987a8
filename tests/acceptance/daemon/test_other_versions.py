"""A journal that another version of watchman has written, and uploads on another machine."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests import embedded
from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from tests.waiting import wait_until
from watchman.journal.schema import SCHEMA_VERSION

NEWER = SCHEMA_VERSION + 1


def sent(site: Site) -> dict[str, str]:
    """Return source → task id of the messages; none is for a file that another one is for."""
    found: dict[str, str] = {}
    for headers in embedded.headers(site.top / "var"):
        assert headers["watchman_source"] not in found, "sent twice"
        found[headers["watchman_source"]] = headers["id"]
    return found


def upload(site: Site, name: str) -> str:
    path = site.data / name
    path.write_text(name)
    wait_until(lambda: str(path) in sent(site), 30.0, f"the task of {name}")
    return str(path)


def put_aside(site: Site, backup: Path) -> None:
    """Restore a backup as the documentation says, and forget what the broker has."""
    (site.top / "var").rename(site.top / "var.newer")
    (site.top / "var").mkdir(mode=0o700)
    unpack = ["tar", "--extract", f"--file={backup}", f"--directory={site.top}/var"]
    subprocess.run(unpack, check=True)


def test_a_newer_journal_is_refused_and_the_backup_before_it_goes_on(site: Site) -> None:
    site.start()
    before = upload(site, "before.csv")
    backup = site.top / "before.tar"
    assert site.notify("backup", str(backup)).returncode == 0
    after = upload(site, "after.csv")
    ids = sent(site)
    site.stop()
    with closing(sqlite3.connect(site.top / "var/journal.db")) as journal:
        journal.execute(f"PRAGMA user_version = {NEWER}")
    content = (site.top / "var/journal.db").read_bytes()
    words = f"has schema {NEWER}, this watchman knows {SCHEMA_VERSION}"
    for command in ("start", "history", "status"):
        done = site.notify(command)
        assert done.returncode == 1
        assert words in done.stderr, command
    assert (site.top / "var/journal.db").read_bytes() == content

    put_aside(site, backup)
    site.start()
    # It came after the backup: the same arrival, by its id.
    wait_until(lambda: sent(site) == {after: ids[after]}, 30.0, "what the backup does not know")
    done = site.notify("history", "--json", before)
    assert [one["task_id"] for one in parsed(done.stdout)] == [ids[before]]
    site.stop()


@pytest.mark.parametrize("existing", ["new", "none"])
def test_copied_uploads_are_other_files_unless_the_first_start_only_notes_them(
    site: Site, existing: str
) -> None:
    site.start()
    path = upload(site, "data.csv")
    backup = site.top / "backup.tar"
    site.stop()
    assert site.notify("backup", str(backup)).returncode == 0
    # Another machine: another disk, with the same names and times.
    old = site.data.rename(site.top / "old")
    shutil.copytree(old, site.data)
    put_aside(site, backup)
    site.configure(f"WATCHES[0]['existing'] = {existing!r}\n")
    site.start()
    assert site.status()["state"] == "active"
    if existing == "new":
        wait_until(lambda: list(sent(site)) == [path], 30.0, "it is another file")
    new = upload(site, "new.csv")
    expected = {new} if existing == "none" else {new, path}
    assert set(sent(site)) == expected
    # The line is taken out again: what was noted stays known.
    site.configure()
    assert site.notify("reload").returncode == 0
    newer = upload(site, "newer.csv")
    assert set(sent(site)) == expected | {newer}
    assert site.notify("scan").stdout == "0 not known\n"
    site.stop()
