"""What several commands share: options, loading the configuration, printing."""

from __future__ import annotations

import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from watchman.commands.fitting import fitted
from watchman.errors import WatchmanError
from watchman.model import Config
from watchman.text import normal_path, printable

MOST_SECONDS = 2_000_000.0
_TOGETHER = 200
"""Items printed at once."""
_EMPTY = "'' names nothing; name what is meant, or leave it out"

Function = TypeVar("Function", bound=Callable[..., Any])


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Keep an option that may stand before or after the command's name."""
    if value == "":
        raise click.BadParameter(_EMPTY, ctx, parameter)
    options = ctx.ensure_object(dict)
    if value or parameter.name not in options:
        options[parameter.name] = value
    return value


def common(function: Function) -> Function:
    """Add the options that every command takes."""
    return click.option(
        "--config",
        metavar="FILE",
        expose_value=False,
        callback=_remember,
        help="The configuration; default: $WATCHMAN_CONFIG, else config.py.",
    )(function)


dry_run_option = click.option(
    "--dry-run",
    is_flag=True,
    expose_value=False,
    callback=_remember,
    help="Log what would be moved and sent, also beside a running daemon; do nothing.",
)
as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def load() -> Config:
    """Load the configuration that this command was given. Raises ConfigError."""
    from watchman import brokers, config, processors

    options = click.get_current_context().ensure_object(dict)
    loaded = config.load(
        options.get("config"),
        check_url=brokers.check_url,
        check_processor=processors.check,
        signals=[brokers.PublishingSignals()],
    )
    # The next load, for a reload, may happen in another working directory.
    options["config"] = loaded.path
    return loaded


def is_dry_run() -> bool:
    """Say whether this command was asked for a dry run."""
    return bool(click.get_current_context().ensure_object(dict).get("dry_run"))


def load_own() -> Config:
    """Load only the places of watchman's own files: the rest may be wrong at the moment.

    A mistake is told, and is no obstacle where there was a good start before.
    """
    from watchman import config

    found = config.load_own(click.get_current_context().ensure_object(dict).get("config"))
    for warning in found.warnings:
        warn(warning)
    return found


class Seconds(click.FloatRange):
    """A number of seconds that poll(2) takes: no nan, and none beyond its range."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number. Raises BadParameter."""
        number = float(super().convert(value, param, ctx))
        if not number <= MOST_SECONDS:
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return number


def absolute(path: str) -> str:
    """Return a path that the user named, absolute. Raises WatchmanError without a "here".

    An empty one, of a variable that is not set, would mean all that is here: it is a UsageError.
    """
    if not path:
        raise click.UsageError(_EMPTY)
    try:
        return normal_path(os.path.abspath(path))
    except OSError as error:
        raise WatchmanError(
            f"{printable(path)}: the working directory cannot be told ({error.strerror}); go to "
            "one that exists, or name the whole path"
        ) from error


def echo(text: str, *, nl: bool = True) -> None:
    """Print a text as it is. Raises WatchmanError where standard output takes no more."""
    try:
        click.echo(text, nl=nl)
    except BrokenPipeError:
        raise  # nothing is wrong: who read it has seen enough
    except OSError as error:
        # What is left in its buffer would fail once more, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise WatchmanError(
            f"standard output cannot be written: {error.strerror}; have it go elsewhere"
        ) from error


def say(line: str) -> None:
    """Print a line for the user."""
    echo(fitted(line))


def warn(line: str) -> None:
    """Print a line on standard error."""
    click.echo(fitted(f"notify: {line}", sys.stderr), err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    echo(json.dumps(value, indent=2, default=str))


def print_json_list(values: Iterable[Any]) -> None:
    """Print values as :func:`print_json` does a list of them, some at a time: there may be many."""
    left, pieces = iter(values), 0
    while some := list(itertools.islice(left, _TOGETHER)):
        # Within a list each line stands two further in; in a string of JSON no line ends.
        texts = (json.dumps(value, indent=2, default=str).replace("\n", "\n  ") for value in some)
        echo(("," if pieces else "[") + ",".join(f"\n  {text}" for text in texts), nl=False)
        pieces += 1
    echo("\n]" if pieces else "[]")
