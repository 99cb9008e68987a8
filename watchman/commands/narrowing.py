"""The options of ``history`` that say which deliveries are meant, besides their paths."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from watchman.journal.question import Question

Function = TypeVar("Function", bound=Callable[..., Any])

_DISCARDED = "discarded"
_STATES = ("moving", "ready", "sent", "failed", "vanished", _DISCARDED, "moved")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
_DAY, _SECOND = datetime.timedelta(days=1), datetime.timedelta(seconds=1)
_MICROSECOND = datetime.timedelta(microseconds=1)
_FIRST, _LAST = -(1 << 63), (1 << 63) - 1
"""What SQLite can compare, ns; some 292 years before and after 1970."""


def since(text: str) -> int:
    """Return the beginning of a day, or a time of a day, in ns since the epoch.

    Local time, unless it names its time zone. Raises BadParameter.
    """
    moment, _ = _parsed(text)
    return _ns(moment, 0)


def until(text: str) -> int:
    """Return the last ns of a day, or of a second of a day; the rest as for :func:`since`."""
    moment, length = _parsed(text)
    if length is _SECOND:
        moment = moment.replace(microsecond=0)
    try:
        moment += length  # before there is a time zone: a day may have 23 hours
    except OverflowError:
        return _LAST
    return _ns(moment, 1)


def _parsed(text: str) -> tuple[datetime.datetime, datetime.timedelta]:
    """Return a time, and how long what was named lasts."""
    try:
        moment = datetime.datetime.fromisoformat(
            text[:-1] + "+00:00" if text[-1:] in {"Z", "z"} else text
        )
    except ValueError:
        raise click.BadParameter(
            f"{text!a} is no day (2026-11-26) and no time (2026-11-26T14:30)"
        ) from None
    return moment, _DAY if len(text) <= len("2026-11-26") else _SECOND


def _ns(moment: datetime.datetime, less: int) -> int:
    try:
        past = moment.astimezone(datetime.timezone.utc) - _EPOCH
    except (OverflowError, ValueError, OSError):  # at the ends of the calendar
        return _FIRST if moment.year < 1970 else _LAST
    return min(max(past // _MICROSECOND * 1000 - less, _FIRST), _LAST)


def narrowing(function: Function) -> Function:
    """Add the options, as one argument ``asked``: a dict for :func:`question`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.option(
        "--since",
        "since_ns",
        type=since,
        metavar="TIME",
        help="What arrived then or later: 2026-11-26 (its beginning), 2026-11-26T14:30.",
    ),
    click.option(
        "--until",
        "until_ns",
        type=until,
        metavar="TIME",
        help="What arrived then or before; a day means its end.",
    ),
    click.option("--state", type=click.Choice(_STATES), help="What is in this state."),
    click.option("--broker", metavar="NAME", help="What was for this broker."),
    click.option("--task", metavar="NAME", help="What was for this task."),
    click.option("--id", "task_id", metavar="ID", help="What had this task id."),
)


def question(paths: tuple[str, ...], asked: dict[str, Any]) -> Question:
    """Return what is asked for by the options and by paths."""
    from watchman.journal.question import Question
    from watchman.model import State

    given = {name: value for name, value in asked.items() if value is not None}
    word = given.pop("state", None)
    if word is not None:
        given["state"] = State.VANISHED if word == _DISCARDED else State[word.upper()]
        given["discarded"] = word == _DISCARDED
    return Question(paths, **given)
