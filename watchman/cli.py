"""The command ``notify``: one function a command, and the only place where an error becomes an
exit status: 0 done, 1 it did not work, 2 usage, 78 bad configuration.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import click

from watchman import __version__, limits
from watchman.commands.common import common, dry_run_option, is_dry_run, load, load_own, say, warn
from watchman.commands.groups import LazyCommands
from watchman.errors import AlreadyRunning, WatchmanError


class _Commands(LazyCommands):
    """Turns watchman's own errors into a line on stderr and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except WatchmanError as error:
            for line in str(error).splitlines():
                warn(line)
            ctx.exit(error.exit_status)
        except BrokenPipeError:
            # Whoever read our output (head, less) has gone: nothing is wrong.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(0)
        except (OSError, RuntimeError, MemoryError) as error:
            words = limits.explain(error)
            if words is None:
                raise
            warn(words)
            ctx.exit(1)


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


@main.command(help="Run in the foreground.\n\nSIGTERM ends it, SIGHUP reloads the configuration.")
@common
@dry_run_option
def run() -> None:
    from watchman import queued_logging

    status, words = 0, ""
    try:
        if is_dry_run():
            from watchman.commands import dry_run

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
    """Run the service; under supervisord, after the one that runs already, if there is one.

    Only here is systemd told of it: what ``start`` leaves behind is not the process it has started.
    """
    from watchman.daemon.succession import await_turn
    from watchman.daemon.systemd import Manager
    from watchman.service import Service

    try:
        Service(load, Manager()).run()
    except AlreadyRunning:
        await_turn(load_own(), say)
        raise


def _give_up_broken_output() -> None:
    """Let no output that broke before (its disk is full, its reader has gone) spoil the status."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@main.command(help="Show it all in a scratch directory, with a real Celery worker.")
@click.option("--once", is_flag=True, help="End after the samples; status 0 if all arrived.")
def demo(once: bool) -> None:
    from watchman.demo import Demo

    Demo().run(once=once)
