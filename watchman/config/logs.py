"""LOGGING: a ``logging.config.dictConfig`` dict."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from watchman.config.config_file import beside
from watchman.config.problems import Problems, one_line, show
from watchman.config.values import is_number
from watchman.errors import ConfigError
from watchman.model import Config
from watchman.queued_logging import reconfigured
from watchman.text import describe

if TYPE_CHECKING:
    import logging

MOST_MEGABYTES = 1_000_000
MOST_FILES = 1000
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
JSON_LOGGING: Mapping[str, Any] = {
    **DEFAULT_LOGGING,
    "formatters": {"default": {"()": "watchman.json_lines.JsonLines"}},
}
_FORMATS = {"text": DEFAULT_LOGGING, "json": JSON_LOGGING}


def is_default(settings: Mapping[str, Any]) -> bool:
    """Say whether LOGGING is none of the user's own."""
    return settings in _FORMATS.values()


def logging_settings(values: Mapping[str, Any], problems: Problems) -> Mapping[str, Any]:
    """Return what LOGGING says, or LOG_FORMAT instead of it."""
    if "LOG_FORMAT" not in values:
        return logging_dict(values.get("LOGGING", DEFAULT_LOGGING), problems)
    form = values["LOG_FORMAT"]
    if "LOGGING" in values:
        remedy = (
            "remove one of the two; a formatter of LOGGING can be watchman.json_lines.JsonLines"
        )
        problems.add("LOG_FORMAT", "stands beside LOGGING", remedy)
    if not isinstance(form, str) or form not in _FORMATS:
        problems.add("LOG_FORMAT", f"is {show(form)}", "write 'json' or 'text'")
        return DEFAULT_LOGGING
    return _FORMATS[form]


def log_size(value: Any, problems: Problems) -> int:
    """Return LOG_MEGABYTES in bytes."""
    if is_number(value, most=MOST_MEGABYTES):
        # Only 0 is never.
        return int(value * 1_000_000) or int(value > 0)
    remedy = f"write a number, {MOST_MEGABYTES} at the most; 0 for never"
    problems.add("LOG_MEGABYTES", f"is {show(value)}", remedy)
    return 0


def log_files(value: Any, problems: Problems) -> int:
    """Return LOG_FILES."""
    if type(value) is int and 1 <= value <= MOST_FILES:
        return value
    problems.add("LOG_FILES", f"is {show(value)}", f"write a whole number, 1 to {MOST_FILES}")
    return 1


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
        if not isinstance(wanted, (list, tuple)):
            label = f"LOGGING, logger {show(logger)}"
            problems.add(label, f"'handlers' is {show(wanted)}", "write a list of names")
            continue
        for name in wanted:
            if name not in handlers and not value.get("incremental"):
                problems.unknown(f"LOGGING, logger {show(logger)}", "handler", name, handlers)
    for handler, settings in handlers.items():
        name = settings.get("formatter") if isinstance(settings, Mapping) else None
        formatters = value.get("formatters", {})
        if name and name not in formatters:
            problems.unknown(f"LOGGING, handler {show(handler)}", "formatter", name, formatters)


def _waits_to_open(handler: Any) -> bool:
    """Say whether a handler of logging's own would wait for the reader of a FIFO to open it.

    With ``delay`` it waits in the thread that writes.
    """
    if not isinstance(handler, Mapping) or "delay" in handler:
        return False
    name, kind = handler.get("filename"), handler.get("class")
    if not isinstance(name, (str, os.PathLike)) or not str(kind).startswith("logging."):
        return False
    try:
        return stat.S_ISFIFO(os.stat(name).st_mode)
    except (OSError, ValueError):
        return False  # it can be made, or dictConfig will say why not


class _Process:
    """What logging was set up by last."""

    config: Config | None = None


def apply_logging(config: Config) -> None:
    """Set logging up as the configuration says, and only so: nothing of an earlier one goes on.

    Handlers may be classes of the user's own, in modules beside the configuration. Raises
    ConfigError with one line if dictConfig cannot use it (a log file that cannot be opened, for
    example); logging is as before then.
    """
    forgotten = _forget_loggers(config)
    try:
        _configure(config)
        # Not before: what nobody holds any more is not closed by dictConfig.
        forgotten.clear()
    except BaseException as error:
        if _Process.config is not None:
            # dictConfig takes everything away before it begins.
            with contextlib.suppress(Exception):
                _configure(_Process.config)
        # dictConfig says which handler; its cause says why.
        words = f"{error}" if isinstance(error, ValueError) and error.__cause__ else ""
        reasons = [words, describe(error.__cause__ or error)]
        reason = ": ".join(reason for reason in reasons if reason)
        raise ConfigError([one_line(f"LOGGING: {reason}; correct it in {config.path}")]) from error
    _Process.config = config


def _configure(config: Config) -> None:
    import logging.config

    settings = dict(config.logging)
    if "handlers" in settings:
        settings["handlers"] = {
            name: {**handler, "delay": True} if _waits_to_open(handler) else handler
            for name, handler in settings["handlers"].items()
        }
    with beside(os.path.dirname(config.path)), reconfigured():
        # Unless the user says so, loggers that exist already (ours) go on.
        logging.config.dictConfig({"disable_existing_loggers": False, **settings})


def _forget_loggers(config: Config) -> list[logging.Handler]:
    """Have loggers that only the earlier configuration named be like any other again.

    Returns the handlers that they had, none of them closed yet.
    """
    import logging

    handlers = []
    before = _Process.config.logging.get("loggers", {}) if _Process.config is not None else {}
    for name in before.keys() - config.logging.get("loggers", {}).keys():
        logger = logging.getLogger(name)
        for handler in tuple(logger.handlers):
            logger.removeHandler(handler)
            handlers.append(handler)
        for one in tuple(logger.filters):
            logger.removeFilter(one)
        logger.setLevel(logging.NOTSET)
        logger.propagate, logger.disabled = True, False
    return handlers
