"""Plots of the results, as SVG. Needs matplotlib; without it there are none."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OURS, THEIRS, LIMIT = "#2b6cb0", "#a0aec0", "#c53030"

CAPTIONS = {
    "latency.svg": "From close(2) to a message in Redis",
    "memory.svg": "Peak memory, and what was asked",
    "rates.svg": "Tasks a second in a burst",
    "times.svg": "Seconds until watching, and until caught up",
}
"""By file name."""

Result = Mapping[str, Any]


def draw(results: Mapping[str, Result], directory: Path) -> None:
    """Draw what the results allow. Raises ImportError where matplotlib is missing."""
    mpl = importlib.import_module("matplotlib")
    mpl.use("svg")
    # The same figures give the same file.
    mpl.rcParams.update({"svg.hashsalt": "watchman", "svg.fonttype": "none", "font.size": 9})
    directory.mkdir(exist_ok=True)
    for name, needed, function in (
        ("rates.svg", ["burst_redis", "burst_rabbitmq"], _rates),
        ("latency.svg", ["latency"], _latency),
        ("times.svg", ["start", "restart"], _times),
        ("memory.svg", ["memory"], _memory),
    ):
        if all(wanted in results for wanted in needed):
            figure = function([results[wanted] for wanted in needed])
            figure.savefig(directory / name, metadata={"Date": None}, bbox_inches="tight")


def _figure(axes: int, height: float) -> tuple[Any, Sequence[Any]]:
    figure = importlib.import_module("matplotlib.figure").Figure(
        figsize=(7, height), layout="constrained"
    )
    found = [figure.add_subplot(axes, 1, number + 1) for number in range(axes)]
    for axis in found:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, found


def _bars(axis: Any, names: Sequence[str], values: Sequence[float], marks: Sequence[str]) -> None:
    colours = [OURS if name.startswith("watchman") else THEIRS for name in names]
    bars = axis.barh(names, values, color=colours)
    axis.bar_label(bars, marks, padding=3)
    axis.invert_yaxis()
    axis.margins(x=0.25)


def _rates(results: Sequence[Result]) -> Any:
    figure, axes = _figure(2, 3.2)
    for axis, result in zip(axes, results, strict=True):
        rows = [dict(zip(result["columns"], row, strict=True)) for row in result["rows"]]
        marks = [f"{row['files/s']:,}/s, {row['missing']:,} missing" for row in rows]
        _bars(axis, [row["who"] for row in rows], [row["files/s"] for row in rows], marks)
        axis.set_title(f"{result['machine']['broker']}, {result['options']['files']:,} files")
        axis.set_xlabel("delivered files a second")
    return figure


def _latency(results: Sequence[Result]) -> Any:
    figure, (axis,) = _figure(1, 2.8)
    for name, trials in results[0]["details"].items():
        colour = OURS if name.startswith("watchman") else THEIRS
        for number, trial in enumerate(trials):
            label = name if number == 0 else None
            axis.plot(range(100), trial["percentiles"], color=colour, label=label, linewidth=1)
    axis.set_yscale("log")
    axis.set_xlabel("percentile")
    axis.set_ylabel("ms")
    axis.legend(frameon=False)
    return figure


def _times(results: Sequence[Result]) -> Any:
    figure, axes = _figure(2, 3.0)
    for axis, result in zip(axes, results, strict=True):
        names, seconds = [row[0] for row in result["rows"]], [row[1] for row in result["rows"]]
        _bars(axis, names, seconds, [f"{value:.2f} s" for value in seconds])
        axis.set_title(result["title"])
        axis.set_xlabel("seconds")
    return figure


def _memory(results: Sequence[Result]) -> Any:
    figure, (axis,) = _figure(1, 2.4)
    rows = results[0]["rows"]
    bars = axis.barh([row[0] for row in rows], [row[2] for row in rows], color=OURS)
    axis.bar_label(bars, [f"{row[2]:.0f} MB" for row in rows], padding=3)
    for place, row in enumerate(rows):
        axis.plot([row[3], row[3]], [place - 0.4, place + 0.4], color=LIMIT)
    axis.invert_yaxis()
    axis.set_xlabel("MB at the peak; the line is what was asked")
    return figure
