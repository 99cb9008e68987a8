"""LOGGING: a ``logging.config.dictConfig`` dict."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from watchman.config.problems import Problems, one_line, show
from watchman.config.source import beside
from watchman.errors import ConfigError
from watchman.model import Config

DEFAULT_LOGGING: Mapping[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "default": {"format": "%(asctime)s [%(levelname)s] %(name)s: %(message)s"},
    },
    "handlers": {
        "stderr": {"class": "logging.StreamHandler", "formatter": "default"},
    },
    "root": {"level": "INFO", "handlers": ["stderr"]},
}


def logging_dict(value: Any, problems: Problems) -> Mapping[str, Any]:
    """Return the dict if it can be one for dictConfig; what is in it is tried by using it."""
    if not isinstance(value, Mapping):
        problems.add("LOGGING", f"{show(value)} is no dict", "write LOGGING = {'version': 1, …}")
        return DEFAULT_LOGGING
    version = value.get("version")
    if version != 1:
        wrong = "has no 'version'" if version is None else f"'version' is {show(version)}"
        problems.add("LOGGING", wrong, "write 'version': 1")
        return DEFAULT_LOGGING
    before = len(problems.problems)
    for section in ("formatters", "handlers", "loggers", "filters", "root"):
        if not isinstance(value.get(section, {}), Mapping):
            problems.add("LOGGING", f"'{section}' is no dict", f"write '{section}': {{…}}")
    if len(problems.problems) == before:
        _check_references(value, problems)
    return value


def _check_references(value: Mapping[str, Any], problems: Problems) -> None:
    handlers = value.get("handlers", {})
    loggers = {**value.get("loggers", {}), "root": value.get("root", {})}
    for logger, settings in loggers.items():
        wanted = settings.get("handlers", ()) if isinstance(settings, Mapping) else ()
        for name in wanted:
            if name not in handlers and not value.get("incremental"):
                problems.unknown(f"LOGGING, logger {show(logger)}", "handler", name, handlers)
    for handler, settings in handlers.items():
        name = settings.get("formatter") if isinstance(settings, Mapping) else None
        formatters = value.get("formatters", {})
        if name and name not in formatters:
            problems.unknown(f"LOGGING, handler {show(handler)}", "formatter", name, formatters)


def apply_logging(config: Config) -> None:
    """Set logging up as the configuration says.

    Handlers may be classes of the user's own, in modules beside the configuration. Raises
    ConfigError with one line if dictConfig cannot use it (a log file that cannot be opened, for
    example).
    """
    import logging.config

    try:
        with beside(os.path.dirname(config.path)):
            # Unless the user says so, loggers that exist already (ours) go on.
            logging.config.dictConfig({"disable_existing_loggers": False, **config.logging})
    except Exception as error:
        # dictConfig says which handler; its cause says why.
        reasons = [str(error), str(error.__cause__ or "")]
        reason = ": ".join(reason for reason in reasons if reason) or type(error).__name__
        raise ConfigError([one_line(f"LOGGING: {reason}; correct it in {config.path}")]) from error
