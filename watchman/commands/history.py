"""``history`` and ``failed``: what became of files, and what waits for an operator."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from watchman.commands import printing
from watchman.commands.common import absolute, as_json_option, common, load_own, say, warn
from watchman.commands.fitting import columns
from watchman.commands.narrowing import is_narrowed, narrowing, question, state_option
from watchman.identity import is_same_content
from watchman.model import Noted
from watchman.text import iso, moment, printable

if TYPE_CHECKING:
    from watchman.journal.failed_deliveries import FailedGroup, Record
    from watchman.journal.journal_reader import JournalReader
    from watchman.journal.partial import PartialFile
    from watchman.journal.question import Question

MOST = (1 << 63) - 1
"""SQLite's largest integer."""
SHOWN = 100
"""How many deliveries are shown unless another number is asked for."""
_COUNTING = 0.1
"""Seconds for which those are counted that are not shown."""

WHY_NOTED = {
    Noted.UNKNOWN: "it was there before the first run, or nothing asked for it",
    Noted.UNASKED: "no pattern matched it",
    Noted.BEFORE: "it was there before the first run, and 'existing' leaves that out",
    Noted.DRY_RUN: "DRY_RUN matched it",
    Noted.COMPANION: "it only tells of the file that it stands beside",
    Noted.MEMBER: "it goes with another file, and their set was not whole in time",
}
_AGES = ((600, "10 min"), (3600, "1 h"), (86_400, "1 d"), (604_800, "1 w"), (None, "older"))
"""Seconds that a column of ``failed --summary`` goes up to, and what stands above it."""

_limit = click.option(
    "--limit",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help=f"How many at the most; default: {SHOWN}.",
)
_all = click.option("--all", "everything", is_flag=True, help="Every one.")


def _most(limit: int | None, everything: bool) -> int | None:
    """Return how many are shown; None for all. Raises UsageError."""
    if everything and limit is not None:
        raise click.UsageError("--all and --limit exclude one another")
    return None if everything else min(limit or SHOWN, MOST)


@click.command(
    short_help="Say what became of files.",
    help=(
        "Say what became of files: PATH is a file (before or after its move), directory or pattern."
        "\n\nA name that nothing here has is looked for in all directories. What the options "
        "say has to hold as well; times are those of the arrival."
    ),
)
@common
@as_json_option
@_limit
@_all
@state_option
@narrowing
@printing.paged
@click.argument("paths", nargs=-1, type=click.Path())
@click.pass_context
def history(
    ctx: click.Context,
    /,
    paths: Sequence[str],
    limit: int | None,
    everything: bool,
    as_json: bool,
    no_pager: bool,
    **asked: Any,
) -> None:
    from watchman.journal.journal_reader import open_reader

    most = _most(limit, everything)
    narrowed = is_narrowed(asked)
    kind = " of the kind" if narrowed else ""
    with open_reader(load_own().state_dir) as journal:
        look = _HistoryLookup(journal, asked)
        look.at(paths, tell_noted=not narrowed)
        records = look.records(most, count=not (as_json and limit is not None))
        first = list(itertools.islice(records, 1))
        if as_json:
            noted = (
                {"state": "noted", "source": path, "reason": WHY_NOTED[why]}
                for path, why in look.noted.items()
            )
            waiting = map(_partial_json, look.partial)
            shown = printing.each_as_json(journal, itertools.chain(first, records))
            printing.show_json(itertools.chain(shown, noted, waiting))
        else:
            texts = map(printing.as_text, itertools.chain(first, records))
            known = itertools.chain(_noted(look), map(_partial_text, look.partial))
            printing.show(itertools.chain(known, texts), no_pager=no_pager)
            if not (first or paths or look.unreadable):
                say(f"nothing{kind} is recorded")
    if look.left_out is not None:
        printing.say_left_out(*look.left_out)
    for path in look.missing:
        warn(f"nothing{kind} is recorded of {printable(path)}")
    for line in look.unreadable:
        warn(printable(line))
    if look.missing or look.unreadable:
        ctx.exit(1)


def _noted(look: _HistoryLookup) -> Iterable[str]:
    return (
        f"{printable(path)}\n    no task was sent for what is there: {WHY_NOTED[why]}"
        for path, why in look.noted.items()
    )


def _partial_text(one: PartialFile) -> str:
    since = moment(one.since_ns)
    return f"{printable(one.path)}\n    waits since {since}: {printable(one.reason)}"


def _partial_json(one: PartialFile) -> dict[str, Any]:
    return {
        "state": "partial",
        "source": one.path,
        "reason": one.reason,
        "since": iso(one.since_ns),
    }


