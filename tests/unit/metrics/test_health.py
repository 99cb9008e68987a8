"""What ``health`` says of one that does not watch."""

from __future__ import annotations

from watchman.journal import measures
from watchman.metrics.facts import Facts
from watchman.metrics.health import judge

NOW = 1_790_000_000_000_000_000


def test_one_that_opens_its_journal_for_long_says_for_how_long() -> None:
    """There is no word of it yet from which its silence could be counted."""
    since = NOW - 120 * 10**9
    facts = Facts(NOW, "hung", since, None, 0.0, measures.NONE, "", 0, None, None)
    assert judge(facts, "/var").reasons == (
        "watchman has begun 2 min ago and does not watch yet: its log tells what it does",
    )
