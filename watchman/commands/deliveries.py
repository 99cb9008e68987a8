"""``history``, ``failed``, ``retry``, ``discard``, ``scan``: what became of files, and the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from watchman import timelimit
from watchman.commands.common import (
    absolute,
    as_json_option,
    common,
    load,
    load_own,
    print_json,
    say,
    warn,
)
from watchman.commands.narrowing import narrowing, question
from watchman.errors import ConfigError, WatchmanError
from watchman.filesystem import version_of
from watchman.identity import is_same_content
from watchman.model import Delivery, Noted
from watchman.text import iso, moment, printable

if TYPE_CHECKING:
    from watchman.journal.history import Record, Selection
    from watchman.journal.reading import Reading

MOST = (1 << 63) - 1
"""SQLite's largest integer."""
SHOWN = 100
"""How many deliveries are shown unless another number is asked for."""

_selection = click.argument("which", nargs=-1, metavar="[SEQ|PATH]...")
_all = click.option("--all", "everything", is_flag=True, help="All that failed.")


_limit = click.option(
    "--limit",
    type=click.IntRange(min=1, max=MOST),
    metavar="NUMBER",
    help=f"How many at the most; default: {SHOWN}.",
)


_WHY = {
    Noted.UNKNOWN: "it was there before the first run, or nothing asked for it",
    Noted.UNASKED: "no pattern matched it",
    Noted.BEFORE: "it was there before the first run, and 'existing' leaves that out",
    Noted.DRY_RUN: "DRY_RUN matched it",
}


@click.command(
    help=(
        "Say what became of files: PATH is a file (before or after its move), directory or pattern."
        "\n\nA name that nothing here has is looked for in all directories. What the options "
        "say has to hold as well; times are those of the arrival."
    )
)
@common
@as_json_option
@_limit
@narrowing
@click.argument("paths", nargs=-1, type=click.Path())
@click.pass_context
def history(
    ctx: click.Context, /, paths: Sequence[str], limit: int | None, as_json: bool, **asked: Any
) -> None:
    from watchman.journal.reading import reading

    most = limit or SHOWN
    narrowed = any(value is not None for value in asked.values())
    kind = " of the kind" if narrowed else ""
    with reading(load_own().state_dir) as journal:
        look = _Look(journal, asked, min(most + 1, MOST))
        if paths:
            look.at(paths, tell_noted=not narrowed)
        else:
            look.everywhere()
    records = _cut(look.newest(), most, told=limit is not None)
    nothing = "" if paths or look.unreadable else f"nothing{kind} is recorded"
    _show(records, as_json, nothing=nothing, noted=look.noted)
    for path in look.missing:
        warn(f"nothing{kind} is recorded of {printable(path)}")
    for line in look.unreadable:
        warn(printable(line))
    if look.missing or look.unreadable:
        ctx.exit(1)


class _Look:
    """What the history has to say."""

    def __init__(self, journal: Reading, asked: dict[str, Any], limit: int) -> None:
        self._journal = journal
        self._asked = asked
        self._limit = limit
        self._found: dict[int, Record] = {}
        self.noted: dict[str, Noted] = {}
        """The paths that are only known, and why."""
        self.missing: list[str] = []
        self.unreadable: dict[str, None] = {}
        """A line for each part of the history that cannot be read."""

    def newest(self) -> list[Record]:
        """Return the newest of what was found."""
        return sorted(self._found.values(), key=lambda record: -record.seq)[: self._limit]

    def everywhere(self) -> None:
        """Look for all that is asked for."""
        self._find()

    def at(self, paths: Sequence[str], *, tell_noted: bool) -> None:
        """Look at each of the paths."""
        for path in paths:
            some = self._find(absolute(path))
            if not some and not os.path.isabs(path):
                # Of a file that was moved, its user knows the name.
                some = self._find(f"*/{path}")
            why = self._journal.noted(absolute(path)) if tell_noted and not some else None
            if why is not None:
                self.noted[absolute(path)] = why
            elif not some:
                self.missing.append(path)

    def _find(self, *paths: str) -> bool:
        from watchman.journal.answers import ask

        records, unreadable = ask(self._journal, question(paths, self._asked), self._limit)
        self._found |= {record.seq: record for record in records}
        self.unreadable |= dict.fromkeys(unreadable)
        return bool(records)


