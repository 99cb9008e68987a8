"""Starting the daemon, and talking to the one that runs."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from watchman import config as configuration
from watchman import limits, queued_logging, record_locks
from watchman.config import is_default
from watchman.daemon import pidfile, places, succession
from watchman.daemon.detach import Output, Report, detach
from watchman.daemon.process import (
    detached,
    ended,
    process,
    running,
    send,
    supervised,
    supervisorctl,
)
from watchman.daemon.rotation import Limits
from watchman.errors import AlreadyRunning, NotRunning, WatchmanError
from watchman.model import Config
from watchman.status import handler, read
from watchman.text import printable

Say = Callable[[str], None]

STOP_TIMEOUT = 30.0
"""Seconds that a daemon has to finish what is in hand."""
_KILLED_TIMEOUT = 5.0
_HANDLERS = {
    "out": {"class": "logging.StreamHandler", "formatter": "default", "stream": "ext://sys.stdout"},
    "err": {
        "class": "logging.StreamHandler",
        "formatter": "default",
        "stream": "ext://sys.stderr",
        "level": "WARNING",
    },
}


def _in_files(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a default LOGGING for ``start``: every line in watchman.out, what is wrong also in
    watchman.err. One of the user's own is used as it is.
    """
    root = {"level": "INFO", "handlers": ["out", "err"]}
    return {**settings, "handlers": _HANDLERS, "root": root}


# Starting


def start(load: Callable[[], Config], say: Say, warn: Say) -> None:
    """Start the daemon; return when it watches.

    ``load`` must give the same configuration from any working directory. ``say`` and ``warn``
    print for the user. Raises ConfigError before anything is done, AlreadyRunning, and
    WatchmanError with the reason why the daemon does not watch.
    """
    config = load()
    found = running(config)
    if found is not None:
        raise AlreadyRunning(f"already running with {record_locks.who(found.pid)}")
    heard: dict[str, Any] = {}

    def hear(message: Mapping[str, Any]) -> None:
        heard.update(message)
        if "note" in message:
            warn(message["note"])

    detach(lambda report: _serve(load, config, report), hear)
    if "ready" not in heard:
        reason = heard.get("error") or (
            f"the daemon ended before it watched; {heard.get('err', 'nobody')} may tell why"
        )
        failure = (AlreadyRunning if heard.get("already") else WatchmanError)(reason)
        failure.exit_status = heard.get("status", failure.exit_status)
        raise failure
    missing = _warn_of_troubles(config, warn)
    for watch in config.watches:
        if watch.path in missing:
            continue
        say(f"DEBUG Adding watch on {printable(watch.path)}, processed by {handler(watch)}")
    # A LOGGING of the user's own mostly writes to standard error, and nothing to the other.
    own = not is_default(config.logging)
    output = f"{heard['out']} and {heard['err']}" if own else heard["out"]
    say(f"Watching with process id {heard['ready']}; output in {output}")


def _warn_of_troubles(config: Config, warn: Say) -> set[str]:
    """Say what the daemon has to do without at the moment; return the subjects."""
    snapshot = read(config.state_dir)
    troubles = snapshot["troubles"] if snapshot is not None else []
    for trouble in troubles:
        warn(f"{printable(trouble['subject'])}: {printable(trouble['message'])}")
    return {trouble["subject"] for trouble in troubles}


def _serve(load: Callable[[], Config], config: Config, report: Report) -> int:
    """Be the daemon. Return its exit status."""
    # Loaded here, so that the other commands do without the whole machinery.
    from watchman.service import Service

    os.chdir(os.path.dirname(config.path))
    output = Output(*places.output(config), Limits(config.log_size, config.log_files))
    try:
        with contextlib.suppress(OSError):  # the service says what is wrong with it
            os.makedirs(config.state_dir, mode=0o700, exist_ok=True)
        with _pid_file(config) as note:
            output.open()
            notes = [note, *output.notes] if note else output.notes
            for line in notes:
                report.tell(note=line)
            report.tell(out=output.paths[1], err=output.paths[2])
            Service(_loader(load, config, notes, output), _StartCommand(report, output)).run()
            report.tell(error="it was stopped before it watched")
    except WatchmanError as error:
        _tell(report, output, str(error), error.exit_status, isinstance(error, AlreadyRunning))
        return error.exit_status
    except (OSError, RuntimeError, MemoryError) as error:
        words = limits.explain(error)
        if words is None:
            raise
        _tell(report, output, words, WatchmanError.exit_status)
        return WatchmanError.exit_status
    finally:
        report.close()
    return 0


def _tell(report: Report, output: Output, words: str, status: int, already: bool = False) -> None:
    """Say why the daemon ends, to whoever started it and in the error file."""
    report.tell(error=words, status=status, already=already)
    if output.paths:
        lines = [f"notify: {line}\n" for line in words.splitlines()]
        queued_logging.last_words("".join(lines))  # into the error file


