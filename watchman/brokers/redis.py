"""Redis: one connection of our own, one LPUSH for many messages.

kombu's Redis transport opens the connection and says what the keys are, so TLS, ACL users,
sentinels, key prefixes and priority steps are what a worker expects. Only the pushing is ours:
a worker pops from the right, so the values of one LPUSH are consumed in their order.
"""

from __future__ import annotations

import contextlib
import uuid
from bisect import bisect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from watchman.brokers.app import CONNECT_SECONDS, let_go, make_connection
from watchman.brokers.base import Connection, DirectPublisher, Encoded, Outcomes, name_of
from watchman.brokers.capture import Target
from watchman.brokers.faults import (
    ELSEWHERE,
    Fault,
    kombu_fault,
    number_in,
    redis_code,
    redis_fault,
)
from watchman.brokers.json_format import JsonFormat
from watchman.brokers.kombu import KombuPublisher
from watchman.brokers.template import WireFormat
from watchman.model import ACCEPTED, Broker, Message, Outcome

DEFAULTS = {"socket_timeout": 4.0, "socket_connect_timeout": CONNECT_SECONDS}
"""kombu waits for ever unless told otherwise. Seconds."""

CHUNK = 256 * 1024
"""Characters in one LPUSH, about: what is in doubt when the connection breaks."""

# Each priority is a key of its own; celery's routes hold any number (redis.py, priority_steps).
_MAX_PRIORITY = 9


class RedisConnection(Connection):
    """An open connection: kombu's channel, and a redis-py connection beside it."""

    def __init__(self, app: Any, url: str, options: Mapping[str, Any]) -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self._kombu = make_connection(app, url, options)
        self._channel: Any = None
        self._wire: Any = None
        self._looked = False
        """Whether :meth:`alive` has found it alive, and nothing was pushed since."""
        try:
            transport = self._kombu.transport
            self._channel = transport.create_channel(transport)
            self._wire = self._channel.pool.make_connection()
            # redis-py would send again by itself what may have arrived.
            self._wire.retry = Retry(NoBackoff(), 0)
            self._wire.connect()
        except BaseException:
            self.drop()
            raise
        self._declared: set[tuple[str, ...]] = set()

    def drop(self) -> None:
        """Let go of the sockets. Never raises."""
        with contextlib.suppress(Exception):
            if self._wire is not None:
                self._wire.disconnect()
        with contextlib.suppress(Exception):
            if self._channel is not None:
                self._channel.close()
        let_go(self._kombu)

    def alive(self) -> bool:
        """False if the idle connection was closed, or says what nobody asked for."""
        try:
            self._looked = not self._wire.can_read(timeout=0)
        except Exception:  # noqa: BLE001 — redis-py raises its own errors and OSError
            self._looked = False
        return self._looked

    def trial(self) -> Exception | None:
        """Try a write that changes nothing; return why the server does not take it.

        None also where this user may not write to such a key, which says nothing of queues.
        """
        from redis.exceptions import ResponseError

        key = f"{self._channel.global_keyprefix}watchman-{uuid.uuid4()}"
        try:
            self._wire.send_packed_command(
                self._wire.pack_command("LPUSHX", key, ""), check_health=False
            )
            number_in(self._wire.read_response(), "LPUSHX", 0)
        except ResponseError as error:
            reply: Exception = error
            return None if redis_fault(reply) is Fault.MESSAGE else reply
        except Exception as error:  # noqa: BLE001 — redis-py raises its own errors and OSError
            return error
        return None

    def unfit(self) -> Exception | None:
        """Return why a server that is connected to is of no use, where another one may be."""
        from redis.exceptions import ResponseError

        wrong = self.trial()
        if isinstance(wrong, ResponseError) and redis_code(wrong) not in ELSEWHERE:
            return None
        return wrong

    def push(self, command: bytes, count: int) -> None:
        """Send one LPUSH of ``count`` values, and see that the list has them.

        Raises ResponseError where the server refuses it: then the list has none of them. Whatever
        else is raised leaves that open, and the connection of no use.
        """
        # An answer that nobody asked for would be taken for this one's.
        if not (self._looked or self.alive()):
            raise ConnectionError("closed, or something was said that nobody asked for")
        self._looked = False
        self._wire.send_packed_command([command], check_health=False)
        number_in(self._wire.read_response(), "LPUSH", count)

    def declare(self, target: Target) -> None:
        """Register the target's queues where workers look for bindings, once a connection."""
        if target.place in self._declared:
            return
        for entity in target.declare:
            entity(self._channel).declare()
        self._declared.add(target.place)

    def key(self, target: Target) -> str:
        """Return the key of the list that the target's messages go to."""
        priority = max(0, min(int(target.priority or 0), _MAX_PRIORITY))
        steps = self._channel.priority_steps
        step = steps[bisect(steps, priority) - 1]
        queue = target.routing_key
        name = f"{queue}{self._channel.sep}{step}" if step else queue
        return f"{self._channel.global_keyprefix}{name}"


