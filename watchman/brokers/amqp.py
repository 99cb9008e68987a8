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

from watchman.brokers.answers import Answers, name_of
from watchman.brokers.application import connect_options, instrumented, make_application
from watchman.brokers.confirms import Confirms
from watchman.brokers.envelope import Envelopes
from watchman.brokers.failover import Failover
from watchman.brokers.frames import Content, FrameStyle, frames, publish_method, short_name
from watchman.brokers.kombu import KombuPublisher
from watchman.brokers.link import AmqpLink, unconnected
from watchman.brokers.recorder import Letter, Target
from watchman.brokers.replies import Fault, amqp_fault
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome, Route

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
    """A message on its way: its place in the batch, what was sent, and by which route."""

    position: int
    letter: Letter
    route: Route

    @property
    def proof(self) -> tuple[str, int]:
        """What must have been taken once before many may be sent together."""
        return self.letter.target.exchange, id(self.route)


_Outcomes = list["Outcome | None"]


class AmqpPublisher:
    """Publishes to RabbitMQ, or another AMQP 0-9-1 broker that has publisher confirms.

    What a broker will not take it answers by closing the channel, and with it go the confirms of
    all that was sent beside. So the first message of each route goes alone, once a connection, and
    what was under way when a channel was closed all the same goes alone from then on.
    """

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any]) -> None:
        self._app = make_application(celery_settings)
        self._options = connect_options(self._app, broker, {})
        self._envelopes = Envelopes(
            self._app, unconnected(self._app, broker.urls[0], self._options), FrameStyle()
        )
        self._plain = KombuPublisher(broker, celery_settings)
        self._answers = Answers(broker)
        self._failover = Failover(broker.urls, self._answers)
        self._link: AmqpLink | None = None
        self._confirms: Confirms[_Pending] = Confirms()
        self._declared_again: set[tuple[str, ...]] = set()
        """Targets that were unroutable when last tried, and are to be declared once more."""
        self._fresh: set[tuple[str, ...]] = set()
        """Those of them that have been, for this batch: unroutable still is no passing trouble."""
        self._suspects: set[tuple[str, ...]] = set()
        """Targets whose messages go one at a time: for one of them the broker has closed the
        channel, or has not taken it."""
        self._proving: _Pending | None = None
        """The message that was last sent alone because its route was not proven."""
        self._late: set[str] = set()
        """Task ids that were confirmed only after their batch had been answered."""

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Send the batch and wait for its confirms; see :class:`watchman.model.Publisher`."""
        if instrumented(self._app):
            return self._plain.publish(batch)
        outcomes: _Outcomes = [None] * len(batch)
        waiting: list[_Pending] = []
        for index, letter in enumerate(self._envelopes.letters(batch)):
            if isinstance(letter, Outcome):
                outcomes[index] = letter
            elif held := self._answers.on_hold(letter.target):
                outcomes[index] = held
            else:
                waiting.append(_Pending(index, letter, batch[index].route))
        if waiting:
            self._send_all(waiting, outcomes)
        return [outcome or self._answers.again("not sent") for outcome in outcomes]

    def _send_all(self, waiting: list[_Pending], outcomes: _Outcomes) -> None:
        """Declare, send in order, and the suspects last, one by one."""
        deadline = time.monotonic() + ALONE_SECONDS
        if not self._declare(waiting, outcomes, deadline):
            return
        suspects = [each for each in waiting if each.letter.target.place in self._suspects]
        others = [each for each in waiting if each.letter.target.place not in self._suspects]
        if not self._send_in_order(others, outcomes, deadline):
            return
        if not self._send_alone(suspects, outcomes, deadline):
            return
        for each in waiting:
            if outcomes[each.position] is None:
                name = name_of(each.letter.target)
                outcomes[each.position] = self._answers.again(_NOT_YET, name)

    def _send_in_order(self, waiting: list[_Pending], outcomes: _Outcomes, deadline: float) -> bool:
        """Send together what is proven, and one by one what is not yet; False: no use going on.

        What comes before one that goes alone is sent before it: two routes may share a queue.
        """
        together: list[_Pending] = []
        for each in waiting:
            if outcomes[each.position] is not None:
                continue
            if self._proven(each):
                together.append(each)
                continue
            if time.monotonic() > deadline:
                break
            if not self._send_together(together, outcomes):
                return False
            together, self._proving = [], each
            if not self._send([each], outcomes):
                return False
            answered = outcomes[each.position]
            if answered is not None and answered.answer is Answer.AGAIN and answered.target:
                # Its neighbours would be behind it: they keep their order.
                self._answer_target(each.letter.target, answered, waiting, outcomes)
        return self._send_together(together, outcomes)

    def _send_together(self, together: list[_Pending], outcomes: _Outcomes) -> bool:
        """Send these; if the channel is closed for one, the rest on the next. False: no use."""
        while together:
            if not self._send(together, outcomes):
                return False
            left = [each for each in together if outcomes[each.position] is None]
            if len(left) == len(together):
                break
            together = left
        return True

    @staticmethod
    def _answer_target(
        target: Target, answer: Outcome, waiting: list[_Pending], outcomes: _Outcomes
    ) -> None:
        for each in waiting:
            if each.letter.target.place == target.place:
                outcomes[each.position] = outcomes[each.position] or answer

    def _send_alone(self, suspects: list[_Pending], outcomes: _Outcomes, deadline: float) -> bool:
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
                self._answer_target(each.letter.target, answered, suspects, outcomes)
        balked = {e.letter.target.place for e in suspects if outcomes[e.position] is not ACCEPTED}
        self._suspects.difference_update(
            each.letter.target.place for each in suspects if each.letter.target.place not in balked
        )
        return True

    def _proven(self, pending: _Pending) -> bool:
        return self._link is not None and pending.proof in self._link.proven

    # -- declaring -----------------------------------------------------------------------

    def _declare(self, waiting: list[_Pending], outcomes: _Outcomes, deadline: float) -> bool:
        """Declare what the messages need, and answer for those whose declaration fails.

        Return False if the broker is of no use just now; then all are answered.
        """
        self._fresh = set(self._declared_again)
        places = {each.letter.target.place: each.letter.target for each in waiting}
        try:
            while missing := [each for each in places.values() if not self._is_declared(each)]:
                for target in missing:
                    refusal = self._refusal(target)
                    if refusal is not None:
                        del places[target.place]
                        outcome = self._answers.for_fault(*refusal, name_of(target))
                        self._answer_target(target, outcome, waiting, outcomes)
                    if time.monotonic() > deadline:
                        return self._leave_undeclared(places.values(), waiting, outcomes)
                # Once more for those that were declared before a connection was lost to another.
        except _Blocked as blocked:
            self._postpone(blocked, waiting, outcomes)
            return False
        except Exception as error:  # noqa: BLE001 — py-amqp, kombu and sockets raise all kinds
            return self._failed(error, waiting, outcomes)
        return True

    def _is_declared(self, target: Target) -> bool:
        return self._link is not None and self._link.has_declared(target)

    def _leave_undeclared(
        self, targets: Iterable[Target], waiting: list[_Pending], outcomes: _Outcomes
    ) -> bool:
        """Put off what could not be declared in time; nothing may be published to it."""
        for target in targets:
            if not self._is_declared(target):
                again = self._answers.again(_NOT_YET, name_of(target))
                self._answer_target(target, again, waiting, outcomes)
        return True

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
        link = self._connected()
        if link.still_blocked(BLOCKED_SECONDS):
            raise _Blocked(link.blocked_reason)
        if not link.has_declared(target):
            link.prepare()
        try:
            refused = link.declare(target)
        except (AMQPError, TimeoutError) as error:
            # The whole connection is closed, or in doubt. Only this was under way, unless messages
            # of an earlier batch are unconfirmed: then those have to be found again as well.
            fault = amqp_fault(error) if isinstance(error, AMQPError) else Fault.TARGET
            if self._confirms.pending or fault is Fault.BROKER:
                raise
            self._drop()
            self._connected()
            return fault, error
        if refused is None:
            return None
        return amqp_fault(refused) if _is_reply(refused) else Fault.MESSAGE, refused

    # -- sending -------------------------------------------------------------------------

    def _send(self, waiting: list[_Pending], outcomes: _Outcomes) -> bool:
        """Send these and wait for their confirms; False if the broker is of no use just now."""
        try:
            link = self._connected()
            if link.still_blocked(BLOCKED_SECONDS):
                raise _Blocked(link.blocked_reason)
            unsent = self._not_sent_yet(waiting, outcomes)
            self._write(link, unsent, outcomes)
            self._collect(link, outcomes, leave=0)
        except _Blocked as blocked:
            self._settle(outcomes)
            self._postpone(blocked, waiting, outcomes)
            return False
        except Exception as error:  # noqa: BLE001 — py-amqp, kombu and sockets raise all kinds
            self._settle(outcomes)
            return self._failed(error, waiting, outcomes)
        return True

    def _not_sent_yet(self, waiting: list[_Pending], outcomes: _Outcomes) -> list[_Pending]:
        """Leave out what an earlier batch has sent: it is confirmed already, or will be."""
        self._settle(outcomes)
        pending = self._confirms.pending
        earlier = {sent.letter.payload.task_id: tag for tag, sent in pending.items()}
        if not earlier and not self._late:
            return waiting
        unsent = []
        for each in waiting:
            task_id = each.letter.payload.task_id
            if task_id in self._late:
                self._late.discard(task_id)
                outcomes[each.position] = ACCEPTED
            elif task_id in earlier:
                pending[earlier[task_id]] = each
            else:
                unsent.append(each)
        return unsent

    def _postpone(self, blocked: _Blocked, waiting: list[_Pending], outcomes: _Outcomes) -> None:
        """Answer a batch during an alarm; the connection stays, and with it what was sent.

        A new connection would send the same messages into the broker's buffers again and again.
        """
        pending = self._confirms.pending
        for tag, sent in pending.items():
            pending[tag] = sent._replace(position=_EARLIER)
        again = self._answers.again(str(blocked))
        for each in waiting:
            outcomes[each.position] = outcomes[each.position] or again

    def _write(self, link: AmqpLink, waiting: list[_Pending], outcomes: _Outcomes) -> None:
        """Write the messages in chunks, and read confirms between two chunks."""
        chunk: list[bytes] = []
        size = 0
        for pending in waiting:
            try:
                data = self._frames(link, pending.letter)
            except (ValueError, TypeError, struct.error) as error:
                name = name_of(pending.letter.target)
                outcomes[pending.position] = self._answers.refused(str(error), name)
                continue
            chunk.append(data)
            size += len(data)
            self._confirms.sent(pending)
            if size >= CHUNK or len(self._confirms.pending) >= WINDOW:
                link.write(b"".join(chunk))
                chunk, size = [], 0
                link.read_waiting()
                self._settle(outcomes)
                if len(self._confirms.pending) >= WINDOW:
                    self._collect(link, outcomes, leave=WINDOW // 2)
        if chunk:
            link.write(b"".join(chunk))

    def _frames(self, link: AmqpLink, letter: Letter) -> bytes:
        target = letter.target
        content: Content = letter.payload
        method = link.methods.get(target[:2])
        if method is None:
            method = link.methods[target[:2]] = publish_method(link.number, target)
        return frames(link.number, method, content, link.frame_max)

    def _collect(self, link: AmqpLink, outcomes: _Outcomes, leave: int) -> None:
        """Read confirms until no more than ``leave`` messages wait for one."""
        confirms = self._confirms
        deadline = time.monotonic() + CONFIRM_SECONDS
        while len(confirms.pending) > leave:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(link.blocked_reason or "no confirm from the broker")
            link.read(min(left, BLOCKED_SECONDS))
            if confirms.settled:
                self._settle(outcomes)
                deadline = time.monotonic() + CONFIRM_SECONDS
            elif link.blocked_for() > BLOCKED_SECONDS:
                raise _Blocked(link.blocked_reason)

    # -- what became of it ---------------------------------------------------------------

    def _settle(self, outcomes: _Outcomes) -> None:
        """Note the outcome of what the broker has confirmed."""
        confirms = self._confirms
        for pending, good in confirms.take():
            target = pending.letter.target
            if pending is self._proving and self._link is not None:
                self._link.note_proven(pending.proof, pending.route)
            if pending.position == _EARLIER:
                self._settle_late(pending, good)
            elif not good:
                self._suspects.add(target.place)
                outcomes[pending.position] = self._answers.again(NACKED, name_of(target))
            elif confirms.returned and pending.letter.payload.task_id in confirms.returned:
                reason = confirms.returned.pop(pending.letter.payload.task_id)
                outcomes[pending.position] = self._unroutable(target, reason)
            else:
                outcomes[pending.position] = ACCEPTED
                self._declared_again.discard(target.place)

    def _settle_late(self, pending: _Pending, good: bool) -> None:
        task_id = pending.letter.payload.task_id
        if self._confirms.returned.pop(task_id, None) is None and good:
            self._late.add(task_id)

    def _unroutable(self, target: Target, reason: str) -> Outcome:
        """The queue may have been deleted behind us: declare it once more, and try once more.

        What no declaration of ours helps waits for a queue to be bound: that of a node that is
        down, or of a worker that has not been started yet.
        """
        name = name_of(target)
        if target.place in self._fresh:
            if not target.exchange:
                return self._answers.refused(reason, name)
            remedy = "; bind a queue to it, or start the worker that does"
            return self._answers.again(f"{reason}, no queue is bound{remedy}", name)
        if self._link is not None:
            self._link.forget(target)
            self._declared_again.add(target.place)
        return self._answers.again(f"{reason}; it will be declared again", name)

    def _failed(self, error: Exception, waiting: list[_Pending], outcomes: _Outcomes) -> bool:
        """The connection or the channel is gone: answer what is still open, and start anew.

        Return True if it was about one message, or some queues, and the others can go on.
        """
        from amqp.exceptions import AMQPError

        unconfirmed = list(self._confirms.pending.values())
        if isinstance(error, AMQPError) and amqp_fault(error) is not Fault.BROKER:
            self._suspects.update(each.letter.target.place for each in unconfirmed)
            if len(unconfirmed) == 1 and unconfirmed[0].position != _EARLIER:
                self._answer_one(unconfirmed[0], error, outcomes)
                return True
        if isinstance(error, TimeoutError) and self._is_only_about(unconfirmed):
            for each in unconfirmed:
                self._suspects.add(each.letter.target.place)
                again = self._answers.again(error, name_of(each.letter.target))
                outcomes[each.position] = outcomes[each.position] or again
            return True
        again = self._answers.again(error)
        for pending in waiting:
            outcomes[pending.position] = outcomes[pending.position] or again
        if self._link is not None:
            self._failover.go_on()
        self._drop()
        return False

    def _answer_one(self, only: _Pending, error: Exception, outcomes: _Outcomes) -> None:
        """Answer for the one message that was under way, and go on, if on a new connection."""
        from amqp.exceptions import ChannelError

        name = name_of(only.letter.target)
        outcomes[only.position] = self._answers.for_fault(amqp_fault(error), error, name)
        if not (isinstance(error, ChannelError) and self._channel_reopened()):
            self._drop()

    def _is_only_about(self, unconfirmed: list[_Pending]) -> bool:
        """After a time-out, see whether a new connection works: then queues do not answer."""
        link = self._link
        if link is None or link.blocked_reason or not unconfirmed:
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
            if self._link is not None:
                self._link.reopen_channel()
        except Exception:  # noqa: BLE001 — py-amqp raises errors of its own and OSError
            return False
        return self._link is not None

    # -- the connection ------------------------------------------------------------------

    def _connected(self) -> AmqpLink:
        """Return a connection that was alive just now, opening one if need be."""
        if self._link is not None and not self._link.alive():
            self._drop()
        if self._link is None:
            self._confirms = Confirms()
            self._link = self._connect()
            self._link.listen(self._confirms)
        return self._link

    def _connect(self) -> AmqpLink:
        """Connect to the first URL that can be used. Raises Unusable."""
        return self._failover.connect(lambda url: AmqpLink(self._app, url, self._options))

    def _drop(self) -> None:
        link, self._link = self._link, None
        self._confirms = Confirms()
        if link is not None:
            link.drop()

    def hold(self, targets: frozenset[str]) -> None:
        """Send nothing to these for the time being."""
        self._answers.held = targets
        self._plain.hold(targets)

    def tend(self) -> str | None:
        """Exchange heartbeats on the idle connection; a dead one is replaced."""
        if self._link is not None and not self._link.tend():
            self._drop()
        try:
            blocked = self._connected().blocked_reason
        except Exception as error:  # noqa: BLE001 — py-amqp, kombu and sockets raise all kinds
            self._drop()
            return self._answers.reason(error)
        return self._answers.reason(blocked) if blocked else None

    def check(self) -> str | None:
        """Log in once and log out; None, or the reason why not."""
        try:
            self._connect().leave()
        except Exception as error:  # noqa: BLE001 — py-amqp, kombu and sockets raise all kinds
            return self._answers.reason(error)
        return None

    def close(self) -> None:
        """Say goodbye, without waiting for an answer."""
        link, self._link = self._link, None
        if link is not None:
            link.leave()
        self._plain.close()


def _is_reply(error: Exception) -> bool:
    """True for what the broker has said, in contrast to what could not be written."""
    return hasattr(error, "reply_code")
