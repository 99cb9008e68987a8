"""Whatever happens, all that reports tells the same, and what it tells is so.

At ten moments ``status``, ``history``, ``failed`` and ``where`` are compared with what the brokers
hold and with what lies on the disk. 10,000 files: WATCHMAN_LONG=1 runs it.
"""

from __future__ import annotations

import collections
import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.acceptance.started import Daemon, notify
from tests.acceptance.workers import queued
from tests.mounted import fill, mounted
from tests.servers.rabbitmq import RabbitServer
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

LONG = os.environ.get("WATCHMAN_LONG") == "1"
FILES = 10_000
BURST = FILES // 8
"""Files of one upload."""
REFUSED, OPEN, UNMATCHED, HELD = 3, 50, 20, 40
SECONDS = 300.0
ASKED = 4
"""Files of each state of which ``where`` is asked."""

CONFIG = """
BROKERS = {{'red': {redis!r}, 'rabbit': {rabbit!r}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [
    ('*/report*.pdf', {{'broker': 'red', 'task': 'report', 'options': {{'queue': 'reports'}}}}),
    ('*.nc', {{'broker': 'rabbit', 'task': 'grid', 'options': {{'queue': 'grids'}}}}),
    ('*.csv', {{'broker': 'red', 'task': 'series'}}),
]
MOVES = {{{moved!r}: {storage!r}, {small!r}: {share!r}}}
"""

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not LONG, reason="takes minutes: WATCHMAN_LONG=1 runs it"),
]


class Told(NamedTuple):
    """What the commands say, all of it asked when nothing happens any more."""

    status: dict[str, Any]
    history: list[dict[str, Any]]
    failed: list[dict[str, Any]]


class Site:
    """Two brokers, three trees, and what is to be so of each file in them."""

    def __init__(self, base: Path, share: Path, red: RedisServer, rabbit: RabbitServer) -> None:
        self.upload, self.storage, self.share = base / "upload", base / "storage", share
        self.red, self.rabbit = red, rabbit
        for directory in ("moved", "small", "plain", "held"):
            (self.upload / directory).mkdir(parents=True)
        self.storage.mkdir()
        self.expected: dict[str, tuple[str | None, str]] = {}
        """By path where it arrived: broker and state."""
        self.writing: dict[str, Any] = {}
        """Files that are open for writing."""
        self.unmatched: list[str] = []
        self.red_is_up = True
        self.broken: set[str] = set()
        """Queues that take nothing, and have nothing."""

    @property
    def config(self) -> str:
        return CONFIG.format(
            redis=self.red.url,
            rabbit=self.rabbit.url,
            upload=str(self.upload),
            moved=str(self.upload / "moved"),
            storage=str(self.storage),
            small=str(self.upload / "small"),
            share=str(self.share),
        )

    def put(self, tree: str, suffix: str, count: int, state: str, prefix: str = "") -> list[str]:
        """Upload files; ``state`` is what they come to."""
        begun = len(self.expected)
        paths = []
        for number in range(begun, begun + count):
            path = self.upload / tree / f"{prefix or tree}{number:05}{suffix}"
            # Each of its own size, so that none can be taken for another.
            path.write_bytes(b"%d\n" % number * (1 + number % 5))
            self.expected[str(path)] = ("rabbit" if suffix == ".nc" else "red", state)
            paths.append(str(path))
        return paths

    def become(self, before: tuple[str | None, str], state: str) -> None:
        """Say that what was in one state for a broker is in another one now."""
        for path, (broker, was) in self.expected.items():
            if (broker, was) == before:
                self.expected[path] = (broker, state)

    def paths(self, state: str) -> list[str]:
        return [path for path, (_, has) in self.expected.items() if has == state]

    def ids_in_brokers(self) -> dict[str, set[str]]:
        """Return the ids of the tasks that each broker holds; none of one that is down."""
        found: dict[str, set[str]] = collections.defaultdict(set)
        if self.red_is_up:
            for queue in {"celery", "reports"} - self.broken:
                found["red"] |= {task.task_id for task in queued(self.red.url, queue)}
        found["rabbit"] = ids_in_queue(self.rabbit, "grids")
        return found


def ids_in_queue(rabbit: RabbitServer, queue: str) -> set[str]:
    """Return the ids of the tasks in a queue; they stay there."""
    found = set()
    with rabbit.connection() as connection:
        channel = connection.channel()
        while (message := channel.basic_get(queue, no_ack=False)) is not None:
            found.add(message.headers["id"])
        channel.close()  # which puts them back
    return found