class _Group(NamedTuple):
    """Messages that go one way: to a list, or where only kombu can send them."""

    target: Target
    indexes: list[int]
    """Their places in the batch."""
    texts: list[str]


_Groups = dict[tuple[str, int | None] | None, _Group]
"""By the list's name and priority; None for what kombu sends."""


class RedisPublisher(DirectPublisher[RedisConnection]):
    """Publishes to Redis. Topics, fanout and queues that expire need more than a list: by kombu."""

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any]) -> None:
        by_kombu = KombuPublisher(broker, celery_settings, DEFAULTS)
        super().__init__(broker, celery_settings, by_kombu, DEFAULTS)

    def _wire_format(self) -> WireFormat:
        return JsonFormat(self._options.get("body_encoding", "base64"))

    def _open(self, url: str) -> RedisConnection:
        return RedisConnection(self._app, url, self._options)

    def _send_encoded(self, batch: Sequence[Message], encoded: Encoded, outcomes: Outcomes) -> None:
        groups: _Groups = {}
        ways: dict[int, _Group | Outcome] = {}
        for index, each in enumerate(encoded):
            if isinstance(each, Outcome):
                outcomes[index] = each
                continue
            # Most messages of a batch have the same target, the very same object.
            way = ways.get(id(each.target))
            if way is None:
                way = ways[id(each.target)] = self._way(each.target, groups)
            if isinstance(way, Outcome):
                outcomes[index] = way
            else:
                way.indexes.append(index)
                way.texts.append(each.payload)
        by_kombu = groups.pop(None, None)
        self._push(list(groups.values()), outcomes)
        if by_kombu is not None:
            answers = self._fallback.publish([batch[index] for index in by_kombu.indexes])
            for index, outcome in zip(by_kombu.indexes, answers, strict=True):
                outcomes[index] = outcome

    def _way(self, target: Target, groups: _Groups) -> _Group | Outcome:
        """Return the messages that go the same way as those for a target, or their answer."""
        answer = self._answers.answer_if_paused(target)
        if answer is not None:
            return answer
        key = (target.routing_key, target.priority) if _is_list(target) else None
        return groups.setdefault(key, _Group(target, [], []))

    def _push(self, groups: list[_Group], outcomes: Outcomes) -> None:
        """Push each group's texts to its list, and note the outcome of each."""
        if not groups:
            return
        try:
            connection = self._connected()
            for group in groups:
                # A reply may have had us give up the connection: then the others are not sent.
                if self._connection is connection:
                    self._push_group(connection, group, outcomes)
        except Exception as error:  # noqa: BLE001 — redis-py, kombu and sockets raise all kinds
            again = self._answers.again(error)
            self._give_up_connection()
            for group in groups:
                for index in group.indexes:
                    outcomes[index] = outcomes[index] or again

    def _push_group(self, connection: RedisConnection, group: _Group, outcomes: Outcomes) -> None:
        from redis.exceptions import ResponseError

        target, indexes, texts = group
        try:
            key = connection.key(target).encode()
            connection.declare(target)
        except Exception as error:
            fault = kombu_fault(error, virtual=True)
            if fault is Fault.BROKER:
                raise
            _note(outcomes, indexes, self._answers.for_fault(fault, error, name_of(target)))
            return
        for start, end in _chunks(texts):
            try:
                connection.push(_lpush(key, texts[start:end]), end - start)
            except ResponseError as error:
                # LPUSH is atomic: none of these values is there; what was before, is.
                _note(outcomes, indexes[start:], self._classify(error, target))
                return
            _note(outcomes, indexes[start:end], ACCEPTED)

    def _classify(self, error: Exception, target: Target) -> Outcome:
        """Return the answer for an error reply, which leaves the connection usable."""
        if redis_code(error) in ELSEWHERE:
            # The server has changed its role, say: the connection would stay what it is.
            self._give_up_connection()
        return self._answers.for_fault(redis_fault(error), error, name_of(target))

    def _look_at_idle(self) -> Exception | None:
        wrong = self._connected().trial()
        if wrong is not None:
            self._give_up_connection()
            wrong = self._connected().trial()
        return wrong


def _note(outcomes: Outcomes, indexes: Sequence[int], outcome: Outcome) -> None:
    for index in indexes:
        outcomes[index] = outcome


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
