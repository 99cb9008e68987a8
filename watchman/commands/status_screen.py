"""What ``notify status`` shows: asked of the daemon, counted in the journal, fit to a terminal."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from watchman import daemon, status
from watchman.commands.common import say, warn
from watchman.errors import JournalError
from watchman.journal.held import HoldCounts
from watchman.journal.journal_reader import open_reader
from watchman.journal.tallies import Summary
from watchman.model import Config
from watchman.status.asking import ask
from watchman.status.lines import Style, as_text
from watchman.status.overview import HeldTasks, Now, Status, as_json, compose

NARROW, WIDE = 80, 120
"""Columns that are used at least and at the most."""
_HOME, _END_OF_LINE, _END_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_CUT, _WRAP = "\x1b[?7l", "\x1b[?7h"
"""What becomes of a line that is too long: it would take rows that nobody has counted."""
_FASTEST = 0.2
"""Seconds between two screens at the least."""


class Screen(NamedTuple):
    """How it stands at a moment."""

    status: Status
    now_ns: int
    readable: bool
    """Whether the journal could be read."""

    @property
    def exit_status(self) -> int:
        """0 if all is well, 1 if it is not active, 2 if it is and has troubles."""
        if not (self.status.active and self.readable):
            return 1
        return 0 if self.status.well else 2

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return as_json(self.status, self.now_ns)

    def as_text(self) -> str:
        """Return it as lines for standard output: a terminal, or a pipe."""
        return as_text(self.status, self.now_ns, _style())


def look(config: Config) -> Screen:
    """Find out how it stands now. Raises WatchmanError where this user may not know."""
    summary, held, trouble = Summary({}, {}, (0, 0)), list[HoldCounts](), ""
    try:
        # Before the snapshot: that must not tell of a copy which is over by the journal's word.
        with open_reader(config.state_dir) as journal:
            summary, held = journal.summary(), journal.holds()
    except JournalError as error:
        # Whether it runs and watches can be said all the same; where not, that is said alone.
        trouble = str(error)
    found, now_ns = of_now(config, summary, held)
    if trouble:
        warn(trouble)
    return Screen(dataclasses.replace(found, counted=not trouble), now_ns, not trouble)


def of_now(config: Config, summary: Summary, held: Sequence[HoldCounts]) -> tuple[Status, int]:
    """Ask the daemon; return how it stands, with what the journal counts, and when, in ns.

    Raises WatchmanError where this user may not know.
    """
    found = daemon.running(config)
    process = None if found is None else (found.pid, found.since_ns)
    answer = ask(config)
    run_ns = status.run_of(config.state_dir)
    now = Now(time.time_ns(), time.monotonic_ns(), run_ns, answer.live)
    counts, discarded, latest = summary
    composed = compose(
        process,
        answer.snapshot,
        counts,
        latest,
        now,
        discarded=discarded,
        held=list(map(_held, held)),
    )
    return composed, now.ns


def _held(one: HoldCounts) -> HeldTasks:
    brokers = {part.broker: part.number for part in one.held}
    kind, name, since_ns, by = one.hold[1:]
    return HeldTasks(
        kind.value, name, since_ns, by, one.number, one.oldest_ns, brokers, one.or_more
    )


def keep_showing(config: Config, every: float) -> None:
    """Show it every so many seconds, until Ctrl-C, or until nobody reads it any more."""
    terminal = sys.stdout.isatty()
    try:
        if terminal:
            click.clear()
        while True:
            text = look(config).as_text()
            if terminal:
                _redraw(f"{text}\n\n{time.strftime('%H:%M:%S')}, every {every:g} s; Ctrl-C ends it")
            else:
                say(f"{text}\n")
            time.sleep(max(every, _FASTEST))
    except KeyboardInterrupt:
        say("")


def _redraw(text: str) -> None:
    """Write over the last screen, without a moment in which it is empty."""
    lines = text.splitlines()
    height = shutil.get_terminal_size().lines - 1
    if len(lines) > height:
        left = len(lines) - height + 1
        lines = [*lines[: height - 1], f"and {left} more lines: 'notify status'"]
    body = "".join(f"{line}{_END_OF_LINE}\n" for line in lines)
    # As it is: click would take the codes out where NO_COLOR is set, and these are no colours.
    sys.stdout.write(f"{_HOME}{_CUT}{body}{_WRAP}{_END_OF_SCREEN}")
    sys.stdout.flush()


def _style() -> Style:
    """Return what standard output takes: a pipe gets whole lines, and no colours."""
    if not sys.stdout.isatty():
        return Style()
    columns = shutil.get_terminal_size().columns
    color = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return Style(min(max(columns, NARROW), WIDE), color)
