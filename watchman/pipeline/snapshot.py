"""What the pipeline knows of itself, put together for ``notify status``."""

from __future__ import annotations

import time
from collections.abc import Iterable

from watchman import guard, queued_logging, status
from watchman.journal import Journal
from watchman.model import Move
from watchman.monitoring import Monitoring
from watchman.mounts import is_polled
from watchman.mover import DestinationStatus, RunningCopy
from watchman.pipeline.parts import Parts
from watchman.pipeline.rates import Rates
from watchman.status import ShownCopy, ShownMove, ShownTrouble, Snapshot
from watchman.troubles import Lasting, Trouble, Troubles

_OLDEST = 5
"""Files that are named of those that are being written, and of those that are partial."""

_LONG = 5.0
"""Seconds from which on it is told that a file is being read."""


class Snapshots:
    """Reads the parts. ``lasting`` knows since when what the pipeline before this one had."""

    def __init__(
        self,
        state_dir: str,
        journal: Journal,
        parts: Parts,
        troubles: Troubles,
        lasting: Lasting,
        monitoring: Monitoring,
    ) -> None:
        self._run_ns = status.run_of(state_dir)
        self._started_ns = time.time_ns()
        self._journal = journal
        self._parts = parts
        self._troubles = troubles
        self._lasting = lasting
        self._monitoring = monitoring
        self._rates = Rates()

    def sample(self, now: float) -> None:
        """Keep what was counted so far, for the rates. Only for the pipeline's thread."""
        self._rates.sample(now, self._parts.totals(self._parts.mover.status()))

    def take(self) -> Snapshot:
        """Return all that is known now. Only for the pipeline's thread."""
        parts = self._parts
        moves, now = parts.mover.status(), time.monotonic()
        rates = self._rates.per_second(now, parts.totals(moves))
        found: Snapshot = {
            "pid": guard.pid(),
            "started_ns": self._started_ns,
            "run_ns": self._run_ns,
            "beat_ns": time.time_ns(),
            "beat_monotonic_ns": time.monotonic_ns(),
            "clock_set_ns": self._lasting.steps.look(),
            "watching": parts.watching,
            "watches": [
                {
                    "path": watch.path,
                    "kind": watch.kind.value,
                    "method": "poll" if is_polled(watch) else "inotify",
                    "handler": status.handler(watch),
                    "directories": parts.covers(watch),
                }
                for watch in parts.config.watches
            ],
            "notes": list(map(_shown, parts.notes())),
            "troubles": [],
            "brokers": {
                name: {
                    "trouble": sender.trouble,
                    "since_ns": sender.trouble_since_ns,
                    "last_sent_ns": sender.last_sent_ns,
                    "rate": rates[f"broker {name}"],
                }
                for name, sender in parts.senders.items()
            },
            "moves": [_shown_move(move, rates[f"{move.source} {move.root}"]) for move in moves],
            "last_arrival_ns": parts.last_arrival_ns,
            "overflows": parts.overflows,
            "rates": {"in": rates["in"], "out": rates["out"]},
            "incomplete": parts.incomplete,
            "being_written": [
                {"path": path, "since_ns": time.time_ns() - int(seconds * 1e9)}
                for path, seconds in parts.being_written(now, _OLDEST)
            ],
            "unjudged": parts.unjudged,
            "partial": parts.partial,
            "oldest_partial": parts.oldest_partial(_OLDEST),
            "being_read": [
                {
                    "path": one.path,
                    "asked": list(one.asked),
                    "since_ns": time.time_ns() - int(one.seconds * 1e9),
                }
                for one in parts.being_read(_LONG)
            ],
            "scans": parts.scans(),
        }
        found["troubles"] = self._of_now(found["moves"])
        self._settle(found)
        self._monitoring.look_at(found)
        return found

    def renew(self, last: Snapshot) -> Snapshot:
        """Return the last one with the time and the troubles of now. From any thread."""
        found: Snapshot = {
            **last,
            "beat_ns": time.time_ns(),
            "beat_monotonic_ns": time.monotonic_ns(),
            "troubles": self._of_now(last["moves"]),
        }
        since = {_name(one): one["since_ns"] for one in last["troubles"]}
        for one in found["troubles"]:
            one["since_ns"] = since.get(_name(one), one["since_ns"])
        self._monitoring.look_at(found)
        return found

    def _settle(self, found: Snapshot) -> None:
        """Have troubles last that the pipeline before this one had already."""
        since = {_name(one): one["since_ns"] for one in found["troubles"]}
        since |= {f"broker {n}": b["since_ns"] for n, b in found["brokers"].items() if b["trouble"]}
        for move in found["moves"]:
            if move["stuck_since_ns"] is not None:
                since[f"move {move['source']} to {move['root']}"] = move["stuck_since_ns"]
        since = dict(self._lasting.settle(since))
        for one in found["troubles"]:
            one["since_ns"] = since[_name(one)]
        for name, broker in found["brokers"].items():
            broker["since_ns"] = since.get(f"broker {name}", broker["since_ns"])
        for move in found["moves"]:
            name = f"move {move['source']} to {move['root']}"
            move["stuck_since_ns"] = since.get(name, move["stuck_since_ns"])

    def _of_now(self, moves: Iterable[ShownMove]) -> list[ShownTrouble]:
        """Return all troubles but those of brokers, and of ``moves`` that tell their own.

        Whatever is missing here is told to be over.
        """
        found = self._troubles.all()
        journal = self._journal.write_retry
        if reason := journal.trouble:
            found.append(Trouble(self._journal.path, reason, journal.since_ns))
        found += [Trouble(*one) for one in queued_logging.troubles()]
        found += self._monitoring.troubles()
        # What keeps senders from sending what is ready.
        for sender in self._parts.senders.values():
            found += [Trouble(*one) for one in sender.troubles()]
        told = {Move(move["source"], move["root"]).subject for move in moves if move["reason"]}
        return [_shown(one) for one in found if one.subject not in told]


def _shown(trouble: Trouble) -> ShownTrouble:
    subject, message, since_ns, kind = trouble
    return {"subject": subject, "message": message, "since_ns": since_ns, "kind": kind}


def _name(trouble: ShownTrouble) -> str:
    """Return what tells a trouble from all others; neither part has a NUL in it."""
    return f"trouble {trouble['subject']}\0{trouble.get('kind', '')}"


def _shown_move(move: DestinationStatus, rate: float) -> ShownMove:
    return {
        "source": move.source,
        "root": move.root,
        "waiting": move.waiting,
        "stuck_since_ns": move.stuck_since_ns,
        "reason": move.reason,
        "troubles": move.troubles,
        "copies": list(map(_shown_copy, move.copies)),
        "rate": rate,
        "eta_s": move.waiting / rate if rate and move.waiting else None,
    }


def _shown_copy(copy: RunningCopy) -> ShownCopy:
    rate = copy.done / max(copy.seconds, 1.0)
    return {
        "source": copy.source,
        "final": copy.final,
        "done": copy.done,
        "total": copy.total,
        "rate": rate,
        "eta_s": (copy.total - copy.done) / rate if rate else None,
    }