class Moments:
    """Asks what there is to be asked, and compares."""

    def __init__(self, site: Site, daemon: Daemon) -> None:
        self.site = site
        self.cwd = daemon.config.parent
        self.number = 0

    def run(self, *arguments: str, status: tuple[int, ...] = (0,)) -> str:
        done = notify(*arguments, cwd=self.cwd, timeout=120)
        assert done.returncode in status, (arguments, done.returncode, done.stderr)
        return done.stdout

    def lines(self, *arguments: str) -> list[dict[str, Any]]:
        return list(map(json.loads, self.run(*arguments, "--json").splitlines()))

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.run("status", "--json", status=(0, 1, 2)))
        return found

    def counts(self) -> collections.Counter[tuple[str | None, str]]:
        return collections.Counter(self.site.expected.values())

    def settled(self, *, active: bool = True) -> dict[str, Any]:
        """Wait until the status says what is to be so; return it."""
        last: list[Any] = [None]

        def is_so() -> bool:
            found = last[0] = self.status()
            said = {(one["broker"], one["state"]): one["count"] for one in found["deliveries"]}
            incomplete = len(self.site.writing) if active else found["incomplete"]
            return said == dict(self.counts()) and found["incomplete"] == incomplete

        try:
            wait_until(is_so, SECONDS, interval=0.3)
        except AssertionError:
            told = [(d["broker"], d["state"], d["count"]) for d in last[0]["deliveries"]]
            raise AssertionError(
                f"moment {self.number}: {told}, {last[0]['incomplete']} incomplete; expected "
                f"{self.counts()}, {len(self.site.writing)} incomplete; {last[0]['troubles']}"
            ) from None
        found: dict[str, Any] = last[0]
        return found

    def agree(self, *, active: bool = True) -> Told:
        """Compare everything with everything."""
        self.number += 1
        told = Told(
            self.settled(active=active), self.lines("history", "--all"), self.lines("failed")
        )
        assert told.status["state"] == ("active" if active else "inactive")
        self._history(told)
        self._brokers(told)
        self._disk(told)
        self._where(told)
        return told

    def _history(self, told: Told) -> None:
        said = {one["source"]: (one["broker"], one["state"]) for one in told.history}
        assert len(said) == len(told.history)
        assert said == self.site.expected
        failed = sorted(one["source"] for one in told.failed)
        assert failed == sorted(self.site.paths("failed"))
        by_state = {
            (one["broker"], one["state"]): one["count"] for one in told.status["deliveries"]
        }
        for (broker, state), count in by_state.items():
            narrowed = self.lines("history", "--broker", broker, "--state", state, "--all")
            assert len(narrowed) == count, (broker, state)

    def _brokers(self, told: Told) -> None:
        """What was sent is there, once an id, and nothing else is."""
        held = self.site.ids_in_brokers()
        for broker in ("red", "rabbit"):
            if broker == "red" and not self.site.red_is_up:
                continue
            sent = {
                one["task_id"]
                for one in told.history
                if (one["broker"], one["state"]) == (broker, "sent")
            }
            assert held[broker] == sent

    def _disk(self, told: Told) -> None:
        for one in told.history:
            at = one["source"] if one["state"] == "moving" else one["final"]
            assert os.stat(at).st_size == one["size"]
            assert one["source"] == at or not os.path.exists(one["source"])
        files = {str(p) for p in self.site.storage.rglob("*") if p.is_file()}
        below = f"{self.site.storage}/"
        assert files == {
            one["final"]
            for one in told.history
            if one["final"].startswith(below) and one["state"] != "moving"
        }

    def _where(self, told: Told) -> None:
        by_state: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
        for one in told.history:
            by_state[f"{one['state']} {one['broker']}"].append(one)
        some = [one for many in by_state.values() for one in (*many[:ASKED], many[-1])]
        asked = {one["source"]: one for one in some}
        names = [os.path.basename(path) for path in asked]
        answers = {one["path"]: one for one in self.lines("where", *names)}
        assert answers.keys() == asked.keys()
        for path, answer in answers.items():
            [delivery] = answer["deliveries"]
            keys = ("seq", "state", "task_id", "final", "reason")
            assert {k: delivery[k] for k in keys} == {k: asked[path][k] for k in keys}
        busy = list(self.site.writing)[:ASKED]
        for answer in self._of(busy):
            assert answer["now"]["seen"] == "busy"
            assert [one["pid"] for one in answer["now"]["writers"]] == [os.getpid()]
        for answer in self._of(self.site.unmatched[:ASKED]):
            assert answer["noted"] == "no pattern matched it"

    def _of(self, paths: list[str]) -> list[dict[str, Any]]:
        """Return what ``where`` says of files without a delivery, asked by their names."""
        if not paths:
            return []
        answers = self.lines("where", *map(os.path.basename, paths))
        assert [one["path"] for one in answers] == paths
        assert not any(one["deliveries"] for one in answers)
        return answers


