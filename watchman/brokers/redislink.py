"""An open connection to Redis: what kombu says of keys, and a socket to push through."""

from __future__ import annotations

import contextlib
import uuid
from bisect import bisect
from collections.abc import Mapping
from typing import Any

from watchman.brokers.application import let_go, make_connection
from watchman.brokers.recorder import Target
from watchman.brokers.replies import Fault, number_in, redis_fault

# Each priority is a key of its own; celery's routes hold any number (redis.py, priority_steps).
_MAX_PRIORITY = 9


class RedisLink:
    """An open connection: kombu's channel, and a redis-py connection beside it."""

    def __init__(self, app: Any, url: str, options: Mapping[str, Any]) -> None:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.kombu = make_connection(app, url, options)
        self.transport = self.kombu.transport
        self.channel: Any = None
        self.wire: Any = None
        self._looked = False
        """Whether nothing was pushed since :meth:`alive` said that it is."""
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
            self._looked = not self.wire.can_read(timeout=0)
        except Exception:  # noqa: BLE001 — redis-py raises its own errors and OSError
            self._looked = False
        return self._looked

    def trial(self) -> Exception | None:
        """Try a write that changes nothing; return why the server does not take it.

        None also where this user may not write to such a key, which says nothing of queues.
        """
        from redis.exceptions import ResponseError

        key = f"{self.channel.global_keyprefix}watchman-{uuid.uuid4()}"
        try:
            self.wire.send_packed_command(
                self.wire.pack_command("LPUSHX", key, ""), check_health=False
            )
            number_in(self.wire.read_response(), "LPUSHX", 0)
        except ResponseError as error:
            reply: Exception = error
            return None if redis_fault(reply) is Fault.MESSAGE else reply
        except Exception as error:  # noqa: BLE001 — redis-py raises its own errors and OSError
            return error
        return None

    def push(self, command: bytes, count: int) -> None:
        """Send one LPUSH of ``count`` values, and see that the list has them.

        Raises ResponseError where the server refuses it: then the list has none of them. Whatever
        else is raised leaves that open, and the connection of no use.
        """
        # An answer that nobody asked for would be taken for this one's.
        if not (self._looked or self.alive()):
            raise ConnectionError("closed, or something was said that nobody asked for")
        self._looked = False
        self.wire.send_packed_command([command], check_health=False)
        number_in(self.wire.read_response(), "LPUSH", count)

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
