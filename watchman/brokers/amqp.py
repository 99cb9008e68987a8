"""RabbitMQ: frames written by hand, confirms counted by delivery tag.

Each message is published with ``mandatory`` on a channel in confirm mode. It is accepted when
the broker has acknowledged its delivery tag and has not returned it. A connection on which
something is in doubt is dropped, never closed politely: that would wait for the broker.
https://www.rabbitmq.com/docs/confirms
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from watchman.brokers.application import connect_options, instrumented, make_application
from watchman.brokers.confirms import Confirms
from watchman.brokers.envelope import Envelopes
from watchman.brokers.frames import Content, FrameStyle, frames, publish_method
from watchman.brokers.kombu import KombuPublisher
from watchman.brokers.link import AmqpLink, unconnected
from watchman.brokers.recorder import Letter, Target
from watchman.brokers.urls import masked, public_url
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome

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


_EARLIER = -1
"""The place of a message that was sent in an earlier batch and answered with AGAIN."""


class _Blocked(Exception):  # noqa: N818 — a state of the broker; the connection is as good as before
    """The broker blocks publishers; what was sent may still be confirmed later."""


class _Pending(NamedTuple):
    """A message on its way: its place in the batch, and what was sent."""

    position: int
    letter: Letter


class AmqpPublisher:
    """Publishes to RabbitMQ, or another AMQP 0-9-1 broker that has publisher confirms."""

    def __init__(self, broker: Broker, celery_settings: Mapping[str, Any]) -> None:
        self._broker = broker
        self._app = make_application(celery_settings)
        self._options = connect_options(self._app, broker, {})
        self._envelopes = Envelopes(
            self._app, unconnected(self._app, broker.urls[0], self._options), FrameStyle()
        )
        self._plain = KombuPublisher(broker, celery_settings)
        self._link: AmqpLink | None = None
        self._confirms: Confirms[_Pending] = Confirms()
        self._declared_again: set[tuple[str, ...]] = set()
        """Targets that were unroutable when last tried, and are to be declared once more."""
        self._fresh: set[tuple[str, ...]] = set()
        """Those of them that have been, for this batch: unroutable still is unroutable for good."""
        self._suspects: set[tuple[str, ...]] = set()
        """Targets whose messages go one at a time: the broker has closed the channel for one."""
        self._late: set[str] = set()
        """Task ids that were confirmed only after their batch had been answered."""

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Send the batch and wait for its confirms; see :class:`watchman.model.Publisher`."""
        if instrumented(self._app):
            return self._plain.publish(batch)
        outcomes: list[Outcome | None] = [None] * len(batch)
        waiting: list[_Pending] = []
        for index, letter in enumerate(self._envelopes.letters(batch)):
            if isinstance(letter, Outcome):
                outcomes[index] = letter
            else:
                waiting.append(_Pending(index, letter))
        if waiting:
            self._send_all(waiting, outcomes)
        return [outcome or self._again("not sent") for outcome in outcomes]

    def _send_all(self, waiting: list[_Pending], outcomes: list[Outcome | None]) -> None:
        """Send all together; what may make the broker close the channel goes last, one by one."""
        alone = [each for each in waiting if each.letter.target.place in self._suspects]
        rest = [each for each in waiting if each.letter.target.place not in self._suspects]
        deadline = time.monotonic() + ALONE_SECONDS
        going_on = not rest or self._send(rest, outcomes)
        for each in alone:
            if not going_on or time.monotonic() > deadline:
                break
            going_on = self._send([each], outcomes)
            if outcomes[each.position] is ACCEPTED:
                self._suspects.discard(each.letter.target.place)

    def _send(self, waiting: list[_Pending], outcomes: list[Outcome | None]) -> bool:
        """Send these and wait for their confirms; False if the broker is of no use just now."""
        try:
            link = self._connected()
            if link.still_blocked(BLOCKED_SECONDS):
                raise _Blocked(link.blocked_reason)
            self._fresh = set(self._declared_again)
            unsent = self._not_sent_yet(self._declare(link, waiting, outcomes), outcomes)
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

    def _not_sent_yet(
        self, waiting: list[_Pending], outcomes: list[Outcome | None]
    ) -> list[_Pending]:
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

    def _postpone(
        self, blocked: _Blocked, waiting: list[_Pending], outcomes: list[Outcome | None]
    ) -> None:
        """Answer a batch during an alarm; the connection stays, and with it what was sent.

        A new connection would send the same messages into the broker's buffers again and again.
        """
        pending = self._confirms.pending
        for tag, sent in pending.items():
            pending[tag] = sent._replace(position=_EARLIER)
        again = self._again(str(blocked))
        for each in waiting:
            outcomes[each.position] = outcomes[each.position] or again

    def _declare(
        self, link: AmqpLink, waiting: list[_Pending], outcomes: list[Outcome | None]
    ) -> list[_Pending]:
        """Declare what the messages need; return those whose declaration was not refused."""
        refused: dict[tuple[str, ...], str] = {}
        for target in {each.letter.target.place: each.letter.target for each in waiting}.values():
            reason = link.declare(target)
            if reason is not None:
                refused[target.place] = f"{self._where()}: {masked(reason, self._broker.urls)}"
        if not refused:
            return waiting
        good = []
        for pending in waiting:
            reason = refused.get(pending.letter.target.place)
            if reason is None:
                good.append(pending)
            else:
                outcomes[pending.position] = Outcome(Answer.REFUSED, reason)
        return good

    def _write(
        self, link: AmqpLink, waiting: list[_Pending], outcomes: list[Outcome | None]
    ) -> None:
        """Write the messages in chunks, and read confirms between two chunks."""
        chunk: list[bytes] = []
        size = 0
        for pending in waiting:
            try:
                data = self._frames(link, pending.letter)
            except ValueError as error:
                outcomes[pending.position] = self._refused(str(error), pending.letter.target)
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

    def _collect(self, link: AmqpLink, outcomes: list[Outcome | None], leave: int) -> None:
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

    def _settle(self, outcomes: list[Outcome | None]) -> None:
        """Note the outcome of what the broker has confirmed."""
        confirms = self._confirms
        for pending, good in confirms.take():
            target = pending.letter.target
            if pending.position == _EARLIER:
                self._settle_late(pending, good)
            elif not good:
                outcomes[pending.position] = self._again("the broker could not take it (nack)")
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
        """The queue may have been deleted behind us: declare it once more, and try once more."""
        if target.place in self._fresh:
            return self._refused(reason, target)
        if self._link is not None:
            self._link.forget(target)
            self._declared_again.add(target.place)
        return self._again(f"{reason} {_place(target)}; it will be declared again")

    def _failed(
        self, error: Exception, waiting: list[_Pending], outcomes: list[Outcome | None]
    ) -> bool:
        """The connection or the channel is gone: answer what is still open, and start anew.

        Return True if only one message was on its way and the broker refused that one.
        """
        from amqp.exceptions import IrrecoverableChannelError

        unconfirmed = list(self._confirms.pending.values())
        found = False
        if isinstance(error, IrrecoverableChannelError):
            self._suspects.update(each.letter.target.place for each in unconfirmed)
            if len(unconfirmed) == 1 and unconfirmed[0].position != _EARLIER:
                only = unconfirmed[0]
                outcomes[only.position] = self._refused(str(error), only.letter.target)
                found = True
        again = self._again(error)
        for pending in waiting:
            outcomes[pending.position] = outcomes[pending.position] or again
        self._drop()
        return found

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
        """Connect to the first URL that answers. Raises what the last one raised."""
        *others, last = self._broker.urls
        for url in others:
            try:
                return AmqpLink(self._app, url, self._options)
            except Exception:  # noqa: BLE001, S112 — the next URL is tried, the last one's error is raised
                continue
        return AmqpLink(self._app, last, self._options)

    def _drop(self) -> None:
        link, self._link = self._link, None
        self._confirms = Confirms()
        if link is not None:
            link.drop()

    def _where(self) -> str:
        return public_url(self._broker.urls[0])

    def _again(self, error: Exception | str) -> Outcome:
        return Outcome(Answer.AGAIN, self._reason(error))

    def _refused(self, reason: str, target: Target) -> Outcome:
        text = masked(reason, self._broker.urls)
        return Outcome(Answer.REFUSED, f"{self._where()}: {text} {_place(target)}")

    def _reason(self, error: Exception | str) -> str:
        kind = f"{type(error).__name__}: " if isinstance(error, Exception) else ""
        return f"{self._where()}: {kind}{masked(str(error), self._broker.urls)}"

    def tend(self) -> None:
        """Exchange heartbeats on the idle connection; a dead one is dropped."""
        if self._link is not None and not self._link.tend():
            self._drop()

    def check(self) -> str | None:
        """Log in once and log out; None, or the reason why not."""
        try:
            self._connect().leave()
        except Exception as error:  # noqa: BLE001 — py-amqp, kombu and sockets raise all kinds
            return self._reason(error)
        return None

    def close(self) -> None:
        """Say goodbye, without waiting for an answer."""
        link, self._link = self._link, None
        if link is not None:
            link.leave()
        self._plain.close()


def _place(target: Target) -> str:
    """Say where a message was to go."""
    if target.exchange:
        return f"(exchange {target.exchange!r}, routing key {target.routing_key!r})"
    return f"(queue {target.routing_key!r})"
