"""WATCHES: the directories to watch."""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from watchman.config import criteria
from watchman.config.overlap import check_overlap
from watchman.config.problems import Problems, as_path, show
from watchman.config.values import (
    MOST_SECONDS,
    imported,
    is_number,
    pattern_error,
    regex_error,
)
from watchman.model import Existing, Method, Watch, WatchKind
from watchman.text import describe, printable

log = logging.getLogger("watchman.config")

CheckProcessor = Callable[[object], "str | None"]
"""Says why something cannot process events; None if it can."""

FINISHED_DIRECTORIES = "watchman.processors.FinishedDirectories"
"""The processor that stands for ``kind='directories'``."""

EXAMPLE = "WATCHES = [{'path': '/srv/ftp', 'rec': True, 'auto_add': True}]"


def a_callable(processor: object) -> str | None:
    """Accept anything that can be called: the least that a processor must be."""
    return None if callable(processor) else "cannot be called"


def watches(
    value: Any, setting: str, base: str, check_processor: CheckProcessor, problems: Problems
) -> tuple[tuple[Watch, ...], tuple[Watch, ...]]:
    """Return a Watch for each directory, and one for each pattern (``do_glob``).

    ``base`` is what relative paths are relative to. Nobody looks whether they are there: that is
    no matter of the configuration, and may change at any time.
    """
    if not isinstance(value, (list, tuple)):
        problems.add(setting, f"{show(value)} is no list", f"write {EXAMPLE}")
        return (), ()
    if not value:
        problems.add(setting, "is empty, so nothing would be watched", f"write {EXAMPLE}")
    reader = _Reader(base, check_processor, problems)
    found: list[tuple[str, Watch]] = []
    for number, entry in enumerate(value):
        label = f"{setting}[{number}]"
        found += [(label, watch) for watch in reader.entry(entry, label)]
    given = [(label, watch) for label, watch in found if not watch.pattern]
    check_overlap(given, problems)
    globs = tuple(watch for _, watch in found if watch.pattern)
    return tuple(watch for _, watch in given), globs


class _Reader:
    """Reads the entries, and notes what is wrong with them."""

    def __init__(self, base: str, check_processor: CheckProcessor, problems: Problems) -> None:
        self.base = base
        self.check_processor = check_processor
        self.problems = problems

    def entry(self, entry: Any, label: str) -> list[Watch]:
        if isinstance(entry, Mapping):
            return self._from_mapping(entry, label)
        if isinstance(entry, (list, tuple)) and len(entry) == 3:
            path, mask, processor = entry
            return self._from_mapping({"path": path, "mask": mask, "proc_fun": processor}, label)
        self.problems.add(
            label,
            f"{show(entry)} is neither a dict nor a tuple (path, mask, processor)",
            "write {'path': …, 'rec': True, 'auto_add': True}",
        )
        return []

    def _from_mapping(self, entry: Mapping[Any, Any], label: str) -> list[Watch]:
        before = len(self.problems.problems)
        values: dict[str, Any] = {}
        for key, value in entry.items():
            if key in criteria.KEYS:
                continue
            if key not in _KEYS:
                self.problems.unknown(label, "key", key, (*_KEYS, *criteria.KEYS))
            elif key in _CHECKS:
                accept, wanted = _CHECKS[key]
                if accept(value):
                    values[key] = value
                else:
                    self.problems.add(label, f"'{key}' is {show(value)}", f"write {wanted}")
        fields = {key: _CONVERT.get(key, _same)(value) for key, value in values.items()}
        is_pattern = fields.pop("do_glob", False)
        if values.get("quiet", True) in (False, 0):
            self.problems.warn(
                label,
                "'quiet' does nothing",
                "what cannot be watched is told and tried again either way; leave it out",
            )
        fields["exclude"] = self._exclude(entry.get("exclude_filter"), label)
        fields |= self._processor(entry.get("proc_fun"), label)
        fields["criteria"] = criteria.criteria(entry, label, self.problems)
        if fields["criteria"] is not None and fields.get("kind") is WatchKind.DIRECTORIES:
            remedy = "leave it out: 'marker' and 'unfinished' tell whether a directory is finished"
            self.problems.add(label, "'complete' is about files", remedy)
        paths = self._paths(entry, label)
        if len(self.problems.problems) > before:
            return []
        found = [Watch(path=path, **fields) for path in paths]
        if is_pattern:
            return [dataclasses.replace(watch, pattern=watch.path) for watch in found]
        return found

    def _paths(self, entry: Mapping[Any, Any], label: str) -> list[str]:
        if "path" not in entry:
            self.problems.add(label, "has no 'path'", "write 'path': '/the/directory'")
            return []
        value = entry["path"]
        several = value if isinstance(value, (list, tuple)) else [value]
        paths = []
        for item in several:
            path = as_path(item, self.base)
            if path is None:
                self.problems.add(
                    label, f"'path' is {show(item)}", "write 'path': '/the/directory'"
                )
            else:
                paths.append(path)
        if not several:
            self.problems.add(label, "'path' is empty", "write 'path': '/the/directory'")
        return paths

    def _exclude(self, value: Any, label: str) -> Callable[[str], bool] | None:
        if value is None:
            return None
        if callable(value):
            return _Exclude(value, label)
        if not isinstance(value, (list, tuple)) or not all(isinstance(x, str) for x in value):
            self.problems.add(
                label,
                f"'exclude_filter' is {show(value)}",
                "write a list of regular expressions, or a function of the path",
            )
            return None
        for expression in value:
            wrong = regex_error(expression)
            if wrong:
                self.problems.add(
                    label,
                    f"'exclude_filter': {show(expression)} is no regular expression ({wrong})",
                    "correct it",
                )
                return None
        compiled = [re.compile(expression) for expression in value]
        return lambda path: any(regex.match(path) for regex in compiled)

    def _processor(self, value: Any, label: str) -> dict[str, Any]:
        """Return the fields that a processor sets."""
        if value is None:
            return {}
        if FINISHED_DIRECTORIES in (value if isinstance(value, str) else "", _dotted(value)):
            return {"kind": WatchKind.DIRECTORIES, "processor_name": FINISHED_DIRECTORIES}
        processor = value
        if isinstance(value, str):
            processor = self._import(value, label)
            if processor is None:
                return {}
        name = value if isinstance(value, str) else _dotted(processor)
        wrong = self.check_processor(processor)
        if wrong:
            self.problems.add(
                label,
                f"the processor {name} {wrong}",
                "name a subclass of pyinotify.ProcessEvent, or a function of one argument",
            )
        return {"processor": processor, "processor_name": name}

    def _import(self, name: str, label: str) -> object | None:
        found, wrong = imported(name)
        if wrong:
            self.problems.add(
                label,
                f"the processor {show(name)} cannot be imported ({wrong})",
                "write 'package.module.Class', importable from beside the configuration",
            )
        return found