class _StartCommand:
    """``notify start``, which waits for the report; the daemon's output is in files."""

    def __init__(self, report: Report, output: Output) -> None:
        self._report = report
        self._output = output

    def ready(self, _state_dir: str) -> None:
        self._report.tell(ready=os.getpid())
        self._report.close()

    def reloading(self) -> None:
        self._output.reopen()

    def adopted(self, config: Config) -> None:
        # Only now: what a reload refuses must not hold.
        self._output.limits.size, self._output.limits.files = config.log_size, config.log_files
        for line in config.warnings:  # these are said now
            if line in self._output.unopened:
                self._output.unopened.remove(line)

    def stopping(self) -> None:
        """Nothing to do: whoever stops it waits for its end."""

    def leave(self) -> None:
        self._report.close()


@contextlib.contextmanager
def _pid_file(config: Config) -> Iterator[str]:
    """Hold the pid file; yield what is to be said about its place."""
    held, note = places.pid_file(config).use(pidfile.claim)
    try:
        yield note
    finally:
        held.remove()


def _loader(
    load: Callable[[], Config], first: Config, notes: list[str], output: Output
) -> Callable[[], Config]:
    """Return a ``load`` that fits the configuration to a process without a terminal."""

    def loaded() -> Config:
        config = load()
        for name in ("pid_file", "log_dir", "out_file", "err_file"):
            if getattr(config, name) != getattr(first, name):
                configuration.reject(config)
                raise WatchmanError(
                    f"{name.upper()} changed; restart to use {getattr(config, name)}"
                )
        if is_default(config.logging):
            config = dataclasses.replace(config, logging=_in_files(config.logging))
        return dataclasses.replace(config, warnings=(*config.warnings, *notes, *output.unopened))

    return loaded


# Stopping


def stop(config: Config, say: Say, *, timeout: float = STOP_TIMEOUT, kill: bool = False) -> bool:
    """Stop the daemon; return when its process has gone. False if another one takes its place.

    With ``kill``, SIGKILL after ``timeout`` seconds: nothing is lost by it, the next start goes
    on where this one was cut off. Raises NotRunning, WatchmanError if it does not end.
    """
    with process(config, detached) as found:
        if found is None:
            raise NotRunning(_why_nothing_stops(config))
        daemon, descriptor = found
        successor = succession.waiting(config)
        send(descriptor, daemon, signal.SIGTERM)
        if not ended(descriptor, timeout):
            if not kill:
                raise WatchmanError(
                    f"{record_locks.who(daemon.pid)} has not ended within {timeout:g} s; it may "
                    "still do so, or be ended at once with 'notify stop --kill'"
                )
            send(descriptor, daemon, signal.SIGKILL)
            ended(descriptor, _KILLED_TIMEOUT)
    _clear(config)
    if successor is None:
        say("Watching has been stopped.")
    else:
        say(f"Process {daemon.pid} has ended. {succession.goes_on(successor)}")
    return successor is None


def _why_nothing_stops(config: Config) -> str:
    left = _clear(config)
    line = f"No pid file exists at {config.pid_file}."
    if left:
        line = f"No daemon runs; the pid file {left[0]}, left over from a crash, has been removed."
    other = running(config)
    if other is not None:
        line += f" But {record_locks.who(other.pid)} watches {_how_to_stop(other.pid)}."
    return line


def _how_to_stop(pid: int) -> str:
    """Say how to stop a watchman that ``start`` did not start; 0 is one in another container."""
    program = supervised(pid) if pid else None
    if program is not None:
        return f"under supervisord: stop it with '{supervisorctl('stop', program)}'"
    also = f", or with 'kill {pid}'" if pid else ""
    return f"in the foreground: stop it where it was started{also}"


def _clear(config: Config) -> list[str]:
    """Remove pid files that nobody holds; return their paths."""
    return [path for path in places.pid_file(config).candidates() if pidfile.clear(path)]


def restart(
    load: Callable[[], Config], say: Say, warn: Say, *, timeout: float = STOP_TIMEOUT
) -> None:
    """Stop the daemon if it runs, and start it; with a bad configuration it goes on running.

    One that waits under supervisord takes its place, with the configuration of now.
    """
    config = load()
    if detached(config) is not None:
        with contextlib.suppress(NotRunning):  # it ended by itself in between
            if not stop(config, say, timeout=timeout):
                return
    start(load, say, warn)


# Asking


def reload(config: Config, say: Say) -> None:
    """Have the running watchman read its configuration and open its output files again."""
    pid = _signal(config, signal.SIGHUP)
    say(f"Process {pid} reloads {config.path}; its log tells how that went")


def rescan(config: Config, say: Say) -> None:
    """Have the running watchman catch up with what is in its watches."""
    pid = _signal(config, signal.SIGUSR1)
    say(f"Process {pid} catches up now; its log tells what it finds")


def _signal(config: Config, number: signal.Signals) -> int:
    with process(config, running) as found:
        if found is None:
            raise NotRunning("nothing runs with this configuration; 'notify start' starts it")
        watchman, descriptor = found
        send(descriptor, watchman, number)
        return watchman.pid
