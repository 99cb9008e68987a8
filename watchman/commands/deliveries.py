"""``retry``, ``discard``: what is done about deliveries that failed."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from glob import escape
from typing import TYPE_CHECKING, Any

import click

from watchman import timelimit
from watchman.commands import printing
from watchman.commands.common import (
    absolute,
    common,
    load,
    load_own,
    say,
    warn,
)
from watchman.commands.fitting import fitted
from watchman.commands.gone_patterns import GonePatterns
from watchman.commands.history import MOST
from watchman.commands.narrowing import is_narrowed, narrowing, question
from watchman.commands.operator import have_obeyed, operator
from watchman.directory_identity import identity_at
from watchman.errors import ConfigError, WatchmanError
from watchman.file_access import version_of
from watchman.identity import is_same_content
from watchman.model import Config, Delivery, Version
from watchman.mounts import MountTable
from watchman.text import counted, printable

if TYPE_CHECKING:
    from watchman.journal.failed_deliveries import Record, Selection
    from watchman.journal.question import Question

_selection = click.argument("which", nargs=-1, metavar="[SEQ|NAME|PATH]...")
_all = click.option("--all", "everything", is_flag=True, help="All that failed.")
_yes = click.option("--yes", is_flag=True, help="Do not ask.")
_SHOWN = 10
"""Deliveries of one name that are shown before it asks."""


@click.command(help="Try failed deliveries again; a running daemon begins at once.")
@common
@_selection
@_all
@narrowing
@_yes
@click.pass_context
def retry(
    ctx: click.Context, /, which: Sequence[str], everything: bool, yes: bool, **options: Any
) -> None:
    from watchman.journal.failed_deliveries import retry as put_back

    own, gone = load_own(), False
    state_dir = own.state_dir
    selection, asked = _selected(state_dir, which, everything, options)
    _confirm(state_dir, selection, "Try {} again?", asked.named, yes=yes)
    config = _configuration()
    brokers = None if config is None else config.brokers
    left = GonePatterns(config)
    is_moved = functools.partial(_is_moved, MountTable())
    with put_back(state_dir, selection, is_moved, brokers, operator()) as changes:
        have_obeyed(own)
        for record in changes.unsendable:
            warn(
                f"{record.seq} stays failed: {printable(record.reason)}, or give it up with "
                f"'notify discard {record.seq}'"
            )
            asked.meet(record)
            gone = True
        for record in changes.changed:
            say(f"{record.seq} is {record.state.name.lower()} again: {printable(record.source)}")
            asked.meet(record)
            left.meet(record)
    left.tell()
    asked.complain(ctx)
    if gone:
        ctx.exit(1)


def _configuration() -> Config | None:
    """Return the configuration; None if it cannot be read: the daemon knows its own then."""
    try:
        return load()
    except ConfigError:
        return None


@click.command(help="Give failed deliveries up; their files stay where they are.")
@common
@_selection
@_all
@narrowing
@_yes
@click.pass_context
def discard(
    ctx: click.Context, /, which: Sequence[str], everything: bool, yes: bool, **options: Any
) -> None:
    from watchman.journal.failed_deliveries import discard as give_up

    state_dir = load_own().state_dir
    selection, asked = _selected(state_dir, which, everything, options)
    _confirm(state_dir, selection, "Give {} up?", asked.named, yes=yes)
    with give_up(state_dir, selection, operator()) as changes:
        for record in changes.changed:
            say(f"{record.seq} is discarded: {printable(record.source)}")
            asked.meet(record)
        _remove_leftovers(changes.left_behind())
    asked.complain(ctx)


def _selected(
    state_dir: str, which: Sequence[str], everything: bool, options: dict[str, Any]
) -> tuple[Selection, _Asked]:
    """Return what the arguments mean: digits are a number, all else is a name or a path."""
    from watchman.journal.failed_deliveries import Selection

    if everything and which:
        raise click.UsageError("name deliveries by number or path, or all of them with --all")
    if not (which or everything or is_narrowed(options)):
        raise click.UsageError(
            "name deliveries by number, name, path or an option, or all of them with --all"
        )
    narrowed = question((), options)  # a mistake in it comes before the journal
    seqs = frozenset(int(one) for one in which if is_number(one))
    names = [one for one in which if not is_number(one)]
    paths = _paths(state_dir, names, narrowed) if names else {}
    selection = Selection(seqs, tuple(paths.values()), not which, narrowed)
    # A mere name may be that of files in several directories.
    by_name = any(paths[one] not in {absolute(one), escape(absolute(one))} for one in names)
    return selection, _Asked(which, paths, named=by_name)


def _paths(state_dir: str, names: Sequence[str], narrowed: Question) -> dict[str, str]:
    """Return by name the path or pattern that it means: the likeliest of which any has failed."""
    from watchman.journal.failed_deliveries import Selection, selected
    from watchman.journal.journal_reader import open_reader
    from watchman.journal.question import by_name

    found = {one: absolute(one) for one in names}
    unclear = [one for one in names if "[" in one or not os.path.isabs(one)]
    if not unclear:
        return found
    with open_reader(state_dir) as journal:
        for one in unclear:
            # What has brackets may be the name of a file: no other is meant then.
            meanings = dict.fromkeys((escape(found[one]), found[one]))
            meanings |= {} if os.path.isabs(one) else dict.fromkeys(by_name(one))
            have = (
                meant
                for meant in meanings
                if any(selected(journal, Selection(paths=(meant,), narrowed=narrowed)))
            )
            found[one] = next(have, found[one])
    return found


def _confirm(state_dir: str, selection: Selection, words: str, named: bool, *, yes: bool) -> None:
    """Say how many are meant, and ask, where options or a mere name choose several."""
    from watchman.journal.failed_deliveries import selected
    from watchman.journal.journal_reader import open_reader
    from watchman.journal.question import Question

    narrowed = selection.narrowed != Question()
    if not (narrowed or named):
        return
    with open_reader(state_dir) as journal:
        records = selected(journal, selection)
        first = list(itertools.islice(records, _SHOWN))
        number = len(first) + sum(1 for _ in records)
    if number > 1 or (number and narrowed):
        for record in first if named else ():
            click.echo(fitted(f"{record.seq}  {printable(record.source)}", sys.stderr), err=True)
        amount = counted(number, "failed delivery")
        printing.confirm(words.format(amount), yes=yes)


def is_number(text: str) -> bool:
    """Say whether it is the number of a delivery; longer ones than any are names of files."""
    return text.isascii() and text.isdecimal() and len(text) < len(str(MOST))


class _Asked:
    """What was asked for, and whether it has met any delivery."""

    def __init__(self, which: Sequence[str], paths: Mapping[str, str], *, named: bool) -> None:
        """``paths`` has what the words mean that are no numbers.

        ``named``: whether one of them is a name that files in several directories may have.
        """
        from watchman.journal.question import AskedPath

        self._which = which
        self._seqs = {int(one) for one in which if is_number(one)}
        self._asked_paths = {one: AskedPath(path) for one, path in paths.items()}
        self.named = named
        self._met = False

    def meet(self, record: Record) -> None:
        """Take note of a delivery that was meant."""
        self._met = True
        self._seqs.discard(record.seq)
        if self._asked_paths:
            names = os.fsencode(record.source), os.fsencode(record.final)
            for one in [o for o, path in self._asked_paths.items() if any(map(path.means, names))]:
                del self._asked_paths[one]

    def complain(self, ctx: click.Context) -> None:
        """Name what has met none; exit status 1 if there is any."""
        missing = [
            one
            for one in self._which
            if one in self._asked_paths or (is_number(one) and int(one) in self._seqs)
        ]
        for one in missing:
            warn(f"no failed delivery: {printable(one)}; 'notify failed' lists them")
        if missing:
            ctx.exit(1)
        if not self._met:
            say("nothing failed")


def _remove_leftovers(moved: Iterable[Record]) -> None:
    """Remove what attempts at discarded moves have left."""
    from watchman.mover.recovery import discard_leftovers

    tops: list[str] | None = None
    for record in moved:
        if tops is None:
            tops = _configured_directories()
        row = Delivery(*record[:5], record.arrived_ns, None, record.state, record.kind)
        try:
            discard_leftovers(row, tops)
        except OSError as error:
            warn(f"what is left of moving {printable(record.source)} stays: {error.strerror}")


def _configured_directories() -> list[str]:
    """Return the directories that may be reached through symlinks; none if there is a mistake."""
    try:
        config = load()
    except WatchmanError:
        return []
    return [
        *(watch.top for watch in config.watches),
        *(path for entry in config.moves for path in entry),
    ]


def _is_moved(table: MountTable, record: Record) -> bool:
    """Say whether the file is at its final path, and not at its source any more.

    Nothing but the mover makes anything there, and it never overwrites. Where a file system does
    not answer, the mover finds out when it does.
    """

    def look() -> bool:
        return timelimit.within(record.final, lambda: _is_at_its_end(record), table=table)

    try:
        return timelimit.within(record.source, look, table=table)
    except TimeoutError:
        return False


def _known_as(record: Record) -> Version | None:
    """Return what is at a source, as the journal would know it. Raises OSError."""
    if record.kind == "directories":
        return identity_at(record.source)
    return version_of(os.lstat(record.source))


def _is_at_its_end(record: Record) -> bool:
    with contextlib.suppress(OSError):
        there = _known_as(record)
        if there is not None and is_same_content(record.version, there):
            return False
    try:
        version = version_of(os.lstat(record.final))
    except OSError:
        return False
    if record.kind == "directories":
        return True
    return version[2:4] == record.version[2:4]


COMMANDS = (retry, discard)
