"""``start``, ``stop``, ``restart``, ``reload``, ``status``: the daemon."""

from __future__ import annotations

import click

from watchman.commands.common import (
    Seconds,
    as_json_option,
    common,
    load,
    load_own,
    print_json,
    say,
    warn,
)

_timeout = click.option(
    "--timeout",
    type=Seconds(),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may take to finish what is in hand.",
)


@click.command(help="Start the daemon; returns when it watches.")
@common
def start() -> None:
    from watchman.daemon import control

    control.start(load, say, warn)


@click.command(help="Stop the daemon; returns when it has gone.")
@common
@_timeout
@click.option("--kill", is_flag=True, help="Then kill it; nothing is lost by that.")
def stop(timeout: float, kill: bool) -> None:
    from watchman.daemon import control

    control.stop(load_own(), say, timeout=timeout, kill=kill)


@click.command(
    help=(
        "Stop the daemon if it runs, then start it.\n\n"
        "With a configuration that has a mistake, nothing is done."
    )
)
@common
@_timeout
def restart(timeout: float) -> None:
    from watchman.daemon import control

    control.restart(load, say, warn, timeout=timeout)


@click.command(
    "reload",
    help=("Have the daemon read its configuration again.\n\nIt opens its log files again as well."),
)
@common
def reload_() -> None:
    from watchman.daemon import control

    control.reload(load(), say)


@click.command(
    "status",
    help=(
        "Say how it stands: what is watched, what waits, and what is wrong.\n\n"
        "Exit status 0 if all is well, 1 if it is not active (or its journal cannot be read), 2 if "
        'it is active and has troubles; 2 with "Usage:" on standard error is a mistake in the '
        "command."
    ),
)
@common
@as_json_option
@click.option(
    "--watch",
    "every",
    is_flag=False,
    flag_value=2.0,
    type=Seconds(),
    metavar="[SECONDS]",
    help="Show it again and again, every 2 seconds unless told otherwise; Ctrl-C ends it.",
)
@click.pass_context
def status_(ctx: click.Context, as_json: bool, every: float | None) -> None:
    from watchman.commands import status_screen

    if every is not None:
        if as_json:
            raise click.UsageError("--watch is for people; for programs repeat 'status --json'")
        status_screen.keep_showing(load_own(), every)
        return
    found = status_screen.look(load_own())
    if as_json:
        print_json(found.as_json())
    else:
        say(found.as_text())
    ctx.exit(found.exit_status)


COMMANDS = (start, stop, restart, reload_, status_)
