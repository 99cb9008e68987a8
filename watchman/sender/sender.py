"""One thread for each broker: takes ready deliveries from the journal, in order, and sends them.

Nothing is held in memory but the page in hand, so a backlog costs none. What a queue cannot take
waits for that queue alone, in its order; the pages behind it are read on.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Protocol

from watchman.backoff import Backoff
from watchman.errors import JournalError
from watchman.log_batch import info_all
from watchman.masking import mask
from watchman.model import ACCEPTED, Answer, Delivery, Outcome, Publisher, State
from watchman.sender.bundled_tasks import Tasks
from watchman.sender.messages import (
    UploadStore,
    cannot_look,
    say_refused,
    say_sent,
    say_vanished,
    words,
)
from watchman.sender.pages import BATCHES, FEW, PAGE, Pages, PrecheckedPage, ReadyStore
from watchman.sender.targets import PausedTargets

log = logging.getLogger("watchman.notify")

# For each delivery; Python 3.11 looks for an enum's member as long as 50 ns.
_ACCEPTED, _REFUSED, _AGAIN = Answer.ACCEPTED, Answer.REFUSED, Answer.AGAIN
_SENT, _READY = State.SENT, State.READY

FIRST_RETRY = 0.5
LONGEST_RETRY = 60.0
KEEPALIVE = 15.0
"""Seconds between two calls of ``Publisher.keepalive`` on an idle broker."""
CHANGED_AGAIN = 1.0
"""Seconds until deliveries whose files changed are looked at again."""
OBSTRUCTED_AGAIN = 10.0
"""The same where their files could not be looked at."""


class SendListener(Protocol):
    """Who is told what became of deliveries, in the sender's thread."""

    def sent(self, deliveries: list[Delivery]) -> None:
        """The broker has their tasks, and that is noted."""
        ...

    def failed(self, deliveries: list[Delivery]) -> None:
        """The broker will never take their tasks, and that is noted."""
        ...

    def changed(self, paths: list[str]) -> None:
        """These source paths are not what was recorded any more; some are gone."""
        ...


