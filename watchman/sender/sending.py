"""One thread for each broker: takes ready deliveries from the journal, in order, and sends them.

Nothing is held in memory but the page in hand, so a backlog costs none. What a queue cannot take
waits for that queue alone, in its order; the pages behind it are read on.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence

from watchman.errors import JournalError
from watchman.log_batch import info_all
from watchman.masking import mask
from watchman.model import Answer, Delivery, Outcome, Publisher, State
from watchman.sender.messages import (
    cannot_look,
    message_for,
    say_refused,
    say_sent,
    say_vanished,
    words,
)
from watchman.sender.pages import PAGE, Ledger, Page, Pages
from watchman.sender.targets import Targets

log = logging.getLogger("watchman.notify")

# For each delivery; Python 3.11 looks for an enum's member as long as 50 ns.
_ACCEPTED, _REFUSED, _AGAIN = Answer.ACCEPTED, Answer.REFUSED, Answer.AGAIN
_SENT, _READY = State.SENT, State.READY

FIRST_RETRY = 0.5
LONGEST_RETRY = 60.0
TEND = 15.0
"""Seconds between two calls of ``Publisher.tend`` on an idle broker."""
REEXAMINE = 1.0
"""Seconds until deliveries whose files changed are looked at again."""
OBSTRUCTED = 10.0
"""The same where their files could not be looked at."""


def _nothing(_: list[Delivery]) -> None:
    """Do nothing."""


class Sender:
    """Sends to one broker.

    ``open_publisher`` is called in the sender's own thread, at the first delivery, so that the
    broker libraries are imported only when they are needed. ``on_changed`` is told the paths
    of files that no longer are what was recorded; ``on_sent`` the deliveries that were accepted,
    ``on_failed`` those that were refused.
    """

    def __init__(
        self,
        broker: str,
        ledger: Ledger,
        open_publisher: Callable[[], Publisher],
        root_of: Callable[[str], str],
        on_changed: Callable[[list[str]], None],
        on_sent: Callable[[list[Delivery]], None],
        on_failed: Callable[[list[Delivery]], None] = _nothing,
    ) -> None:
        self.broker = broker
        self._pages = Pages(broker, ledger, root_of)
        self._open_publisher = open_publisher
        self._publisher: Publisher | None = None
        self._on_changed = on_changed
        self._on_sent = on_sent
        self._on_failed = on_failed
        self._condition = threading.Condition()
        self._woken = False
        self._warm = False
        self._stopping = False
        self._look_again = 0.0
        """Seconds until deliveries that were passed over are to be looked at; 0 for none."""
        self._targets = Targets(broker)
        self._held: frozenset[str] = frozenset()
        """What the publisher holds back."""
        self._seen = 0
        """Of the deliveries up to this seq those that are ready wait for a queue in trouble."""
        self._complete_at = 0.0
        """When all that is ready may be read again, where queues are in trouble."""
        self._unfinished = False
        """True if the broker balked in the last pass: what is behind has not been seen."""
        self._active = float("-inf")
        """When the publisher was used last."""
        self._delay = 0.0
        self._ledger = ledger
        self._said: set[int] = set()
        """The seqs of tasks that are in the log and not settled."""
        self._inherited = 0
        """Of those up to this seq the journal knows which are in the log already."""
        self._unnoted: set[int] = set()
        """Those in the log of which the journal does not know it."""
        self._tried = False
        """Whether the last pass had anything for the publisher."""
        self.obstacle = ""
        """Why files whose tasks are ready cannot be looked at; empty while they can."""
        self.obstacle_since_ns = 0
        self.trouble = ""
        """Why the broker cannot be used at the moment; empty while it can."""
        self.trouble_since_ns = 0
        self.last_sent_ns = 0
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"sender-{broker}", daemon=True)

    def start(self) -> None:
        """Begin to send what is ready."""
        self._inherited = self._ledger.last_seq()
        self._woken = True
        self._thread.start()

    def warm_up(self) -> None:
        """Import what the broker needs before its first delivery waits for it."""
        self._warm = True
        self.wake()

    def wake(self) -> None:
        """Say that there may be something to send."""
        if not self._woken:
            with self._condition:
                self._woken = True
                self._condition.notify()

    def may_hang(self, places: Mapping[str, str]) -> None:
        """Say where a look at a file may hang: path with a slash behind it → mount point."""
        self._pages.remote.may_hang(places)

    @property
    def held_up_by(self) -> str:
        """The mount point of a file system that does not answer, with files of tasks; else ""."""
        return self._pages.remote.held_up_by

    def stop(self) -> None:
        """Ask the thread to end after the page in hand."""
        self._pages.give_up()
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; False if it is still busy after ``timeout`` seconds."""
        if self._thread.ident is not None:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping:
                woken, self._woken = self._woken, False
                self._pass(woken)
                if self.trouble and not self._tried and self._publisher is not None:
                    # What was to be sent is gone: nothing else would tell that it is back.
                    self._tend(self._publisher)
                if self._warm and self._publisher is None:
                    self._prepare()
                idle = time.monotonic() - self._active >= TEND
                if self._publisher is not None and idle and not self._tried:
                    # However often somebody wakes us for nothing. At first it opens the connection.
                    self._tend(self._publisher)
                self._wait()
        except JournalError as error:
            # What was sent and could not be noted is sent again, with the same task id.
            self.error = error
        except BaseException as error:
            log.exception("The sender for broker %s died", self.broker)
            self.error = error
        finally:
            self._pages.stop()
            self._drop()

    def _prepare(self) -> None:
        self._warm = False
        try:
            self._publisher = self._open_publisher()
        except Exception as error:  # noqa: BLE001 — the first delivery will meet it, and say it
            log.debug("Broker %s: %s", self.broker, words(error))

    def _wait(self) -> None:
        """Sleep: out of a broker's way while it is in trouble, else until there is work."""
        if self._delay:
            # Jitter keeps many senders from knocking at one broker at the same time.
            pause = self._delay * random.uniform(0.6, 1.0)  # noqa: S311 — jitter, no secret
            with self._condition:
                self._condition.wait_for(lambda: self._stopping, pause)
            return
        left = self._active + TEND - time.monotonic()
        tend = max(0.01, left) if self._publisher is not None else None
        timeouts = (self._look_again, self._targets.next_due(), tend)
        timeout = min((seconds for seconds in timeouts if seconds), default=None)
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._woken, timeout)

    def _tend(self, publisher: Publisher) -> None:
        self._active = time.monotonic()
        try:
            reason = publisher.tend()
        except Exception as error:  # noqa: BLE001 — whatever it is, the connection is in doubt
            log.debug("Broker %s: %s", self.broker, words(error))
            self._drop()
            return
        if not self._stopping:
            self._judge(mask(reason or ""), worked=not reason)

    def _drop(self) -> None:
        """Let go of the publisher; the next message opens another one."""
        publisher, self._publisher = self._publisher, None
        self._held = frozenset()
        if publisher is not None:
            with contextlib.suppress(Exception):
                publisher.close()

    def _pass(self, woken: bool) -> None:
        """Send what is ready, from the oldest on, until the broker balks.

        Where queues are in trouble, what waits for them may be a million deliveries: then only
        those whose pause is over are tried, and what has come is read (``woken``: something may
        have). All is read again, for what was moved late and is ready now, a tenth of the time.
        """
        begun = time.monotonic()
        self._tried = False
        due = self._targets.begin(begun)
        again = begun >= self._complete_at and (woken or self._look_again > 0)
        if not self._targets or self._unfinished or again:
            done = self._send_all(begun)
        else:
            done = self._send_some(due, woken)
        self._unfinished = not done
        if done and not self._stopping:
            self._targets.end()

    def _send_all(self, begun: float) -> bool:
        """Send from the oldest delivery on; False if the broker balks."""
        self._look_again = 0.0
        obstacle = self._send_pages(0)
        if obstacle is None:
            return False
        now = time.monotonic()
        # However many are passed over: looking at them takes a tenth of the time at most.
        self._complete_at = now + 10 * (now - begun)
        if self._look_again:
            self._look_again = max(self._look_again, 10 * (now - begun))
        self._say_obstacle(obstacle)
        return True

    def _send_some(self, due: bool, woken: bool) -> bool:
        """Try the queues whose pause is over, then what has come; False if the broker balks."""
        if due:
            # The last word is theirs: what is behind need not be read if they balk again.
            first, balked = self._targets.first - 1, self._targets.all_balked
            if self._send_pages(first, balked) is None:
                return False
        if woken and self._send_pages(self._seen) is None:
            return False
        if woken or self._look_again:
            left = self._complete_at - time.monotonic()
            self._look_again = max(self._look_again, left, 0.01)
        return True

    def _send_pages(self, after: int, enough: Callable[[], bool] = lambda: False) -> str | None:
        """Send page after page; return why files could not be seen, None if the broker balks."""
        obstacle = ""
        with contextlib.closing(self._pages.read(after)) as pages:
            for page in pages:
                if self._stopping:
                    break
                found = page.found
                if found.changed:
                    self._look_again = max(self._look_again, REEXAMINE)
                    self._on_changed([delivery.source for delivery in found.changed])
                if found.obstacle:
                    self._look_again = OBSTRUCTED
                    obstacle = obstacle or found.obstacle
                if not self._send(page):
                    return None
                self._seen = max(self._seen, page.last)
                if enough():
                    break
        return obstacle

    def _say_obstacle(self, obstacle: str) -> None:
        if self._stopping:
            return
        if obstacle and not self.obstacle:
            self.obstacle_since_ns = time.time_ns()
            log.warning("%s", cannot_look(obstacle))
        elif self.obstacle and not obstacle:
            log.warning("All files whose tasks are ready for broker %s can be seen", self.broker)
        self.obstacle = cannot_look(obstacle) if obstacle else ""

    def _send(self, page: Page) -> bool:
        """Publish one page and note the answers; False if the broker wants a pause."""
        good, vanished = page.found.good, page.found.vanished
        answers = self._publish(good) if good else []
        tried = any(answer is not _AGAIN or reason for answer, reason, _ in answers)
        self._tried = self._tried or tried
        taken = _routes_taken(good, answers)
        changes = [(delivery.seq, State.VANISHED, reason) for delivery, reason in vanished]
        sent: list[Delivery] = []
        refused: list[tuple[Delivery, str]] = []
        again = ""
        for delivery, (answer, reason, target) in zip(good, answers, strict=True):
            if answer is _ACCEPTED:
                changes.append((delivery.seq, _SENT, ""))
                sent.append(delivery)
            elif answer is _REFUSED:
                why = mask(reason)
                changes.append((delivery.seq, State.FAILED, why))
                refused.append((delivery, why))
            else:
                if not (target and self._waits(delivery, target, reason, taken)):
                    again = again or mask(reason) or "no reason given"
                if delivery.seq in self._unnoted:
                    # For those who send it after a reload or restart, and for the history.
                    why = mask(reason) or "no reason given"
                    changes.append((delivery.seq, _READY, f"not taken yet: {why}"))
        self._unnoted.clear()
        if changes:
            # Before anybody looks at a file that has vanished its version must be forgotten.
            self._pages.note(changes, at_once=bool(vanished) or not page.full)
            settled = [seq for seq, state, _ in changes if state is not _READY]
            self._said.difference_update(settled)
        if vanished:
            say_vanished(vanished)
            # It may have been away for a moment only, and is an arrival then.
            self._on_changed([delivery.source for delivery, _ in vanished])
        if refused:
            say_refused(refused, self.broker)
            self._on_failed([delivery for delivery, _ in refused])
        if sent:
            say_sent(sent)
            self.last_sent_ns = time.time_ns()
            self._on_sent(sent)
        self._judge(again, worked=tried and not again, progress=bool(sent))
        return not again

    def _waits(self, delivery: Delivery, target: str, reason: str, taken: set[int]) -> bool:
        """Note that a delivery waits for its queue; False if too many queues are in trouble."""
        if not reason:
            self._targets.wait_for(target, delivery.seq)
            return True
        # The others of its route went to the same queue, unless a router of the user's chooses.
        progress = id(delivery.route) in taken
        return self._targets.balk(target, mask(reason), delivery.seq, progress=progress)

    def _publish(self, good: list[Delivery]) -> list[Outcome]:
        """Hand a page to the publisher. What it raises is an answer too: to be tried again."""
        try:
            if self._publisher is None:
                self._publisher = self._open_publisher()
            if self._held != self._targets.held:
                self._held = self._targets.held
                self._publisher.hold(self._held)
            if not self._held:
                self._say_sending(good)
            self._active = time.monotonic()
            outcomes = self._publisher.publish(list(map(message_for, good)))
            if len(outcomes) != len(good):
                raise RuntimeError(f"{len(outcomes)} answers for {len(good)} messages")
            if self._held:
                pairs = zip(good, outcomes, strict=True)
                self._say_sending([d for d, o in pairs if o.answer is not Answer.AGAIN or o.reason])
        except Exception as error:  # noqa: BLE001 — whatever a library raises is an answer
            where = "".join(traceback.format_tb(error.__traceback__))
            log.debug("Broker %s failed: %s\n%s", self.broker, words(error), where)
            self._drop()
            return [Outcome(Answer.AGAIN, words(error))] * len(good)
        return outcomes

    def _say_sending(self, good: list[Delivery]) -> None:
        """Log each task once, however often it has to be tried, and by whom."""
        said = self._said
        fresh = [delivery for delivery in good if delivery.seq not in said] if said else good
        # By seq, as they were read.
        if fresh and fresh[0].seq <= self._inherited:
            before = self._ledger.tried(self.broker, fresh[0].seq, fresh[-1].seq)
            self._said |= before
            fresh = [delivery for delivery in fresh if delivery.seq not in before]
        info_all(log, "Sending task %s", [d.route.task for d in fresh if d.route is not None])
        if len(self._said) > 10 * PAGE:
            self._said.clear()  # what waits for many queues; the journal knows it
            self._inherited = self._ledger.last_seq()
        seqs = [delivery.seq for delivery in fresh]
        self._said.update(seqs)
        self._unnoted.update(seqs)

    def _judge(self, again: str, *, worked: bool, progress: bool = False) -> None:
        """Keep track of the broker's health; say each change of it once."""
        if again:
            if progress:
                self._delay = 0.0
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

    def troubles(self) -> list[tuple[str, str, int]]:
        """Return (what, why, since when in ns) for what keeps tasks, beside the broker's own."""
        found = list(self._targets.troubles())
        if self.obstacle:
            found.append((f"tasks for broker {self.broker}", self.obstacle, self.obstacle_since_ns))
        return found


def _routes_taken(good: Sequence[Delivery], answers: Sequence[Outcome]) -> set[int]:
    """Return the routes (by id) of what was accepted, where something was not by its queue."""
    if not any(outcome.target for outcome in answers):
        return set()
    pairs = zip(good, answers, strict=True)
    return {id(delivery.route) for delivery, outcome in pairs if outcome.answer is Answer.ACCEPTED}
