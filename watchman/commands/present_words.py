"""What is at a file's path now, and what the daemon would make of it: in words and as JSON."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from watchman.commands.history import WHY_NOTED
from watchman.model import Noted, State
from watchman.text import iso, moment, printable

if TYPE_CHECKING:
    from watchman.checks.matching import Match
    from watchman.checks.present import Present
    from watchman.journal.acts import Act
    from watchman.journal.partial import PartialFile
    from watchman.journal.record import Record


# What vanished or failed may have done so before its move.
_ABSENT = {State.MOVING: " yet", State.VANISHED: "", State.FAILED: ""}


class FoundFile(NamedTuple):
    """A file, and all that is known of it."""

    path: str
    records: list[Record]
    """Its deliveries, the newest first."""
    acts: list[Act]
    noted: Noted | None
    now: Present
    final: Present | None
    """What is at the final path of the newest delivery, where that is another one."""
    more: int
    """Deliveries that are left out."""


def now_json(found: FoundFile) -> Mapping[str, Any]:
    """Return what is at a file's path now, as docs/json.rst has it."""
    now = found.now
    return {
        "is_there": now.is_there,
        "kind": now.kind or None,
        "size": now.size if now.is_there else None,
        "mtime_ns": now.mtime_ns if now.is_there else None,
        "seen": now.seen or None,
        "known": now.known,
        "writers": [vars(writer) for writer in now.writers],
        "watch": now.match.watch if now.match else None,
        "pattern": now.match.pattern if now.match else None,
        "ignored_by": now.ignored_by or None,
        "asked": list(now.match.asked) if now.match else [],
        "waits": _waits_json(now),
        "what": list(now_words(found)),
    }


def now_words(found: FoundFile) -> Iterator[str]:
    """Yield what is on the disk now, and what the daemon would make of it."""
    now = found.now
    if now.trouble:
        yield f"it cannot be looked at: {now.trouble}"
    elif not now.is_there:
        yield from _gone(found)
    elif now.kind == "other":
        yield "neither a file nor a directory: never looked at"
    elif now.seen == "busy":
        yield from _open(now)
    elif now.ignored_by:
        yield f"ignored by `{printable(now.ignored_by)}`"
    elif found.noted is not None and now.known:
        yield f"no task: {WHY_NOTED[found.noted]}"
    elif now.waits is not None:
        yield from _waits(now, now.waits)
    elif now.known:
        yield "it is there, as it was seen"
    else:
        yield from _unknown(now)
    if now.is_there and now.seen == "untested" and not now.known:
        yield from _open(now)
    if found.final is not None:
        yield f"{printable(found.final.path)} {_there(found.final, found.records[0].state)}"


def _there(final: Present, state: State) -> str:
    if final.trouble:
        return f"cannot be looked at: {final.trouble}"
    if final.is_there:
        return "is there"
    return f"is not there{_ABSENT.get(state, ' any more')}"


def _gone(found: FoundFile) -> Iterator[str]:
    if found.final is None:
        yield "nothing is at that path"
    if found.now.ignored_by:
        yield f"ignored by `{printable(found.now.ignored_by)}`"
    if not found.records and found.noted is not None:
        yield f"it was there once, without a task: {WHY_NOTED[found.noted]}"


def _open(now: Present) -> Iterator[str]:
    """Say who has it open, or who may have."""
    written = f"last written {moment(now.mtime_ns)}, {now.size:,} bytes"
    for one in now.writers:
        by = f"process {one.pid} ({printable(one.command)}, user {printable(one.user)})"
        yield f"open for writing by {by}; {written}"
    if now.writers:
        return
    if now.seen == "busy":
        yield f"open for writing; {written}"
        who = "in this short time" if os.geteuid() == 0 else "here; root can"
        yield f"by whom cannot be seen {who}: lsof, fuser"
    else:
        yield "whether it is open for writing cannot be told by this user; root can"


def _waits(now: Present, waits: PartialFile) -> Iterator[str]:
    """Say why a complete file waits, for what, and until when."""
    yield f"complete, and waits since {moment(waits.since_ns)}: {printable(waits.reason)}"
    if now.match is not None:
        if now.match.asked:
            yield f"asked of it: {_asked(now.match)}"
        after = moment(waits.since_ns + int(now.match.incomplete_after * 1e9))
        yield f"incomplete from {after} on, if it stays as it is ('incomplete_after')"


def _waits_json(now: Present) -> Mapping[str, Any] | None:
    if now.waits is None:
        return None
    since_ns, match = now.waits.since_ns, now.match
    after = None if match is None else iso(since_ns + int(match.incomplete_after * 1e9))
    return {"since": iso(since_ns), "reason": now.waits.reason, "incomplete_from": after}


def _asked(match: Match) -> str:
    return printable("; ".join(match.asked))


def _unknown(now: Present) -> Iterator[str]:
    """Say what would become of what nobody has recorded as it is."""
    match = now.match
    if match is None:
        yield "it is there, and not known as it is"
    elif match.watch is None:
        not_below = match.reason == "it lies in no watched directory"
        yield "not below any watch" if not_below else printable(match.reason)
    elif match.reason:
        yield f"not known as it is; no task: {printable(match.reason)}"
    else:
        task = f"task {printable(match.task or '')} on broker {printable(match.broker or '')}"
        condition = f", {match.condition}" if match.condition else ""
        condition += f", if it is what is asked: {_asked(match)}" if match.asked else ""
        yield f"not known as it is: the next look at it makes {task}{condition}"
