"""What ``health`` says of one that does not watch."""

from __future__ import annotations

from typing import Any

from watchman.journal import measures
from watchman.metrics.facts import Facts
from watchman.metrics.health import Level, judge
from watchman.status.status_file import Snapshot

NOW = 1_790_000_000_000_000_000


def test_one_that_opens_its_journal_for_long_says_for_how_long() -> None:
    """There is no word of it yet from which its silence could be counted."""
    since = NOW - 120 * 10**9
    facts = Facts(NOW, "hung", since, None, 0.0, measures.NONE, "", 0, None, None)
    assert judge(facts, "/var").reasons == (
        "watchman has begun 2 min ago and does not watch yet: its log tells what it does",
    )


def test_what_waits_since_before_the_clock_was_set_back_waits_for_as_long() -> None:
    hour = 3600 * 10**9
    snapshot: Any = dict.fromkeys(Snapshot.__required_keys__, ())
    snapshot |= {"clock_set_ns": -hour, "brokers": {}, "beat_ns": NOW, "overflows": 0}
    snapshot |= dict.fromkeys(("incomplete", "partial", "last_arrival_ns"), 0)
    found = measures.NONE._replace(oldest_ready_ns={"b": NOW + hour - 700 * 10**9})
    facts = Facts(NOW, "active", NOW, snapshot, 0.0, found, "", 0, None, None)
    judged = judge(facts, "/var")
    assert (judged.level, judged.reasons) == (
        Level.CRITICAL,
        ("tasks wait for broker b for 11 min",),
    )
    assert "oldest=700.0s" in judged.numbers
