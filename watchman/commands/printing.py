"""Deliveries as text and as JSON Lines; a pager and colours on a terminal, and nowhere else."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from watchman.commands.common import Function, echo, warn
from watchman.commands.fitting import fitted, unbroken
from watchman.text import iso, moment, printable

if TYPE_CHECKING:
    from watchman.journal.failed_deliveries import Record
    from watchman.journal.journal_reader import JournalReader
    from watchman.model import Upload

# Neither yellow nor cyan: on white they cannot be read.
_COLOURS = {
    "sent": "green", "failed": "red", "moving": "magenta", "ready": "magenta",
}  # fmt: skip
_PAGER = {"LESS": "FRX", "LV": "-c"}
"""What git sets, where nothing is set: quit where all fits, pass colours on, leave the screen."""
_TOGETHER = 200
"""Lines printed at once."""


def paged(function: Function) -> Function:
    """Add ``--no-pager``, for :func:`show`."""
    return click.option("--no-pager", is_flag=True, help="Print to the terminal, without a pager.")(
        function
    )


def show(texts: Iterable[str], *, no_pager: bool = False) -> None:
    """Print texts of whole lines, each without its last line's end; one by one as they come."""
    if no_pager or not sys.stdout.isatty():
        for text in _joined(map(fitted, texts)):
            echo(text, nl=False)
        return
    for name, value in _PAGER.items():
        os.environ.setdefault(name, value)
    click.echo_via_pager(_for_pager(texts))


def show_json(values: Iterable[Any]) -> None:
    """Print JSON Lines: each value in a line, in ASCII."""
    for text in _joined(json.dumps(value, default=str) for value in values):
        echo(text, nl=False)


def _joined(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts with the ends of their lines, some at a time: there may be many."""
    some: list[str] = []
    for text in texts:
        some.append(f"{text}\n")
        if len(some) >= _TOGETHER:
            yield "".join(some)
            some.clear()
    if some:
        yield "".join(some)


def _for_pager(texts: Iterable[str]) -> Iterator[str]:
    """Yield the texts as lines, but for the end of the last one: click adds that."""
    before = ""
    for text in texts:
        yield f"{before}{fitted(text)}"
        before = "\n"


def word(record: Record) -> str:
    """Return the state as it is shown, in its colour."""
    return coloured(record.word, record.word)


def coloured(text: str, state: str) -> str:
    """Return a text in the colour of a state; printed elsewhere than to a terminal it has none."""
    colour = _COLOURS.get(state)
    return click.style(text, fg=colour) if colour else text


def as_text(record: Record) -> str:
    """Return a delivery as lines."""
    lines = [
        f"{record.seq}  {moment(record.arrived_ns)}  {unbroken(record.source)}",
        f"    {word(record)} {moment(record.noted_ns)}",
    ]
    if record.reason:
        lines[1] += f": {printable(record.reason)}"
    if record.final != record.source:
        lines.append(f"    to {unbroken(record.final)}")
    if record.task is not None:
        task, broker = printable(record.task), printable(record.broker or "none")
        lines.append(f"    task {task} {printable(record.task_id)} on broker {broker}")
    return "\n".join(lines)


def each_as_json(journal: JournalReader, records: Iterable[Record]) -> Iterator[dict[str, Any]]:
    """Yield deliveries as docs/json.rst has them, with who uploaded them."""
    records = iter(records)
    while some := list(itertools.islice(records, _TOGETHER)):
        uploads = journal.uploads([record.seq for record in some])
        for record in some:
            yield as_json(record, uploads.get(record.seq))


def as_json(record: Record, upload: Upload | None) -> dict[str, Any]:
    """Return a delivery as docs/json.rst has it; ``upload`` is what a transfer log tells of it."""
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
        "upload": None if upload is None else _upload(upload),
    }


def _upload(upload: Upload) -> dict[str, Any]:
    return {
        "user": upload.user or None,
        "host": upload.host or None,
        "protocol": upload.protocol or None,
        "size": upload.size,
        "seconds": upload.seconds,
        "ended": iso(upload.ended_ns) if upload.ended_ns else None,
    }


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal; go on with ``yes``. Raises UsageError where nobody can be asked.

    And Abort where the answer is no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise click.UsageError("there is no terminal to ask on: say --yes to do it")
    click.confirm(question, abort=True, err=True)


def say_left_out(shown: int, left_out: int, exact: bool = True) -> None:
    """Say on standard error how many more there are than are shown."""
    if left_out or not exact:
        number = f"{left_out:,}" if exact else f"at least {left_out:,}" if left_out else "some"
        these = "this one" if shown == 1 else f"these {shown:,}"
        verb = "is" if exact and left_out == 1 else "are"
        warn(
            f"{number} more than {these} {verb} left out; --limit shows as many as you like, --all "
            "every one"
        )
