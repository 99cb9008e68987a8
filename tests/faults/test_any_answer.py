"""A server that says anything, at any moment: nothing is lost, nothing is called sent that is not.

At each answer of a conversation each turn of ``tests/servers/*_turns.py`` is put in its place. CI
takes a sample; WATCHMAN_LONG=1 takes all.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.bench import Bench
from tests.integration.brokers.messages import message, route
from tests.journals import failures
from tests.servers import amqp_turns, redis_turns
from tests.servers.fake_amqp import FakeAmqp
from tests.servers.fake_redis import FakeRedis
from tests.servers.turns import Turn
from tests.waiting import wait_until
from watchman.brokers import amqp, amqp_connection, app, kombu, kombu_connection, open_publisher
from watchman.brokers import redis as redis_publisher
from watchman.model import Answer, Broker, Message, Publisher, Route, State
from watchman.sender import pages, sender, targets
from watchman.text import printable

LONG = os.environ.get("WATCHMAN_LONG") == "1"
SEED = int(os.environ.get("WATCHMAN_SEED", "1"))
PATIENCE = 0.3
"""Seconds that a publisher waits for an answer."""
PASSWORD = redis_turns.PASSWORD
Server = FakeAmqp | FakeRedis
SETTINGS = {"broker_connection_timeout": PATIENCE}
ABOUT_A_MESSAGE = frozenset(
    {"40.11", "50.11", "50.21", "60.80", "SADD", "MULTI", "LLEN", "EXEC", "LPUSH"}
)
"""The answers that can say that a message will never be taken; the others are the broker's."""


class Kind(NamedTuple):
    """A kind of broker."""

    server: type[FakeAmqp] | type[FakeRedis]
    url: str
    turns: list[Turn]
    settings: Mapping[str, Any] = {}


