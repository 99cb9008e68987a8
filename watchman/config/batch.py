"""``batch``, of PATTERNS entries: which files one task announces together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from watchman.config.problems import Problems, show
from watchman.config.values import is_number
from watchman.model import LONGEST_BATCH, MOST_BATCHED, Batch

KEY = "batch"
_LEAST_SECONDS = 0.1
_EXAMPLE = "'batch': {'size': 100, 'seconds': 5}"
_KEYS = ("size", "seconds", "by")


def batch(given: Mapping[Any, Any], label: str, problems: Problems) -> Batch | None:
    """Return which files of an entry are announced together; None where each has its own task."""
    value = given.get(KEY)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        problems.add(label, f"'batch' is {show(value)}", f"write {_EXAMPLE}")
        return None
    label_ = f"{label}: 'batch'"
    for key in value:
        if key not in _KEYS:
            problems.unknown(label_, "key", key, _KEYS)
    size, by = value.get("size"), value.get("by")
    seconds: Any = value.get("seconds")
    if not (type(size) is int and 1 <= size <= MOST_BATCHED):
        problems.add(label_, f"'size' is {show(size)}", f"write 1 to {MOST_BATCHED} files")
        size = 1
    if not is_number(seconds, _LEAST_SECONDS, LONGEST_BATCH):
        remedy = f"write {_LEAST_SECONDS:g} to {LONGEST_BATCH:g} seconds"
        problems.add(label_, f"'seconds' is {show(seconds)}", remedy)
        seconds = 1.0
    if by not in (None, "directory"):
        problems.add(label_, f"'by' is {show(by)}", "write 'directory', or leave it out")
    _check_others(given, label, problems)
    return Batch(size, float(seconds), by is not None)


def _check_others(given: Mapping[Any, Any], label: str, problems: Problems) -> None:
    if given.get("with") is not None:
        problems.add(
            label,
            "'batch' and 'with' exclude each other",
            "leave one of them out: a task is about a batch of files, or about one set",
        )
    kwargs = given.get("kwargs")
    if isinstance(kwargs, Mapping) and "files" in kwargs:
        problems.add(
            label,
            "'files' in 'kwargs' is where the task gets the files of its batch",
            "give yours another name",
        )
