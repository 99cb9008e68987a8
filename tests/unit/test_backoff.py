"""One growing delay for all who try again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from watchman.backoff import Backoff


def test_it_doubles_up_to_the_longest_and_begins_anew_after_a_success() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff.reset()
    assert backoff.delay == 0.0
    assert backoff.next() == 0.5


@given(st.floats(0.0, 1.0), st.integers(1, 20))
def test_jitter_leaves_out_a_share_at_most(jitter: float, failures: int) -> None:
    backoff = Backoff(0.25, 60.0, jitter=jitter)
    for _ in range(failures):
        pause = backoff.next()
        assert backoff.delay * (1.0 - jitter) <= pause <= backoff.delay
    assert backoff.delay == min(0.25 * 2 ** (failures - 1), 60.0)
