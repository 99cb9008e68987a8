"""The options that say which deliveries are meant, the same for every command that takes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from watchman.commands.common import Function, absolute
from watchman.commands.times import FIRST, LAST, since, until
from watchman.text import moment

if TYPE_CHECKING:
    from watchman.journal.question import Question

_TASK_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DISCARDED = "discarded"
_STATES = ("moving", "ready", "sent", "failed", "vanished", _DISCARDED, "moved")


def narrowing(function: Function) -> Function:
    """Add the options but ``--state``, as one argument ``asked``: a dict for :func:`question`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


state_option = click.option("--state", type=click.Choice(_STATES), help="What is in this state.")
_OPTIONS = (
    click.option(
        "--since",
        "since_ns",
        type=since,
        metavar="TIME",
        help="What arrived then or later: 14:05, yesterday, 2h, 2026-11-26, 2026-11-26T14:30.",
    ),
    click.option(
        "--until",
        "until_ns",
        type=until,
        metavar="TIME",
        help="What arrived then or before; a day means its end.",
    ),
    click.option("--broker", metavar="NAME", help="What was for this broker."),
    click.option("--task", metavar="NAME", help="What was for this task."),
    click.option("--id", "task_id", metavar="ID", help="What had this task id."),
    click.option("--reason", metavar="WORDS", help="What has these words in its reason."),
    click.option(
        "--directory",
        metavar="DIR",
        help="What is below it, before or after its move.",
    ),
)


def is_narrowed(asked: dict[str, Any]) -> bool:
    """Say whether any of the options was given."""
    return any(value is not None for value in asked.values())


def task_id_of(text: str) -> str:
    """Return a UUID as the ids of tasks are written, whatever its case; empty for other texts."""
    return text.lower() if _TASK_ID.fullmatch(text.lower()) else ""


def question(paths: tuple[str, ...], asked: dict[str, Any]) -> Question:
    """Return what is asked for by the options and by paths. Raises UsageError, WatchmanError."""
    from watchman.journal.question import Question
    from watchman.model import State

    given = {name: value for name, value in asked.items() if value is not None}
    for name in ("reason", "directory"):
        if given.get(name) == "":
            raise click.UsageError(f"--{name} is empty; name what is meant, or leave it out")
    if "directory" in given:
        given["directory"] = absolute(given["directory"])
    begin, end = given.get("since_ns", FIRST), given.get("until_ns", LAST)
    if end < begin:
        raise click.UsageError(
            f"--until ({moment(end)}) is before --since ({moment(begin)}): nothing can have "
            "arrived between them"
        )
    if "task_id" in given:
        given["task_id"] = task_id_of(given["task_id"]) or given["task_id"]
    word = given.pop("state", None)
    if word is not None:
        given["state"] = State.VANISHED if word == _DISCARDED else State[word.upper()]
        given["discarded"] = word == _DISCARDED
    return Question(paths, **given)