class _HistoryLookup:
    """What the history has to say."""

    def __init__(self, journal: JournalReader, asked: dict[str, Any]) -> None:
        self._journal = journal
        self._asked = asked
        self._found: list[str] | None = None
        """The paths of which there is something; None where none were named."""
        self.noted: dict[str, Noted] = {}
        """The paths that are only known, and why."""
        self.partial: list[PartialFile] = []
        """Files that were named and wait for what their criteria ask."""
        self.missing: list[str] = []
        self.unreadable: dict[str, None] = {}
        """A line for each part of the history that cannot be read."""
        self.left_out: tuple[int, int, bool] | None = None
        """How many are shown, how many more there are, and whether that is all of them."""

    def at(self, paths: Sequence[str], *, tell_noted: bool) -> None:
        """Look at each of the paths; all is meant where there are none."""
        if not paths:
            return
        from watchman.journal.question import by_name

        self._found = []
        for path in paths:
            some = self._has(absolute(path))
            if not some and not os.path.isabs(path):
                # Of a file that was moved, its user knows the name.
                some = any(map(self._has, by_name(path)))
            why = self._journal.noted(absolute(path)) if tell_noted and not some else None
            waiting = self._waiting(absolute(path)) if tell_noted else None
            if waiting is not None:
                self.partial.append(waiting)
            elif why is not None:
                self.noted[absolute(path)] = why
            elif not some:
                self.missing.append(path)

    def _waiting(self, path: str) -> PartialFile | None:
        found = self._journal.partial(path)
        known = self._journal.known_version(*os.path.split(path))
        if found is None or (known is not None and is_same_content(found.version, known)):
            return None  # it is recorded by now
        return found

    def _has(self, path: str) -> bool:
        from watchman.journal.answers import ask

        assert self._found is not None
        matches = ask(self._journal, question((path,), self._asked), 1)
        self.unreadable |= dict.fromkeys(matches.unreadable)
        if matches.records:
            self._found.append(path)
        return bool(matches.records)

    def records(self, most: int | None, *, count: bool) -> Iterable[Record]:
        """Yield what was found, the newest first; ``count`` what is left out."""
        from watchman.journal import answers

        if self._found == []:
            return
        meant: Question = question(tuple(self._found or ()), self._asked)
        if most is None:
            yield from answers.each(self._journal, meant, self.unreadable)
            return
        total = self._journal.count(meant) if count else None
        seconds = _COUNTING if count and total is None else 0.0
        found = answers.ask(self._journal, meant, most, seconds)
        self.unreadable |= dict.fromkeys(found.unreadable)
        if len(found.records) == most and count:
            counted = found.left_out, found.counted and not found.unreadable
            left_out, exact = counted if total is None else (max(0, total - most), True)
            self.left_out = most, left_out, exact
        yield from found.records


@click.command(
    short_help="List what failed and waits for 'retry' or 'discard'.",
    help="List the deliveries that failed and wait for 'retry' or 'discard'; all of them as JSON.",
)
@common
@as_json_option
@_limit
@_all
@narrowing
@click.option("--summary", is_flag=True, help="Count them by reason, task, broker and age.")
@printing.paged
def failed(
    limit: int | None,
    everything: bool,
    as_json: bool,
    summary: bool,
    no_pager: bool,
    **asked: Any,
) -> None:
    from watchman.journal import failed_deliveries
    from watchman.journal.journal_reader import open_reader

    most = _most(limit, everything or (as_json and limit is None))
    meant = question((), asked)
    nothing = f"nothing{' of the kind' if is_narrowed(asked) else ''} failed"
    with open_reader(load_own().state_dir) as journal:
        if summary:
            groups = failed_deliveries.failed_groups(journal, meant, _limits(time.time_ns()))
            _show_groups(groups, as_json, nothing=nothing)
            return
        records = itertools.islice(failed_deliveries.failed(journal, meant), most)
        first = list(itertools.islice(records, 1))
        every = itertools.chain(first, records)
        if as_json:
            printing.show_json(printing.each_as_json(journal, every))
        elif first:
            printing.show(map(printing.as_text, every), no_pager=no_pager)
        else:
            say(nothing)
        if most is not None and not (as_json and limit is not None):
            count = failed_deliveries.count_failed(journal, meant)
            printing.say_left_out(most, max(0, count - most))


def _limits(now_ns: int) -> list[int]:
    """Return the times from which on a failed delivery is of each age but the last one."""
    return [now_ns - seconds * 10**9 for seconds, _ in _AGES if seconds is not None]


def _show_groups(groups: Sequence[FailedGroup], as_json: bool, *, nothing: str) -> None:
    if as_json:
        names = ["up_to_10_min", "up_to_1_h", "up_to_1_d", "up_to_1_w", "older"]
        printing.show_json(
            {
                "broker": group.broker,
                "task": group.task,
                "reason": group.reason,
                "count": sum(group.ages),
                **dict(zip(names, group.ages, strict=True)),
            }
            for group in groups
        )
        return
    if not groups:
        say(nothing)
        return
    total = [sum(column) for column in zip(*(group.ages for group in groups), strict=True)]
    say(_row(("total", *(title for _, title in _AGES)), "time since arrival"))
    say(_row((sum(total), *total), "all that failed"))
    for group in groups:
        task = f"{printable(group.task or '')} on {printable(group.broker or 'none')}"
        say(_row((sum(group.ages), *group.ages), task if group.task else "only moved"))
        below = _COLUMN if columns() else 6 * _COLUMN + 2
        say(f"{'':{below}}{printable(group.reason)}")


_COLUMN = 8
"""Letters of a number, at least, and before words that stand below their row in a terminal."""


def _row(cells: Iterable[object], words: str) -> str:
    """Return numbers and words, those below where both are too long for the terminal."""
    row, width = "".join(f" {cell:>{_COLUMN - 1}}" for cell in cells), columns()
    line = f"{row}  {words}"
    return line if width is None or len(line) <= width else f"{row}\n{'':{_COLUMN}}{words}"


COMMANDS = (history, failed)
