"""What ``complete`` and TRANSFER_LOGS need, tried: processes that read files, logs with sense."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from watchman import timelimit
from watchman.checks.result import Check
from watchman.model import Config, Criteria, TransferLog
from watchman.text import moment, span

_READ = 1 << 16
"""Bytes at the end of a log that are looked at."""
_LINES = 200
_OLD = 86_400.0
"""Seconds after which a log that nobody writes into is worth a word."""
_NOBODY = 65534


class _Tail(NamedTuple):
    """The end of a log."""

    lines: Sequence[bytes]
    written: float
    """When it was last written, in s since the epoch."""


def check_completeness(config: Config) -> Iterator[Check]:
    """Yield what is found; nothing where the configuration asks for neither."""
    if config.has_criteria:
        yield _check_readers(config)
    for log in config.transfer_logs:
        yield _check_log(log)


def _check_readers(config: Config) -> Check:
    from watchman.verdicts.trial import try_out

    watches = (*config.watches, *config.globs)
    every: list[Criteria | None] = [*config.criteria, *(watch.criteria for watch in watches)]
    each = [one.kind for criteria in every if criteria is not None for one in criteria.each]
    if set(each) <= {"marker"}:
        what = "only other files" if any(one and one.members for one in every) else "only markers"
        return Check("complete", True, f"{what} are asked for: no file has to be read")
    found = try_out(config.path if "callable" in each else "")
    if found.trouble:
        remedy = "allow this user more processes and memory; until then files wait"
        return Check("complete", False, found.trouble, remedy)
    user = "nobody" if found.user == _NOBODY else f"{found.user}"
    how = f"files are read by processes of user {user}, without network and powers"
    if found.is_filtered:
        return Check("complete", True, f"{how}, confined by seccomp")
    if found.is_filtered is None:
        how = "files can be read; how the processes are confined cannot be told"
        return Check("complete", True, how)
    remedy = "run on x86_64 or aarch64 with seccomp allowed, if strangers upload"
    how = f"files are read by processes of user {user}; seccomp does not confine them here"
    return Check("complete", True, how, remedy)


def _check_log(log: TransferLog) -> Check:
    subject = f"transfer log {log.path}"
    try:
        tail = timelimit.within(log.path, lambda: _tail(log.path))
    except FileNotFoundError:
        remedy = "have the server write it, or correct TRANSFER_LOGS; it is read as soon as it is"
        return Check(subject, False, "does not exist", f"{remedy} there")
    except OSError as error:
        remedy = "give this user read permission, or correct TRANSFER_LOGS"
        return Check(subject, False, f"cannot be read: {error.strerror}", remedy)
    if not tail.lines:
        return Check(subject, True, f"no line in it yet{_age(tail)}")
    return _judged(subject, log, tail)


def _judged(subject: str, log: TransferLog, tail: _Tail) -> Check:
    from watchman.pipeline.log_reader import parser_of
    from watchman.transfer_logs.mapping import Prefixes

    parse, prefixes = parser_of(log), Prefixes(log.prefixes)
    strange = uploads = unmapped = 0
    for raw in tail.lines:
        try:
            line = parse(raw)
        except ValueError:
            strange += 1
            continue
        if line is not None:
            uploads += 1
            unmapped += prefixes.path(line) is None
    last = "the last line" if len(tail.lines) == 1 else f"the last {len(tail.lines)} lines"
    remedy = "correct 'format' (or 'log_format') in TRANSFER_LOGS"
    if strange == len(tail.lines):
        return Check(subject, False, f"not of the format {log.format}: {last}", remedy)
    if uploads and unmapped == uploads:
        what = f"'prefixes' leads nowhere with the paths of all uploads in {last}"
        remedy = "write 'prefixes': {'/': '/the/directory'} for a server in a chroot"
        return Check(subject, False, what, remedy)
    if strange:
        what = f"{strange} of {last} are not of the format {log.format}{_age(tail)}"
        return Check(subject, True, what, f"{remedy} if they should be")
    old = time.time() - tail.written > _OLD
    advice = "see that the server still writes there, if it has uploads" if old else ""
    what = f"{last} understood as {log.format}, uploads: {uploads}{_age(tail)}"
    return Check(subject, True, what, advice)


def _age(tail: _Tail) -> str:
    age = max(0.0, time.time() - tail.written)
    return f"; last written {moment(int(tail.written * 1e9))} ({span(age)} ago)"


def _tail(path: str) -> _Tail:
    """Read the last whole lines of a log. Raises OSError."""
    # Without waiting for whoever would write into a FIFO.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        start = max(0, status.st_size - _READ)
        lines = os.pread(descriptor, _READ, start).split(b"\n")
    finally:
        os.close(descriptor)
    # The last is not whole yet, and the first is the end of one, unless it is the log's first.
    whole = lines[1 if start else 0 : -1]
    return _Tail(whole[-_LINES:], status.st_mtime)
