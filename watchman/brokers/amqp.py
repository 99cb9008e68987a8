"""RabbitMQ: frames written by hand, confirms counted by delivery tag.

Each message is published with ``mandatory`` on a channel in confirm mode. It is accepted when
the broker has acknowledged its delivery tag and has not returned it. A connection on which
something is in doubt is dropped, never closed politely: that would wait for the broker.
https://www.rabbitmq.com/docs/confirms
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from watchman.brokers.amqp_confirms import Confirms
from watchman.brokers.amqp_connection import AmqpConnection
from watchman.brokers.amqp_frames import (
    FrameContent,
    FrameFormat,
    frames,
    publish_method,
    short_name,
)
from watchman.brokers.base import DirectPublisher, Encoded, Outcomes, name_of
from watchman.brokers.capture import Target
from watchman.brokers.faults import Fault, amqp_fault
from watchman.brokers.kombu import KombuPublisher
from watchman.brokers.template import WireFormat
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome, Route, record_of

CHUNK = 256 * 1024
"""Bytes written at once; between two chunks what the broker has said is read."""
WINDOW = 4000
"""Messages that may be unconfirmed at a time."""
CONFIRM_SECONDS = 10.0
"""After so long without one more confirm the broker counts as dead."""
ALONE_SECONDS = 10.0
"""How long a batch may go on with messages that are sent one at a time."""
BLOCKED_SECONDS = 2.0
"""The same where the broker has said that it blocks publishers (memory or disk alarm)."""
NACKED = (
    "the broker cannot take it (nack): the queue is full, or its node is not there; have workers "
    "take tasks from it, or raise its limit"
)
_NOT_YET = "not sent yet: its messages are sent one by one, since the broker has refused some"

_EARLIER = -1
"""The place of a message that was sent in an earlier batch and answered with AGAIN."""


class _Blocked(Exception):  # noqa: N818 — a state of the broker; the connection is as good as before
    """The broker blocks publishers; what was sent may still be confirmed later."""


class _Pending(NamedTuple):
    """A message on its way: its place in the batch, where it goes, what is sent, by which route."""

    position: int
    target: Target
    content: FrameContent
    route: Route

    @property
    def proof(self) -> tuple[str, int]:
        """What must have been taken once before many may be sent together."""
        return self.target.exchange, id(self.route)


class AmqpPublisher(DirectPublisher[AmqpConnection]):
    """Publishes to RabbitMQ, or another AMQP 0-9-1 broker that has publisher confirms.

    What a broker will not take it answers by closing the channel, and with it go the confirms of
    all that was sent beside. So the first message of each route goes alone, once a connection, and
    what was under way when a channel was closed all the same goes alone from then on.

    A message goes from ``waiting`` (a list of the batch's) to the connection's ``confirms``, under
    the delivery tag with which it was written, to ``outcomes``, the answers of the batch in hand.
    """

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any]) -> None:
        super().__init__(broker, celery_settings, KombuPublisher(broker, celery_settings), {})
        self._declared_again: set[tuple[str, ...]] = set()
        """Targets (their ``place``) whose last message came back: no queue was bound. They are
        declared once more before the next one."""
        self._redeclared: set[tuple[str, ...]] = set()
        """Those of ``_declared_again`` at the begin of this batch: if a message to one comes back
        once more, declaring does not help."""
        self._suspects: set[tuple[str, ...]] = set()
        """Targets whose messages go one at a time: for one of them the broker has closed the
        channel, or has not taken it."""
        self._proving: _Pending | None = None
        """The message that was last sent alone because its route was not proven."""
        self._late: set[str] = set()
        """Task ids that were confirmed only after their batch had been answered."""

    def _wire_format(self) -> WireFormat:
        return FrameFormat()

    def _open(self, url: str) -> AmqpConnection:
        return AmqpConnection(self._app, url, self._options)

    def _send_encoded(self, batch: Sequence[Message], encoded: Encoded, outcomes: Outcomes) -> None:
        waiting: list[_Pending] = []
        paused = self._answers.paused
        for index, each in enumerate(encoded):
            if isinstance(each, Outcome):
                outcomes[index] = each
            elif paused and (answer := self._answers.answer_if_paused(each.target)):
                outcomes[index] = answer
            else:
                target, content = each
                waiting.append(record_of(_Pending, (index, target, content, batch[index].route)))
        if waiting:
            self._send_all(waiting, outcomes)

    def _send_all(self, waiting: list[_Pending], outcomes: Outcomes) -> None:
        """Declare, send in order, and the suspects last, one by one."""
        deadline = time.monotonic() + ALONE_SECONDS
        if not self._declare(waiting, outcomes, deadline):
            return
        suspects = [each for each in waiting if each.target.place in self._suspects]
        others = [each for each in waiting if each.target.place not in self._suspects]
        if not self._send_in_order(others, outcomes, deadline):
            return
        if not self._send_alone(suspects, outcomes, deadline):
            return
        for each in waiting:
            if outcomes[each.position] is None:
                outcomes[each.position] = self._answers.again(_NOT_YET, name_of(each.target))

    def _send_in_order(self, waiting: list[_Pending], outcomes: Outcomes, deadline: float) -> bool:
        """Send together what is proven, and one by one what is not yet; False: no use going on."""
        together: list[_Pending] = []
        for each in waiting:
            if outcomes[each.position] is not None:
                continue
            if self._proven(each):
                together.append(each)
                continue
            if time.monotonic() > deadline:
                break
            # What comes before one that goes alone is sent before it: two routes may share a queue.
            if not self._send_together(together, outcomes):
                return False
            together, self._proving = [], each
            if not self._send([each], outcomes):
                return False
            answered = outcomes[each.position]
            if answered is not None and answered.answer is Answer.AGAIN and answered.target:
                # What follows to the same target would be sent before it: it waits as well.
                _answer_target(each.target, answered, waiting, outcomes)
        return self._send_together(together, outcomes)

    def _send_together(self, together: list[_Pending], outcomes: Outcomes) -> bool:
        """Send these; if the channel is closed for one, the rest on the next. False: no use."""
        while together:
            if not self._send(together, outcomes):
                return False
            left = [each for each in together if outcomes[each.position] is None]
            if len(left) == len(together):
                break
            together = left
        return True

    def _send_alone(self, suspects: list[_Pending], outcomes: Outcomes, deadline: float) -> bool:
        """Send messages one by one; False: no use going on. Who takes all is no suspect any more.

        After one that its target cannot take now, those behind it wait, to keep their order.
        """
        for each in suspects:
            if outcomes[each.position] is not None:
                continue
            if time.monotonic() > deadline:
                return True
            if not self._send([each], outcomes):
                return False
            answered = outcomes[each.position]
            if answered is not None and answered.answer is Answer.AGAIN:
                _answer_target(each.target, answered, suspects, outcomes)
        places = {each.target.place for each in suspects}
        for each in suspects:
            if outcomes[each.position] is not ACCEPTED:
                places.discard(each.target.place)
        self._suspects -= places
        return True

    def _proven(self, pending: _Pending) -> bool:
        return self._connection is not None and pending.proof in self._connection.proven

    # -- declaring -----------------------------------------------------------------------

    def _declare(self, waiting: list[_Pending], outcomes: Outcomes, deadline: float) -> bool:
        """Declare what the messages need, and answer for those whose declaration fails.

        Return False if the broker is of no use just now; then all are answered.
        """
        self._redeclared = set(self._declared_again)
        targets = {each.target.place: each.target for each in waiting}
        try:
            # Until nothing is missing: what was declared is to be declared anew where the
            # connection is replaced in between.
            while missing := [each for each in targets.values() if not self._is_declared(each)]:
                for target in missing:
                    refusal = self._refusal(target)
                    if refusal is not None:
                        del targets[target.place]
                        outcome = self._answers.for_fault(*refusal, name_of(target))
                        _answer_target(target, outcome, waiting, outcomes)
                    if time.monotonic() > deadline:
                        self._leave_undeclared(targets.values(), waiting, outcomes)
                        return True
        except _Blocked as blocked:
            self._postpone(blocked, waiting, outcomes)
            return False
        except Exception as error:  # noqa: BLE001 — py-amqp, kombu and sockets raise all kinds
            return self._failed(error, waiting, outcomes)
        return True

    def _is_declared(self, target: Target) -> bool:
        return self._connection is not None and self._connection.has_declared(target)

    def _leave_undeclared(
        self, targets: Iterable[Target], waiting: list[_Pending], outcomes: Outcomes
    ) -> None:
        """Put off what could not be declared in time; nothing may be published to it."""
        for target in targets:
            if not self._is_declared(target):
                again = self._answers.again(_NOT_YET, name_of(target))
                _answer_target(target, again, waiting, outcomes)

    def _refusal(self, target: Target) -> tuple[Fault, Exception] | None:
        """Declare a target; return whose fault it is that it cannot be, and what was said.

        Raises where the connection is of no use.
        """
        from amqp.exceptions import AMQPError

        try:
            short_name(target.exchange)
            short_name(target.routing_key)
        except ValueError as error:
            return Fault.MESSAGE, error
        connection = self._connected()
        if connection.still_blocked(BLOCKED_SECONDS):
            raise _Blocked(connection.blocked_reason)
        if not connection.has_declared(target):
            connection.prepare()
        try:
            refused = connection.declare(target)
        except (AMQPError, TimeoutError) as error:
            # The whole connection is closed, or in doubt. Only this was under way, unless messages
            # of an earlier batch are unconfirmed: then those have to be found again as well.
            fault = amqp_fault(error) if isinstance(error, AMQPError) else Fault.TARGET
            if connection.confirms.pending or fault is Fault.BROKER:
                raise
            self._drop()
            self._connected()
            return fault, error
        if refused is None:
            return None
        said_by_broker = hasattr(refused, "reply_code")  # else it could not be written
        return amqp_fault(refused) if said_by_broker else Fault.MESSAGE, refused

    # -- sending -------------------------------------------------------------------------

    def _send(self, waiting: list[_Pending], outcomes: Outcomes) -> bool:
        """Send these and wait for their confirms; False if the broker is of no use just now."""
        try:
            connection = self._connected()
            if connection.still_blocked(BLOCKED_SECONDS):
                raise _Blocked(connection.blocked_reason)
            unsent = self._not_sent_yet(connection, waiting, outcomes)
            self._write(connection, unsent, outcomes)
            self._collect(connection, outcomes, leave=0)
        except _Blocked as blocked:
            self._settle(outcomes)
            self._postpone(blocked, waiting, outcomes)
            return False
        except Exception as error:  # noqa: BLE001 — py-amqp, kombu and sockets raise all kinds
            self._settle(outcomes)
            return self._failed(error, waiting, outcomes)
        return True

    def _not_sent_yet(
        self, connection: AmqpConnection, waiting: list[_Pending], outcomes: Outcomes
    ) -> list[_Pending]:
        """Leave out what an earlier batch has sent: it is confirmed already, or will be."""
        self._settle(outcomes)
        pending = connection.confirms.pending
        earlier = {sent.content.task_id: tag for tag, sent in pending.items()}
        if not earlier and not self._late:
            return waiting
        unsent = []
        for each in waiting:
            task_id = each.content.task_id
            if task_id in self._late:
                self._late.discard(task_id)
                outcomes[each.position] = ACCEPTED
            elif task_id in earlier:
                pending[earlier[task_id]] = each
            else:
                unsent.append(each)
        return unsent

    def _postpone(self, blocked: _Blocked, waiting: list[_Pending], outcomes: Outcomes) -> None:
        """Answer a batch during an alarm; the connection stays, and with it what was sent.

        A new connection would send the same messages into the broker's buffers again and again.
        """
        pending = self._pending
        for tag, sent in pending.items():
            pending[tag] = sent._replace(position=_EARLIER)
        again = self._answers.again(str(blocked))
        for each in waiting:
            outcomes[each.position] = outcomes[each.position] or again

    def _write(
        self, connection: AmqpConnection, waiting: list[_Pending], outcomes: Outcomes
    ) -> None:
        """Write the messages in chunks, and read confirms between two chunks."""
        confirms = connection.confirms
        chunk: list[bytes] = []
        size = 0
        for pending in waiting:
            try:
                data = _frames(connection, pending.target, pending.content)
            except (ValueError, TypeError, struct.error) as error:
                name = name_of(pending.target)
                outcomes[pending.position] = self._answers.refused(str(error), name)
                continue
            chunk.append(data)
            size += len(data)
            confirms.sent(pending)
            if size >= CHUNK or len(confirms.pending) >= WINDOW:
                connection.write(b"".join(chunk))
                chunk, size = [], 0
                connection.read_waiting()
                self._settle(outcomes)
                if len(confirms.pending) >= WINDOW:
                    self._collect(connection, outcomes, leave=WINDOW // 2)
        if chunk:
            connection.write(b"".join(chunk))

    def _collect(self, connection: AmqpConnection, outcomes: Outcomes, leave: int) -> None:
        """Read confirms until no more than ``leave`` messages wait for one."""
        confirms = connection.confirms
        deadline = time.monotonic() + CONFIRM_SECONDS
        while len(confirms.pending) > leave:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(connection.blocked_reason or "no confirm from the broker")
            connection.read(min(left, BLOCKED_SECONDS))
            if confirms.settled:
                self._settle(outcomes)
                deadline = time.monotonic() + CONFIRM_SECONDS
            elif connection.blocked_for() > BLOCKED_SECONDS:
                raise _Blocked(connection.blocked_reason)

    # -- what became of it ---------------------------------------------------------------

    @property
    def _pending(self) -> dict[int, _Pending]:
        """What was sent on the connection and is not confirmed, by delivery tag."""
        return {} if self._connection is None else self._connection.confirms.pending

    def _settle(self, outcomes: Outcomes) -> None:
        """Note the outcome of what the broker has confirmed."""
        connection = self._connection
        if connection is None:
            return
        confirms: Confirms[_Pending] = connection.confirms
        returned = confirms.returned
        for pending, good in confirms.take():
            target = pending.target
            if pending is self._proving:
                connection.note_proven(pending.proof, pending.route)
            if pending.position == _EARLIER:
                # Its batch has been answered: it will be offered again, and is not to be sent.
                if returned.pop(pending.content.task_id, None) is None and good:
                    self._late.add(pending.content.task_id)
            elif not good:
                self._suspects.add(target.place)
                outcomes[pending.position] = self._answers.again(NACKED, name_of(target))
            elif returned and pending.content.task_id in returned:
                reason = returned.pop(pending.content.task_id)
                outcomes[pending.position] = self._unroutable(target, reason)
            else:
                outcomes[pending.position] = ACCEPTED
                self._declared_again.discard(target.place)

    def _unroutable(self, target: Target, reason: str) -> Outcome:
        """The queue may have been deleted behind us: declare it once more, and try once more.

        What no declaration of ours helps waits for a queue to be bound: that of a node that is
        down, or of a worker that has not been started yet.
        """
        name = name_of(target)
        if target.place in self._redeclared:
            if not target.exchange:
                return self._answers.refused(reason, name)
            remedy = "; bind a queue to it, or start the worker that does"
            return self._answers.again(f"{reason}, no queue is bound{remedy}", name)
        if self._connection is not None:
            self._connection.forget(target)
            self._declared_again.add(target.place)
        return self._answers.again(f"{reason}; it will be declared again", name)

    def _failed(self, error: Exception, waiting: list[_Pending], outcomes: Outcomes) -> bool:
        """The connection or the channel is gone: answer what is still open, and start anew.

        Return True if it was about one message, or some queues, and the others can go on.
        """
        from amqp.exceptions import AMQPError

        unconfirmed = list(self._pending.values())
        if isinstance(error, AMQPError) and amqp_fault(error) is not Fault.BROKER:
            self._suspects.update(each.target.place for each in unconfirmed)
            if len(unconfirmed) == 1 and unconfirmed[0].position != _EARLIER:
                self._answer_one(unconfirmed[0], error, outcomes)
                return True
        if isinstance(error, TimeoutError) and self._is_only_about(unconfirmed):
            for each in unconfirmed:
                self._suspects.add(each.target.place)
                again = self._answers.again(error, name_of(each.target))
                outcomes[each.position] = outcomes[each.position] or again
            return True
        again = self._answers.again(error)
        for each in waiting:
            outcomes[each.position] = outcomes[each.position] or again
        self._give_up_connection()
        return False

    def _answer_one(self, only: _Pending, error: Exception, outcomes: Outcomes) -> None:
        """Answer for the one message that was under way, and go on, if on a new connection."""
        from amqp.exceptions import ChannelError

        answer = self._answers.for_fault(amqp_fault(error), error, name_of(only.target))
        outcomes[only.position] = answer
        if not (isinstance(error, ChannelError) and self._channel_reopened()):
            self._drop()

    def _is_only_about(self, unconfirmed: list[_Pending]) -> bool:
        """After a time-out, see whether a new connection works: then queues do not answer."""
        connection = self._connection
        if connection is None or connection.blocked_reason or not unconfirmed:
            return False
        if any(each.position == _EARLIER for each in unconfirmed):
            return False
        self._drop()
        try:
            self._connected()
        except Exception:  # noqa: BLE001 — py-amqp, kombu and sockets raise all kinds
            return False
        return True

    def _channel_reopened(self) -> bool:
        """Go on with another channel on the same connection, if that works."""
        try:
            if self._connection is not None:
                self._connection.reopen_channel()
        except Exception:  # noqa: BLE001 — py-amqp raises errors of its own and OSError
            return False
        return self._connection is not None

    def _look_at_idle(self) -> str:
        if self._connection is not None and not self._connection.heartbeat():
            self._drop()
        return self._connected().blocked_reason


def _answer_target(
    target: Target, answer: Outcome, waiting: list[_Pending], outcomes: Outcomes
) -> None:
    """Give the same answer for all to a target that have none yet."""
    for each in waiting:
        if each.target.place == target.place:
            outcomes[each.position] = outcomes[each.position] or answer


def _frames(connection: AmqpConnection, target: Target, content: FrameContent) -> bytes:
    method = connection.methods.get(target[:2])
    if method is None:
        method = connection.methods[target[:2]] = publish_method(connection.number, target)
    return frames(connection.number, method, content, connection.frame_max)
