"""One AMQP connection and its channel in confirm mode, with every wait bounded."""

from __future__ import annotations

import contextlib
import select
import ssl
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from watchman.brokers.amqp_confirms import Confirms
from watchman.brokers.app import bounded, establish, make_connection
from watchman.brokers.base import Connection
from watchman.brokers.capture import Target
from watchman.brokers.faults import is_unreadable

HEARTBEAT_SECONDS = 60.0
"""Asked of the broker; ``heartbeat`` and every publish keep it, several times in that time."""
ANSWER_SECONDS = 4.0
"""How long the answer to one method (open, declare …) may take."""
WRITE_SECONDS = 10.0
"""How long the broker may take to read a little more."""
TLS_RECORD = 16 * 1024
_MOST_PROVEN = 1000
"""Routes remembered; more there are only where each message has one of its own."""


class AmqpConnection(Connection):
    """An open connection: that it has a channel in confirm mode shows that it is of use.

    Every method may raise OSError or py-amqp's errors, save the noted.
    """

    def __init__(self, app: Any, url: str, options: Mapping[str, Any]) -> None:
        heartbeat = float(app.conf.broker_heartbeat or HEARTBEAT_SECONDS)
        kombu = make_connection(app, url, options, heartbeat=heartbeat)
        self._raw = establish(kombu)
        """py-amqp's connection."""
        try:
            # py-amqp waits for answers with a plain recv(): this bounds every one of them.
            self._socket = self._raw.transport.sock
            self._socket.settimeout(ANSWER_SECONDS)
            self._blocked_since: float | None = None
            self._raw.on_blocked = self._on_blocked
            self._raw.on_unblocked = self._on_unblocked
            self.frame_max = int(self._raw.frame_max or 0)
            self._declared: set[tuple[str, ...]] = set()
            self.confirms: Confirms[Any] = Confirms()
            """What was sent on the channel, and what the broker has said of it."""
            self._side: Any = None
            """The channel for declarations."""
            self.proven: dict[tuple[str, int], Any] = {}
            """Exchanges and routes (by id; the value keeps it valid) of which a message has been
            taken: the next ones will not have the broker close the channel."""
            self._open_channel()
        except BaseException:
            self.drop()
            raise

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Bound the wait for the answers to what is asked meanwhile, three at the most.

        The time-out of the socket alone is that of any frame: heartbeats and confirms come on.
        """
        deadline = time.monotonic() + 3 * ANSWER_SECONDS
        self._raw.blocking_read = bounded(self._raw.blocking_read, deadline)
        try:
            yield
        finally:
            del self._raw.blocking_read

    def _open_channel(self) -> None:
        with self._answering():
            self._channel = self._raw.channel()
            self._channel.confirm_select()
        self.number = int(self._channel.channel_id)
        self.methods: dict[tuple[str, str], bytes] = {}
        """The ``basic.publish`` frames of this channel, by exchange and routing key."""
        self.confirms.start_again()
        events = self._channel.events
        events["basic_ack"].add(self.confirms.ack)
        events["basic_nack"].add(self.confirms.nack)
        events["basic_return"].add(self.confirms.give_back)

    # -- the broker's alarms -------------------------------------------------------------

    def _on_blocked(self, _reason: str) -> None:
        self._blocked_since = time.monotonic()

    def _on_unblocked(self) -> None:
        self._blocked_since = None

    def blocked_for(self) -> float:
        """Return for how many seconds the broker has blocked us."""
        return 0.0 if self._blocked_since is None else time.monotonic() - self._blocked_since

    @property
    def blocked_reason(self) -> str:
        """Return what to say while the broker blocks publishers; empty otherwise."""
        if self._blocked_since is None:
            return ""
        return "the broker blocks publishers (memory or disk alarm); see rabbitmqctl status"

    def still_blocked(self, seconds: float) -> bool:
        """Wait up to so long for the end of an alarm; True if it goes on."""
        deadline = time.monotonic() + seconds
        while self._blocked_since is not None and (left := deadline - time.monotonic()) > 0:
            self.read(left)
        return self._blocked_since is not None

    # -- declaring -----------------------------------------------------------------------

    def declare(self, target: Target) -> Exception | None:
        """Declare what the target needs, once a connection; None, or why that failed.

        On a channel of its own: the broker closes it for what it refuses, and with the other one
        would go the confirms of other messages. A queue that exists with other arguments will do,
        where the message goes straight to it. Raises what is not about this target alone: after
        that the connection is in doubt. To be called after :meth:`prepare`.
        """
        from amqp.exceptions import ChannelError

        if target.place in self._declared:
            return None
        found: Exception
        try:
            channel = self._side
            for entity in target.declare:
                with self._answering():
                    entity(channel).declare()
            if target.exchange:
                # Publishing to one that is not there would close the channel.
                with self._answering():
                    channel.exchange_declare(target.exchange, "direct", passive=True)
        except ChannelError as refused:
            self._side = None
            if target.exchange or "inequivalent" not in str(refused):
                found = refused
                return found
        except (ValueError, TypeError, LookupError, struct.error) as unwritable:
            if is_unreadable(unwritable):
                raise
            # py-amqp cannot write such a name or argument; of the frame nothing has been sent.
            return unwritable
        self._declared.add(target.place)
        return None

    def has_declared(self, target: Target) -> bool:
        """True if the target needs no declaration."""
        return target.place in self._declared

    def note_proven(self, proof: tuple[str, int], route: Any) -> None:
        """Note that a message to this exchange, by this route, was taken or given back."""
        if len(self.proven) > _MOST_PROVEN:
            self.proven.clear()
        self.proven[proof] = route

    def prepare(self) -> None:
        """Open the channel for declarations. What is raised here is about none of them."""
        if self._side is None or not self._side.is_open:
            with self._answering():
                self._side = self._raw.channel()

    def reopen_channel(self) -> None:
        """Open another channel for the one that the broker has closed."""
        self._open_channel()

    def forget(self, target: Target) -> None:
        """Declare the target again before its next message."""
        self._declared.discard(target.place)

    # -- reading and writing -------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write all of it, and read meanwhile, or both sides could wait for each other."""
        if isinstance(self._socket, ssl.SSLSocket):
            # A TLS record cannot be half-written; what the broker says meanwhile, a few bytes for
            # each message, fits into the buffers.
            self._socket.settimeout(WRITE_SECONDS)
            view = memoryview(data)
            try:
                for start in range(0, len(view), TLS_RECORD):
                    self._socket.sendall(view[start : start + TLS_RECORD])
            finally:
                self._socket.settimeout(ANSWER_SECONDS)
        else:
            self._write_plain(memoryview(data))
        self._raw.bytes_sent += 1  # heartbeats are only due on a silent connection

    def _write_plain(self, view: memoryview) -> None:
        deadline = time.monotonic() + WRITE_SECONDS
        while view:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(self.blocked_reason or "the broker reads nothing")
            ready = self._ready(select.POLLIN | select.POLLOUT, left)
            if ready & ~select.POLLOUT:
                self.read(ANSWER_SECONDS)
            if self._blocked_since is not None and self.blocked_for() > ANSWER_SECONDS:
                raise TimeoutError(self.blocked_reason)
            if ready & select.POLLOUT:
                self._socket.settimeout(0)
                try:
                    sent = self._socket.send(view)
                except BlockingIOError:
                    sent = 0
                finally:
                    self._socket.settimeout(ANSWER_SECONDS)
                if sent:
                    view = view[sent:]
                    deadline = time.monotonic() + WRITE_SECONDS

    def read(self, seconds: float) -> None:
        """Wait for one frame and handle it; return silently if none comes in that time."""
        with contextlib.suppress(TimeoutError):
            self._raw.blocking_read(max(seconds, 0.001))

    def read_waiting(self) -> None:
        """Handle what has come already, without waiting."""
        while self._has_input():
            self.read(ANSWER_SECONDS)

    def _has_input(self) -> bool:
        if isinstance(self._socket, ssl.SSLSocket) and self._socket.pending():
            return True
        return bool(self._ready(select.POLLIN, 0))

    def _ready(self, events: int, seconds: float) -> int:
        """Wait for one of these events; return those that came, 0 if none did in that time."""
        # Not by select(2), which takes no descriptor beyond 1023: a burst keeps more open.
        poll = select.poll()
        poll.register(self._socket, events)
        return next((found for _, found in poll.poll(seconds * 1000)), 0)

    # -- the end -------------------------------------------------------------------------

    def alive(self) -> bool:
        """Handle what has come; False if the connection is closed. Never raises."""
        try:
            self.read_waiting()
        except Exception:  # noqa: BLE001 — py-amqp raises errors of its own and OSError
            return False
        return bool(self._raw.connected and self._channel.is_open)

    def heartbeat(self) -> bool:
        """Exchange heartbeats; False if the connection is dead. Never raises."""
        if not self.alive():
            return False
        try:
            self._raw.heartbeat_tick()
        except Exception:  # noqa: BLE001 — py-amqp raises errors of its own and OSError
            return False
        return True

    def leave(self) -> None:
        """Tell the broker that we go, without waiting for its answer. Never raises."""
        from amqp import spec

        with contextlib.suppress(Exception):
            self._raw.send_method(spec.Connection.Close, "BsBB", (200, "", 0, 0))
        self.drop()

    def drop(self) -> None:
        """Let go of the socket. Never raises."""
        with contextlib.suppress(Exception):
            self._raw.collect()