ON_REDIS = Kind(FakeRedis, f"redis://user:{PASSWORD}@%s/1", redis_turns.TURNS)
ON_AMQP = Kind(FakeAmqp, f"amqp://user:{PASSWORD}@%s//", amqp_turns.TURNS)
THROUGH_KOMBU = {"task_send_sent_event": True}
KINDS = {
    "redis": ON_REDIS,
    "amqp": ON_AMQP,
    "kombu on redis": ON_REDIS._replace(settings=THROUGH_KOMBU),
    # py-amqp takes any ack for that of the one message under way.
    "kombu on amqp": ON_AMQP._replace(
        turns=[turn for turn in ON_AMQP.turns if "tag that is none" not in turn.name],
        settings=THROUGH_KOMBU,
    ),
}
QUEUES = ("q", "r")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody wait long, and a page be a few messages."""
    monkeypatch.setitem(redis_publisher.DEFAULTS, "socket_timeout", PATIENCE)
    monkeypatch.setattr(redis_publisher, "CHUNK", 1000)
    monkeypatch.setattr(app, "CONNECT_SECONDS", PATIENCE)
    monkeypatch.setattr(amqp_connection, "ANSWER_SECONDS", PATIENCE)
    monkeypatch.setattr(amqp, "CONFIRM_SECONDS", PATIENCE)
    monkeypatch.setattr(amqp, "BLOCKED_SECONDS", PATIENCE / 3)
    monkeypatch.setattr(kombu, "STALL_SECONDS", 10 * PATIENCE)
    monkeypatch.setattr(kombu_connection, "STALL_SECONDS", 2 * PATIENCE)
    for way in ("read_timeout", "write_timeout"):
        monkeypatch.setitem(kombu._AMQP_DEFAULTS, way, PATIENCE)
    monkeypatch.setattr(pages, "PAGE", 4)
    monkeypatch.setattr(sender, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(sender, "LONGEST_RETRY", 0.05)
    monkeypatch.setattr(targets, "FIRST_RETRY", 0.01)
    monkeypatch.setattr(targets, "LONGEST_RETRY", 0.05)
    monkeypatch.setattr(sender, "KEEPALIVE", 0.2)


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


def publisher_for(kind: Kind, server: Server) -> Publisher:
    broker = Broker("b", (kind.url % server.address,))
    return open_publisher(broker, {**SETTINGS, **kind.settings}, "/nonexistent")


def cases(kind: Kind, at: Iterable[int], sample: int) -> list[tuple[int, Turn]]:
    """Return what to play: each turn at each moment, or a sample."""
    if LONG:
        return list(product(at, kind.turns))
    found = list(product(at, [turn for turn in kind.turns if not turn.slow]))
    return random.Random(SEED).sample(found, sample)


def assert_fit(reason: str) -> None:
    """A reason is one line that can be shown to anybody, anywhere."""
    assert printable(reason) == reason
    assert PASSWORD not in reason
    assert len(reason) <= 1200


class Play:
    """Two pages for a publisher, and what became of each message."""

    def __init__(self, kind: Kind, server: Server) -> None:
        self.server = server
        self.may_refuse = False
        self.publisher = publisher_for(kind, server)
        self.accepted: set[str] = set()
        self.refused: set[str] = set()
        routes = [route(queue) for queue in QUEUES]
        self.batches = [[message(routes[n % 2], f"/up/{p}{n}") for n in range(4)] for p in "ab"]

    def publish(self, batch: Sequence[Message]) -> list[Message]:
        """Publish; return what has to be published again."""
        outcomes = self.bounded(lambda: self.publisher.publish(batch))
        left = []
        for each, outcome in zip(batch, outcomes, strict=True):
            if outcome.answer is Answer.ACCEPTED:
                self.accepted.add(each.task_id)
            else:
                assert_fit(outcome.reason)
                assert outcome.reason
            if outcome.answer is Answer.REFUSED:
                self.refused.add(each.task_id)
                assert self.may_refuse, outcome
            if outcome.answer is Answer.AGAIN:
                left.append(each)
        stored = set(self.server.stored)
        assert self.accepted <= stored, "a false sent"
        assert not self.refused & stored, "a false refusal"
        return left

    def bounded(self, call: Callable[[], Any]) -> Any:
        begun = time.monotonic()
        result = call()
        assert time.monotonic() - begun < 20
        return result

    def ask(self) -> None:
        """Tend and check, whatever they say."""
        for call in (self.publisher.keepalive, self.publisher.check):
            reason = self.bounded(call)
            if reason is not None:
                assert_fit(reason)

    def run(self) -> list[str]:
        """Play it all; in the end all is well. Return the answers to that end."""
        self.ask()
        left = [each for batch in self.batches for each in self.publish(batch)]
        self.ask()
        said = list(self.server.said)
        self.server.be_well()
        for _ in range(6):
            if not left:
                break
            left = self.publish(left)
        assert not left, "never accepted"
        assert self.publisher.keepalive() is None
        assert self.publisher.check() is None
        assert len(self.accepted) + len(self.refused) == 8
        return said


def moments(kind: Kind) -> list[str]:
    """Return the names of all answers of an undisturbed play."""
    server = kind.server()
    play = Play(kind, server)
    try:
        return play.run()
    finally:
        play.publisher.close()
        server.close()


def play_one(kind: Kind, number: int, turn: Turn) -> bool:
    """Play with one turn at one moment; say whether that moment came."""
    server = kind.server()
    came: list[str] = []

    def disturb(at: int, name: str) -> Turn | None:
        if at != number:
            return None
        came.append(name)
        play.may_refuse = turn.refusing and name in ABOUT_A_MESSAGE
        return turn

    server.disturb = disturb
    play = Play(kind, server)
    try:
        play.run()
        return bool(came)
    finally:
        play.publisher.close()
        server.close()


@pytest.mark.timeout(7200 if LONG else 120)
def test_whatever_is_said_once(kind: Kind) -> None:
    names = moments(kind)
    failed = []
    for number, turn in cases(kind, range(len(names)), 20):
        try:
            assert play_one(kind, number, turn), "the moment never came"
        except Exception as error:  # noqa: BLE001 — all that fail are told
            failed.append(f"{turn} for {names[number]} ({number}): {type(error).__name__} {error}")
    assert not failed, "\n".join(failed)


class Lasting:
    """A sender, and a server that says one thing from some moment on until it is well again."""

    def __init__(self, kind: Kind, directory: Path) -> None:
        self.may_refuse = self.is_well = True
        self.server = kind.server()
        self.disturbed = 0
        directory.mkdir()
        self.bench = Bench(directory)
        self.bench.open = lambda: publisher_for(kind, self.server)
        for n in range(8):
            self.bench.record(f"{n}", route=Route("b", "t", options={"queue": QUEUES[n % 2]}))

    def say(self, turn: Turn, since: int, name: str) -> None:
        """Have the turn take the place of each answer of that name, from some moment on."""

        def disturb(at: int, what: str) -> Turn | None:
            if at < since or what != name:
                return None
            self.disturbed += 1
            return turn

        self.is_well = False
        self.may_refuse = turn.refusing and name in ABOUT_A_MESSAGE
        self.server.disturb = disturb

    def settled(self) -> bool:
        """Whether each delivery has come to its end."""
        return self.bench.states().keys() <= {State.SENT, State.FAILED}

    def told(self) -> bool:
        """Whether `notify status` would say that something is wrong."""
        return bool(self.bench.sender.trouble or self.bench.sender.troubles())

    def run(self) -> None:
        sender = self.bench.sender
        sender.start()
        wait_until(lambda: self.settled() or self.told(), 30, "trouble is told")
        self._stays_told()
        self.server.be_well()
        wait_until(self.settled, 60, "all is settled")
        wait_until(lambda: not self.told(), 10, f"well again: {sender.trouble}")
        self._check()

    def _stays_told(self) -> None:
        seen, until = self.disturbed, time.monotonic() + 1.0
        while not self.settled() and self.disturbed < seen + 4 and time.monotonic() < until:
            if not self.told():
                # It may have been settled in between.
                wait_until(self.settled, 1, "nothing is told while it lasts")

    def _check(self) -> None:
        sender = self.bench.sender
        assert sender._thread.is_alive()
        assert sender.error is None
        failed = failures(self.bench.journal)
        for record in failed:
            assert_fit(record.reason)
            assert record.reason
            assert self.may_refuse, record.reason
        stored = {each.split()[1] for each in self.server.stored if each}
        lost = {f"{n}" for n in range(8)} - stored
        assert lost == {record.source.rpartition("/")[2] for record in failed}

    def close(self) -> None:
        self.bench.sender.stop()
        ended = self.bench.sender.join(20)
        self.bench.journal.close()
        self.server.close()
        assert ended


@pytest.mark.timeout(7200 if LONG else 120)
def test_whatever_is_said_for_a_while(
    kind: Kind, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = lasting_moments(kind, tmp_path / "well")
    # The first answer of each name, and the last, when all before were true.
    ends = {names.index(name) for name in names} | {
        len(names) - 1 - names[::-1].index(name) for name in names
    }
    failed = []
    for case, (number, turn) in enumerate(cases(kind, sorted(ends), 8)):
        caplog.clear()
        try:
            # A slow machine has more said before: the last one of a name may come too early then.
            for since in (number, 0):
                if play_lasting(kind, tmp_path / f"{case}-{since}", (since, names[number]), turn):
                    break
            else:
                raise AssertionError("the moment never came")
            assert_log_is_fit(caplog.records)
        except Exception as error:  # noqa: BLE001 — all that fail are told
            failed.append(f"{turn} for {names[number]} ({number}): {type(error).__name__} {error}")
    assert not failed, "\n".join(failed)


def lasting_moments(kind: Kind, directory: Path) -> list[str]:
    """Return the names of all answers that an undisturbed sender gets."""
    lasting = Lasting(kind, directory)
    try:
        lasting.run()
        return list(lasting.server.said)
    finally:
        lasting.close()


def play_lasting(kind: Kind, directory: Path, since: tuple[int, str], turn: Turn) -> bool:
    """Play with one turn from a moment on; say whether that moment came."""
    lasting = Lasting(kind, directory)
    lasting.say(turn, *since)
    try:
        lasting.run()
    finally:
        lasting.close()
    return lasting.disturbed > 0


def assert_log_is_fit(records: Iterable[logging.LogRecord]) -> None:
    for record in records:
        assert not record.exc_info, record.getMessage()
        if record.name.startswith("watchman") and record.levelno >= logging.INFO:
            said = record.getMessage()
            assert printable(said) == said
            assert PASSWORD not in said
            assert "died" not in said
