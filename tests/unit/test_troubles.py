"""A trouble is said once, lasts, also where the pipeline is another one, and is over once."""

from __future__ import annotations

import time

import pytest

from watchman import troubles as module
from watchman.troubles import Lasting, Troubles


def test_a_trouble_that_is_found_again_goes_on() -> None:
    troubles = Lasting()
    troubles.start()
    assert troubles.settle({"a": 5, "b": 6}) == {"a": 5, "b": 6}
    troubles.start()
    assert troubles.settle({}) == {}  # not found yet
    assert troubles.settle({"a": 9, "c": 9}) == {"a": 5, "c": 9}
    troubles.start()
    assert troubles.settle({"a": 12, "c": 12}) == {"a": 5, "c": 9}


def test_one_that_is_over_begins_anew() -> None:
    troubles = Lasting()
    troubles.start()
    troubles.settle({"a": 5})
    troubles.settle({})
    assert troubles.settle({"a": 8}) == {"a": 8}


def test_one_that_is_over_soon_after_a_reload_begins_anew() -> None:
    troubles = Lasting()
    troubles.start()
    troubles.settle({"a": 5})
    troubles.start()
    assert troubles.settle({"a": 8}) == {"a": 5}
    troubles.settle({})
    assert troubles.settle({"a": 9}) == {"a": 9}


@pytest.mark.parametrize("hours", [-1, 2])
def test_how_long_it_has_lasted_is_right_after_the_clock_was_set(
    monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    true, set_by = time.time_ns, hours * 3600 * 10**9
    troubles, before = Lasting(), true() - 60 * 10**9
    troubles.start()
    troubles.settle({"a": before})
    monkeypatch.setattr(time, "time_ns", lambda: true() + set_by)
    now = time.time_ns()
    found = troubles.settle({"a": before, "b": now})
    assert round((now - found["a"]) / 1e9) == 60
    assert abs(now - found["b"]) < 10**9
    troubles.start()
    assert troubles.settle({"a": now}) == {"a": found["a"]}
    # One that began just before that and was not told yet.
    assert troubles.settle({"c": now + 10**12})["c"] <= time.time_ns()


def test_what_is_not_found_in_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    troubles = Lasting()
    troubles.start()
    troubles.settle({"a": 5, "b": 5})
    monkeypatch.setattr(module, "KEEP", -1.0)
    troubles.start()
    assert troubles.settle({"b": 7}) == {"b": 5}
    assert troubles.settle({"a": 9, "b": 7}) == {"a": 9, "b": 5}


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_trouble_is_said_once_and_shown_as_it_is_now(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    assert troubles.begin("a\n", "first\n")
    [begun] = troubles.all()
    assert not troubles.begin("a\n", "second")
    assert troubles.all() == [("a\n", "second", begun.since_ns, "")]
    assert troubles.changes == 1
    troubles.end("a\n", line="%s is well")
    troubles.end("a\n", line="%s is well")
    assert troubles.all() == []
    assert troubles.changes == 2
    assert messages(caplog) == [r"a\x0a: first\x0a", r"a\x0a is well"]


def test_one_subject_may_have_a_trouble_of_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    troubles.begin("a", "away")
    troubles.begin("a", "no answer", "hangs")
    assert troubles.of_kind("hangs") == {"a"}
    troubles.end("a")
    assert ("a", "hangs") in troubles
    assert [trouble.message for trouble in troubles.all()] == ["no answer"]
    assert messages(caplog) == ["a: away", "a: no answer"]


def test_the_log_may_say_something_else_or_nothing(caplog: pytest.LogCaptureFixture) -> None:
    troubles = Troubles()
    troubles.begin("a", "shown", said="logged", line="Not %s: %s")
    troubles.begin("b", "shown", said="")
    troubles.end("b")
    assert messages(caplog) == ["Not a: logged"]