@click.command(
    help="List the deliveries that failed and wait for 'retry' or 'discard'; all of them as JSON."
)
@common
@as_json_option
@_limit
def failed(limit: int | None, as_json: bool) -> None:
    from watchman.journal.history import failed as find
    from watchman.journal.reading import reading

    most = limit or (MOST if as_json else SHOWN)
    with reading(load_own().state_dir) as journal:
        records = find(journal, min(most + 1, MOST))
    records = _cut(records, most, told=limit is not None)
    _show(records, as_json, nothing="nothing failed")


@click.command(help="Try failed deliveries again; a running daemon begins within seconds.")
@common
@_selection
@_all
@click.pass_context
def retry(ctx: click.Context, which: Sequence[str], everything: bool) -> None:
    from watchman.journal.history import retry as put_back

    own = load_own()
    selection, gone = _sendable(own.state_dir, _selected(which, everything))
    records = put_back(own.state_dir, selection, _is_moved)
    for record in gone:
        warn(
            f"{record.seq} stays failed: there is no broker {record.broker!r} in BROKERS; define "
            f"it again, or give it up with 'notify discard {record.seq}'"
        )
    for record in records:
        say(f"{record.seq} is {record.state.name.lower()} again: {printable(record.source)}")
    _complain(ctx, which, [*records, *gone])
    if gone:
        ctx.exit(1)


def _sendable(state_dir: str, selection: Selection) -> tuple[Selection, list[Record]]:
    """Return of the failed deliveries that are meant those with a broker, and the others.

    Where the configuration cannot be read now, the daemon knows which brokers there are.
    """
    from watchman.journal.history import Selection as Chosen
    from watchman.journal.history import failed as find
    from watchman.journal.reading import reading

    try:
        brokers = load().brokers
    except ConfigError:
        return selection, []
    with reading(state_dir) as journal:
        meant = [record for record in find(journal) if selection.picks(record)]
    gone = [one for one in meant if one.broker is not None and one.broker not in brokers]
    rest = frozenset(one.seq for one in meant) - {one.seq for one in gone}
    return Chosen(rest) if gone else selection, gone


@click.command(help="Give failed deliveries up; their files stay where they are.")
@common
@_selection
@_all
@click.pass_context
def discard(ctx: click.Context, which: Sequence[str], everything: bool) -> None:
    from watchman.journal.history import discard as give_up

    selection = _selected(which, everything)
    state_dir = load_own().state_dir
    records = give_up(state_dir, selection, _operator())
    for record in records:
        say(f"{record.seq} is discarded: {printable(record.source)}")
    _remove_leftovers(state_dir, records)
    _complain(ctx, which, records)


@click.command(help="Report what is in the watches and not known; --send has it sent.")
@common
@as_json_option
@click.option("--send", is_flag=True, help="Have the running daemon catch up now.")
def scan(as_json: bool, send: bool) -> None:
    from watchman import daemon
    from watchman.checks.scanning import unknown
    from watchman.journal.reading import reading

    config = load()
    if send:
        daemon.rescan(config, say)
        return
    with reading(config.state_dir) as journal:
        found = unknown(config, journal)
        if as_json:
            print_json([dataclasses.asdict(item) for item in found])
            return
        count = 0
        for item in found:
            count += 1
            what = item.note or item.task or "moved only"
            say(f"{printable(item.path)}  ({item.state}; {printable(what)})")
    say(f"{count} not known")


def _selected(which: Sequence[str], everything: bool) -> Selection:
    """Return what the arguments mean: digits are a number, all else is a path."""
    from watchman.journal.history import Selection

    if bool(which) == everything:
        raise click.UsageError("name deliveries by number or path, or all of them with --all")
    return Selection(
        frozenset(int(one) for one in which if _is_number(one)),
        tuple(absolute(one) for one in which if not _is_number(one)),
        everything,
    )


