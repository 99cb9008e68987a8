"""Values of a configuration that can be looked at without running anybody's code.

A configuration is Python, so any value may be any object: its comparisons, its truth and its
iteration may raise, or say another thing each time. So the containers, texts and numbers of a
setting are copied once into Python's own types, and everything after that works on the copy.
Numbers are bounded by what poll(2), SQL and inotify take.
"""

from __future__ import annotations

import fnmatch
import importlib
import re
from collections.abc import Mapping
from typing import Any

from watchman.text import describe

DEEPEST = 50
"""Containers within each other, at the most; deeper ones mostly contain themselves."""
MOST_SECONDS = 2_000_000.0
"""23 days: poll(2) takes 2³¹ ms, and no duration here makes sense when it is longer."""
MOST_DAYS = 36_500.0
"""A hundred years: the journal's times are ns in 64 bits with a sign."""


class TooDeepError(ValueError):
    """A container that holds itself, or is nested beyond :data:`DEEPEST`."""

    def __init__(self) -> None:
        super().__init__("it contains itself, or is nested too deeply")


def plain(value: Any, depth: int = 0) -> Any:
    """Return a copy of dict, list, tuple, set, str, int, float, whatever their subclass is.

    Other objects come back as they are. Raises TooDeepError, and whatever the value's own code
    raises.
    """
    if depth > DEEPEST:
        raise TooDeepError
    kind = type(value)
    if value is None or kind is bool:
        return value
    # By the type, not isinstance(): an object may lie about its __class__.
    if issubclass(kind, str):
        return str.__str__(value)
    if issubclass(kind, int):
        return int.__index__(value)
    if issubclass(kind, float):
        return float.__float__(value)
    if issubclass(kind, Mapping):
        return {plain(key, depth + 1): plain(item, depth + 1) for key, item in value.items()}
    for container in (list, tuple, set, frozenset):
        if issubclass(kind, container):
            return container(plain(item, depth + 1) for item in value)
    return value


def is_number(value: object, least: float = 0.0, most: float = MOST_SECONDS) -> bool:
    """Say whether it is an int or float within the bounds; True, False and nan are none."""
    return type(value) in (int, float) and least <= value <= most  # type: ignore[operator]  # — its type has been looked at


def is_text(value: object) -> bool:
    """Say whether it is a string that can be written as UTF-8, and not empty."""
    return isinstance(value, str) and value != "" and encodes(value)


def imported(name: str) -> tuple[object | None, str]:
    """Return what a dotted path names, or None and why it cannot be had."""
    module, _, attribute = name.replace(":", ".").rpartition(".")
    if not module:
        return None, "no module is named"
    try:
        found: object | None = getattr(importlib.import_module(module), attribute, None)
    except BaseException as error:  # noqa: BLE001 — importing runs the user's own code
        return None, describe(error)
    return found, "" if found is not None else f"module {module} has no '{attribute}'"


def import_error(name: str) -> str:
    """Say why what a dotted path names cannot be imported; empty if it can."""
    return imported(name)[1]


def regex_error(text: str) -> str:
    """Say why it is no regular expression; empty if it is one."""
    try:
        re.compile(text)
    except Exception as error:  # noqa: BLE001 — re.error, OverflowError, RecursionError …
        return str(error)
    return ""


def pattern_error(text: str) -> str:
    """Say why fnmatch cannot use the pattern; empty if it can."""
    return regex_error(fnmatch.translate(text))


def encodes(text: str) -> bool:
    """Say whether UTF-8 can hold the text: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
