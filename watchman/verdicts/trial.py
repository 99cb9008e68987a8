"""Whether files can be read here, and how the processes that do it are confined: tried out."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

from watchman.troubles import Troubles
from watchman.verdicts.pool import Pool, log
from watchman.verdicts.verdict import CriterionCheck, FileVerdict, Kind

TIMEOUT = 15.0
"""Seconds in which a process has to be started and to answer."""
_FILTERED = "2"
"""SECCOMP_MODE_FILTER, in proc(5)."""


class Trial(NamedTuple):
    """What came of it."""

    trouble: str
    """Why no file can be read; empty if it can."""
    user: int = -1
    """The user id of the processes; -1 where it cannot be told, as below."""
    is_filtered: bool | None = None
    """Whether the kernel refuses them the calls that they do not need (seccomp)."""


def try_out(config_path: str = "", timeout: float = TIMEOUT) -> Trial:
    """Start the processes as the daemon would, and have them read an empty file.

    ``config_path`` is as in :class:`Pool`.
    """
    answers: list[FileVerdict] = []
    came = threading.Event()

    def answered(verdict: FileVerdict) -> None:
        answers.append(verdict)
        came.set()

    troubles = Troubles()
    pool = Pool(troubles, config_path)
    try:
        with _in_silence():
            pool.start()
            nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            pool.ask(os.devnull, [CriterionCheck("format", "gzip")], [nothing], 0, answered)
            pool.flush()
            came.wait(timeout)
            found = [_confinement(pid) for pid in pool.processes]
            pool.stop()
    except OSError as error:
        return Trial(f"no process can be started: {error.strerror}")
    if not answers:
        for trouble in troubles.all():
            return Trial(trouble.message)
        why = f": {pool.error}" if pool.error is not None else f" within {timeout:g} s"
        return Trial(f"no process answers{why}")
    if answers[0].kind is Kind.UNKNOWN:
        return Trial(f"a process cannot read: {answers[0].reason}")
    # Others than the one that has answered may not be that far yet.
    told = [one for one in found if one is not None]
    return Trial("", *max(told, key=lambda one: one[1])) if told else Trial("")


@contextlib.contextmanager
def _in_silence() -> Iterator[None]:
    """Keep what the pool logs from the terminal: the answer tells it."""

    def drop(_: logging.LogRecord) -> bool:
        return False

    log.addFilter(drop)
    try:
        yield
    finally:
        log.removeFilter(drop)


def _confinement(pid: int) -> tuple[int, bool] | None:
    """Return a process's user id, and whether its calls are filtered; None if it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        return int(fields["Uid"].split()[1]), fields["Seccomp"].strip() == _FILTERED
    except (OSError, KeyError, ValueError):
        return None
