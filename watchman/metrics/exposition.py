"""The facts as Prometheus's text format has them."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from watchman import __version__, clock
from watchman.journal import counters
from watchman.journal.measures import Measures
from watchman.metrics.facts import Facts, of_now
from watchman.model import Config, State
from watchman.status import ShownWatch, Snapshot
from watchman.text import printable

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What :func:`exposition` returns."""

_EVENTS = {
    counters.ARRIVED: "arrivals: Complete files and finished directories that were recorded.",
    "sent": "sent: Deliveries whose tasks the broker has acknowledged.",
    "failed": "failed: Deliveries that no retry of watchman's own can help.",
    "vanished": "vanished: Deliveries whose file was gone or replaced before it was sent or moved.",
    counters.DISCARDED: "discarded: Deliveries that somebody gave up.",
}
"""By counter: what is counted by broker, its name and help."""
_WAITING = (State.MOVING, State.READY, State.FAILED)


def exposition(config: Config) -> bytes:
    """Return all metrics of now. Raises WatchmanError where this user may not know."""
    return as_text(of_now(config))


def as_text(facts: Facts) -> bytes:
    """Return facts as Prometheus's text format."""
    from prometheus_client.exposition import generate_latest

    return generate_latest(_Collector(facts))


class _Collector:
    """Makes metrics of facts."""

    def __init__(self, facts: Facts) -> None:
        from prometheus_client import core

        self._facts = facts
        self._core = core

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; what only a running daemon knows is left out where none runs."""
        yield from self._process()
        if not self._facts.journal_trouble:  # a counter of 0 would say that all was begun anew
            yield from self._journal(self._facts.measures)
        if self._facts.snapshot is not None:
            yield from self._snapshot(self._facts.snapshot)

    # What is made

    def _gauge(self, name: str, about: str, value: float | None) -> Metric:
        return self._core.GaugeMetricFamily(f"watchman_{name}", about, value)

    def _labelled(
        self, name: str, about: str, labels: Iterable[str], rows: Iterable[tuple[list[str], float]]
    ) -> Metric:
        made = self._core.GaugeMetricFamily(f"watchman_{name}", about, labels=list(labels))
        for values, number in rows:
            made.add_metric(list(map(printable, values)), number)
        return made

    def _time(self, name: str, about: str, ns: int) -> Metric:
        text = f"{about}, in seconds since the epoch; 0 for never."
        return self._gauge(f"{name}_timestamp_seconds", text, ns / 1e9)

    # What there is

    def _process(self) -> Iterator[Metric]:
        facts = self._facts
        yield self._core.InfoMetricFamily(
            "watchman_build",
            "The version of watchman, and of the Python that has told this.",
            {"version": __version__, "python": platform.python_version()},
        )
        about = "1 while the daemon runs, events come to it, and something to watch is there."
        yield self._gauge("active", about, float(facts.state == "active"))
        yield self._time("process_start", "When the daemon was started", facts.since_ns or 0)
        beat = facts.snapshot["beat_ns"] if facts.snapshot else 0
        yield self._time("heartbeat", "When an event last came through the kernel", beat)
        yield self._gauge("journal_bytes", "Size of the journal with its log.", facts.journal_bytes)
        about = "Whether the journal can be read; where not, what it counts is left out."
        yield self._gauge("journal_readable", about, float(not facts.journal_trouble))
        if facts.free_bytes is not None:
            about = "Free space in STATE_DIR's file system."
            yield self._gauge("state_free_bytes", about, facts.free_bytes)
        if facts.watch_limit is not None:
            about = "Directories that one user may watch."
            yield self._gauge("inotify_watches_limit", about, facts.watch_limit)

    def _journal(self, found: Measures) -> Iterator[Metric]:
        brokers = self._brokers(found)
        for counter, told in _EVENTS.items():
            name, _, about = told.partition(": ")
            made = self._core.CounterMetricFamily(f"watchman_{name}", about, labels=["broker"])
            # An empty broker: files that are only moved.
            for broker in ("", *brokers):
                made.add_metric([printable(broker)], found.counters.get((counter, broker, 0), 0))
            yield made
        for counter, about in (
            ("moved", "Files that were moved and get no task."),
            (counters.UNMATCHED, "Files that get no task because no pattern matches."),
            (counters.INCOMPLETE, "Files that have not met their criteria in time."),
        ):
            value = found.counters.get((counter, "", 0), 0)
            yield self._core.CounterMetricFamily(f"watchman_{counter}", about, value)
        yield self._labelled(
            "deliveries",
            "Deliveries that wait to be moved (moving) or sent (ready), or that failed.",
            ("broker", "state"),
            (
                ([broker, state.name.lower()], found.counts.get((broker, state), 0))
                for broker in ("", *brokers)
                for state in _WAITING
            ),
        )
        yield self._labelled(
            "held_deliveries",
            "Deliveries that an operator holds (notify hold); they are among those that are ready.",
            ("broker",),
            (([broker], found.held.get(broker, 0)) for broker in brokers),
        )
        yield self._labelled(
            "oldest_waiting_seconds",
            "Age of the oldest delivery that waits for a broker and is not held; 0 for none.",
            ("broker",),
            (
                ([broker], self._facts.age(found.oldest_ready_ns.get(broker, self._facts.now_ns)))
                for broker in brokers
            ),
        )
        yield self._labelled(
            "oldest_move_seconds",
            "Age of the oldest delivery that waits to be moved by a MOVES entry.",
            ("source", "destination"),
            ((list(move), self._facts.age(ns)) for move, ns in found.oldest_moving_ns.items()),
        )
        yield self._time("last_arrival", "When the last file arrived", self._last_arrival(found))
        yield self._time("last_sent", "When the last task was sent", found.last_sent_ns)
        yield self._latency(found, brokers)

    def _last_arrival(self, found: Measures) -> int:
        """Return the time; arrivals that no pattern matches are not in the journal."""
        snapshot = self._facts.snapshot
        seen = snapshot["last_arrival_ns"] if snapshot else 0
        return clock.latest([found.last_arrival_ns, seen], self._facts.now_ns)

    def _brokers(self, found: Measures) -> list[str]:
        """Return every broker that there is, or was."""
        named = {broker for _, broker, _ in found.counters} | {broker for broker, _ in found.counts}
        configured = self._facts.snapshot["brokers"] if self._facts.snapshot else {}
        return sorted({*named, *configured} - {""})

    def _latency(self, found: Measures, brokers: Iterable[str]) -> Metric:
        made = self._core.HistogramMetricFamily(
            "watchman_latency_seconds",
            "From when a file was complete and recorded to when its broker had the task.",
            labels=["broker"],
        )
        for broker in brokers:
            buckets, total = [], 0
            for bound in (*counters.BOUNDS_MS, counters.BEYOND):
                total += found.counters.get((counters.LATENCY, broker, bound), 0)
                le = "+Inf" if bound == counters.BEYOND else repr(bound / 1000)
                buckets.append((le, float(total)))
            seconds = found.counters.get((counters.LATENCY_SUM, broker, 0), 0) / 1e6
            made.add_metric([printable(broker)], buckets, seconds)
        return made

    def _snapshot(self, found: Snapshot) -> Iterator[Metric]:
        yield self._labelled(
            "broker_up",
            "1 while the broker takes tasks.",
            ("broker",),
            (([name], float(not one["trouble"])) for name, one in found["brokers"].items()),
        )
        about = "Files that are being written, or whose settle time is not over."
        yield self._gauge("files_being_written", about, found["incomplete"])
        about = "Files that wait because they do not meet their criteria."
        yield self._gauge("partial_files", about, found["partial"])
        yield self._labelled(
            "move_stuck_seconds",
            "For how long nothing can be moved by a MOVES entry; 0 while it can.",
            ("source", "destination"),
            (
                (
                    [move["source"], move["root"]],
                    self._facts.age(move["stuck_since_ns"] or self._facts.now_ns),
                )
                for move in found["moves"]
            ),
        )
        yield self._core.CounterMetricFamily(
            "watchman_overflows",
            "How often the kernel lost events, and everything was scanned therefore.",
            found["overflows"],
        )
        yield self._labelled(
            "watched_directories",
            "Directories that a watch covers at the moment; 0 while its own is missing.",
            ("watch", "kind", "method"),
            ((list(labels), number) for labels, number in _directories(found["watches"]).items()),
        )
        used = sum(one["directories"] for one in found["watches"] if one["method"] == "inotify")
        about = "Directories for which the daemon has a watch of the kernel's."
        yield self._gauge("inotify_watches", about, used)
        about = "What is wrong at the moment; 'notify status' says what, and what helps."
        yield self._gauge("troubles", about, len(found["troubles"]))


def _directories(watches: Iterable[ShownWatch]) -> Counter[tuple[str, str, str]]:
    """Return how many directories are watched, by path, kind and method as they are shown.

    A path may be watched by several: two series of the same labels make Prometheus take nothing.
    """
    found = Counter[tuple[str, str, str]]()
    for watch in watches:
        found[printable(watch["path"]), watch["kind"], watch["method"]] += watch["directories"]
    return found