def between(moments: Moments) -> None:
    """While tasks are sent nothing is said to be sent that a broker does not have."""
    site = moments.site
    before = {one["task_id"] for one in moments.lines("history", "--state", "sent", "--all")}
    held = site.ids_in_brokers()
    after = {one["task_id"]: one for one in moments.lines("history", "--all")}
    known = {identity for identity, one in after.items() if one["state"] in {"sent", "ready"}}
    everywhere = held["red"] | held["rabbit"]
    missing = before - everywhere
    assert not missing
    assert everywhere <= known


@pytest.fixture
def site(tmp_path: Path, own_redis: RedisServer, rabbit_server: RabbitServer) -> Iterator[Site]:
    rabbit_server.delete("grids")
    with mounted(tmp_path / "share", "16m") as share:
        made = Site(tmp_path, share, own_redis, rabbit_server)
        yield made
        for file in made.writing.values():
            file.close()
    rabbit_server.delete("grids")


def test_everything_that_reports_agrees_with_what_is_so(
    site: Site, daemon: Callable[..., Daemon]
) -> None:
    watchman = daemon(site.config)
    moments = Moments(site, watchman)
    watchman.start()

    # 1: all is well.
    site.put("moved", ".csv", BURST, "sent")
    site.put("plain", ".nc", BURST, "sent")
    between(moments)
    told = moments.agree()
    assert told.status["troubles"] == []
    moments.run("status")

    # 2: files that stay open, and files that nothing asks for.
    for number in range(OPEN):
        path = site.upload / f"plain/open{number:02}.csv"
        site.writing[str(path)] = path.open("w")
    for number in range(UNMATCHED):
        path = site.upload / f"plain/other{number:02}.txt"
        path.touch()
        site.unmatched.append(str(path))
    notes = f"{UNMATCHED} files or directories, such as "
    wait_until(lambda: any(notes in n["message"] for n in moments.status()["notes"]), SECONDS)
    moments.agree()

    # 3: tasks that are refused.
    with site.red.client() as client:
        client.set("reports", "no list")
    site.broken = {"reports"}
    site.put("plain", ".pdf", REFUSED, "failed", "report")
    told = moments.agree()
    assert f"{REFUSED} have failed" in told.status["troubles"][0]["message"]
    moments.run("status", status=(2,))

    # 4: a directory on hold.
    moments.run("hold", str(site.upload / "held"))
    site.put("held", ".nc", HELD, "ready")
    told = moments.agree()
    [hold] = told.status["held"]
    assert hold["waiting"] == HELD

    # 5: a destination that is full.
    fill(site.share / "filler")
    site.put("small", ".csv", BURST, "moving")
    wait_until(lambda: any(one["troubles"] for one in moments.status()["moves"]), SECONDS)
    told = moments.agree()
    [move] = [one for one in told.status["moves"] if one["troubles"]]
    assert (move["waiting"], move["root"]) == (BURST, str(site.share))

    # 6: a broker that is down, and one that is not.
    site.red.stop()
    site.red_is_up = False
    site.put("moved", ".csv", BURST, "ready")
    site.put("moved", ".nc", BURST, "sent")
    wait_until(lambda: moments.status()["brokers"]["red"]["trouble"], SECONDS)
    told = moments.agree()
    assert not told.status["brokers"]["rabbit"]["trouble"]

    # 7: killed, amid an upload.
    site.put("plain", ".nc", BURST, "sent")
    watchman.kill()
    killed = datetime.now(timezone.utc)
    site.put("moved", ".csv", BURST, "ready")
    status = moments.status()
    assert status["state"] == "inactive"
    recorded = {one["source"] for one in moments.lines("history", "--all")}
    assert sum(one["count"] for one in status["deliveries"]) == len(recorded)
    assert recorded <= site.expected.keys()
    watchman.start()
    told = moments.agree()
    assert all(one["seq"] for one in told.history)
    assert max(datetime.fromisoformat(one["arrived"]) for one in told.history) > killed

    # 8: the broker is back.
    site.red.start()
    site.red_is_up = True
    between(moments)
    site.become(("red", "ready"), "sent")
    moments.agree()

    # 9: there is space, and nothing is on hold any more.
    (site.share / "filler").unlink()
    moments.run("release", "--all")
    site.become(("red", "moving"), "sent")
    site.become(("rabbit", "ready"), "sent")
    told = moments.agree()
    assert told.status["held"] == []
    assert [one["waiting"] for one in told.status["moves"]] == [0, 0]

    # 10: what was refused is tried again, and what was open is closed.
    with site.red.client() as client:
        client.delete("reports")
    site.broken = set()
    moments.run("retry", "--all")
    site.become(("red", "failed"), "sent")
    for name, file in site.writing.items():
        file.close()
        site.expected[name] = ("red", "sent")
    site.writing.clear()
    told = moments.agree()
    assert told.status["troubles"] == []
    moments.run("status")
    assert moments.number == 10
    watchman.stop()
    moments.agree(active=False)