class _Exclude:
    """A function of the user's own as an ``exclude_filter``: it may raise, and ends nothing by it.

    What it cannot judge is watched: rather too much than something missed.
    """

    def __init__(self, function: Callable[[str], object], label: str) -> None:
        self._function = function
        self._label = label
        self._said = False
        self.__qualname__ = str(getattr(function, "__qualname__", type(function).__qualname__))

    def __call__(self, path: str) -> bool:
        try:
            return bool(self._function(path))
        except KeyboardInterrupt:  # Ctrl-C, where a command asks
            raise
        except BaseException as error:  # noqa: BLE001 — any Python may stand there
            if not self._said:
                self._said = True
                log.warning(
                    "%s: 'exclude_filter' raised %s for %s, which is watched therefore; "
                    "correct the function",
                    self._label,
                    printable(describe(error)),
                    printable(path),
                )
            return False


def _dotted(processor: object) -> str:
    cls = processor if isinstance(processor, type) else type(processor)
    if callable(processor) and hasattr(processor, "__qualname__"):
        return f"{processor.__module__}.{processor.__qualname__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def _same(value: Any) -> Any:
    return value


def _is_switch(value: object) -> bool:
    return isinstance(value, int) and value in (0, 1)


def _is_patterns(value: object) -> bool:
    several = [value] if isinstance(value, str) else value
    return isinstance(several, (list, tuple)) and all(
        isinstance(one, str) and one and not pattern_error(one) for one in several
    )


_SWITCHES = ("rec", "auto_add", "do_glob", "quiet", "require_log")
_MOST = f"{MOST_SECONDS:.0f} at the most"
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_SWITCHES, (_is_switch, "True or False")),
    "mask": (
        lambda value: value is None or (type(value) is int and 0 < value < 1 << 32),
        "event codes such as pyinotify.IN_CLOSE_WRITE | pyinotify.IN_MOVED_TO",
    ),
    "settle": (lambda value: value is None or is_number(value), f"a number of seconds, {_MOST}"),
    "interval": (
        lambda value: is_number(value) and value > 0,
        f"a number of seconds above 0, {_MOST}",
    ),
    "rescan": (is_number, f"a number of seconds, {_MOST}, or 0 for never"),
    "existing": (lambda value: value in ("new", "all", "none"), "'new', 'all' or 'none'"),
    "method": (lambda value: value in ("auto", "inotify", "poll"), "'auto', 'inotify' or 'poll'"),
    "kind": (lambda value: value in ("files", "directories"), "'files' or 'directories'"),
    "unfinished": (_is_patterns, "a list of patterns such as ['*.tmp*']"),
    "marker": (
        lambda value: (
            value is None or (isinstance(value, str) and value != "" and "/" not in value)
        ),
        "a file name such as 'READY'",
    ),
}
_CONVERT: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(_SWITCHES, bool),
    "settle": lambda value: None if value is None else float(value),
    "interval": float,
    "rescan": float,
    "existing": Existing,
    "method": Method,
    "kind": WatchKind,
    "unfinished": lambda value: (value,) if isinstance(value, str) else tuple(value),
}
_KEYS = ("path", *_CHECKS, "exclude_filter", "proc_fun")
