"""Troubles go on where the pipeline before this one had them already."""

from __future__ import annotations

import pytest

from watchman.notify import lasting
from watchman.notify.lasting import Lasting


def test_a_trouble_that_is_found_again_goes_on() -> None:
    troubles = Lasting()
    troubles.begin()
    assert troubles.settle({"a": 5, "b": 6}) == {"a": 5, "b": 6}
    troubles.begin()
    assert troubles.settle({}) == {}  # not found yet
    assert troubles.settle({"a": 9, "c": 9}) == {"a": 5, "c": 9}
    troubles.begin()
    assert troubles.settle({"a": 12, "c": 12}) == {"a": 5, "c": 9}


def test_one_that_is_over_begins_anew() -> None:
    troubles = Lasting()
    troubles.begin()
    troubles.settle({"a": 5})
    troubles.settle({})
    assert troubles.settle({"a": 8}) == {"a": 8}


def test_one_that_is_over_soon_after_a_reload_begins_anew() -> None:
    troubles = Lasting()
    troubles.begin()
    troubles.settle({"a": 5})
    troubles.begin()
    assert troubles.settle({"a": 8}) == {"a": 5}
    troubles.settle({})
    assert troubles.settle({"a": 9}) == {"a": 9}


def test_what_is_not_found_in_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    troubles = Lasting()
    troubles.begin()
    troubles.settle({"a": 5, "b": 5})
    monkeypatch.setattr(lasting, "KEEP", -1.0)
    troubles.begin()
    assert troubles.settle({"b": 7}) == {"b": 5}
    assert troubles.settle({"a": 9, "b": 7}) == {"a": 9, "b": 5}
