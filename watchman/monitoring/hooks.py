"""ON_FAILED, ON_TROUBLE and ON_RECOVERED: what they are told, and when.

A trouble is told once, and once more when it is over, however long it lasts and however often the
configuration is reloaded meanwhile. Failed deliveries are gathered: one call tells of all that
failed within some seconds, with the first few of them.

What two snapshots differ in is told. What is missing in one is told to be over, so each must have
all troubles: also the last word, and those of a full disk.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from watchman.errors import WatchmanError
from watchman.model import Config, Delivery, Hook
from watchman.monitoring.hook_call import Commands
from watchman.monitoring.hook_thread import HookThread
from watchman.status import ShownTrouble, Snapshot, broker_trouble
from watchman.text import iso
from watchman.troubles import KEEP, Troubles

GATHER = 5.0
"""Seconds in which failed deliveries are gathered for one call."""
SHOWN = 10
"""Failed deliveries that a call tells of one by one."""
END = 2.0
"""Seconds that calls have at the end of the process."""
FAILED, TROUBLE, RECOVERED = "ON_FAILED", "ON_TROUBLE", "ON_RECOVERED"

Event = dict[str, Any]


@dataclass
class _Gathered:
    """What has failed and is told by one call."""

    count: int = 0
    first: list[Delivery] = field(default_factory=list)


class Hooks:
    """Decides what is told to whom. For any thread; nothing here waits.

    ``troubles`` are those of the hooks themselves, of which none is told.
    """

    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._threads: dict[str, HookThread] = {}
        self._commands = Commands()
        self._lock = threading.Lock()
        self._state_dir = ""
        self._reasons: Callable[[Sequence[int]], Mapping[int, str]] = lambda _: {}
        # What is wrong, by subject.
        self._told: dict[str, ShownTrouble] = {}
        self._found: set[str] = set()
        """Those of them that the pipeline of now has found as well."""
        self._until = 0.0
        """Until when, by the monotonic clock, it may still find the others."""
        self._gathered: _Gathered | None = None
        """What fails now joins it; None where it is to be begun."""

    def begin(self, config: Config, reasons: Callable[[Sequence[int]], Mapping[int, str]]) -> None:
        """Take over a configuration; its pipeline has found none of its troubles yet."""
        with self._lock:
            self._state_dir, self._reasons = config.state_dir, reasons
            self._found.clear()
            self._until = time.monotonic() + KEEP
            for setting in (FAILED, TROUBLE, RECOVERED):
                self._set(setting, config.hooks.get(setting))

    def _set(self, setting: str, hook: Hook | None) -> None:
        before = self._threads.get(setting)
        if before is not None and before.hook == hook:
            return
        if hook is not None:
            self._threads[setting] = HookThread(hook, self._troubles, self._commands)
            if before is not None:
                self._threads[setting].replace(before)
        elif before is not None:
            del self._threads[setting]
            before.finish()
            if setting == FAILED:
                self._gathered = None  # it may never come back to that

    def look_at(self, snapshot: Snapshot) -> None:
        """Tell what has gone wrong since the last snapshot, and what is over."""
        with self._lock:
            for thread in self._threads.values():
                thread.check()
            own = {trouble.subject for trouble in self._troubles.all()}
            wrong = _wrong(snapshot).items()
            now = {name: one for name, one in wrong if one["subject"] not in own}
            for subject in now.keys() - self._told.keys():
                self._tell(TROUBLE, "trouble", now[subject])
            self._found |= now.keys()
            late = time.monotonic() > self._until
            for subject in self._told.keys() - now.keys():
                if subject in self._found or late:
                    self._tell(RECOVERED, "recovered", self._told[subject])
                else:
                    now[subject] = self._told[subject]
            self._told = now

    def _tell(self, setting: str, event: str, trouble: ShownTrouble) -> None:
        thread = self._threads.get(setting)
        if thread is not None:
            told = self._event(event)
            told |= {"subject": trouble["subject"], "message": trouble["message"]}
            told["since"] = iso(trouble["since_ns"])
            thread.put(lambda: told)

    def failed(self, deliveries: Sequence[Delivery]) -> None:
        """Tell of failed deliveries, with what else fails within some seconds."""
        if FAILED not in self._threads or not deliveries:
            return
        with self._lock:
            thread = self._threads.get(FAILED)
            if thread is None:
                return
            if self._gathered is None:
                self._gathered = _Gathered()
                thread.put(partial(self._failed_event, self._gathered), after=GATHER)
            self._gathered.count += len(deliveries)
            self._gathered.first += deliveries[: SHOWN - len(self._gathered.first)]

    def _failed_event(self, gathered: _Gathered) -> Event:
        """Return what has been gathered; called in the hook's thread."""
        with self._lock:
            if self._gathered is gathered:
                self._gathered = None
            reasons_of = self._reasons
        try:
            reasons = reasons_of([delivery.seq for delivery in gathered.first])
        except WatchmanError:
            reasons = {}  # the journal is just being closed
        shown = [_shown(one, reasons.get(one.seq, "")) for one in gathered.first]
        return {**self._event("failed"), "count": gathered.count, "deliveries": shown}

    def _event(self, event: str) -> Event:
        return {
            "event": event,
            "time": iso(time.time_ns()),
            "host": socket.gethostname(),
            "state_dir": self._state_dir,
        }

    def close(self) -> None:
        """End: what is to be told is told at once, as far as it takes no more than END."""
        with self._lock:
            threads, self._threads = list(self._threads.values()), {}
        for thread in threads:
            thread.finish()
        deadline = time.monotonic() + END
        for thread in threads:
            thread.join(deadline - time.monotonic())
        self._commands.end()


def _wrong(snapshot: Snapshot) -> dict[str, ShownTrouble]:
    """Return all that is wrong, by subject; of what holds up single files of a move, one for all.

    Of one subject there may be several, of which none is to hide another: what concerns a part of
    a broker or a move may last for long.
    """
    found = {f"{one['subject']}\0{one.get('kind', '')}": one for one in snapshot["troubles"]}
    for name, broker in snapshot["brokers"].items():
        if broker["trouble"]:
            found[f"all of broker {name}"] = broker_trouble(name, broker)
    for move in snapshot["moves"]:
        subject = f"moving {move['source']} to {move['root']}"
        if move["reason"]:
            since_ns = move["stuck_since_ns"] or snapshot["beat_ns"]
            # Before it is tried, the pipeline tells the same.
            found[f"{subject}\0"] = _trouble(subject, move["reason"], since_ns)
        if move["troubles"]:
            (since_ns, message), *more = move["troubles"]
            message += "; 'notify status' names more" if more else ""
            found[f"{subject}: single files"] = _trouble(subject, message, since_ns)
    return found


def _trouble(subject: str, message: str, since_ns: int) -> ShownTrouble:
    return {"subject": subject, "message": message, "since_ns": since_ns}


def _shown(delivery: Delivery, reason: str) -> Event:
    route = delivery.route
    return {
        "id": delivery.seq,
        "source": delivery.source,
        "final": delivery.final,
        "broker": None if route is None else route.broker,
        "task": None if route is None else route.task,
        "task_id": delivery.task_id,
        "arrived": iso(delivery.arrived_ns),
        "reason": reason,
    }
