"""Redis: one connection of our own, one LPUSH for many messages.

kombu's Redis transport opens the connection and says what the keys are, so TLS, ACL users,
sentinels, key prefixes and priority steps are what a worker expects. Only the pushing is ours:
a worker pops from the right, so the values of one LPUSH are consumed in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from watchman.brokers.answers import Answers, name_of
from watchman.brokers.application import (
    CONNECT_SECONDS,
    connect_options,
    instrumented,
    let_go,
    make_application,
    make_connection,
)
from watchman.brokers.envelope import Envelopes
from watchman.brokers.failover import Failover
from watchman.brokers.kombu import KombuPublisher
from watchman.brokers.recorder import Target
from watchman.brokers.redislink import RedisLink
from watchman.brokers.replies import ELSEWHERE, Fault, kombu_fault, redis_code, redis_fault
from watchman.brokers.virtual import VirtualStyle
from watchman.model import ACCEPTED, Broker, Message, Outcome

DEFAULTS = {"socket_timeout": 4.0, "socket_connect_timeout": CONNECT_SECONDS}
"""kombu waits for ever unless told otherwise. Seconds."""

CHUNK = 256 * 1024
"""Characters in one LPUSH, about: what is in doubt when the connection breaks."""


class _Group(NamedTuple):
    """Messages that go one way: to a list, or where only kombu can send them."""

    target: Target
    indexes: list[int]
    """Their places in the batch."""
    texts: list[str]


_Groups = dict[tuple[str, int | None] | None, _Group]
"""By the list's name and priority; None for what kombu sends."""


