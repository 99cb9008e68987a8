"""The configuration: a Python file, read whole or not at all.

:func:`load` returns a :class:`watchman.model.Config` or raises a ConfigError that names every
problem, one line each.
"""

from watchman.config.config_file import beside
from watchman.config.loading import adopt, load, reject
from watchman.config.logs import DEFAULT_LOGGING, apply_logging, is_default
from watchman.config.own_places import load_own, remember
from watchman.ignored_names import DEFAULT_IGNORE

__all__ = [
    "DEFAULT_IGNORE",
    "DEFAULT_LOGGING",
    "adopt",
    "apply_logging",
    "beside",
    "is_default",
    "load",
    "load_own",
    "reject",
    "remember",
]
