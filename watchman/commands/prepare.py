"""``check`` and ``match``: what a configuration would do, before it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from watchman.commands.common import absolute, as_json_option, common, load, print_json, say, warn
from watchman.errors import ConfigError
from watchman.model import Broker, Config, Route
from watchman.text import printable

if TYPE_CHECKING:
    from watchman import checks
    from watchman.brokers.capture import Preview
    from watchman.brokers.worker_inspection import Workers


@click.command(
    help=(
        "Test the configuration and all that it names; change nothing.\n\n"
        "Directories, permissions, limits, free space, brokers, and what Celery makes of each "
        "pattern. What begins with 'note' is advice; exit status 1 if anything is bad."
    )
)
@common
@as_json_option
@click.option(
    "--workers", is_flag=True, help="Ask the brokers whether anybody takes the tasks, as well."
)
@click.pass_context
def check(ctx: click.Context, as_json: bool, workers: bool) -> None:
    from watchman import checks, daemon

    try:
        config = load()
    except ConfigError as error:
        if as_json:
            results = [checks.Check("configuration", False, line) for line in error.problems]
            print_json([dataclasses.asdict(result) for result in results])
        raise
    running = daemon.running(config)
    results = checks.check(
        config,
        check_broker=lambda broker: _check_broker(config, broker),
        preview=_preview(config),
        ask_workers=_ask(config) if workers else None,
        daemon=running.pid if running else None,
    )
    warnings = [checks.Check("configuration", True, warning) for warning in config.warnings]
    for warning in warnings:
        warn(warning.detail)
    if as_json:
        print_json([dataclasses.asdict(result) for result in warnings + results])
    else:
        for result in results:
            say(_line(result))
    if not all(result.ok for result in results):
        ctx.exit(1)


def _line(result: checks.Check) -> str:
    if not result.ok:
        mark = click.style("BAD ", "red")
    elif result.remedy:
        mark = click.style("note", "magenta")
    else:
        mark = click.style("ok  ", "green")
    remedy = f"; {printable(result.remedy)}" if result.remedy else ""
    return f"{mark} {printable(result.subject)}: {printable(result.detail)}{remedy}"


def _preview(config: Config) -> Callable[[Route], Preview]:
    from watchman import brokers

    return lambda route: brokers.preview(config.brokers[route.broker], config.celery, route)


def _check_broker(config: Config, broker: Broker) -> str | None:
    from watchman import brokers

    publisher = brokers.open_publisher(broker, config.celery, config.state_dir)
    try:
        return publisher.check()
    finally:
        publisher.close()


def _ask(config: Config) -> Callable[[Broker, list[str], list[str]], Workers]:
    from watchman import brokers

    return lambda broker, queues, exchanges: brokers.ask_workers(
        broker, config.celery, config.state_dir, queues, exchanges
    )


@click.command(
    help=(
        "Say what would become of a file at each PATH, and why.\n\n"
        "No file needs to be there: which watch it would be seen by, its pattern, task, broker, "
        "queue and destination, or where that ends; what it has to be before it counts, and what "
        "stands beside the file says of it now."
    )
)
@common
@as_json_option
@click.argument("paths", nargs=-1, required=True, type=click.Path())
def match(paths: Sequence[str], as_json: bool) -> None:
    config = load()
    matches = [_match(config, absolute(path)) for path in paths]
    if as_json:
        print_json([dataclasses.asdict(match) for match in matches])
        return
    for found in matches:
        say(found.text())


def _match(config: Config, path: str) -> checks.Match:
    from watchman import checks
    from watchman.checks.asked import Asked

    found = checks.match(config, path, _preview(config))
    told = Asked(config).told_now(found.path) if found.asked else ""
    return dataclasses.replace(found, told_now=told)


COMMANDS = (check, match)
