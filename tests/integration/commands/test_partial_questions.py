"""What the commands say of a file that waits for what is asked of it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.daemon.site import Site
from tests.json_lines import parsed
from tests.waiting import wait_until
from watchman.journal import Journal, NewDelivery
from watchman.model import INCOMPLETE, Route, State, Version

WHOLE = gzip.compress(b"rain\n" * 500)
HALF = "it ends in the middle of what is compressed"


def asking(site: Site, complete: str, more: str = "") -> None:
    site.configure(
        f"PATTERNS = [({str(site.data)!r} + '/*.gz', "
        f"{{'broker': 'local', 'task': 'tasks.load', 'complete': {complete}}})]\n{more}"
    )


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path)
    asking(found, "['gzip', {'marker': '{name}.done'}]")
    yield found
    found.kill()


def told(site: Site, *arguments: str) -> str:
    done = site.notify(*arguments)
    assert "Traceback" not in done.stderr, done
    return done.stdout


def waiting(site: Site) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = site.status()["oldest_partial"]
    return found


def start_with_half(site: Site) -> Path:
    """Start it, and return a file that it has found to be partial."""
    site.start()
    path = site.data / "half.gz"
    path.write_bytes(WHOLE[:-5])
    wait_until(lambda: waiting(site), 30, "it waits", interval=0.3)
    return path


def test_where_history_scan_and_status_say_that_it_waits_and_why(site: Site) -> None:
    path = start_with_half(site)
    text = told(site, "where", "half.gz")
    assert "complete, and waits since 20" in text
    assert ": half.gz.done is not there" in text
    assert "asked of it: whole gzip; half.gz.done beside it" in text
    assert "on, if it stays as it is ('incomplete_after')" in text
    marker = site.data / "half.gz.done"
    marker.touch()
    wait_until(lambda: HALF in told(site, "where", str(path)), 30, "it is read", interval=0.3)

    (found,) = parsed(told(site, "where", "half.gz", "--json"))
    assert found["now"]["waits"]["reason"] == HALF
    assert found["now"]["waits"]["since"] < found["now"]["waits"]["incomplete_from"]
    assert found["now"]["asked"] == ["whole gzip", "half.gz.done beside it"]

    assert "waits since 20" in told(site, "history", str(path))
    (entry,) = parsed(told(site, "history", str(path), "--json"))
    assert (entry["state"], entry["source"], entry["reason"]) == ("partial", str(path), HALF)

    text = told(site, "scan")
    assert f"{path}  (partial; waits for what is asked of it: {HALF})" in text
    assert "to be sent" not in text

    text = told(site, "status")
    assert "Not whole yet: 1 file" in text
    assert HALF in text
    assert site.status()["partial"] == 1
    assert "watchman_partial_files 1.0" in told(site, "metrics")

    with path.open("ab") as file:
        file.write(WHOLE[-5:])
    marker.touch()  # as of this upload
    wait_until(lambda: " sent as " in told(site, "where", "half.gz"), 30, interval=0.3)
    assert site.status()["partial"] == 0
    assert parsed(told(site, "where", "half.gz", "--json"))[0]["now"]["waits"] is None
    assert "waits since" not in told(site, "history", str(path))


def test_a_companion_is_no_riddle(site: Site) -> None:
    site.start()
    marker = site.data / "half.gz.done"
    marker.touch()
    why = "it only tells of the file that it stands beside"
    wait_until(lambda: why in told(site, "history", str(marker)), 30, interval=0.3)
    assert why in told(site, "where", str(marker))
    assert f"no task: {why}" in " ".join(told(site, "match", str(marker)).split())
    site.stop()
    (site.data / "new.gz.done").touch()
    assert f"{site.data}/new.gz.done  (complete; {why})" in told(site, "scan")


def test_what_is_not_judged_yet_is_no_certain_task(site: Site) -> None:
    site.start()
    site.stop()
    path = site.data / "new.gz"
    path.write_bytes(WHOLE)
    asked = "if it is what is asked: whole gzip; new.gz.done beside it"
    assert f"{path}  (complete; tasks.load, {asked})" in told(site, "scan")
    assert asked in told(site, "where", str(path))


def test_match_says_what_is_asked_and_what_stands_beside_it(site: Site) -> None:
    path = site.data / "x.gz"
    text = " ".join(told(site, "match", str(path)).split())
    assert "asked: whole gzip x.gz.done beside it" in text
    assert "now:" not in text
    path.write_bytes(WHOLE)
    assert "now: x.gz.done is not there" in " ".join(told(site, "match", str(path)).split())
    (site.data / "x.gz.done").touch()
    text = " ".join(told(site, "match", str(path)).split())
    assert "now: what is in it is asked when it is complete" in text
    with path.open("a"):
        text = " ".join(told(site, "match", str(path)).split())
        assert "now: it is open for writing" in text
    # Nothing is asked of what gets no task, or of another file.
    assert "asked:" not in told(site, "match", str(site.data / "x.txt"))
    assert not (site.top / "var").exists()


def test_every_kind_of_criterion_has_its_words(site: Site) -> None:
    kinds = "'auto', {'checksum': '{stem}.md5'}, {'size': '{name}-{size}'}, sunny"
    asking(site, f"[{kinds}]")
    config = site.top / "config.py"
    config.write_text(f"def sunny(path, file):\n    return True\n{config.read_text()}")
    asked = [
        "whole, by its format",
        "its checksum in x.md5",
        "of the size that its name tells, as {name}-{size}",
        "sunny() says yes",
    ]
    (found,) = json.loads(told(site, "match", str(site.data / "x.gz"), "--json"))
    assert found["asked"] == asked


def test_incomplete_ones_are_counted(site: Site) -> None:
    asking(site, "'gzip', 'incomplete_after': 1")
    site.start()
    (site.data / "half.gz").write_bytes(WHOLE[:-5])
    wait_until(lambda: "watchman_incomplete_total 1.0" in told(site, "metrics"), 30, interval=0.3)
    assert "watchman_partial_files 0.0" in told(site, "metrics")
    assert HALF in told(site, "failed")


def test_the_task_for_what_is_incomplete_is_one_that_is_sent(site: Site) -> None:
    quarantine = site.top / "quarantine"
    more = f"QUARANTINE = {str(quarantine)!r}\n"
    asking(site, "'gzip', 'incomplete_task': 'tasks.half'", more)
    state = site.top / "var"
    state.mkdir(mode=0o700)
    journal = Journal(str(state))
    path = str(site.data / "half.gz")
    route = Route("local", "tasks.half")
    told_of_it = f"{INCOMPLETE}{HALF}"
    journal.record([NewDelivery("id", path, None, Version(1, 2, 3, 4), 5, route, told=told_of_it)])
    journal.note([(1, State.FAILED, "refused")])
    journal.close()
    done = site.notify("hold", "task:tasks.half", str(quarantine / "anna"))
    assert (done.returncode, done.stderr) == (0, "")
    done = site.notify("retry", "1")
    assert (done.returncode, done.stderr) == (0, "")
    done = site.notify("hold", "task:tasks.none")
    assert "there are: tasks.half, tasks.load" in done.stderr
