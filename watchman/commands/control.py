"""``start``, ``stop``, ``restart``, ``reload``, ``status``: the daemon."""

from __future__ import annotations

import time

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
from watchman.errors import JournalError

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
    from watchman import daemon

    daemon.start(load, say, warn)


@click.command(help="Stop the daemon; returns when it has gone.")
@common
@_timeout
@click.option("--kill", is_flag=True, help="Then kill it; nothing is lost by that.")
def stop(timeout: float, kill: bool) -> None:
    from watchman import daemon

    daemon.stop(load_own(), say, timeout=timeout, kill=kill)


@click.command(
    help="Stop the daemon if it runs, then start it; a bad configuration changes nothing."
)
@common
@_timeout
def restart(timeout: float) -> None:
    from watchman import daemon

    daemon.restart(load, say, warn, timeout=timeout)


@click.command(
    "reload", help="Have the running watchman read its configuration and open its log files again."
)
@common
def reload_() -> None:
    from watchman import daemon

    daemon.reload(load(), say)


@click.command("status", help="Say how it stands; exit status 0 if it is active, 1 otherwise.")
@common
@as_json_option
@click.pass_context
def status_(ctx: click.Context, as_json: bool) -> None:
    from watchman import daemon, status
    from watchman.journal.reading import reading
    from watchman.journal.tallies import Summary

    config = load_own()
    summary, readable = Summary({}, {}, (0, 0)), True
    found = daemon.running(config)
    try:
        # Before the snapshot: that must not tell of a copy which is over by the journal's word.
        with reading(config.state_dir) as journal:
            summary = journal.summary()
    except JournalError as error:
        # Whether it runs and watches can be said all the same.
        readable = False
        warn(str(error))
    process = None if found is None else (found.pid, found.since_ns)
    answered = found is not None and status.ask(config.state_dir)
    snapshot, run_ns = status.read(config.state_dir), status.run_of(config.state_dir)
    now = status.Now(time.time_ns(), time.monotonic_ns(), run_ns, answered)
    counts, discarded, latest = summary
    composed = status.compose(process, snapshot, counts, latest, now, discarded=discarded)
    if as_json:
        print_json(status.as_json(composed, now.ns))
    else:
        say(status.as_text(composed, now.ns))
    if not (composed.active and readable):
        ctx.exit(1)


COMMANDS = (start, stop, restart, reload_, status_)
