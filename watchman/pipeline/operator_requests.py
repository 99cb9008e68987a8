"""What commands ask of the running pipeline: its status, and to obey what they have ordered."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from watchman.journal import Journal
from watchman.model import Hold, HoldKind
from watchman.pipeline.heartbeat import Heartbeat
from watchman.pipeline.parts import Parts
from watchman.status import daemon_socket, plain
from watchman.text import printable

log = logging.getLogger("watchman.notify")

LONGEST = 2.0
"""Seconds that an answer may take: the pipeline's thread has come by until then, or it hangs."""


class OperatorRequests:
    """Answers at the socket, in its thread, with what the pipeline's thread does in :meth:`step`.

    What commands order is in the journal: held, released, put back, sent again. It is taken up with
    each heartbeat as well, since who ordered it may not reach the socket.
    """

    def __init__(self, state_dir: str, journal: Journal, parts: Parts, heartbeat: Heartbeat):
        self._journal = journal
        self._parts = parts
        self._heartbeat = heartbeat
        self._server = daemon_socket.Server(state_dir, self._answers)
        self._condition = threading.Condition()
        self._asked = self._done = 0
        """How often it was asked to obey orders, and up to which of these it has."""
        self._closed = False

    def start(self) -> None:
        """Answer from now on."""
        for hold in self._journal.holds.active:
            log.info("%s; 'notify release' sends them", describe(hold))
        self._server.start()

    def close(self) -> None:
        """Answer no more; whoever waits for an answer gets what there is."""
        self._heartbeat.end()
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._server.close()

    def step(self) -> bool:
        """Obey, if that was asked for; whether it was."""
        asked = self._asked
        if asked == self._done:
            return False
        self.obey(asked=True)
        with self._condition:
            self._done = asked
            self._condition.notify_all()
        return True

    def obey(self, *, asked: bool = False) -> None:
        """Take up what was ordered since the last time; ``asked``: something was for sure."""
        ordered = self._take_up_holds() or asked
        self._parts.mover.rescan()
        for sender in self._parts.senders.values():
            # Reading all that waits for a queue in trouble takes long, and is not for each look.
            sender.obey() if ordered else sender.wake()

    def _take_up_holds(self) -> bool:
        """Say what was held or released since the last time; whether anything was."""
        holds = self._journal.holds
        before = set(holds.active)
        if not holds.refresh():
            return False
        for hold in holds.active:
            if hold not in before:
                log.info("%s; 'notify release' sends them", describe(hold))
        for hold in sorted(before.difference(holds.active)):
            log.info("Released: %s; its tasks are sent", name(hold))
        return True

    # The socket's thread

    def _answers(self, words: list[str]) -> list[Mapping[str, Any]]:
        known = {"status": self._status, "orders": self._orders}
        # Each once, for all who ask at the same time.
        found = {word: known[word]() for word in known.keys() & words}
        return [found.get(word) or _unknown(word, known) for word in words]

    def _status(self) -> Mapping[str, Any]:
        snapshot, fresh = self._heartbeat.ask(LONGEST)
        return {"ok": True, "fresh": fresh, "snapshot": plain(snapshot)}

    def _orders(self) -> Mapping[str, Any]:
        with self._condition:
            self._asked += 1
            wanted = self._asked
            self._parts.local.source.wake()
            self._condition.wait_for(lambda: self._done >= wanted or self._closed, LONGEST)
            return {"ok": True, "fresh": self._done >= wanted}


def _unknown(word: str, known: Sequence[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    words = ", ".join(known)
    return {"ok": False, "error": f"no such request: {printable(word[:50])}; there are: {words}"}


def name(hold: Hold) -> str:
    """Return what a hold is for, as the log says it."""
    what = {HoldKind.BROKER: "broker ", HoldKind.TASK: "task ", HoldKind.DIRECTORY: ""}[hold.kind]
    return what + printable(hold.name)


def describe(hold: Hold) -> str:
    """Return what a hold does, as the log says it."""
    tasks = "the tasks of what is below it" if hold.kind is HoldKind.DIRECTORY else "its tasks"
    return f"Held by {printable(hold.by)}: {name(hold)}; {tasks} wait"
