"""Only the places of watchman's own files, for commands that talk to a running watchman.

A daemon must be told to stop, and say how it stands, also while a watched directory is not
mounted or another part of the configuration is being edited.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from watchman.config import places, source
from watchman.config.problems import Problems
from watchman.config.values import plain
from watchman.errors import ConfigError
from watchman.model import Config

DEFAULTS = {"STATE_DIR": "var", "PID_FILE": "var/watchman.pid", "LOG_DIR": "var/log"}


def load_own(path: str | None = None, *, environ: Mapping[str, str] = os.environ) -> Config:
    """Return a Config with ``path``, ``state_dir``, ``pid_file`` and ``log_dir``, else empty.

    The file is found as by ``config.load``. Raises ConfigError if it is not there or cannot be
    run, or if one of these settings is no path.
    """
    path = source.find(path, environ)
    problems = Problems()
    source.forget()
    with source.beside(os.path.dirname(path)):
        found = source.run(path, problems)
    values = found.values if found is not None else {}
    base = os.path.dirname(path)
    own = {}
    for setting, default in DEFAULTS.items():
        with problems.guard(setting):
            value = plain(values.get(setting, default))
            own[setting] = places.own_place(value, setting, base, (), problems)
    if problems.problems:
        raise ConfigError(problems.problems)
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
        state_dir=own["STATE_DIR"],
        pid_file=own["PID_FILE"],
        log_dir=own["LOG_DIR"],
    )
