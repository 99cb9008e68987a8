"""``scan``: what is in the watches and not known."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import click

from watchman.commands.common import as_json_option, common, echo, load, print_json_list, say
from watchman.commands.fitting import fitted, unbroken
from watchman.commands.times import FORMS, since
from watchman.text import printable

if TYPE_CHECKING:
    from watchman.checks.scanning import Unknown
    from watchman.model import Config

_CLEAR = "\r\x1b[K"
"""Takes the bar off the terminal's line; it is drawn again when there is progress."""


@click.command(
    help=(
        "Report what is in the watches and not known.\n\n"
        "The journal is only read. --send has a running daemon catch up with it, as it does by "
        "itself at its start and every hour ('rescan')."
    )
)
@common
@as_json_option
@click.option("--send", is_flag=True, help="Have the running daemon catch up now.")
@click.option(
    "--since",
    "since_ns",
    type=since,
    metavar="TIME",
    help=f"Only what came there or was changed then or later: {FORMS}.",
)
def scan(as_json: bool, send: bool, since_ns: int | None) -> None:
    from watchman.checks.scanning import unknown
    from watchman.daemon import control
    from watchman.journal.journal_reader import open_reader

    config = load()
    if send:
        if since_ns is not None:
            raise click.UsageError("--since is for the report: --send is for all that is not known")
        control.rescan(config, say)
        return
    with open_reader(config.state_dir) as journal, _progress(config) as listed:
        found = unknown(config, journal, listed)
        if since_ns is not None:
            found = (one for one in found if _is_since(one, since_ns))
        if as_json:
            print_json_list(map(dataclasses.asdict, found))
            return
        summary = _shown(found)
    say(summary)


def _is_since(one: Unknown, since_ns: int) -> bool:
    """Say whether it is that young; what cannot be told is shown, too."""
    return one.changed_ns is None or one.changed_ns >= since_ns


@contextlib.contextmanager
def _progress(config: Config) -> Iterator[Callable[[], None]]:
    """Show a bar while directories are listed, on a terminal; yield what moves it on."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from watchman.checks.trees import walk
    from watchman.router import Router

    rules = Router(config.patterns, config.moves, config.ignore, config.dry_run)
    count = sum(
        walk(watch, rules).directories for watch in config.watches if watch.processor is None
    )
    with click.progressbar(length=count, label="directories", file=sys.stderr) as bar:
        yield lambda: bar.update(1)


def _shown(found: Iterable[Unknown]) -> str:
    """Print what was found, a line for each; return a summary of it."""
    clear = _CLEAR if sys.stdout.isatty() and sys.stderr.isatty() else ""
    states: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for one in found:
        states[one.state] += 1
        if one.state != "unreadable":
            sent = "to be sent if it is what is asked" if one.asked else "to be sent"
            ends[one.note or (one.task and sent) or "moved only"] += 1
        what = one.note or one.task or "moved only"
        what += f": {one.reason}" if one.reason else ""
        what += f", if it is what is asked: {'; '.join(one.asked)}" if one.asked else ""
        line = fitted(f"{unbroken(one.path)}  ({one.state}; {printable(what)})")
        echo(f"{clear}{line}")
    # What cannot be read is no file, and its reason stands above.
    summary = f"{ends.total()} not known"
    if states:
        summary += f"; {', '.join(f'{count} {word}' for word, count in states.most_common(5))}"
    if ends:
        # Some are whole sentences, into which no number fits.
        words = (f"{count} × {printable(word)}" for word, count in ends.most_common(5))
        summary += f"; {', '.join(words)}"
    return summary


COMMANDS = (scan,)
