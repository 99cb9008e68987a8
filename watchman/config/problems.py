"""Collecting what is wrong with a configuration, in words a person can act on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from watchman.text import describe, normal_path, printable

_LONGEST = 200
_SECRET = ("BROKERS", "celeryconfig.py")
PLAIN_REMEDY = "write plain dicts, lists, strings and numbers"


class Problems:
    """The problems and warnings found so far, in the order in which they were found."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def guard(self, setting: str, remedy: str = PLAIN_REMEDY) -> _Guard:
        """Turn whatever a value's own code raises within the block into a problem."""
        return _Guard(self, setting, remedy)

    def add(self, setting: str, wrong: str, remedy: str) -> None:
        """Note a problem: which setting, what is wrong with it, what to write instead.

        The remedy may be empty where ``wrong`` ends with one.
        """
        self.problems.append(one_line(f"{setting}: {wrong}" + (f"; {remedy}" if remedy else "")))

    def warn(self, setting: str, what: str, remedy: str) -> None:
        """Note something that is accepted, but will not do what its author may expect."""
        self.warnings.append(one_line(f"{setting}: {what}; {remedy}"))

    def unknown(self, setting: str, what: str, name: object, known: Iterable[str]) -> None:
        """Note a name that is none of the known ones, with the closest of them."""
        known = list(known)
        close = closest(name, known)
        remedy = f"write '{close}'" if close else f"write one of {names(known)}"
        if not known:
            remedy = "there is none of that kind: define it, or remove its name"
        self.add(setting, f"unknown {what} {show(name)}", remedy)


class _Guard:
    """A ``with`` block out of which nothing is raised.

    Not by contextlib: a generator cannot be trusted with StopIteration and GeneratorExit.
    """

    def __init__(self, problems: Problems, setting: str, remedy: str) -> None:
        self._problems = problems
        self._setting = setting
        self._remedy = remedy

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is not None:
            # Of settings that hold passwords no value is ever shown, nor what is said about it.
            secret = self._setting in _SECRET
            told = type(error).__name__ if secret else describe(error)
            wrong = f"cannot be used ({told})"
            self._problems.add(self._setting, wrong, self._remedy)
        return True


def one_line(text: str) -> str:
    """Return ``text`` with all white space, line ends included, as single spaces."""
    return printable(" ".join(text.split()))


def closest(name: object, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """Return the known name that is most like ``name``, whatever the case of its letters."""
    import difflib  # for a mistake only

    folded = {item.casefold(): item for item in known}
    found = difflib.get_close_matches(str(name).casefold(), folded, 1, cutoff)
    return folded[found[0]] if found else None


def names(items: Iterable[str]) -> str:
    """Return the names, quoted, for a message."""
    return ", ".join(f"'{item}'" for item in items)


def show(value: object) -> str:
    """Return a short ``repr`` for a message."""
    try:
        text = repr(value)
    except BaseException:  # noqa: BLE001 — a __repr__ of the user's own may raise anything
        text = f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def kind(value: object) -> str:
    """Say what kind of value it is without showing it: it may hold credentials."""
    return "None" if value is None else f"of type {type(value).__name__}"


def as_path(value: object, base: str) -> str | None:
    """Return a str or path object as an absolute, normalised path; None for anything else."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    try:
        os.fsencode(value)  # a lone surrogate that stands for no byte names no file
    except UnicodeEncodeError:
        return None
    return normal_path(os.path.join(base, value))


def pairs(value: object) -> list[tuple[Any, Any]] | None:
    """Return a mapping, or a list of pairs, as a list of pairs; None if it is neither.

    An element that is no pair comes as ``(element, NOT_A_PAIR)``.
    """
    if isinstance(value, Mapping):
        return list(value.items())
    if not isinstance(value, (list, tuple)):
        return None
    return [
        (item[0], item[1])
        if isinstance(item, (list, tuple)) and len(item) == 2
        else (item, NOT_A_PAIR)
        for item in value
    ]


NOT_A_PAIR = object()
"""Stands for the second half of something that is no pair."""
