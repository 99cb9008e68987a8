"""``hold``, ``release``: tasks that are to wait, say while their workers are rebuilt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

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
from watchman.commands.operator import have_obeyed, operator
from watchman.errors import WatchmanError
from watchman.model import Config, Hold, HoldKind
from watchman.text import ago, counted, iso, moment, printable

if TYPE_CHECKING:
    from watchman.journal.held import HoldCounts

Named = tuple[HoldKind, str]
_PREFIXES = {f"{kind.value}:": kind for kind in HoldKind}
_what = click.argument("what", nargs=-1, metavar="[BROKER|task:TASK|DIRECTORY]...")
_SYNTAX = (
    "A name is a broker's, task:NAME a task's, and what has a slash in it a directory with all "
    "below it, before or after the move."
)


@click.command(
    short_help="Have tasks wait until 'notify release'.",
    help=(
        "Have tasks wait until 'notify release'; without a name: list what is held.\n\n"
        f"{_SYNTAX} What arrives is recorded and moved all the same. What is being sent at the "
        "moment, 2,000 tasks at the most, still goes. Works without a daemon too, and survives "
        "restarts."
    ),
)
@common
@as_json_option
@_what
def hold(what: Sequence[str], as_json: bool) -> None:
    config = load_own()
    if what:
        from watchman.journal.hold_orders import hold as order

        wanted = [_named(one) for one in what]
        _check(wanted)
        new = {(one.kind, one.name) for one in order(config.state_dir, wanted, operator())}
        taken = _tell_the_daemon(config)
        for one in dict.fromkeys(wanted):
            if not as_json:
                say(f"{_spelled(*one)}: " + (taken if one in new else "is held already"))
        if not as_json:
            return
    _list(config, as_json)


@click.command(
    short_help="Send what was held.",
    help=(
        "Send what was held, in the order of its arrival and with the task ids that it has.\n\n"
        + _SYNTAX
    ),
)
@common
@as_json_option
@click.option("--all", "everything", is_flag=True, help="All that is held.")
@_what
@click.pass_context
def release(ctx: click.Context, what: Sequence[str], everything: bool, as_json: bool) -> None:
    from watchman.journal.hold_orders import release as let_go

    if everything == bool(what):
        raise click.UsageError("name what to release ('notify hold' lists it), or give --all")
    config = load_own()
    wanted = None if everything else [_named(one) for one in what]
    released = let_go(config.state_dir, wanted)
    have_obeyed(config)
    if as_json:
        print_json([_as_json(one) for one in released])
    for one in () if as_json else released:
        say(f"{_spelled(one.hold.kind, one.hold.name)}: released, {_amount(one)} waited")
    names = {(one.hold.kind, one.hold.name) for one in released}
    missing = [one for one in wanted or () if one not in names]
    for kind, name in missing:
        warn(f"{_spelled(kind, name)} is not held; 'notify hold' lists what is")
    if missing:
        ctx.exit(1)
    if not released and not as_json:
        say("nothing is held")


def _named(text: str) -> Named:
    """Return what a word on the command line means. Raises UsageError."""
    prefix, colon, name = text.partition(":")
    kind = _PREFIXES.get(prefix + colon)
    if kind is None:
        kind, name = (HoldKind.DIRECTORY if "/" in text else HoldKind.BROKER), text
    if not name:
        raise click.UsageError(f"{text!r} names nothing; say lizard, task:load or /srv/ftp/anna")
    return kind, absolute(name) if kind is HoldKind.DIRECTORY else name


def _spelled(kind: HoldKind, name: str) -> str:
    """Return how a hold is named on the command line."""
    return printable(f"task:{name}" if kind is HoldKind.TASK else name)


def _check(wanted: Sequence[Named]) -> None:
    """Refuse what nothing can ever meet: a typing error would go unnoticed. Raises WatchmanError.

    Where the configuration cannot be used nobody can tell, and that is no obstacle.
    """
    try:
        config = load()
    except WatchmanError:
        warn("the configuration cannot be used: that these names exist is not checked")
        return
    tasks = {route.task for route in config.routes}
    for kind, name in wanted:
        if kind is HoldKind.BROKER and name not in config.brokers:
            there = ", ".join(map(printable, config.brokers)) or "none"
            raise WatchmanError(
                f"there is no broker {printable(name)} (there are: {there}); for a task say "
                f"task:{printable(name)}, for a directory ./{printable(name)}"
            )
        if kind is HoldKind.TASK and name not in tasks:
            there = ", ".join(map(printable, sorted(tasks))) or "none"
            raise WatchmanError(f"no pattern sends task {printable(name)}; there are: {there}")
        if kind is HoldKind.DIRECTORY and not _is_seen(config, name):
            raise WatchmanError(
                f"{printable(name)} is neither below a watch or a destination of MOVES, nor above "
                "one: nothing that arrives is held by it"
            )


def _is_seen(config: Config, directory: str) -> bool:
    roots = [watch.path for watch in config.watches] + [root for _, root in config.all_moves]
    own = directory.rstrip("/") + "/"
    prefixes = [root.rstrip("/") + "/" for root in roots]
    return any(own.startswith(there) or there.startswith(own) for there in prefixes)


def _tell_the_daemon(config: Config) -> str:
    """Have the running daemon obey; return what is to be said of a hold."""
    from watchman import daemon

    if daemon.running(config) is None:
        return "held; no daemon runs, and the next one obeys"
    return "held" if have_obeyed(config) else "held; the daemon obeys within 10 s"


def _list(config: Config, as_json: bool) -> None:
    from watchman.journal.journal_reader import open_reader

    with open_reader(config.state_dir) as journal:
        found = journal.holds()
    if as_json:
        print_json([_as_json(one) for one in found])
        return
    for one in found:
        say(as_line(one, time.time_ns()))
    if not found:
        say("nothing is held")


def as_line(one: HoldCounts, now_ns: int) -> str:
    """Return a hold as a line for people."""
    held: Hold = one.hold
    age = f", the oldest {ago(now_ns - one.oldest_ns)}" if one.oldest_ns else ""
    return (
        f"{_spelled(held.kind, held.name)}  {_amount(one)} waiting{age}; "
        f"held by {printable(held.by)} since {moment(held.since_ns)}"
    )


def _amount(one: HoldCounts) -> str:
    return counted(one.number, "delivery", or_more=one.or_more)


def _as_json(one: HoldCounts) -> dict[str, Any]:
    held = one.hold
    return {
        "kind": held.kind.value,
        "name": held.name,
        "since": iso(held.since_ns),
        "by": held.by,
        "waiting": one.number,
        "or_more": one.or_more,
        "oldest": iso(one.oldest_ns) if one.oldest_ns else None,
    }


COMMANDS = (hold, release)
