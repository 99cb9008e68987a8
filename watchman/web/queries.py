"""The question in a query string, and the query string for a question."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote_from_bytes

import click

from watchman.commands import narrowing, times
from watchman.journal.question import LARGEST, Question, by_name
from watchman.text import normal_path, printable

STATES = ("moving", "ready", "sent", "failed", "vanished", "discarded", "moved")
_LONGEST = 8192
"""What the longest path takes, and more."""
_NUMBER = re.compile(r"#?([0-9]{1,18})")
_WILD = re.compile(r"[*?\[]")


class BadQuestion(ValueError):  # noqa: N818 — a state, not a mistake of ours
    """What is asked for cannot be understood; the words are for who has asked."""


@dataclass(frozen=True)
class WebQuery:
    """What was asked for, as it was written. Stray bytes are lone surrogates, as in paths."""

    q: str = ""
    """A name, a path, a pattern, a task id or a number; empty for all."""
    state: str = ""
    broker: str = ""
    task: str = ""
    reason: str = ""
    """A part of it."""
    since: str = ""
    until: str = ""
    before: str = ""
    """Only deliveries with a smaller number: where a page begins."""

    def query(self, **changes: str) -> str:
        """Return the query string of this, with changes; empty for nothing."""
        wanted = replace(self, **changes)
        pairs = ((name, getattr(wanted, name)) for name in self.__dataclass_fields__)
        words = [f"{name}={quote_from_bytes(os.fsencode(text))}" for name, text in pairs if text]
        return f"?{'&'.join(words)}" if words else ""

    @property
    def narrowed(self) -> bool:
        """Whether anything is asked for at all."""
        return bool(self.query(before=""))

    @property
    def number(self) -> int | None:
        """The number of a delivery, if it can be one."""
        found = _NUMBER.fullmatch(self.q)
        return int(found[1]) if found else None

    def question(self) -> Question:
        """Return what is asked for besides the name. Raises BadQuestion."""
        if self.state and self.state not in STATES:
            raise BadQuestion(f"{self.state!a} is no state; these are: {', '.join(STATES)}")
        if self.before and not (self.before.isascii() and self.before.isdecimal()):
            raise BadQuestion(f"{self.before!a} is no number of a delivery")
        given = {
            "since_ns": _time(self.since, times.since),
            "until_ns": _time(self.until, times.until),
            "state": self.state or None,
            "broker": self.broker or None,
            "task": self.task or None,
            "task_id": narrowing.task_id_of(self.q) or None,
            "reason": self.reason or None,
        }
        try:
            question = narrowing.question((), given)
        except click.UsageError as error:
            raise BadQuestion(error.message) from None
        # Longer ones are beyond every number, and Python understands none of thousands of digits.
        shown = self.before if len(self.before) <= len(str(LARGEST)) else ""
        return replace(question, up_to=min(int(shown) - 1, LARGEST) if shown else LARGEST)

    def ways(self) -> list[tuple[str, ...]]:
        """Return what the name may mean, as paths of a question; the next if one finds nothing."""
        if not self.q or narrowing.task_id_of(self.q):
            return [()]
        if self.q.startswith("/"):
            return [(normal_path(self.q),)]
        name = self.q.strip("/")
        if _WILD.search(name):
            return [*((path,) for path in by_name(name)), (name,)]
        return [(f"*/{name}",), (f"*{name}*",)]


def parse(query: bytes) -> WebQuery:
    """Return what a query string asks for; what it says besides is passed over.

    Raises BadQuestion.
    """
    if len(query) > _LONGEST:
        raise BadQuestion("the question is longer than any path")
    try:
        text = query.decode("ascii", "surrogateescape")
        pairs = parse_qsl(text, errors="surrogateescape", max_num_fields=50)
    except ValueError:
        raise BadQuestion("too many things are asked for at once") from None
    known = WebQuery.__dataclass_fields__
    found = {name: value.strip() for name, value in pairs if name in known}
    for name, value in found.items():
        if "\0" in value:
            raise BadQuestion(f"{name}: no path and no name has the character NUL in it")
    return WebQuery(**found)


def _time(text: str, understand: Callable[[str], int]) -> int | None:
    if not text:
        return None
    try:
        return understand(text)
    except click.BadParameter as error:
        raise BadQuestion(printable(error.message)) from None
