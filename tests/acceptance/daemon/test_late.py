"""A start without some of the directories: the real commands."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests import embedded
from tests.acceptance.daemon.site import Site
from tests.waiting import wait_until


def messages(site: Site) -> list[str]:
    """Return the paths of all tasks that were sent."""
    return embedded.sources(site.top / "var")


def troubles(site: Site) -> dict[str, str]:
    return {one["subject"]: one["message"] for one in site.status()["troubles"]}


def configure(site: Site) -> tuple[Path, Path, Path, Path]:
    """Have two directories, a pattern and a destination that are not there."""
    late, globbed, units, store = (site.top / name for name in ("late", "g", "units", "store"))
    site.configure(
        f"WATCHES += [{{'path': {str(late)!r}, 'rec': True}},\n"
        f"    {{'path': '{globbed}/*', 'do_glob': True, 'rec': True}},\n"
        f"    {{'path': '{units}/*', 'do_glob': True, 'kind': 'directories'}}]\n"
        f"PATTERNS += [('{site.top}/*', {{'broker': 'local', 'task': 'tasks.load'}})]\n"
        f"MOVES = {{{str(late)!r}: {str(store)!r}}}\n"
    )
    return late, globbed, units, store


def test_it_starts_with_what_is_there_and_says_what_is_missing(site: Site) -> None:
    late, globbed, units, store = configure(site)
    checked = site.notify("check", "--json")
    assert checked.returncode == 1
    rows: list[dict[str, Any]] = json.loads(checked.stdout)
    bad = {row["subject"]: row["detail"] for row in rows if not row["ok"]}
    assert bad == {
        f"watch {late}": "does not exist",
        f"watch {globbed}/*": "no directory matches",
        f"watch {units}/*": "no directory matches",
        f"move {late} to {store}": "the destination does not exist",
    }

    started = site.notify("start")
    assert started.returncode == 0, started.stderr
    later = "create it or mount it: it is watched as soon as it is there"
    expected = {
        str(late): f"No such file or directory; {later}",
        f"{globbed}/*": f"no directory matches; {later}",
        f"{units}/*": f"no directory matches; {later}",
        f"moving {late} to {store}": f"{store}: No such file or directory; create it, or mount "
        "what belongs there: files wait",
    }
    assert sorted(started.stderr.splitlines()) == sorted(
        f"notify: {subject}: {message}" for subject, message in expected.items()
    )
    adding = "DEBUG Adding watch on {}, processed by watchman.processors.CompletedFiles"
    assert started.stdout.splitlines()[0] == adding.format(site.data)
    assert len(started.stdout.splitlines()) == 2
    assert troubles(site) == expected
    assert site.status()["state"] == "active"

    (site.data / "there.csv").touch()
    wait_until(lambda: len(messages(site)) == 1, what="what is there is watched")
    for directory in (late, globbed / "a", units / "u"):
        directory.mkdir(parents=True)
    wait_until(lambda: set(troubles(site)) == {f"moving {late} to {store}"}, 20)
    (late / "moved.csv").touch()
    (globbed / "a/first.csv").touch()
    wait_until(lambda: len(messages(site)) == 2, what="what waits for no destination")
    store.mkdir()
    (units / "u/unit").mkdir()
    wait_until(lambda: len(messages(site)) == 4, 20, "all the others")
    assert messages(site) == sorted(
        map(str, (site.data / "there.csv", late / "moved.csv", globbed / "a/first.csv",
                  units / "u/unit"))
    )  # fmt: skip
    wait_until(lambda: troubles(site) == {}, 20, "no trouble is left")
    site.stop()


def test_a_reload_and_a_restart_without_what_was_there(site: Site) -> None:
    pid = site.start()
    shutil.rmtree(site.data)
    assert site.notify("reload").returncode == 0
    wait_until(lambda: set(troubles(site)) == {str(site.data)}, 20, "it is missed")
    assert site.pid == pid
    restarted = site.notify("restart")
    assert restarted.returncode == 0, restarted.stderr
    assert set(troubles(site)) == {str(site.data)}
    site.data.mkdir()
    (site.data / "back.csv").touch()
    wait_until(lambda: len(messages(site)) == 1, 20, "it is watched again")
    site.stop()
