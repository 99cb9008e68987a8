"""What the commands say of sets: which files go with which, what is missing, what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from tests.waiting import wait_until

ENDS = ("shp", "shx", "dbf", "prj")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    entry = (
        "{'broker': 'local', 'task': 'tasks.load', 'set_after': 0.5, "
        "'with': ['{stem}.shx', '{stem}.dbf', '{stem}.prj?']}"
    )
    data = str(found.data)
    found.configure(
        f"PATTERNS = [({data!r} + '/*.shp', {entry}), "
        f"({data!r} + '/*', {{'broker': 'local', 'task': 'tasks.other'}})]\n"
    )
    yield found
    found.kill()


def told(site: Site, *arguments: str) -> str:
    done = site.notify(*arguments)
    assert "Traceback" not in done.stderr, done
    return " ".join(done.stdout.split())


def test_before_anything_is_started(site: Site) -> None:
    main = site.data / "a.shp"
    text = told(site, "match", str(main))
    assert "task: tasks.load" in text
    assert "asked: a.shx, a.dbf, which the task is about too" in text
    assert "a.prj as well, if it comes within 0.5 s" in text
    assert "no task: it goes with a.shp" in told(site, "match", str(site.data / "a.prj"))
    assert "task: tasks.other" in told(site, "match", str(site.data / "a.txt"))
    main.touch()
    (site.data / "a.dbf").touch()
    assert "now: a.shx is missing" in told(site, "match", str(main))
    (site.data / "a.shx").touch()
    assert "now: it has all that is asked" in told(site, "match", str(main))
    assert "only other files are asked for: no file has to be read" in told(site, "check")
    assert '"set_after": 0.5' in told(site, "config", "--json")


def test_while_it_waits_and_when_it_is_sent(site: Site) -> None:
    site.start()
    main, member = site.data / "a.shp", site.data / "a.dbf"
    member.write_text("1")
    (site.data / "lonely.dbf").write_text("1")
    main.write_text("1")
    wait_until(lambda: "a.shx is missing" in told(site, "where", "a.shp"), 30, interval=0.3)
    text = told(site, "where", "a.shp")
    assert "asked of it: a.shx, a.dbf, which the task is about too" in text
    assert "on, if it stays as it is ('incomplete_after')" in text
    assert "a.shx is missing" in told(site, "status")
    for path, why in ((member, "a.shp"), (site.data / "lonely.dbf", "lonely.shp")):
        assert f"no task: it goes with {why}" in told(site, "where", str(path))
    text = told(site, "scan")
    assert f"{member} (complete; it goes with a.shp)" in text
    assert f"{main} (partial; waits for what is asked of it: a.shx is missing)" in text

    (site.data / "a.shx").write_text("1")
    wait_until(lambda: " sent as " in told(site, "where", "a.shp"), 30, interval=0.3)
    (record,) = parsed(site.notify("where", "a.shp", "--json").stdout)
    task_id = record["deliveries"][0]["task_id"]
    found = told(site, "where", task_id.upper())
    assert all(str(site.data / f"a.{end}") in found for end in ENDS[:3])
    # Each file has its task by the pattern of the main file, which is there.
    text = told(site, "where", str(member))
    assert f"pattern {site.data}/*.shp: task tasks.load on broker local" in text
    assert "no more" not in text
    done = site.notify("resend", str(member), "--yes")
    assert (done.returncode, done.stderr) == (0, "")
