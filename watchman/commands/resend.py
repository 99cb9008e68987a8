"""``resend``: a deliberate second task for what was sent."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from watchman import timelimit
from watchman.commands import printing
from watchman.commands.common import absolute, as_json_option, common, load, load_own, say, warn
from watchman.commands.deliveries import is_number
from watchman.commands.gone_patterns import GonePatterns
from watchman.commands.narrowing import is_narrowed, narrowing, question, task_id_of
from watchman.commands.operator import have_obeyed, operator
from watchman.directory_identity import identity_at
from watchman.errors import WatchmanError
from watchman.file_access import Seen, ignoring_sigio, look, release, version_of
from watchman.identity import is_same_content
from watchman.model import Config, Upload, Version
from watchman.mounts import MountTable
from watchman.text import counted, printable

if TYPE_CHECKING:
    from watchman.journal.record import Record
    from watchman.journal.resending import Resending, Resent

_CHANGED = "it has changed since it was sent"
_GONE = "it is not there any more"
_TOGETHER = "one task has announced them with the others"


@click.command(
    short_help="Send a second task for what was sent.",
    help=(
        "Send a second task for what was sent, by number, task id, path or the options; of each "
        "file the newest. All that one task has announced is sent again by one.\n\nThe file must "
        "still be as it was sent. A running daemon begins at once."
    ),
)
@common
@as_json_option
@click.argument("which", nargs=-1, metavar="[SEQ|PATH|TASK-ID]...")
@narrowing
@click.option("--same-id", is_flag=True, help="Under the id of the first task, not a new one.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def resend(
    ctx: click.Context,
    /,
    which: Sequence[str],
    as_json: bool,
    same_id: bool,
    yes: bool,
    **asked: Any,
) -> None:
    from watchman.journal.resending import resending

    if not which and not is_narrowed(asked):
        raise click.UsageError("name what to send again by number, task id, path or an option")
    question((), asked)  # a mistake in it comes before the journal
    config, bad = _config(), False
    with resending(load_own().state_dir) as work:
        missing = _choose(work, which, asked)
        for one in missing:
            warn(f"nothing that was sent: {printable(one)}; 'notify where' tells what became of it")
        for line in work.unreadable:
            warn(printable(line))
        bad = bool(missing or work.unreadable)
        if work.count:
            amount = counted(work.count, "delivery")
            others = f" ({work.others:,} of them since {_TOGETHER})" if work.others else ""
            printing.confirm(f"Send a second task for {amount}{others}?", yes=yes)
            bad |= _carry_out(work, config, same_id=same_id, as_json=as_json)
        elif not missing and not as_json:
            say("nothing of the kind was sent")
    if bad:
        ctx.exit(1)


def _config() -> Config | None:
    """Return the configuration; None where it has a mistake: the daemon's may be another."""
    try:
        return load()
    except WatchmanError as error:
        warn(f"whether brokers and patterns are still there cannot be told: {error}")
        return None


def _choose(work: Resending, which: Sequence[str], asked: dict[str, Any]) -> list[str]:
    """Choose what is named, or all of the kind; return what named nothing."""
    sent = {**asked, "state": "sent"}
    if not which:
        work.choose(question((), sent))
        return []
    return [one for one in which if not any(work.choose(meant) for meant in _meanings(one, sent))]


def _meanings(one: str, sent: dict[str, Any]) -> list[Any]:
    """Return what an argument may mean, the likeliest first."""
    from dataclasses import replace
    from glob import escape

    from watchman.journal.question import by_name

    found = []
    if is_number(one):
        found.append(replace(question((), sent), seqs=frozenset({int(one)})))
    if task_id_of(one) and sent.get("task_id") is None:
        found.append(question((), {**sent, "task_id": one}))
    # What has brackets may be the name of a file: no other is sent again then.
    found += [question((path,), sent) for path in (escape(absolute(one)), absolute(one))]
    if not os.path.isabs(one):
        found += [question((path,), sent) for path in by_name(one)]
    return found


def _carry_out(work: Resending, config: Config | None, *, same_id: bool, as_json: bool) -> bool:
    """Send again what is chosen, and say what became of each; whether any was left out."""
    made = left_out = 0
    patterns = GonePatterns(config)
    with ignoring_sigio():
        work.carry_out(
            _looker(config),
            patterns.route_of,
            operator(),
            same_id=same_id,
            is_main_file=patterns.is_main_file,
        )
    have_obeyed(load_own())
    for one in work.results():
        if as_json:
            printing.show_json([_as_json(one, work.upload(one.record))])
        if one.reason:
            left_out += 1
            warn(f"{one.record.seq} is left out: {printable(one.record.final)}: {one.reason}")
            continue
        made += 1
        patterns.meet(one.record)
        if not as_json:
            again = f"{one.record.seq} is sent again as {one.seq}, task {one.task_id}"
            say(f"{again}: {printable(one.record.source)}")
    patterns.tell()
    if not as_json:
        more = f", {left_out:,} left out" if left_out else ""
        others = f" ({work.others:,} chosen since {_TOGETHER})" if work.others else ""
        say(f"{counted(made, 'delivery')} sent again{more}{others}")
    return left_out > 0


def _looker(config: Config | None) -> Callable[[Record], Version | str]:
    table = MountTable()

    def look_at(record: Record) -> Version | str:
        if config is not None and record.broker not in config.brokers:
            return f"there is no broker {printable(record.broker or '')} in BROKERS"
        try:
            return timelimit.within(record.final, lambda: _version(record), table=table)
        except TimeoutError:
            return "its file system does not answer"

    return look_at


def _version(record: Record) -> Version | str:
    """Return what is at a final path, if that is what was sent; else why it is not."""
    try:
        status = os.lstat(record.final)
    except FileNotFoundError:
        return _GONE
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    if record.kind == "directories":
        return _unit(record)
    if not stat.S_ISREG(status.st_mode):
        return _GONE
    version = version_of(status)
    if version[2:4] != record.version[2:4]:
        return _CHANGED
    return version if record.final != record.source else _unmoved(record)


def _unit(record: Record) -> Version | str:
    """Return what a directory is known by, whatever is in it."""
    try:
        found = identity_at(record.final)
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    if found is None:
        return _GONE
    is_it = record.final != record.source or is_same_content(record.version, found)
    return found if is_it else _CHANGED


def _unmoved(record: Record) -> Version | str:
    """Look as the daemon does at what lies where uploaders write: is it being written?"""
    above, _, name = record.final.rpartition("/")
    try:
        directory = os.open(above or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return f"it cannot be looked at: {error.strerror}"
    try:
        found = look(name, directory)
    finally:
        release(directory)
    if found.is_unseen:
        return f"it cannot be looked at: {os.strerror(found.error)}"
    if found.seen is Seen.BUSY:
        return "it is open for writing"
    if found.version is None:
        return _GONE
    return found.version if found.version[2:4] == record.version[2:4] else _CHANGED


def _as_json(one: Resent, upload: Upload | None) -> dict[str, Any]:
    """Return the delivery that was sent, and its second one (docs/json.rst)."""
    return {
        **printing.as_json(one.record, upload),
        "resent_seq": one.seq or None,
        "resent_task_id": one.task_id or None,
        "left_out": one.reason,
    }


COMMANDS = (resend,)
