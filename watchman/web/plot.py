"""Small plots, drawn here: what arrived above a line, what was sent below it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from watchman.journal.activity import Minute

_MINUTE = 60_000_000_000
_HEIGHT = 100
"""Units of the drawing on each side of the line."""
_BAR, _GAP = 10, 2


class Bar(NamedTuple):
    """What happened in some minutes."""

    start_ns: int
    recorded: int
    sent: int


class Plot(NamedTuple):
    """A drawing, and what it says."""

    svg: Markup
    bars: Sequence[Bar]
    most: int
    """What a whole bar stands for."""

    @property
    def recorded(self) -> int:
        """How many arrived."""
        return sum(bar.recorded for bar in self.bars)

    @property
    def sent(self) -> int:
        """How many were sent."""
        return sum(bar.sent for bar in self.bars)


def plot(minutes: Sequence[Minute], now_ns: int, *, count: int, step: int) -> Plot:
    """Draw the last ``count`` bars of ``step`` minutes each; the last one is not over yet."""
    bars = _bars(minutes, now_ns, count, step)
    most = max(1, *(max(bar.recorded, bar.sent) for bar in bars))
    shapes: list[str] = []
    for number, bar in enumerate(bars):
        x = number * (_BAR + _GAP)
        shapes += _shape("arrived", x, bar.recorded, most)
        shapes += _shape("sent", x, bar.sent, most)
    width = count * (_BAR + _GAP) - _GAP
    # Numbers and our own words alone: nothing in it has to be escaped.
    drawing = (
        f'<svg viewBox="0 0 {width} {2 * _HEIGHT + 1}" preserveAspectRatio="none" '
        f'aria-hidden="true" focusable="false"><rect class="line" x="0" y="{_HEIGHT}" '
        f'width="{width}" height="1"/>{"".join(shapes)}</svg>'
    )
    return Plot(Markup(drawing), bars, most)  # noqa: S704 — see above


def _bars(minutes: Sequence[Minute], now_ns: int, count: int, step: int) -> list[Bar]:
    length = step * _MINUTE
    first = now_ns // length - count + 1
    recorded: Counter[int] = Counter()
    sent: Counter[int] = Counter()
    for minute in minutes:
        place = minute.start_ns // length - first
        recorded[place] += minute.recorded
        sent[place] += minute.sent
    return [Bar((first + n) * length, recorded[n], sent[n]) for n in range(count)]


def _shape(kind: str, x: int, number: int, most: int) -> list[str]:
    if not number:
        return []
    height = max(2, round(number / most * _HEIGHT))  # one of a million is to be seen
    y = _HEIGHT - height if kind == "arrived" else _HEIGHT + 1
    return [f'<rect class="{kind}" x="{x}" y="{y}" width="{_BAR}" height="{height}"/>']