class Sender:
    """Sends to one broker.

    ``open_publisher`` is called in the sender's own thread, at the first delivery, so that the
    broker libraries are imported only when they are needed. ``root_of`` gives the directory
    of the configuration that a path is in. ``uploads`` is asked where transfer logs are read.
    """

    def __init__(
        self,
        broker: str,
        store: ReadyStore,
        open_publisher: Callable[[], Publisher],
        root_of: Callable[[str], str],
        listener: SendListener,
        uploads: UploadStore | None = None,
    ) -> None:
        self.broker = broker
        self._store = store
        self._uploads = uploads
        self._pages = Pages(broker, store, root_of)
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name=f"sender-{broker}", daemon=True)
        self.error: BaseException | None = None
        """What ended the thread."""

        # Set by other threads too, under the condition where somebody waits for it.
        self._condition = threading.Condition()
        self._woken = False
        self._warm = False
        """Whether the publisher is to be opened before the first delivery."""
        self._stopping = False

        # The broker.
        self._open_publisher = open_publisher
        self._publisher: Publisher | None = None
        self._used_at = float("-inf")
        """When the publisher was used last."""
        self._backoff = Backoff(FIRST_RETRY, LONGEST_RETRY, jitter=0.4)
        self.trouble = ""
        """Why the broker cannot be used at the moment; empty while it can."""
        self.trouble_since_ns = 0
        self.last_sent_ns = 0
        self.sent_count = 0
        """How many tasks the broker has taken since the start."""

        # Queues of it that are in trouble.
        self._targets = PausedTargets(broker)
        self._paused: frozenset[str] = frozenset()
        """Those that the publisher has been told to send nothing to."""

        # Passes through what is ready.
        self._read_to = 0
        """All up to this seq has been read: what of it is ready waits for a queue in trouble."""
        self._read_all_at = 0.0
        """When all that is ready may be read again, where queues are in trouble."""
        self._cut_short = False
        """Whether all is to be read again: a pass ended early, or something was ordered."""
        self._look_again = 0.0
        """Seconds until deliveries that were passed over are to be looked at; 0 for none."""
        self._tried = False
        """Whether the last pass had anything for the publisher."""
        self.obstacle = ""
        """Why files whose tasks are ready cannot be looked at; empty while they can."""
        self.obstacle_since_ns = 0

        # What the log has ("Sending task …"), so that it is there once.
        self._said: set[int] = set()
        """The seqs of tasks that are in the log and not settled."""
        self._inherited = 0
        """Of those up to this seq the journal knows which are in the log already."""
        self._unnoted: set[int] = set()
        """Those in the log of which the journal does not know it."""

    # -- called by others ----------------------------------------------------------------

    def start(self) -> None:
        """Begin to send what is ready."""
        self._inherited = self._store.last_seq()
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

    def obey(self) -> None:
        """Say that something was held, released or put back: all is to be read again."""
        self._cut_short = True
        self.wake()

    def may_hang(self, places: Mapping[str, str]) -> None:
        """Say where a look at a file may hang: path with a slash behind it → mount point."""
        self._pages.remote.may_hang(places)

    @property
    def held_up_by(self) -> str:
        """The mount point of a file system that does not answer, with files of tasks; else ""."""
        return self._pages.remote.held_up_by

    def troubles(self) -> list[tuple[str, str, int]]:
        """Return (what, why, since when in ns) for what keeps tasks, beside the broker's own."""
        found = list(self._targets.troubles())
        if self.obstacle:
            found.append((f"tasks for broker {self.broker}", self.obstacle, self.obstacle_since_ns))
        return found

    def stop(self) -> None:
        """Ask the thread to end after the page in hand."""
        self._pages.give_up()
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def join(self, timeout: float) -> bool:
        """Wait for the thread's end; False if it is busy after ``timeout`` seconds, and left."""
        return self._pages.join(self._thread, timeout)

    # -- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                # Before the journal is read: what is recorded from now on wakes us again.
                woken, self._woken = self._woken, False
                self._pass(woken)
                if self.trouble and not self._tried and self._publisher is not None:
                    # What was to be sent is gone: nothing else would tell that it is back.
                    self._keepalive(self._publisher)
                if self._warm and self._publisher is None:
                    self._prepare()
                idle = time.monotonic() - self._used_at >= KEEPALIVE
                if self._publisher is not None and idle and not self._tried:
                    # However often somebody wakes us for nothing. At first it opens the connection.
                    self._keepalive(self._publisher)
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

    def _wait(self) -> None:
        """Sleep: out of a broker's way while it is in trouble, else until there is work."""
        if self._backoff.delay:
            with self._condition:
                self._condition.wait_for(lambda: self._stopping, self._backoff.pause())
            return
        left = self._used_at + KEEPALIVE - time.monotonic()
        keepalive = max(0.01, left) if self._publisher is not None else None
        due = self._pages.next_due(self._look_again, self._targets.next_due())
        timeout = min((seconds for seconds in (due, keepalive) if seconds), default=None)
        with self._condition:
            self._condition.wait_for(lambda: self._stopping or self._woken, timeout)

    def _prepare(self) -> None:
        self._warm = False
        try:
            self._publisher = self._open_publisher()
        except Exception as error:  # noqa: BLE001 — the first delivery will meet it, and say it
            log.debug("Broker %s: %s", self.broker, words(error))

    def _keepalive(self, publisher: Publisher) -> None:
        self._used_at = time.monotonic()
        try:
            reason = publisher.keepalive()
        except Exception as error:  # noqa: BLE001 — whatever it is, the connection is in doubt
            log.debug("Broker %s: %s", self.broker, words(error))
            self._drop()
            return
        if not self._stopping:
            self._judge(mask(reason or ""), worked=not reason)

    def _drop(self) -> None:
        """Let go of the publisher; the next message opens another one."""
        publisher, self._publisher = self._publisher, None
        self._paused = frozenset()
        if publisher is not None:
            with contextlib.suppress(Exception):
                publisher.close()

    # -- passes through what is ready ----------------------------------------------------

    def _pass(self, woken: bool) -> None:
        """Send what is ready, from the oldest on, until the broker takes no more.

        Where queues are in trouble, what waits for them may be a million deliveries: then only
        those whose pause is over are tried, and what has come is read (``woken``: something may
        have). All is read again a tenth of the time, since what was moved late is ready now, and
        its seq is among those that have been read.
        """
        begun = time.monotonic()
        busy, self._tried = bool(self.trouble) and self._tried, False
        if self._store.is_held(self.broker):
            self._cut_short = True
            return
        if not busy:
            # While the broker takes nothing, one will do to try it: the others fill up meanwhile.
            self._pages.complete_batches(1 if self.trouble else BATCHES)
        due = self._targets.begin_pass(begun)
        again = begun >= self._read_all_at and (woken or self._look_again > 0)
        # Given back before anything is read: from now on it may be asked for once more.
        cut_short, self._cut_short = self._cut_short, False
        if not self._targets or cut_short or again:
            done = self._send_all(begun)
        else:
            done = self._send_some(due, woken)
        self._cut_short = self._cut_short or not done
        if done and not self._stopping:
            self._targets.end_pass()

    def _send_all(self, begun: float) -> bool:
        """Send from the oldest delivery on; False if the broker takes no more."""
        self._look_again = 0.0
        obstacle = self._send_pages(0)
        if obstacle is None:
            return False
        now = time.monotonic()
        # However many are passed over: looking at them takes a tenth of the time at most.
        self._read_all_at = now + 10 * (now - begun)
        if self._look_again:
            self._look_again = max(self._look_again, 10 * (now - begun))
        self._say_obstacle(obstacle)
        return True

    def _send_some(self, due: bool, woken: bool) -> bool:
        """Try the queues whose pause is over, then what has come; False as in ``_send_all``."""
        if due:
            # First of all, and only until each of them has not taken one: what waits
            # behind that need not be read.
            first, enough = self._targets.first_waiting - 1, self._targets.all_unavailable
            if self._send_pages(first, enough) is None:
                return False
        if woken and self._send_pages(self._read_to) is None:
            return False
        if woken or self._look_again:
            left = self._read_all_at - time.monotonic()
            self._look_again = max(self._look_again, left, 0.01)
        return True

    def _send_pages(self, after: int, enough: Callable[[], bool] = lambda: False) -> str | None:
        """Send page after page, from behind a seq on, until there are no more, or ``enough``.

        Return why files could not be seen, empty if all could; None if the broker takes no more,
        or something else is held than before.
        """
        obstacle, hold_changes = "", self._store.hold_changes
        # Closed before this returns: only then is all that was sent noted.
        first = FEW if self.trouble or not self.sent_count else 0
        with contextlib.closing(self._pages.read(after, first=first)) as pages:
            for page in pages:
                if self._stopping:
                    break
                # It was read before that; and what is released goes before what came later.
                if self._store.hold_changes != hold_changes:
                    return None
                found = page.found
                if found.changed:
                    self._look_again = max(self._look_again, CHANGED_AGAIN)
                    self._listener.changed([delivery.source for delivery in found.changed])
                if found.obstacle:
                    self._look_again = OBSTRUCTED_AGAIN
                    obstacle = obstacle or found.obstacle
                if page.kept and self._pages.leave(page.kept, self._said, self._inherited):
                    self.wake()
                if not self._send(page):
                    return None
                self._read_to = max(self._read_to, page.last)
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

    # -- one page ------------------------------------------------------------------------

    def _send(self, page: PrecheckedPage) -> bool:
        """Publish one page and note the answers; False if the broker wants a pause."""
        good, vanished = page.found.good, page.found.vanished
        answers = self._publish(Tasks(good, page.bundles), len(good)) if good else []
        tried = any(answer is not _AGAIN or reason for answer, reason, _ in answers)
        self._tried = self._tried or tried
        taken = self._targets.taken(good, answers)
        changes = [(delivery.seq, State.VANISHED, reason) for delivery, reason in vanished]
        all_taken = answers.count(ACCEPTED) == len(good)
        sent = list(good) if all_taken else []
        changes += [(delivery.seq, _SENT, "") for delivery in sent]
        refused: list[tuple[Delivery, str]] = []
        again = ""
        answered = () if all_taken else zip(good, answers, strict=True)
        for delivery, (answer, reason, target) in answered:
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
        # The order that must hold: noted, and only then told to others.
        if changes:
            # At once where files vanished: their versions are forgotten with it, and must be
            # before anybody looks at the paths.
            self._pages.note(changes, sent, at_once=bool(vanished) or not page.full)
            settled = [seq for seq, state, _ in changes if state is not _READY]
            self._said.difference_update(settled)
        if vanished:
            say_vanished(vanished)
            # It may have been away for a moment only, and is an arrival then.
            self._listener.changed([delivery.source for delivery, _ in vanished])
        if refused:
            say_refused(refused, self.broker)
            self._listener.failed([delivery for delivery, _ in refused])
        if sent:
            say_sent(sent)
            self.last_sent_ns = time.time_ns()
            self.sent_count += len(sent)
            self._listener.sent(sent)
        self._judge(again, worked=tried and not again, progress=bool(sent))
        return not again

    def _waits(self, delivery: Delivery, target: str, reason: str, taken: set[int]) -> bool:
        """Note that a delivery waits for its queue; False if too many queues are in trouble."""
        if not reason:  # it was not tried: the queue is paused
            self._targets.passed_over(target, delivery.seq)
            return True
        # The others of its route went to the same queue, unless a router of the user's chooses.
        route = id(delivery.route)
        return self._targets.not_taken(
            target, mask(reason), delivery.seq, progress=route in taken, route=route
        )

    def _publish(self, tasks: Tasks, deliveries: int) -> list[Outcome]:
        """Hand a page to the publisher, and return what became of each of its deliveries.

        What the publisher raises is an answer too: to be tried again.
        """
        first = tasks.first
        try:
            if self._publisher is None:
                self._publisher = self._open_publisher()
            if self._paused != self._targets.paused:
                self._paused = self._targets.paused
                self._publisher.pause(self._paused)
            if not self._paused:
                self._say_sending(first)
            self._used_at = time.monotonic()
            outcomes = self._publisher.publish(tasks.messages(self._uploads))
            if len(outcomes) != len(first):
                raise RuntimeError(f"{len(outcomes)} answers for {len(first)} messages")
            if self._paused:
                # Only the publisher knows which of them are for a paused queue: those were not
                # tried.
                pairs = zip(first, outcomes, strict=True)
                self._say_sending([d for d, o in pairs if o.answer is not Answer.AGAIN or o.reason])
        except Exception as error:  # noqa: BLE001 — whatever a library raises is an answer
            where = "".join(traceback.format_tb(error.__traceback__))
            log.debug("Broker %s failed: %s\n%s", self.broker, words(error), where)
            self._drop()
            return [Outcome(Answer.AGAIN, words(error))] * deliveries
        return tasks.for_each(outcomes)

    def _say_sending(self, good: list[Delivery]) -> None:
        """Log each task once, however often it has to be tried, and by whom."""
        said = self._said
        fresh = [delivery for delivery in good if delivery.seq not in said] if said else good
        # The journal is asked for what an earlier sender has tried. They are in the order of seq.
        if fresh and fresh[0].seq <= self._inherited:
            before = self._store.tried(self.broker, fresh[0].seq, fresh[-1].seq)
            self._said |= before
            fresh = [delivery for delivery in fresh if delivery.seq not in before]
        info_all(log, "Sending task %s", [d.route.task for d in fresh if d.route is not None])
        if len(self._said) > 10 * PAGE:
            # These wait for many queues. They are noted as tried: from now on the journal is
            # asked for them too.
            self._said.clear()
            self._inherited = self._store.last_seq()
        seqs = [delivery.seq for delivery in fresh]
        self._said.update(seqs)
        self._unnoted.update(seqs)

    def _judge(self, again: str, *, worked: bool, progress: bool = False) -> None:
        """Keep track of the broker's health; say each change of it once.

        ``again`` is why it takes no more, ``progress`` that it took something before that.
        """
        if again:
            if progress:
                self._backoff.reset()
            self._backoff.next()
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
            self._backoff.reset()
