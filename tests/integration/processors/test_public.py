"""Processors: what can be one, and those that come with watchman."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

import pyinotify
import pytest

from watchman import processors, signals


class Plain(pyinotify.ProcessEvent):
    pass


class Demanding(pyinotify.ProcessEvent):
    def my_init(self, out: str) -> None:
        self.out = out


class Broken(pyinotify.ProcessEvent):
    def my_init(self) -> None:
        raise OSError("no database")


class Leaving(pyinotify.ProcessEvent):
    def my_init(self) -> None:
        raise SystemExit("no database")


def event(mask: int, name: str = "a", path: str = "/data") -> Any:
    isdir = bool(mask & pyinotify.IN_ISDIR)
    return pyinotify.Event({"wd": 1, "mask": mask, "path": path, "name": name, "dir": isdir})


def a_function(event: object, more: int = 0) -> None:
    """As pyinotify's ``proc_fun``."""


class _Callable:
    def __call__(self, event: object) -> None:
        """Take an event."""

    def method(self, event: object) -> None:
        """Take one, too."""


@pytest.mark.parametrize(
    "good",
    [
        Plain,
        Plain(),
        Demanding(out="x"),
        processors.AllEventsSignaler,
        a_function,
        lambda event: None,
        functools.partial(a_function, more=1),
        _Callable(),
        _Callable().method,
        print,
    ],
)
def test_what_can_be_a_processor(good: object) -> None:
    assert processors.check(good) is None


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (os.getcwd, "cannot be called with an event and nothing else (too many"),
        (lambda: None, "cannot be called with an event and nothing else (too many"),
        (lambda event, more: None, "cannot be called with an event and nothing else (missing"),
        (_Callable, "is neither a subclass of pyinotify.ProcessEvent nor a function"),
        (dict, "is neither a subclass of pyinotify.ProcessEvent nor a function"),
        (3, "is neither a subclass of pyinotify.ProcessEvent nor a function"),
        (Demanding, "cannot be made without arguments (TypeError: "),
        (Broken, "cannot be made without arguments (OSError: no database)"),
        (Leaving, "cannot be made without arguments (SystemExit: no database)"),
    ],
)
def test_what_cannot(bad: object, reason: str) -> None:
    assert (processors.check(bad) or "").startswith(reason)


def test_a_subclass_of_finished_directories_goes_by_the_extension() -> None:
    finished: list[str] = []

    class Own(processors.FinishedDirectories):
        def finished(self, path: str) -> None:
            finished.append(path)

    class Other(Own):
        unfinished = ("*.tmp*",)

    for processor in (Own(), Other()):
        for name in ("a.tmp1", "study.tmpl.final"):
            processor(event(pyinotify.IN_CREATE | pyinotify.IN_ISDIR, name))
    assert finished == ["/data/study.tmpl.final"]


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for group in ("OP_FLAGS", "EVENT_FLAGS")
        for name in pyinotify.EventsCodes.FLAG_COLLECTIONS[group]
    ),
)
def test_every_event_has_its_signal(name: str) -> None:
    processor = processors.AllEventsSignaler()
    seen: list[tuple[Any, Any]] = []

    def receive(sender: Any, event: Any) -> None:
        seen.append((sender, event))

    signal = getattr(signals, name.lower())
    happened = event(getattr(pyinotify, name))
    with signal.connected_to(receive):
        processor(happened)
    assert seen == [(processor, happened)]


def test_a_subclass_hears_of_finished_directories(caplog: pytest.LogCaptureFixture) -> None:
    paths: list[str] = []

    class Mine(processors.FinishedDirectories):
        def finished(self, path: str) -> None:
            paths.append(path)

    mine, directory = Mine(), pyinotify.IN_ISDIR
    with caplog.at_level(logging.INFO):
        mine(event(pyinotify.IN_CREATE | directory, "a.tmp1"))
        mine(event(pyinotify.IN_MOVED_TO | directory, "a"))
        mine(event(pyinotify.IN_CREATE, "file"))
        mine(event(pyinotify.IN_DELETE | directory, "a"))
    assert paths == ["/data/a"]
    assert caplog.messages == [
        "1|CREATE EVENT: /data/a.tmp1",
        "2|NOTFINISHED: /data/a.tmp1",
        "1|MOVEDTO EVENT: /data/a",
        "2|FINISHED: /data/a",
    ]
