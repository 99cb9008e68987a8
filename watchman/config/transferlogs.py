"""TRANSFER_LOGS: logs in which servers tell who uploaded what."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from watchman.config.problems import Problems, as_path, show
from watchman.config.values import is_number
from watchman.model import TransferLog, Watch, WatchKind
from watchman.transfer_logs import extended, line_formats

EXAMPLE = "TRANSFER_LOGS = [{'path': '/var/log/proftpd/xferlog', 'format': 'xferlog'}]"
FORMATS = (*line_formats.NAMES, "extended")
WAIT, LONGEST_WAIT = 0.05, 60.0
_KEYS = ("path", "format", "log_format", "prefixes", "utc", "wait")


def transfer_logs(value: Any, base: str, problems: Problems) -> tuple[TransferLog, ...]:
    """Return the entries. Nobody looks whether the logs are there: that may change at any time."""
    if not isinstance(value, (list, tuple)):
        problems.add("TRANSFER_LOGS", f"{show(value)} is no list", f"write {EXAMPLE}")
        return ()
    found: dict[str, TransferLog] = {}
    for number, entry in enumerate(value):
        label = f"TRANSFER_LOGS[{number}]"
        if not isinstance(entry, Mapping):
            problems.add(label, f"{show(entry)} is no dict", f"write {EXAMPLE}")
            continue
        made = _entry(entry, label, base, problems)
        if made is not None and made.path in found:
            problems.add(label, f"{made.path} is there twice", "remove one of the two")
        elif made is not None:
            found[made.path] = made
    return tuple(found.values())


def check_required(
    watched: Sequence[Watch], logs: Sequence[TransferLog], problems: Problems
) -> None:
    """Note watches that ask for a log's word where no log can give it."""
    for watch in watched:
        if not watch.require_log:
            continue
        label = f"WATCHES: {watch.path}"
        if watch.kind is not WatchKind.FILES or watch.processor is not None:
            problems.add(label, "'require_log' is about files", "leave it out")
        elif not logs:
            problems.add(label, "'require_log' needs a log", f"write {EXAMPLE}, say")


def _entry(
    entry: Mapping[Any, Any], label: str, base: str, problems: Problems
) -> TransferLog | None:
    before = len(problems.problems)
    for key in entry:
        if key not in _KEYS:
            problems.unknown(label, "key", key, _KEYS)
    path = as_path(entry.get("path"), base)
    if path is None:
        problems.add(label, f"'path' is {show(entry.get('path'))}", "write 'path': '/the/log'")
    form = entry.get("format", "xferlog")
    if form not in FORMATS:
        problems.add(label, f"'format' is {show(form)}", f"write one of {', '.join(FORMATS)}")
    log_format = _log_format(entry, label, problems)
    prefixes = _prefixes(entry.get("prefixes", {}), label, problems)
    utc, wait = entry.get("utc", False), entry.get("wait", WAIT)
    if utc not in (True, False):
        problems.add(label, f"'utc' is {show(utc)}", "write True or False")
    if not is_number(wait, most=LONGEST_WAIT) or wait < 0:
        remedy = f"write a number of seconds, {LONGEST_WAIT:.0f} at the most"
        problems.add(label, f"'wait' is {show(wait)}", remedy)
    if path is None or len(problems.problems) > before:
        return None
    return TransferLog(path, form, log_format, prefixes, bool(utc), float(wait))


def _log_format(entry: Mapping[Any, Any], label: str, problems: Problems) -> str:
    """Return the LogFormat of an extended log, which other logs have none of."""
    log_format = entry.get("log_format")
    example = "'log_format': '%h %u %{iso8601} %m %s %b %T %f', as in proftpd.conf"
    if entry.get("format", "xferlog") != "extended":
        if log_format is not None:
            problems.add(
                label, "'log_format' is for 'format': 'extended' alone", "remove one, or change one"
            )
    elif not isinstance(log_format, str):
        problems.add(label, f"'log_format' is {show(log_format)}", f"write {example}")
    elif wrong := extended.wrong_with(log_format):
        problems.add(label, f"'log_format' {wrong}", "change it, and the server's LogFormat")
    else:
        return log_format
    return ""


def _prefixes(value: Any, label: str, problems: Problems) -> Mapping[str, str]:
    example = "write 'prefixes': {'/': '/srv/ftp/{user}'}"
    if not isinstance(value, Mapping):
        problems.add(label, f"'prefixes' is {show(value)}", example)
        return {}
    for given, real in value.items():
        if not (_is_absolute(given) and _is_absolute(real)):
            wrong = f"'prefixes' has {show(given)}: {show(real)}, and not two absolute paths"
            problems.add(label, wrong, example)
    return value


def _is_absolute(path: Any) -> bool:
    return isinstance(path, str) and os.path.isabs(path) and "\0" not in path
