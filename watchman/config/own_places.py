"""Only the places of watchman's own files, for commands that talk to a running watchman.

A daemon must be told to stop, and say how it stands, also while a watched directory is not
mounted or the configuration is being edited. So what the last good start used is kept beside the
configuration, where it can be found without it; not if that is all by default.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

from watchman.config import config_file, paths
from watchman.config.problems import Problems
from watchman.config.values import plain
from watchman.errors import ConfigError
from watchman.model import Config, Watch
from watchman.record_locks import lock_of
from watchman.replacement import remove_left, replace

log = logging.getLogger("watchman.config")

_LARGEST = 1 << 16
_SETTINGS = ("STATE_DIR", "PID_FILE", "LOG_DIR")
OLD_NAMES = {
    "INOTIFIER_DAEMON_PID_FILE": "PID_FILE",
    "INOTIFIER_DAEMON_STDOUT": "out_file",
    "INOTIFIER_DAEMON_STDERR": "err_file",
}
"""Names of the second of the systems before this one, with what stands for them in a Config."""


def own_places(
    values: Mapping[str, Any], base: str, watched: tuple[Watch, ...], problems: Problems
) -> dict[str, str]:
    """Return the places by the names of Config's fields; what is wrong with them is noted.

    Where STATE_DIR goes, the others go with it, unless they say otherwise.
    """
    found: dict[str, str] = {}
    defaults = {"STATE_DIR": "var"}
    old_pid_file = values.get("INOTIFIER_DAEMON_PID_FILE")
    if old_pid_file is not None:
        values = {"PID_FILE": old_pid_file, **values}
    for setting in _SETTINGS:
        with problems.guard(setting):
            value = plain(values.get(setting, defaults.get(setting)))
            # What goes with STATE_DIR would only have its mistakes told once more.
            against = watched if setting in values or setting == "STATE_DIR" else ()
            found[setting.lower()] = paths.own_place(value, setting, base, against, problems)
            if setting == "STATE_DIR":
                state = found["state_dir"] or "var"
                defaults["PID_FILE"] = os.path.join(state, "watchman.pid")
                defaults["LOG_DIR"] = os.path.join(state, "log")
    return found


def output_files(
    values: Mapping[str, Any], base: str, watched: tuple[Watch, ...], problems: Problems
) -> dict[str, str]:
    """Return the files for the daemon's output that are named one by one."""
    found = {}
    for setting, field in OLD_NAMES.items():
        if field.islower() and values.get(setting) is not None:
            with problems.guard(setting):
                value = plain(values[setting])
                found[field] = paths.own_place(value, setting, base, watched, problems)
    return found


def load_own(path: str | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Return a Config with ``path``, ``state_dir``, ``pid_file`` and ``log_dir``, else empty.

    The file is found as by ``config.load``. Where it cannot be used, the places are those of the
    last good start, and ``warnings`` says so. Raises ConfigError if there was none.
    """
    path = config_file.find(path, environ)
    base = os.path.dirname(path)
    problems = Problems()
    with config_file.beside(base):
        found = config_file.run(path, problems)
    own = own_places(found.values if found is not None else {}, base, (), problems)
    warnings: list[str] = []
    if problems.problems:
        before = _remembered(path)
        if before is None:
            raise ConfigError(problems.problems)
        own = before
        last = f"until then the places of the last start are used, such as {own['state_dir']}"
        warnings = [f"{line}; {last}" for line in problems.problems]
    return Config(
        path=path,
        watches=(),
        brokers={},
        patterns=(),
        moves=(),
        ignore=(),
        dry_run=(),
        logging={},
        celery={},
        warnings=tuple(warnings),
        state_dir=own["state_dir"],
        pid_file=own["pid_file"],
        log_dir=own["log_dir"],
    )


def remember(config: Config) -> None:
    """Keep the places of a good start for when the configuration cannot be used.

    Beside the configuration, else in STATE_DIR's default place; where neither can be written, they
    are not kept, and commands need the configuration.
    """
    own = {name.lower(): getattr(config, name.lower()) for name in _SETTINGS}
    for record in _records(config.path):
        remove_left(record)
        try:
            if own == _default(config.path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(record)
                continue
            replace(record, json.dumps(own).encode("ascii"), 0o644)
        except OSError as error:
            log.debug("The places are not kept in %s: %s", record, error.strerror)
        else:
            return


def _records(path: str) -> Iterator[str]:
    """Yield where the places may be kept: in the first directory that can be written."""
    directory, name = os.path.split(path)
    yield os.path.join(directory, f".{name}.places")
    yield os.path.join(directory, "var", f"{name}.places")


def _default(path: str) -> dict[str, str]:
    """Return the places of a configuration that says nothing about them."""
    return own_places({}, os.path.dirname(path), (), Problems())


def _remembered(path: str) -> dict[str, str] | None:
    """Return the places of the last good start; None if nothing is known of one."""
    for record in _records(path):
        found = _read(record)
        if found is not None:
            return found
    default = _default(path)
    return default if os.path.exists(lock_of(default["state_dir"])) else None


def _read(record: str) -> dict[str, str] | None:
    try:
        # Not through a link, and without waiting for a FIFO.
        descriptor = os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            found = json.loads(file.read(_LARGEST))
    except (OSError, ValueError, RecursionError):
        return None
    wanted = {name.lower() for name in _SETTINGS}
    if not isinstance(found, dict) or found.keys() != wanted:
        return None
    good = all(isinstance(one, str) and os.path.isabs(one) for one in found.values())
    return found if good else None
