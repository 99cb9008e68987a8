"""What several commands share: options, loading the configuration, printing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import click

from watchman.model import Config

Function = TypeVar("Function", bound=Callable[..., Any])


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """Keep an option that may stand before or after the command's name."""
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


dry_run = click.option(
    "--dry-run",
    is_flag=True,
    expose_value=False,
    callback=_remember,
    help="Log what would be moved and sent; move and send nothing.",
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
    )
    # The next load, for a reload, may happen in another working directory.
    options["config"] = loaded.path
    if options.get("dry_run"):
        loaded = dataclasses.replace(loaded, dry_run=("*",))
    return loaded


def load_own() -> Config:
    """Load only the places of watchman's own files: the rest may be wrong at the moment."""
    from watchman.config.own import load_own as own

    return own(click.get_current_context().ensure_object(dict).get("config"))


def say(line: str) -> None:
    """Print a line for the user."""
    click.echo(line)


def warn(line: str) -> None:
    """Print a line on standard error."""
    click.echo(f"notify: {line}", err=True)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, indent=2, default=str))


def moment(ns: int) -> str:
    """Return a time in the user's time zone."""
    return f"{datetime.fromtimestamp(ns / 1e9).astimezone():%Y-%m-%d %H:%M:%S}"


def iso(ns: int) -> str:
    """Return a time as ISO 8601 in the user's time zone."""
    return datetime.fromtimestamp(ns / 1e9).astimezone().isoformat()
