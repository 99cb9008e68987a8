"""Signals: who receives what, and that a failing receiver harms nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pyinotify
import pytest
from blinker import Signal

from watchman import signals
from watchman.model import Delivery, Route, State, Version

DELIVERY = Delivery(
    1, "id", "/in/a", "/out/a", Version(1, 2, 3, 4), 5, Route("lizard", "task"), State.READY
)


@pytest.fixture
def received() -> Iterator[list[tuple[Any, dict[str, Any]]]]:
    """All that our own signals send."""
    calls: list[tuple[Any, dict[str, Any]]] = []

    def receive(sender: Any, **values: Any) -> None:
        calls.append((sender, values))

    for signal in (signals.arrived, signals.moved, signals.sent, signals.failed):
        signal.connect(receive)
    yield calls
    for signal in (signals.arrived, signals.moved, signals.sent, signals.failed):
        signal.disconnect(receive)


def test_one_signal_for_each_kernel_event() -> None:
    flags = pyinotify.EventsCodes.FLAG_COLLECTIONS
    names = {name.lower() for group in ("OP_FLAGS", "EVENT_FLAGS") for name in flags[group]}
    assert len(names) == 15
    found = {n for n, value in vars(signals).items() if isinstance(value, Signal)}
    assert found == names | {"arrived", "moved", "sent", "failed"}


def test_arrived_tells_the_path_before_the_move(
    received: list[tuple[Any, dict[str, Any]]],
) -> None:
    signals.announce(signals.arrived, [DELIVERY])
    assert received == [("lizard", {"path": "/in/a", "delivery": DELIVERY})]


@pytest.mark.parametrize("name", ["moved", "sent", "failed"])
def test_the_others_tell_the_final_path(
    received: list[tuple[Any, dict[str, Any]]], name: str
) -> None:
    signals.announce(getattr(signals, name), [DELIVERY, DELIVERY._replace(route=None)])
    assert [(sender, values["path"]) for sender, values in received] == [
        ("lizard", "/out/a"),
        ("", "/out/a"),
    ]


def test_a_receiver_may_ask_for_one_broker() -> None:
    seen: list[str] = []

    @signals.sent.connect_via("3di")
    def receive(sender: str, **_: Any) -> None:
        seen.append(sender)

    try:
        other = DELIVERY._replace(route=Route("3di", "task"))
        signals.announce(signals.sent, [DELIVERY, other])
    finally:
        signals.sent.disconnect(receive)
    assert seen == ["3di"]


def test_a_failing_receiver_is_logged_and_harms_nothing(
    caplog: pytest.LogCaptureFixture, received: list[tuple[Any, dict[str, Any]]]
) -> None:
    def fail(sender: Any, **_: Any) -> None:
        raise ValueError("no\nway")

    signals.sent.connect(fail)
    try:
        with caplog.at_level(logging.INFO):
            signals.announce(signals.sent, [DELIVERY])
    finally:
        signals.sent.disconnect(fail)
    assert len(received) == 1
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is None or record.exc_info is False  # type: ignore[comparison-overlap]  # — as logging leaves it
    assert record.getMessage().endswith("ValueError: no\\x0away")


class _Wordless(BaseException):
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        (SystemExit(1), "SystemExit: 1"),
        (asyncio.CancelledError(), "CancelledError"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (_Wordless(), "_Wordless"),
    ],
)
def test_what_is_no_exception_ends_no_thread(
    caplog: pytest.LogCaptureFixture,
    received: list[tuple[Any, dict[str, Any]]],
    raised: BaseException,
    words: str,
) -> None:
    def fail(sender: Any, **_: Any) -> None:
        raise raised

    signals.moved.connect(fail)
    try:
        with caplog.at_level(logging.INFO):
            signals.announce(signals.moved, [DELIVERY, DELIVERY])
    finally:
        signals.moved.disconnect(fail)
    assert len(received) == 2
    line = f"A receiver of the signal 'a file or directory is at its final path' failed: {words}"
    assert [record.getMessage() for record in caplog.records] == [line, line]


def test_a_processor_may_send_as_django_does() -> None:
    seen: list[tuple[Any, Any]] = []

    def receive(sender: Any, event: Any) -> None:
        seen.append((sender, event))

    class Processor(pyinotify.ProcessEvent):
        def process_IN_ACCESS(self, event: Any) -> None:  # noqa: N802 — pyinotify's name
            signals.in_access.send(sender=self, event=event)

    processor, event = Processor(), object()
    signals.in_access.connect(receive)
    try:
        processor.process_IN_ACCESS(event)
        signals.in_access.send(processor, event=event)
        signals.in_access.send(event=event)
    finally:
        signals.in_access.disconnect(receive)
    assert seen == [(processor, event), (processor, event), (None, event)]


def test_a_muted_signal_is_silent(received: list[tuple[Any, dict[str, Any]]]) -> None:
    with signals.sent.muted():
        signals.announce(signals.sent, [DELIVERY])
    assert received == []
