"""The report as lines for people: one screen in a terminal, and whole lines in a pipe."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from watchman.status.overview import NOT_YET, HeldTasks, Status
from watchman.status.status_file import ShownCopy, ShownMove, ShownScan, Snapshot
from watchman.text import ago, counted, moment, printable, rate, size, span

SHOWN = 10
"""Entries of a section, where all has to fit on a screen."""
# No yellow: on white it cannot be read.
_BOLD, _RED, _GREEN, _MAGENTA, _PLAIN = (f"\x1b[{code}m" for code in (1, 31, 32, 35, 0))

_CODE = re.compile("\x1b\\[\\d+m")


class Style(NamedTuple):
    """What the lines are for."""

    width: int | None = None
    """Columns of the terminal; None where nobody counts them: nothing is wrapped or cut then."""
    color: bool = False


def as_text(status: Status, now_ns: int, style: Style = Style()) -> str:  # noqa: B008 — it is a tuple
    """Return the status as lines for people, times in their time zone."""
    return "\n".join(_Lines(status, now_ns, style).all())


class _Lines:
    """Writes a status down."""

    def __init__(self, status: Status, now_ns: int, style: Style) -> None:
        self.status = status
        self.now_ns = now_ns
        self.width = style.width
        self.color = style.color

    def all(self) -> list[str]:
        lines = [self.headline()]
        told = self.status.snapshot
        if told:
            lines += self.summary(told)
        # Ahead of all that is as it should be: a terminal may not show it all.
        lines += self.troubles()
        if told:
            lines += self.scans(told)
            lines += self.watches(told)
        lines += self.brokers(told)
        if told:
            lines += self.moves(told)
            lines += self.being_written(told)
            lines += self.partial(told)
            lines += self.being_read(told)
        lines += self.held()
        lines += self.notes(told) if told else []
        if not self.status.counted:
            return [*lines, "", "Deliveries cannot be counted: the journal cannot be read"]
        lines += self.deliveries()
        lines.append("")
        lines.append(f"Last arrival: {self.time(self.status.last_arrival_ns)}")
        lines.append(f"Last sent:    {self.time(self.status.last_sent_ns)}")
        return lines

    # The first lines

    def headline(self) -> str:
        status = self.status
        well = _GREEN if status.well else _MAGENTA if status.active else _RED
        state = self.paint(status.state, well)
        if status.state == "inactive":
            last = f"; last seen {self.time(status.beat_ns)}" if status.beat_ns else ""
            return f"watchman is {state}{last}"
        process = f"process {status.pid}" if status.pid else "in another container"
        line = f"watchman is {state}: {process}, since {self.time(status.since_ns)}"
        if status.may_be_opening:
            line += f"; {NOT_YET}"
        elif status.state == "hung":
            line += (
                f"; it has given no sign of work since {self.time(status.beat_ns)}: see its log, "
                "then 'notify restart', or 'notify stop --kill' if it does not end"
            )
        if status.state == "waiting":
            line += "; nothing that it is to watch is there"
        return line

    def summary(self, snapshot: Snapshot) -> list[str]:
        rates, oldest_ns = snapshot["rates"], self.status.oldest_waiting_ns
        oldest = f"oldest waiting {span((self.now_ns - oldest_ns) / 1e9)}" if oldest_ns else ""
        held = self.status.held_words()
        # What an older watchman has written does not tell.
        number = snapshot.get("unjudged", 0)
        unjudged = f"{counted(number, 'file')} to be checked" if number else ""
        waiting = [one for one in (oldest, unjudged) if one]
        if not waiting and self.status.counted:
            waiting.append("nothing waits")
        parts = [
            counted(len(snapshot["watches"]), "watch", "watches"),
            f"{rate(rates['in'])} in, {rate(rates['out'])} out",
            *waiting,
            *([f"{held} held"] if held else []),
        ]
        lines = [" · ".join(parts)]
        if not self.status.answered:
            lines.append(f"It does not answer now: what follows was true {self.time(self.beat)}")
        return lines

    @property
    def beat(self) -> int:
        return self.status.beat_ns or 0

    # What is done

    def scans(self, snapshot: Snapshot) -> list[str]:
        entries = [self.scan(one) for one in snapshot["scans"]]
        if self.width is not None:
            entries = [self.wrapped(entry, "    ").lstrip() for entry in entries]
        return self.section("Scans", entries)

    @staticmethod
    def scan(one: ShownScan) -> str:
        what = "the first run of" if one["first_run"] else "catching up on"
        paths = ", ".join(map(printable, one["paths"][:3]))
        more = f" and {len(one['paths']) - 3} more" if len(one["paths"]) > 3 else ""
        eta = "" if one["eta_s"] is None else f", {span(one['eta_s'])} left"
        looked = f"{counted(one['listed'], 'file')} looked at{' so far' if one['listing'] else ''}"
        new = f"{one['done']:,} of {one['new']:,} new ones done"
        return f"{what} {paths}{more}: {looked}, {new}, {rate(one['rate'])}{eta}"

    def watches(self, snapshot: Snapshot) -> list[str]:
        rows = [
            [
                printable(watch["path"]),
                counted(watch["directories"], "directory"),
                f"{watch['kind']}, {watch['method']}",
                printable(watch["handler"]),
            ]
            for watch in snapshot["watches"]
        ]
        if self.width is not None:
            # The handler says nothing that the kind does not, unless it is one's own.
            rows = [row if not row[3].startswith("watchman.") else row[:3] for row in rows]
        return self.section("Watches", self.table(rows))

    def brokers(self, snapshot: Snapshot | None) -> list[str]:
        shown = snapshot["brokers"] if snapshot else {}
        waiting = {
            one.broker: one for one in self.status.deliveries if one.state == "ready" and one.broker
        }
        rows = []
        for name in sorted(shown.keys() | waiting.keys()):
            part, broker = waiting.get(name), shown.get(name)
            held = self.status.held_for(name)
            nothing = "nothing waits" if self.status.counted else ""
            row = [printable(name), f"{part.count:,} waiting" if part else nothing]
            oldest = part is not None and held < part.count
            row.append(f"oldest {self.ago(part.oldest_ns)}" if part and oldest else "")
            words = self.status.held_words({name})
            row.append(f"{words} held" if words else "")
            if broker is not None:
                row.append(rate(broker["rate"]))
                down = f"takes no tasks for {span((self.now_ns - broker['since_ns']) / 1e9)}"
                row.append(self.paint(down, _RED) if broker["trouble"] else "takes tasks")
            rows.append(row)
        return self.section("Brokers", self.table(rows))

    def moves(self, snapshot: Snapshot) -> list[str]:
        rows, copies = [], []
        for move in snapshot["moves"]:
            rows.append(self.move(move))
            copies += [_copy(copy) for copy in move["copies"]]
        return self.section("Moves", self.table(rows)) + self.section(
            "Copies in progress", self.table(copies)
        )

    def move(self, move: ShownMove) -> list[str]:
        waiting, eta = move["waiting"], move["eta_s"]
        left = f"{span(eta)} left" if eta is not None else ""
        stuck = self.paint("stuck", _RED) if move["reason"] else ""
        return [
            f"{printable(move['source'])} → {printable(move['root'])}",
            f"{waiting:,} waiting" if waiting else "nothing waits",
            rate(move["rate"]),
            stuck or left,
        ]

    def being_written(self, snapshot: Snapshot) -> list[str]:
        if not snapshot["incomplete"]:
            return []
        number = counted(snapshot["incomplete"], "file")
        rows = [
            [printable(one["path"]), f"for {span((self.now_ns - one['since_ns']) / 1e9)}"]
            for one in snapshot["being_written"]
        ]
        return self.section(f"Being written, or not settled: {number}", self.table(rows))

    def partial(self, snapshot: Snapshot) -> list[str]:
        if not snapshot["partial"]:
            return []
        rows = [
            [
                printable(one["path"]),
                f"for {span((self.now_ns - one['since_ns']) / 1e9)}",
                printable(one["reason"]),
            ]
            for one in snapshot["oldest_partial"]
        ]
        title = f"Not whole yet: {counted(snapshot['partial'], 'file')}"
        return self.section(title, self.with_words(rows))

    def being_read(self, snapshot: Snapshot) -> list[str]:
        rows = [
            [
                printable(one["path"]),
                f"for {span((self.now_ns - one['since_ns']) / 1e9)}",
                printable(", ".join(one["asked"])),
            ]
            # What an older watchman has written does not tell.
            for one in snapshot.get("being_read", [])
        ]
        return self.section("Being read for long, to tell whether it is whole", self.table(rows))

    def held(self) -> list[str]:
        rows = [self.hold(one) for one in self.status.held]
        title = "Held ('notify release' sends it)"
        return self.section(title, self.table(rows))

    def hold(self, one: HeldTasks) -> list[str]:
        name = f"task:{one.name}" if one.kind == "task" else one.name
        return [
            printable(name),
            counted(one.number, "task", or_more=one.or_more),
            f"{self.ago(one.since_ns)} by {printable(one.by)}",
        ]

    # What is wrong, and what else there is to be said

    def troubles(self) -> list[str]:
        return self.since("Troubles", self.status.troubles)

    def notes(self, snapshot: Snapshot) -> list[str]:
        found = [(n["since_ns"], n["subject"], n["message"]) for n in snapshot["notes"]]
        return self.since("Notes", found)

    def since(self, title: str, found: Sequence[tuple[int, str, str]]) -> list[str]:
        """Return what is so since when: a line each, or in a terminal a line and its message."""
        found = sorted(found)
        rows = [
            [printable(subject), f"since {self.time(since)}", printable(message)]
            for since, subject, message in found
        ]
        color = _MAGENTA if title == "Troubles" else _PLAIN
        return self.section(title, self.with_words(rows, color))

    def deliveries(self) -> list[str]:
        if not self.status.deliveries:
            return ["", "No deliveries yet"]
        rows = [
            [
                printable(part.broker) or "(no task)",
                part.state,
                f"{part.count:,}",
                f"the oldest arrived {self.time(part.oldest_ns)}",
            ]
            for part in self.status.deliveries
        ]
        return self.section("Deliveries", self.table(rows))

    # Form

    def table(self, rows: Sequence[Sequence[str]]) -> list[str]:
        return _table(rows, self.width)

    def with_words(self, rows: Sequence[Sequence[str]], color: str = _PLAIN) -> list[str]:
        """Return rows of subject, time and a sentence: a line each, in a terminal two or more."""
        if self.width is None:
            return self.table(rows)
        entries = []
        for subject, since, words in rows:
            [line] = self.table([[self.paint(subject, color), since]])
            entries.append(f"{line}\n{self.wrapped(words, '    ')}")
        return entries

    def section(self, title: str, entries: Sequence[str]) -> list[str]:
        """Return the entries below a title; not all of them, where they have to fit on a screen."""
        if not entries:
            return []
        shown = entries if self.width is None else entries[:SHOWN]
        lines = ["", self.paint(title, _BOLD), *(f"  {entry}" for entry in shown)]
        if len(entries) > len(shown):
            lines.append(f"  and {len(entries) - len(shown)} more: 'notify status | less'")
        return lines

    def wrapped(self, text: str, indent: str) -> str:
        return textwrap.fill(
            text,
            self.width or 80,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )

    def paint(self, text: str, code: str) -> str:
        return f"{code}{text}{_PLAIN}" if self.color and code != _PLAIN else text

    def time(self, ns: int | None) -> str:
        return f"{moment(ns)} ({self.ago(ns)})" if ns else "never"

    def ago(self, ns: int) -> str:
        return ago(self.now_ns - ns)


def _copy(copy: ShownCopy) -> list[str]:
    eta = "" if copy["eta_s"] is None else f", {span(copy['eta_s'])} left"
    share = 100 * copy["done"] // max(copy["total"], 1)
    return [
        f"{printable(copy['source'])} → {printable(copy['final'])}",
        f"{share} % of {size(copy['total'])}, {size(copy['rate'])}/s{eta}",
    ]


def _table(rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return rows as aligned lines; a column that is empty in all of them is left out.

    A row that does not fit into ``width`` columns has its first cell in a line of its own.
    """
    room = None if width is None else width - 2
    fitting = [row for row in rows if room is None or _length(row) <= room]
    columns = range(max(map(len, fitting), default=0))
    widths = [max(_visible(row[at]) for row in fitting if at < len(row)) for at in columns]
    lines = []
    for row in rows:
        line = "  ".join(
            cell + " " * (wide - _visible(cell))
            for cell, wide in zip(row, widths, strict=False)
            if wide
        ).rstrip()
        if room is not None and max(_length(row), _visible(line)) > room:
            line = f"{row[0]}\n    " + "  ".join(cell for cell in row[1:] if cell)
        lines.append(line)
    return lines


def _length(row: Sequence[str]) -> int:
    return sum(_visible(cell) + 2 for cell in row if cell) - 2


def _visible(text: str) -> int:
    """Return how many columns a text takes: codes of colours have none."""
    return len(_CODE.sub("", text))
