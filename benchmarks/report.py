"""A benchmark's result: a table on the terminal, JSON in a file, and what was to be reached."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import harness

PACKAGES = ("celery", "kombu", "amqp", "redis", "pyinotify")


def machine(places: harness.Places) -> dict[str, Any]:
    """Describe this machine without naming it."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    models = [line.split(":", 1)[1] for line in info.splitlines() if line.startswith("model name")]
    limit = Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0].strip() if models else platform.machine(),
        "memory": f"{memory / harness.MEGABYTE / 1024:.0f} GB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "uploads on": harness.file_system(places.uploads),
        "journal on": harness.file_system(places.disk),
        "max_queued_events": int(limit),
        "load before": round(os.getloadavg()[0], 2),
    }


class Report:
    """What one program found. ``finish`` prints and writes it, and gives the exit status."""

    def __init__(
        self, title: str, options: Namespace, places: harness.Places, columns: Sequence[str]
    ) -> None:
        self.title = title
        self.columns = list(columns)
        self.rows: list[list[Any]] = []
        self.targets: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self.more: list[dict[str, Any]] = []
        """Further tables: title, columns, rows."""
        self.details: dict[str, Any] = {}
        self.machine = machine(places)
        self._options = options
        self._program = Path(sys.argv[0]).stem

    def target(
        self,
        what: str,
        value: float | None,
        *,
        unit: str = "",
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """Note what was to be reached, and what was; None where there is no peer."""
        least, most = at_least is not None, at_most is not None
        assert least != most
        limit = at_least if at_least is not None else at_most
        assert limit is not None
        reached = None
        if value is not None:
            reached = value >= limit if least else value <= limit
        self.targets.append(
            {
                "what": what,
                "asked": f"{'≥' if least else '≤'} {limit:g} {unit}".strip(),
                "value": None if value is None else float(f"{value:.4g}"),
                "unit": unit,
                "reached": reached,
            }
        )

    def must(self, holds: bool, otherwise: str) -> None:
        """Note a failure unless ``holds``."""
        if not holds:
            self.failures.append(otherwise)

    def whole(self, name: str, trials: Iterable[Any]) -> None:
        """Note a failure if one of our own trials lost or doubled a file."""
        for number, trial in enumerate(trials, 1):
            self.must(
                trial.whole,
                f"run {number} of {name}: {trial.missing} missing, {trial.doubled} doubled",
            )

    def finish(self) -> int:
        """Print the table, write the JSON; return 1 if something failed."""
        say(f"\n{self.title}\n\n{text_table(self.columns, self.rows)}\n")
        for table in self.more:
            say(f"{table['title']}\n\n{text_table(table['columns'], table['rows'])}\n")
        for target in self.targets:
            asked = f"(asked: {target['asked']})"
            say(f"{verdict(target):12} {target['what']}: {shown(target)} {asked}")
        for failure in self.failures:
            say(f"FAILED: {failure}")
        kept = {
            name: value
            for name, value in vars(self._options).items()
            if name not in {"output", "disk", "peer", "before", "keep"}
        }
        result = {
            "program": self._program,
            "title": self.title,
            "taken": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
            "options": kept,
            "machine": self.machine,
            "columns": self.columns,
            "rows": self.rows,
            "more": self.more,
            "targets": self.targets,
            "failures": self.failures,
            "details": self.details,
        }
        self._options.output.mkdir(parents=True, exist_ok=True)
        path = self._options.output / f"{self._program}.json"
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return 1 if self.failures else 0


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def verdict(target: Mapping[str, Any]) -> str:
    """Return whether a target was reached, in a word or two."""
    return {True: "reached", False: "NOT REACHED", None: "no peer"}[target["reached"]]


def shown(target: Mapping[str, Any]) -> str:
    """Return a target's value with its unit."""
    value = target["value"]
    return "–" if value is None else f"{value:g} {target['unit']}".strip()


def cell(value: Any) -> str:
    """Return how a table shows a value."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)


def text_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Lay a table out for a terminal, which is also a simple table in reStructuredText."""
    texts = [list(columns), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(row[index]) for row in texts) for index in range(len(columns))]
    rule = "  ".join("=" * width for width in widths)
    numeric = [
        all(isinstance(row[index], (int, float, type(None))) for row in rows)
        for index in range(len(columns))
    ]
    lines = [
        "  ".join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in texts
    ]
    return "\n".join([rule, lines[0], rule, *lines[1:], rule])
