"""The report as lines for people."""

from __future__ import annotations

from collections.abc import Sequence

from watchman.status.report import Status
from watchman.status.snapshot import Snapshot
from watchman.text import moment, printable


def as_text(status: Status, now_ns: int) -> str:
    """Return the status as lines for people, times in their time zone."""
    return "\n".join(_Lines(status, now_ns).all())


class _Lines:
    """Writes a status down."""

    def __init__(self, status: Status, now_ns: int) -> None:
        self.status = status
        self.now_ns = now_ns

    def all(self) -> list[str]:
        lines = [self.headline()]
        snapshot = self.status.snapshot
        told = snapshot if self.status.state != "inactive" else None
        lines += self.watches(told) if told else []
        lines += self.troubles(told)
        lines += self.notes(told) if told else []
        lines += self.deliveries()
        lines.append("")
        lines.append(f"Last arrival: {self.time(self.status.last_arrival_ns)}")
        lines.append(f"Last sent:    {self.time(self.status.last_sent_ns)}")
        if snapshot and self.status.state != "inactive":
            lines += self.copies(snapshot)
        return lines

    def headline(self) -> str:
        status = self.status
        if status.state == "inactive":
            last = f"; last seen {self.time(status.beat_ns)}" if status.beat_ns else ""
            return f"watchman is inactive{last}"
        process = f"process {status.pid}" if status.pid else "in another container"
        line = f"watchman is {status.state}: {process}, since {self.time(status.since_ns)}"
        if status.state == "hung":
            beat = f"since {self.time(status.beat_ns)}" if status.beat_ns else "yet"
            line += (
                f"; it has given no sign of work {beat}: see its log, then 'notify restart', or "
                "'notify stop --kill' if it does not end"
            )
        if status.state == "waiting":
            line += "; nothing that it is to watch is there"
        return line

    def watches(self, snapshot: Snapshot) -> list[str]:
        rows = [
            [
                printable(watch["path"]),
                f"{watch['directories']} director{'y' if watch['directories'] == 1 else 'ies'}",
                f"{watch['kind']}, {watch['method']}",
                printable(watch["handler"]),
            ]
            for watch in snapshot["watches"]
        ]
        return ["", "Watches", *_table(rows)]

    def troubles(self, snapshot: Snapshot | None) -> list[str]:
        found = [(t["since_ns"], t["subject"], t["message"]) for t in self.status.failed]
        if snapshot:
            found += _troubles(snapshot)
        return ["", "Troubles", *self.since(found)] if found else []

    def notes(self, snapshot: Snapshot) -> list[str]:
        found = [(n["since_ns"], n["subject"], n["message"]) for n in snapshot["notes"]]
        return ["", "Notes", *self.since(found)] if found else []

    def since(self, found: list[tuple[int, str, str]]) -> list[str]:
        rows = [
            [printable(subject), f"since {self.time(since)}", printable(message)]
            for since, subject, message in sorted(found)
        ]
        return _table(rows)

    def deliveries(self) -> list[str]:
        if not self.status.deliveries:
            return ["", "No deliveries yet"]
        rows = [
            [
                printable(part.broker) or "(no task)",
                part.state,
                str(part.count),
                f"the oldest arrived {self.time(part.oldest_ns)}",
            ]
            for part in self.status.deliveries
        ]
        return ["", "Deliveries", *_table(rows)]

    def copies(self, snapshot: Snapshot) -> list[str]:
        rows = [
            [
                f"{100 * copy['done'] // max(copy['total'], 1)} % of {copy['total']} bytes",
                f"{printable(copy['source'])} → {printable(copy['final'])}",
            ]
            for move in snapshot["moves"]
            for copy in move["copies"]
        ]
        return ["", "Copies in progress", *_table(rows)] if rows else []

    def time(self, ns: int | None) -> str:
        if not ns:
            return "never"
        return f"{moment(ns)} ({_age((self.now_ns - ns) / 1e9)})"


def _troubles(snapshot: Snapshot) -> list[tuple[int, str, str]]:
    """Return (since when in ns, what, why) of all that is wrong."""
    found = [(t["since_ns"], t["subject"], t["message"]) for t in snapshot["troubles"]]
    for name, broker in snapshot["brokers"].items():
        if broker["trouble"]:
            found.append((broker["since_ns"], f"broker {name}", broker["trouble"]))
    for move in snapshot["moves"]:
        subject = f"moving {move['source']} to {move['root']}"
        if move["reason"]:
            found.append((move["stuck_since_ns"] or 0, subject, move["reason"]))
        found += [(since, subject, message) for since, message in move["troubles"]]
    return found


def _age(seconds: float) -> str:
    for name, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {name}{'' if number == 1 else 's'} ago"
    return f"{max(0, int(seconds))} s ago"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
