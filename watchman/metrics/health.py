"""Whether all is well: the one judgement behind ``notify health`` and ``/healthz``.

CRITICAL is what keeps files from being noticed, or has kept them waiting for too long. WARNING is
what an operator should look at while files go their way.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from typing import NamedTuple

from watchman.errors import WatchmanError
from watchman.metrics.facts import Facts, of_now
from watchman.model import Config, State
from watchman.status import Snapshot
from watchman.text import ago, printable, span

MAX_AGE = 600.0
"""Seconds for which a delivery may wait, or a broker be down, unless something else is said."""
SILENT = 30.0
"""Seconds without a sign of work: one comes every ten, or is late by as much."""
LEAST_FREE = 1 << 20
"""Bytes without which the journal takes nothing more."""


class Level(enum.IntEnum):
    """The exit statuses of a Nagios plugin."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


class Health(NamedTuple):
    """The judgement."""

    level: Level
    reasons: tuple[str, ...]
    """The worst first, one line each; empty where all is well."""
    numbers: str
    """How much waits and failed, in the form of Nagios's performance data."""

    @property
    def serving(self) -> bool:
        """Whether events come, and nothing has waited for too long."""
        return self.level in {Level.OK, Level.WARNING}

    @property
    def line(self) -> str:
        """All of it in one line."""
        # What follows a bar would be read as numbers.
        told = "; ".join(self.reasons).replace("|", "/") or "watchman is active"
        return printable(f"{self.level.name}: {told}{self.numbers and f' | {self.numbers}'}")


def health(config: Config, *, max_age: float = MAX_AGE, max_failed: int | None = None) -> Health:
    """Judge the watchman of a configuration, of which only ``state_dir`` is needed.

    ``max_age`` is in seconds; with ``max_failed`` None any number may have failed. What cannot be
    found out is a judgement too: nothing is raised for that.
    """
    try:
        facts = of_now(config)
    except WatchmanError as error:
        return Health(Level.UNKNOWN, (str(error),), "")
    return judge(facts, config.state_dir, max_age=max_age, max_failed=max_failed)


def judge(
    facts: Facts, state_dir: str, *, max_age: float = MAX_AGE, max_failed: int | None = None
) -> Health:
    """Judge what is so at the moment; see :func:`health`."""
    journal = os.path.join(state_dir, "journal.db")
    critical = list(_not_watching(facts))
    warnings: list[str] = []
    if facts.free_bytes is not None and facts.free_bytes < LEAST_FREE:
        critical.append(f"less than 1 MB is free in {state_dir}")
    if facts.snapshot is not None:
        watched = {watch["path"] for watch in facts.snapshot["watches"]}
        for trouble in facts.snapshot["troubles"]:
            bad = trouble["subject"] in watched or trouble["subject"] == journal
            told = f"{trouble['subject']}: {trouble['message']}"
            (critical if bad else warnings).append(told)
        critical += _down_for_long(facts, facts.snapshot, max_age)
    critical += _waiting_for_long(facts, max_age)
    failed = _number(facts, State.FAILED)
    if max_failed is not None and failed > max_failed:
        has = "delivery has" if failed == 1 else "deliveries have"
        warnings.append(f"{failed} {has} failed: 'notify failed' tells why")
    if critical:
        level = Level.CRITICAL
    elif facts.journal_trouble:
        level = Level.UNKNOWN
        critical.append(facts.journal_trouble)
    else:
        level = Level.WARNING if warnings else Level.OK
    return Health(level, (*critical, *warnings), _numbers(facts, max_age, max_failed))


def _not_watching(facts: Facts) -> Iterator[str]:
    """Yield why events do not come through."""
    if facts.state == "inactive":
        yield "watchman is not running"
    elif facts.state == "hung" and facts.snapshot is None:
        begun = ago(facts.now_ns - (facts.since_ns or 0))
        yield f"watchman has begun {begun} and does not watch yet: its log tells what it does"
    elif facts.silent_s > SILENT or facts.state == "hung":
        yield f"watchman has given no sign of work for {span(facts.silent_s)}"
    elif facts.state == "starting":
        yield "watchman is starting"
    elif facts.state == "waiting":
        yield "nothing that it is to watch is there"


def _down_for_long(facts: Facts, found: Snapshot, max_age: float) -> Iterator[str]:
    """Yield what has had trouble for longer than deliveries may wait."""
    for name, broker in found["brokers"].items():
        age = facts.age(broker["since_ns"])
        if broker["trouble"] and age > max_age:
            yield f"broker {name} takes no tasks for {span(age)}: {broker['trouble']}"
    for move in found["moves"]:
        age = facts.age(move["stuck_since_ns"] or facts.now_ns)
        if age > max_age:
            where = f"from {move['source']} to {move['root']}"
            yield f"nothing is moved {where} for {span(age)}: {move['reason']}"


def _waiting_for_long(facts: Facts, max_age: float) -> Iterator[str]:
    for broker, since_ns in facts.measures.oldest_ready_ns.items():
        age = facts.age(since_ns)
        if age > max_age:
            yield f"tasks wait for broker {broker} for {span(age)}"
    for (source, root), since_ns in facts.measures.oldest_moving_ns.items():
        age = facts.age(since_ns)
        if age > max_age:
            what = f"from {source} to {root}" if source else "of an older configuration"
            yield f"files wait for their move {what} for {span(age)}"


def _number(facts: Facts, state: State) -> int:
    return sum(n for (_, found), n in facts.measures.counts.items() if found is state)


def _numbers(facts: Facts, max_age: float, max_failed: int | None) -> str:
    if facts.journal_trouble:
        return ""
    waiting = _number(facts, State.MOVING) + _number(facts, State.READY)
    since = [*facts.measures.oldest_ready_ns.values(), *facts.measures.oldest_moving_ns.values()]
    oldest = max(map(facts.age, since), default=0.0)
    limit = "" if max_failed is None else f";{max_failed}"
    failed = _number(facts, State.FAILED)
    return f"waiting={waiting} oldest={oldest:.1f}s;;{max_age:g} failed={failed}{limit}"
