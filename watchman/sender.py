"""One thread for each broker: takes ready deliveries from the journal, in order, and sends them.

Nothing is held in memory but the page in hand, so a backlog costs none. Retry and back-off are
here and nowhere else: a publisher only says what became of each message.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from watchman.filesystem import Seen, look, open_directory, relative_to
from watchman.logs import info_all
from watchman.model import Answer, Delivery, Message, Outcome, Publisher, State
from watchman.text import printable

log = logging.getLogger("watchman.notify")

PAGE = 500
"""Deliveries read, published and noted at a time."""
FRESH = 1.0
"""Seconds after an arrival for which the look that recorded it is trusted."""
FIRST_RETRY = 0.5
LONGEST_RETRY = 60.0
TEND = 15.0
"""Seconds between two calls of ``Publisher.tend`` on an idle broker."""
REEXAMINE = 1.0
"""Seconds until deliveries whose files changed are looked at again."""


class Ledger(Protocol):
    """What a sender needs of the journal."""

    def page_ready(self, broker: str, after: int, limit: int) -> list[Delivery]:
        """Deliveries in state READY behind ``after``, by seq."""
        ...

    def note(self, changes: Sequence[tuple[int, State, str]]) -> None:
        """Note new states, (seq, state, reason) each; durable when it returns."""
        ...

    def announced_later(self, delivery: Delivery) -> bool:
        """Whether a newer delivery of the same path is recorded."""
        ...


class Sender:
    """Sends to one broker.

    ``open_publisher`` is called in the sender's own thread, at the first delivery, so that the
    broker libraries are imported only when they are needed. ``on_changed`` is told the paths
    of files that no longer are what was recorded; ``on_sent`` the deliveries that were accepted.
    """

    def __init__(
        self,
        broker: str,
        ledger: Ledger,
        open_publisher: Callable[[], Publisher],
        root_of: Callable[[str], str],
        on_changed: Callable[[list[str]], None],
        on_sent: Callable[[list[Delivery]], None],
    ) -> None:
        self.broker = broker
        self._ledger = ledger
        self._open_publisher = open_publisher
        self._publisher: Publisher | None = None
        self._root_of = root_of
        self._on_changed = on_changed
        self._on_sent = on_sent
        self._condition = threading.Condition()
        self._woken = False
        self._stopping = False
        self._parked = False
        self._delay = 0.0
        self._logged = 0
        self.trouble = ""
        """Why the broker cannot be used at the moment; empty while it can."""
        self.trouble_since_ns = 0
        self.last_sent_ns = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"sender-{broker}", daemon=True)

    def start(self) -> None:
        """Begin to send what is ready."""
        self._woken = True
        self._thread.start()

    def wake(self) -> None:
        """Say that there may be something to send."""
        if not self._woken:
            with self._condition:
                self._woken = True
                self._condition.notify()

    def stop(self) -> None:
        """Ask the thread to end after the page in hand."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; False if it is still busy after ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._woken = False
                self._pass()
                self._wait()
        except BaseException as error:
            log.exception("The sender for broker %s died", self.broker)
            self.error = error
        finally:
            if self._publisher is not None:
                self._publisher.close()

    def _wait(self) -> None:
        """Sleep: out of a broker's way while it is in trouble, else until there is work."""
        if self._delay:
            pause = self._delay * random.uniform(0.75, 1.25)  # noqa: S311 — jitter, no secret
            with self._condition:
                self._condition.wait_for(lambda: self._stopping, pause)
            return
        timeout = REEXAMINE if self._parked else TEND if self._publisher is not None else None
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._woken, timeout)
        if self._publisher is not None and not self._woken and not self._parked:
            self._publisher.tend()

    def _pass(self) -> None:
        """Send everything that is ready, from the oldest on, until the broker balks."""
        after = 0
        self._parked = False
        while not self._stopping:
            page = self._ledger.page_ready(self.broker, after, PAGE)
            if not page:
                return
            after = page[-1].seq
            if not self._send(page):
                return

    def _send(self, page: list[Delivery]) -> bool:
        """Publish one page and note the answers; False if the broker wants a pause."""
        good, changes = self._examine(page)
        answers = self._publish(good) if good else []
        sent = []
        again = ""
        for delivery, (answer, reason) in zip(good, answers, strict=True):
            if answer is Answer.ACCEPTED:
                changes.append((delivery.seq, State.SENT, ""))
                sent.append(delivery)
            elif answer is Answer.REFUSED:
                changes.append((delivery.seq, State.FAILED, reason))
                log.error(
                    "Task %s for %s was refused by broker %s: %s; mend the cause, then run "
                    "'notify retry', or drop it with 'notify discard'",
                    delivery.route.task if delivery.route else "",
                    printable(delivery.final),
                    self.broker,
                    reason,
                )
            else:
                again = reason
        if changes:
            self._ledger.note(changes)
        if sent:
            self.last_sent_ns = time.time_ns()
            self._on_sent(sent)
        self._judge(again, worked=bool(good) and not again)
        return not again

    def _publish(self, good: list[Delivery]) -> list[Outcome]:
        if self._publisher is None:
            self._publisher = self._open_publisher()
        fresh = [d.route.task for d in good if d.seq > self._logged and d.route is not None]
        info_all(log, "Sending task %s", fresh)
        messages = []
        for delivery in good:
            assert delivery.route is not None
            version = delivery.version
            messages.append(
                Message(
                    delivery.task_id,
                    delivery.final,
                    delivery.source,
                    version.size,
                    version.mtime_ns,
                    delivery.arrived_ns,
                    delivery.route,
                )
            )
        self._logged = max(self._logged, good[-1].seq)
        return self._publisher.publish(messages)

    def _judge(self, again: str, *, worked: bool) -> None:
        """Keep track of the broker's health; say each change of it once."""
        if again:
            self._delay = min(self._delay * 2 or FIRST_RETRY, LONGEST_RETRY)
            if not self.trouble:
                self.trouble_since_ns = time.time_ns()
                log.warning(
                    "Broker %s takes no tasks: %s; they wait in the journal and are sent when "
                    "it is back",
                    self.broker,
                    again,
                )
            self.trouble = again
        elif worked:
            if self.trouble:
                log.warning("Broker %s takes tasks again", self.broker)
            self.trouble = ""
            self.trouble_since_ns = 0
            self._delay = 0.0

    def _examine(self, page: list[Delivery]) -> tuple[list[Delivery], list[tuple[int, State, str]]]:
        """Sort out the deliveries whose file is gone, replaced or being written."""
        good: list[Delivery] = []
        changes: list[tuple[int, State, str]] = []
        changed: list[str] = []
        fresh = time.time_ns() - int(FRESH * 1e9)
        for delivery in page:
            if delivery.arrived_ns > fresh:
                good.append(delivery)
                continue
            verdict = self._still_there(delivery)
            if verdict is None:
                good.append(delivery)
            elif verdict:
                changes.append((delivery.seq, State.VANISHED, verdict))
            else:
                changed.append(delivery.source)
        if changed:
            self._parked = True
            self._on_changed(changed)
        return good, changes

    def _still_there(self, delivery: Delivery) -> str | None:
        """None: as recorded. A reason: it vanished. Empty: it changed, look at it again."""
        path = delivery.final
        if path != delivery.source or delivery.kind == "directories":
            # The destination is out of the uploaders' reach: being there is enough.
            return None if os.path.lexists(path) else "the file is gone"
        root = self._root_of(path)
        try:
            directory = open_directory(root, relative_to(root, os.path.dirname(path)))
        except (OSError, ValueError):
            return "the file is gone"
        try:
            seen = look(os.path.basename(path), directory)
        finally:
            os.close(directory)
        if seen.version is not None and seen.version.same_content(delivery.version):
            return "" if seen.seen is Seen.BUSY else None
        if self._ledger.announced_later(delivery):
            return "replaced by a newer upload"
        return "the file is gone" if seen.version is None else ""
