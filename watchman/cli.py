"""The command ``notify``: one function a command, and the only place where an error becomes an
exit status: 0 done, 1 it did not work, 2 usage, 78 bad configuration.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from watchman import __version__, limits
from watchman.commands import control, deliveries
from watchman.commands.common import (
    absolute,
    as_json_option,
    common,
    dry_run_option,
    is_dry_run,
    load,
    load_own,
    print_json,
    say,
)
from watchman.errors import AlreadyRunning, ConfigError, WatchmanError
from watchman.model import Broker, Config, Route
from watchman.text import printable

if TYPE_CHECKING:
    from watchman.brokers.previews import Preview


class _Commands(click.Group):
    """Turns watchman's own errors into a line on stderr and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WatchmanError as error:
            for line in str(error).splitlines():
                click.echo(f"notify: {line}", err=True)
            ctx.exit(error.exit_status)
        except (OSError, RuntimeError, MemoryError) as error:
            words = limits.explain(error)
            if words is None:
                raise
            click.echo(f"notify: {words}", err=True)
            ctx.exit(1)
        except BrokenPipeError:
            # Whoever read our output (head, less) has gone: nothing is wrong.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help=(
        "Turn every completed upload into one Celery task.\n\n"
        "Without a command: run in the foreground."
    ),
)
@common
@dry_run_option
@click.version_option(__version__, prog_name="watchman", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        ctx.color = False
    if ctx.invoked_subcommand is None:
        ctx.invoke(run)
    elif ctx.invoked_subcommand != "run" and is_dry_run():
        raise click.UsageError("--dry-run is for `notify run`, in the foreground")


@main.command(help="Run in the foreground; SIGTERM ends it, SIGHUP reloads the configuration.")
@common
@dry_run_option
def run() -> None:
    from watchman import queued_logging
    from watchman.commands import dry_run

    status, words = 0, ""
    try:
        if is_dry_run():
            dry_run.run(load)
        else:
            _run_in_turn()
    except WatchmanError as error:
        if not queued_logging.hanging():
            raise
        status, words = error.exit_status, str(error)
    except Exception:
        if not queued_logging.hanging():
            raise
        status, words = 1, traceback.format_exc()
    if queued_logging.hanging():
        # Python's own end would wait for the thread that hangs in its output.
        queued_logging.last_words("".join(f"notify: {line}\n" for line in words.splitlines()))
        os._exit(status)
    _give_up_broken_output()


def _run_in_turn() -> None:
    """Run the service; under supervisord, after the one that runs already, if there is one."""
    from watchman import daemon
    from watchman.service import Service

    try:
        Service(load).run()
    except AlreadyRunning:
        daemon.await_turn(load_own(), say)
        raise


def _give_up_broken_output() -> None:
    """Let no output that broke before (its disk is full, its reader has gone) spoil the status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@main.command(help="Read the configuration and test all that it names; change nothing.")
@common
@as_json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    from watchman import checks

    try:
        config = load()
    except ConfigError as error:
        if as_json:
            results = [checks.Check("configuration", False, line) for line in error.problems]
            print_json([dataclasses.asdict(result) for result in results])
        raise
    results = checks.check(
        config,
        check_broker=lambda broker: _check_broker(config, broker),
        preview=_preview(config),
    )
    warnings = [checks.Check("configuration", True, warning) for warning in config.warnings]
    for warning in warnings:
        click.echo(f"notify: {warning.detail}", err=True)
    if as_json:
        results = warnings + results
        print_json([dataclasses.asdict(result) for result in results])
    else:
        for result in results:
            mark = click.style("ok  ", "green") if result.ok else click.style("BAD ", "red")
            remedy = f"; {result.remedy}" if result.remedy and not result.ok else ""
            click.echo(f"{mark} {printable(result.subject)}: {printable(result.detail)}{remedy}")
    if not all(result.ok for result in results):
        ctx.exit(1)


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


@main.command(
    help="Say for each PATH which watch, pattern, task, broker, queue and destination it would get."
)
@common
@as_json_option
@click.argument("paths", nargs=-1, required=True, type=click.Path())
def match(paths: Sequence[str], as_json: bool) -> None:
    from watchman import checks

    config = load()
    matches = [checks.match(config, absolute(path), _preview(config)) for path in paths]
    if as_json:
        print_json([dataclasses.asdict(match) for match in matches])
        return
    for found in matches:
        click.echo(found.text())


@main.command(help="Show the whole chain in a scratch directory, with a real Celery worker.")
@click.option("--once", is_flag=True, help="End after the samples; status 0 if all arrived.")
def demo(once: bool) -> None:
    from watchman.demo import Demo

    Demo(click.echo).run(once=once)


for _command in (*control.COMMANDS, *deliveries.COMMANDS):
    main.add_command(_command)