def _is_number(text: str) -> bool:
    """Say whether it is the number of a delivery; longer ones than any are names of files."""
    return text.isascii() and text.isdecimal() and len(text) < len(str(MOST))


def _complain(ctx: click.Context, which: Sequence[str], records: Sequence[Record]) -> None:
    """Name what was asked for and is not among the failed; exit status 1 if there is any."""
    missing = [
        one
        for one in which
        if not any(_selected([one], everything=False).picks(record) for record in records)
    ]
    for one in missing:
        warn(f"no failed delivery: {printable(one)}; 'notify failed' lists them")
    if missing:
        ctx.exit(1)
    if not records:
        say("nothing failed")


def _remove_leftovers(state_dir: str, records: Sequence[Record]) -> None:
    """Remove what attempts at discarded moves have left; nothing that is under way again."""
    from watchman.journal.history import moving
    from watchman.journal.reading import reading
    from watchman.mover.leftovers import discard_leftovers

    moved = [record for record in records if record.final != record.source]
    if not moved:
        return
    with reading(state_dir) as journal:
        busy = moving(journal, [record.task_id for record in moved])
    tops = _configured_directories()
    for record in moved:
        if record.task_id in busy:
            continue
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
        *(watch.path for watch in config.watches),
        *(path for entry in config.moves for path in entry),
    ]


def _is_moved(record: Record) -> bool:
    """Say whether the file is at its final path, and not at its source any more.

    Nothing but the mover makes anything there, and it never overwrites. Where a file system does
    not answer, the mover finds out when it does.
    """
    try:
        return timelimit.within(
            record.source, lambda: timelimit.within(record.final, lambda: _is_at_its_end(record))
        )
    except TimeoutError:
        return False


def _is_at_its_end(record: Record) -> bool:
    with contextlib.suppress(OSError):
        if is_same_content(record.version, version_of(os.lstat(record.source))):
            return False
    try:
        version = version_of(os.lstat(record.final))
    except OSError:
        return False
    if record.kind == "directories":
        return True
    return version[2:4] == record.version[2:4]


def _operator() -> str:
    """Return who runs this command."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"user {uid}"
    by = os.environ.get("SUDO_USER")
    return f"{name} (sudo by {printable(by)})" if by else name


def _cut(records: list[Record], most: int, *, told: bool) -> list[Record]:
    """Return ``most`` records; say that there are more, unless the user has ``told`` how many."""
    if len(records) > most and not told:
        warn(f"there are more than these {most}; --limit shows as many as you like")
    return records[:most]


def _show(
    records: Sequence[Record],
    as_json: bool,
    *,
    nothing: str,
    noted: Mapping[str, Noted] = MappingProxyType({}),
) -> None:
    if as_json:
        found: list[dict[str, Any]] = [_as_json(record) for record in records]
        found += [
            {"state": "noted", "source": path, "reason": _WHY[why]} for path, why in noted.items()
        ]
        print_json(found)
        return
    for path, why in noted.items():
        say(printable(path))
        say(f"    no task was sent for what is there: {_WHY[why]}")
    if not records and nothing:
        say(nothing)
    for record in records:
        for line in _as_text(record):
            say(line)


def _as_text(record: Record) -> list[str]:
    lines = [
        f"{record.seq}  {moment(record.arrived_ns)}  {printable(record.source)}",
        f"    {record.word} {moment(record.noted_ns)}",
    ]
    if record.reason:
        lines[1] += f": {printable(record.reason)}"
    if record.final != record.source:
        lines.append(f"    to {printable(record.final)}")
    if record.task is not None:
        task, broker = printable(record.task), printable(record.broker or "none")
        lines.append(f"    task {task} {printable(record.task_id)} on broker {broker}")
    return lines


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "state": record.state.name.lower(),
        "reason": record.reason,
        "source": record.source,
        "final": record.final,
        "kind": record.kind,
        "size": record.version.size,
        "mtime_ns": record.version.mtime_ns,
        "arrived": iso(record.arrived_ns),
        "noted": iso(record.noted_ns),
        "broker": record.broker,
        "task": record.task,
        "task_id": record.task_id,
    }


COMMANDS = (history, failed, retry, discard, scan)
