"""Redis: one connection of our own, one LPUSH for many messages.

kombu's Redis transport opens the connection and says what the keys are, so TLS, ACL users,
sentinels, key prefixes and priority steps are what a worker expects. Only the pushing is ours:
a worker pops from the right, so the values of one LPUSH are consumed in their order.
"""

from __future__ import annotations

import contextlib
from bisect import bisect
from collections.abc import Mapping, Sequence
from typing import Any

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
from watchman.brokers.kombu import KombuPublisher
from watchman.brokers.recorder import Letter, Target
from watchman.brokers.replies import Fault, kombu_fault, redis_fault
from watchman.brokers.virtual import VirtualStyle
from watchman.model import ACCEPTED, Broker, Message, Outcome

DEFAULTS = {"socket_timeout": 4.0, "socket_connect_timeout": CONNECT_SECONDS}
"""kombu waits for ever unless told otherwise. Seconds."""

CHUNK = 256 * 1024
"""Characters in one LPUSH, about: what is in doubt when the connection breaks."""

# Each priority is a key of its own; celery's routes hold any number (redis.py, priority_steps).
_MAX_PRIORITY = 9

_Groups = dict[tuple[str, int | None], tuple[Target, list[int], list[str]]]
"""List -> where it is, the messages' places in the batch, and their texts."""


class _Link:
    """An open connection: kombu's channel, and a redis-py connection beside it."""

    def __init__(self, app: Any, url: str, options: Mapping[str, Any]) -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.kombu = make_connection(app, url, options)
        self.transport = self.kombu.transport
        self.channel: Any = None
        self.wire: Any = None
        try:
            self.channel = self.transport.create_channel(self.transport)
            self.wire = self.channel.pool.make_connection()
            # redis-py would send again by itself what may have arrived.
            self.wire.retry = Retry(NoBackoff(), 0)
            self.wire.connect()
        except BaseException:
            self.drop()
            raise
        self.declared: set[tuple[str, ...]] = set()

    def drop(self) -> None:
        """Let go of the sockets."""
        with contextlib.suppress(Exception):
            if self.wire is not None:
                self.wire.disconnect()
        with contextlib.suppress(Exception):
            if self.channel is not None:
                self.channel.close()
        let_go(self.kombu)

    def alive(self) -> bool:
        """False if the idle connection was closed, or says what nobody asked for."""
        try:
            return not self.wire.can_read(timeout=0)
        except Exception:  # noqa: BLE001 — redis-py raises its own errors and OSError
            return False

    def answers(self) -> bool:
        """True if the server replies to a PING. Never raises."""
        try:
            if not self.alive():
                return False
            self.wire.send_packed_command(self.wire.pack_command("PING"), check_health=False)
            self.wire.read_response()
        except Exception:  # noqa: BLE001 — redis-py raises its own errors and OSError
            return False
        return True

    def declare(self, target: Target) -> None:
        """Register the target's queues where workers look for bindings, once a connection."""
        if target.place in self.declared:
            return
        for entity in target.declare:
            entity(self.channel).declare()
        self.declared.add(target.place)

    def key(self, target: Target) -> str:
        """Return the key of the list that the target's messages go to."""
        priority = max(0, min(int(target.priority or 0), _MAX_PRIORITY))
        steps = self.channel.priority_steps
        step = steps[bisect(steps, priority) - 1]
        queue = target.routing_key
        name = f"{queue}{self.channel.sep}{step}" if step else queue
        return f"{self.channel.global_keyprefix}{name}"


class RedisPublisher:
    """Publishes to Redis."""

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any]) -> None:
        self._broker = broker
        self._app = make_application(celery_settings)
        self._options = connect_options(self._app, broker, DEFAULTS)
        self._answers = Answers(broker)
        self._link: _Link | None = None
        self._unconnected = make_connection(self._app, broker.urls[0], self._options)
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
        exotic: list[int] = []
        for index, letter in enumerate(self._envelopes.letters(batch)):
            if isinstance(letter, Outcome):
                outcomes[index] = letter
            elif not _is_list(letter.target):
                exotic.append(index)
            else:
                _, indexes, texts = _group(groups, letter)
                indexes.append(index)
                texts.append(letter.payload)
        self._push(list(groups.values()), outcomes)
        for index, outcome in zip(
            exotic, self._plain.publish([batch[index] for index in exotic]), strict=True
        ):
            outcomes[index] = outcome
        return [outcome or self._answers.again("not sent") for outcome in outcomes]

    def _push(
        self,
        groups: list[tuple[Target, list[int], list[str]]],
        outcomes: list[Outcome | None],
    ) -> None:
        """Push each group's texts to its list, and note the outcome of each."""
        if not groups:
            return
        try:
            link = self._connected()
            for target, indexes, texts in groups:
                self._push_group(link, target, indexes, texts, outcomes)
        except Exception as error:  # noqa: BLE001 — redis-py, kombu and sockets raise all kinds
            self._drop()
            again = self._answers.again(error)
            for _, indexes, _texts in groups:
                for index in indexes:
                    outcomes[index] = outcomes[index] or again

    def _push_group(
        self,
        link: _Link,
        target: Target,
        indexes: list[int],
        texts: list[str],
        outcomes: list[Outcome | None],
    ) -> None:
        from redis.exceptions import ResponseError

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
                link.wire.send_packed_command([_lpush(key, texts[start:end])], check_health=False)
                link.wire.read_response()
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
        return self._answers.for_fault(redis_fault(error), error, name_of(target))

    def _connected(self) -> _Link:
        """Return a connection that was alive just now, opening one if need be."""
        if self._link is not None and not self._link.alive():
            self._drop()
        if self._link is None:
            self._link = self._connect()
        return self._link

    def _connect(self) -> _Link:
        """Connect to the first URL that answers. Raises what the last one raised."""
        *others, last = self._broker.urls
        for url in others:
            with contextlib.suppress(Exception):
                return _Link(self._app, url, self._options)
        return _Link(self._app, last, self._options)

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    def tend(self) -> str | None:
        """Ask the idle connection whether it still stands; a dead one is replaced."""
        if self._link is not None and not self._link.answers():
            self._drop()
        try:
            self._connected()
        except Exception as error:  # noqa: BLE001 — redis-py, kombu and sockets raise all kinds
            self._drop()
            return self._answers.reason(error)
        return None

    def check(self) -> str | None:
        """Connect once, without using it; None, or the reason why not."""
        try:
            self._connect().drop()
        except Exception as error:  # noqa: BLE001 — redis-py, kombu and sockets raise all kinds
            return self._answers.reason(error)
        return None

    def close(self) -> None:
        """Let go of the connection."""
        self._drop()
        let_go(self._unconnected)
        self._plain.close()


def _is_list(target: Target) -> bool:
    """True where publishing means one push to one list: the anonymous exchange, no expiry."""
    if target.exchange or not target.routing_key:
        return False
    for entity in target.declare:
        arguments = getattr(entity, "queue_arguments", None) or {}
        if getattr(entity, "expires", None) or "x-expires" in arguments:
            return False
    return True


def _group(groups: _Groups, letter: Letter) -> tuple[Target, list[int], list[str]]:
    """Return the messages that go to the same list as the letter."""
    target = letter.target
    return groups.setdefault((target.routing_key, target.priority), (target, [], []))


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
    values = "".join([f"${len(text)}\r\n{text}\r\n" for text in texts])  # ASCII: length is bytes
    head = b"*%d\r\n$5\r\nLPUSH\r\n$%d\r\n%b\r\n" % (len(texts) + 2, len(key), key)
    return head + values.encode("ascii")