class RedisPublisher:
    """Publishes to Redis."""

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any]) -> None:
        self._app = make_application(celery_settings)
        self._options = connect_options(self._app, broker, DEFAULTS)
        self._answers = Answers(broker)
        self._failover = Failover(broker.urls, self._answers)
        self._link: RedisLink | None = None
        self._unconnected = make_connection(self._app, broker.urls[0], self._options, tls=False)
        self._style = VirtualStyle(self._options.get("body_encoding", "base64"))
        self._envelopes = Envelopes(self._app, self._unconnected, self._style)
        # For what needs more than a list: topics, fanout, queues that expire, signals.
        self._plain = KombuPublisher(broker, celery_settings, DEFAULTS)

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Push the batch; see :class:`watchman.model.Publisher`."""
        if instrumented(self._app):
            return self._plain.publish(batch)
        outcomes: list[Outcome | None] = [None] * len(batch)
        groups: _Groups = {}
        ways: dict[int, _Group | Outcome] = {}
        letters = self._envelopes.letters(batch)
        for index, letter in enumerate(letters):
            if isinstance(letter, Outcome):
                outcomes[index] = letter
                continue
            # Most letters of a batch have the same target, the very same object.
            way = ways.get(id(letter.target))
            if way is None:
                way = ways[id(letter.target)] = self._way(letter.target, groups)
            if isinstance(way, Outcome):
                outcomes[index] = way
            else:
                way.indexes.append(index)
                way.texts.append(letter.payload)
        exotic = groups.pop(None, None)
        self._push(list(groups.values()), outcomes)
        if exotic is not None:
            answers = self._plain.publish([batch[index] for index in exotic.indexes])
            for index, outcome in zip(exotic.indexes, answers, strict=True):
                outcomes[index] = outcome
        return [outcome or self._answers.again("not sent") for outcome in outcomes]

    def _way(self, target: Target, groups: _Groups) -> _Group | Outcome:
        """Return the messages that go the same way as those for a target, or their answer."""
        held = self._answers.on_hold(target)
        if held is not None:
            return held
        key = (target.routing_key, target.priority) if _is_list(target) else None
        return groups.setdefault(key, _Group(target, [], []))

    def _push(
        self,
        groups: list[_Group],
        outcomes: list[Outcome | None],
    ) -> None:
        """Push each group's texts to its list, and note the outcome of each."""
        if not groups:
            return
        try:
            link = self._connected()
            for group in groups:
                if self._link is link:
                    self._push_group(link, group, outcomes)
        except Exception as error:  # noqa: BLE001 — redis-py, kombu and sockets raise all kinds
            again = self._answers.again(error)
            self._go_on()
            for group in groups:
                for index in group.indexes:
                    outcomes[index] = outcomes[index] or again

    def _push_group(self, link: RedisLink, group: _Group, outcomes: list[Outcome | None]) -> None:
        from redis.exceptions import ResponseError

        target, indexes, texts = group
        try:
            key = link.key(target).encode()
            link.declare(target)
        except Exception as error:
            fault = kombu_fault(error, virtual=True)
            if fault is Fault.BROKER:
                raise
            outcome = self._answers.for_fault(fault, error, name_of(target))
            self._note(outcomes, indexes, outcome)
            return
        for start, end in _chunks(texts):
            try:
                link.push(_lpush(key, texts[start:end]), end - start)
            except ResponseError as error:
                # LPUSH is atomic: none of these values is there; what was before, is.
                self._note(outcomes, indexes[start:], self._classify(error, target))
                return
            self._note(outcomes, indexes[start:end], ACCEPTED)

    @staticmethod
    def _note(outcomes: list[Outcome | None], indexes: Sequence[int], outcome: Outcome) -> None:
        for index in indexes:
            outcomes[index] = outcome

    def _classify(self, error: Exception, target: Target) -> Outcome:
        """Return the answer for an error reply, which leaves the connection usable."""
        if redis_code(error) in ELSEWHERE:
            # The server has changed its role, say: the connection would stay what it is.
            self._go_on()
        return self._answers.for_fault(redis_fault(error), error, name_of(target))

    def _connected(self) -> RedisLink:
        """Return a connection that was alive just now, opening one if need be."""
        if self._link is not None and not self._link.alive():
            self._drop()
        if self._link is None:
            self._link = self._connect()
        return self._link

    def _connect(self) -> RedisLink:
        """Connect to the first URL that can be used. Raises Unusable."""
        return self._failover.connect(
            lambda url: RedisLink(self._app, url, self._options), _elsewhere
        )

    def _go_on(self) -> None:
        """Let go of the connection, and begin with the next URL."""
        if self._link is not None:
            self._failover.go_on()
        self._drop()

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    def hold(self, targets: frozenset[str]) -> None:
        """Send nothing to these for the time being."""
        self._answers.held = targets
        self._plain.hold(targets)

    def tend(self) -> str | None:
        """Ask the idle connection whether it can still be used; a dead one is replaced."""
        try:
            wrong = self._connected().trial()
            if wrong is not None:
                self._drop()
                self._failover.go_on()
                wrong = self._connected().trial()
        except Exception as error:  # noqa: BLE001 — redis-py, kombu and sockets raise all kinds
            wrong = error
            self._drop()
        return None if wrong is None else self._answers.reason(wrong)

    def check(self) -> str | None:
        """Connect once, and try what a publish needs; None, or the reason why not."""
        try:
            link = self._connect()
            wrong = link.trial()
            link.drop()
        except Exception as error:  # noqa: BLE001 — redis-py, kombu and sockets raise all kinds
            wrong = error
        return None if wrong is None else self._answers.reason(wrong)

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        let_go(self._unconnected)
        self._plain.close()


def _elsewhere(link: RedisLink) -> Exception | None:
    """Return why a server that is connected to is of no use, where another one may be."""
    from redis.exceptions import ResponseError

    wrong = link.trial()
    here = wrong is None or (
        isinstance(wrong, ResponseError) and redis_code(wrong) not in ELSEWHERE
    )
    return None if here else wrong


def _is_list(target: Target) -> bool:
    """True where publishing means one push to one list: the anonymous exchange, no expiry."""
    if target.exchange or not target.routing_key:
        return False
    for entity in target.declare:
        arguments = getattr(entity, "queue_arguments", None) or {}
        if getattr(entity, "expires", None) or "x-expires" in arguments:
            return False
    return True


def _chunks(texts: list[str]) -> list[tuple[int, int]]:
    """Return (start, end) of runs of about CHUNK characters."""
    runs, start, size = [], 0, 0
    for index, text in enumerate(texts):
        size += len(text)
        if size >= CHUNK:
            runs.append((start, index + 1))
            start, size = index + 1, 0
    if start < len(texts):
        runs.append((start, len(texts)))
    return runs


def _lpush(key: bytes, texts: list[str]) -> bytes:
    """Return one LPUSH in Redis's protocol (RESP, https://redis.io/docs/reference/protocol-spec)."""
    pieces: list[str] = []
    for text in texts:
        pieces += f"${len(text)}\r\n", text, "\r\n"  # ASCII: the length is in bytes
    head = b"*%d\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (len(texts) + 2, len(key), key)
    return head + "".join(pieces).encode("ascii")
