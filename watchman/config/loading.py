"""Reading config.py and celeryconfig.py: all or nothing, with every problem at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from watchman.config import (
    belongings,
    celerysettings,
    config_file,
    globs,
    logs,
    monitoring_settings,
    own_files,
    own_places,
    paths,
    routes,
    watches,
)
from watchman.config.problems import Problems, closest, show
from watchman.config.values import MOST_DAYS, is_number, plain
from watchman.errors import ConfigError
from watchman.ignored_names import DEFAULT_IGNORE
from watchman.model import Broker, Config, Criteria, Route, TransferLog, Watch

SETTINGS = (
    "LOGGING",
    "LOG_FORMAT",
    "LOG_MEGABYTES",
    "LOG_FILES",
    "ProFTPD",
    "BROKERS",
    "WATCHES",
    "PATTERNS",
    "MOVES",
    "IGNORE",
    "DRY_RUN",
    "TRANSFER_LOGS",
    "STATE_DIR",
    "PID_FILE",
    "LOG_DIR",
    "HISTORY_DAYS",
    "QUARANTINE",
    "METRICS_FILE",
    *monitoring_settings.HOOKS,
)
_OLD_WATCHES = "INOTIFIER_WATCH_PATHS"
_CLOSE = 0.8
"""From which likeness on (difflib's ratio) a name is taken for a misspelt setting."""
_DAY = 86400.0


def load(
    path: str | None = None,
    *,
    check_url: routes.CheckURL | None = None,
    check_processor: watches.CheckProcessor | None = None,
    signals: Sequence[belongings.Signals] = (),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Read the configuration at ``path``, else at $WATCHMAN_CONFIG, else ``config.py`` here.

    ``check_url`` says why a broker URL cannot be used, or None; ``check_processor`` the same of
    a processor. ``signals`` are further ones whose receivers belong to the configuration that
    connects them. Nothing is written, and no broker is spoken to. Raises ConfigError with all
    problems, each one line: which setting, what is wrong, what to write.
    """
    path = config_file.find(path, environ)
    problems = Problems()
    mine = belongings.loading(config_file.importable(os.path.dirname(path)), signals)
    try:
        config = _load(path, environ, problems, check_url, check_processor, mine)
    except BaseException:
        belongings.reject(mine)
        raise
    belongings.loaded(mine)
    return config


def adopt(config: Config) -> None:
    """The configuration is in force now: what an earlier one connected is disconnected."""
    belongings.adopt(config.belongings)


def reject(config: Config) -> None:
    """The configuration is not used after all: what is in force stays connected as it was."""
    belongings.reject(config.belongings)


def _load(
    path: str,
    environ: Mapping[str, str],
    problems: Problems,
    check_url: routes.CheckURL | None,
    check_processor: watches.CheckProcessor | None,
    mine: belongings.Belongings,
) -> Config:
    directory = os.path.dirname(path)
    with config_file.beside(directory):
        main = config_file.run(path, problems, mine)
        config = None
        if main is not None:
            _check_names(main, problems)
            before = len(problems.problems)
            main.values = _plain_settings(main, problems)
            if len(problems.problems) == before:
                config = _config(
                    main,
                    problems,
                    check_url or routes.some_url,
                    check_processor or watches.a_callable,
                )
        celery_file = os.path.join(directory, celerysettings.FILE)
        celery = None
        if main is not None and os.path.lexists(celery_file):
            celery = config_file.run(celery_file, problems, mine)
        celery_settings: dict[str, Any] = {}
        with problems.guard(celerysettings.FILE):
            celery_settings = celerysettings.settings(celery, environ, problems)
    if problems.problems or config is None:
        raise ConfigError(problems.problems)
    warnings = tuple(problems.warnings)
    loaded = Config(**config, celery=celery_settings, warnings=warnings, belongings=mine)
    return globs.without_conflicts(loaded, [one for one in loaded.watches if one.pattern])


def _plain_settings(main: config_file.ConfigFile, problems: Problems) -> dict[str, Any]:
    """Return all names, with plain copies of the settings' values."""
    values = dict(main.values)
    for name in (*SETTINGS, _OLD_WATCHES):
        if name in values:
            with problems.guard(name):
                values[name] = plain(values[name])
    return values


def _config(
    main: config_file.ConfigFile,
    problems: Problems,
    check_url: routes.CheckURL,
    check_processor: watches.CheckProcessor,
) -> dict[str, Any]:
    """Return the fields of Config, in the order in which their problems are to be told.

    Each setting is read under guard: what is no plain value may still raise anything.
    """
    values, base = main.values, os.path.dirname(main.path)
    logging: Mapping[str, Any] = {}
    log_size, log_files = 0, 1
    with problems.guard("LOGGING"):
        logging = logs.logging_settings(values, problems)
    with problems.guard("LOG_MEGABYTES"):
        log_size = logs.log_size(values.get("LOG_MEGABYTES", 50), problems)
    with problems.guard("LOG_FILES"):
        log_files = logs.log_files(values.get("LOG_FILES", 5), problems)
    proftpd = values.get("ProFTPD", False)
    if type(proftpd) not in (bool, int) or proftpd not in (0, 1):
        problems.add("ProFTPD", f"is {show(proftpd)}", "write True or False")
        proftpd = False
    brokers: dict[str, Broker] = {}
    with problems.guard("BROKERS", "write plain strings, numbers and dicts"):
        brokers = routes.brokers(values.get("BROKERS", {}), check_url, problems)
    setting = _watches_setting(values, problems)
    watched: tuple[Watch, ...] = ()
    matched: tuple[Watch, ...] = ()
    if setting:
        with problems.guard(setting):
            watched, matched = watches.watches(
                values[setting], setting, base, check_processor, problems
            )
            watched = globs.expand(watched, matched).watches
    files = [watch for watch in watched if watch.processor is None]
    patterns: tuple[tuple[str, Route], ...] = ()
    asked: tuple[Criteria | None, ...] = ()
    with problems.guard("PATTERNS"):
        patterns, asked = routes.patterns(values.get("PATTERNS", ()), brokers, files, problems)
    moves: tuple[tuple[str, str], ...] = ()
    with problems.guard("MOVES"):
        moves = paths.moves(values.get("MOVES", ()), base, files, problems)
    if files and not patterns and not moves and "PATTERNS" not in values:
        problems.warn("PATTERNS", "is not set, so no task is sent", routes.PATTERNS_EXAMPLE)
    found = {
        "path": main.path,
        "given": _given(values, setting),
        "logging": logging,
        "log_size": log_size,
        "log_files": log_files,
        "proftpd": bool(proftpd),
        "brokers": brokers,
        "watches": watched,
        "globs": matched,
        "patterns": patterns,
        "criteria": asked if any(asked) else (),
        "quarantine": _quarantine(values.get("QUARANTINE"), base, files, problems),
        "moves": moves,
        "ignore": _texts(values, "IGNORE", DEFAULT_IGNORE, "['*.part', '.*']", problems),
        "transfer_logs": _transfer_logs(values, base, (*watched, *matched), problems),
        "dry_run": _texts(values, "DRY_RUN", (), "['/srv/ftp/test/*']", problems),
        **own_places.own_places(values, base, watched, problems),
        **own_places.output_files(values, base, watched, problems),
        "metrics_file": _metrics_file(values, base, watched, problems),
        "hooks": monitoring_settings.hooks(values, problems),
        "retention": _retention(values.get("HISTORY_DAYS", 30), problems),
    }
    own_files.check(found, files, problems)
    return found


def _given(values: Mapping[str, Any], watches_setting: str | None) -> frozenset[str]:
    """Return the settings that are given, by their present names."""
    found = {name for name in SETTINGS if name in values}
    found |= {"WATCHES"} if watches_setting else set()
    found |= {"PID_FILE"} if values.get("INOTIFIER_DAEMON_PID_FILE") is not None else set()
    return frozenset(found | ({"LOGGING"} if "LOG_FORMAT" in values else set()))


def _texts(
    values: Mapping[str, Any],
    setting: str,
    default: Sequence[str],
    example: str,
    problems: Problems,
) -> tuple[str, ...]:
    if setting not in values:
        return tuple(default)
    with problems.guard(setting):
        return paths.texts(values[setting], setting, example, problems)
    return ()


def _quarantine(value: Any, base: str, watched: Sequence[Watch], problems: Problems) -> str:
    if value is None:
        return ""
    with problems.guard("QUARANTINE"):
        # It is a directory, like those whose names end so.
        return paths.own_place(value, "QUARANTINE", base, watched, problems)
    return ""


def _transfer_logs(
    values: Mapping[str, Any], base: str, watched: Sequence[Watch], problems: Problems
) -> tuple[TransferLog, ...]:
    with problems.guard("TRANSFER_LOGS"):
        if "TRANSFER_LOGS" in values or any(watch.require_log for watch in watched):
            from watchman.config import transferlogs

            found = transferlogs.transfer_logs(values.get("TRANSFER_LOGS", ()), base, problems)
            transferlogs.check_required(watched, found, problems)
            return found
    return ()


def _metrics_file(
    values: Mapping[str, Any], base: str, watched: Sequence[Watch], problems: Problems
) -> str:
    with problems.guard("METRICS_FILE"):
        return monitoring_settings.metrics_file(values, base, watched, problems)
    return ""


def _retention(value: Any, problems: Problems) -> float:
    if is_number(value, most=MOST_DAYS) and value > 0:
        return float(value) * _DAY
    remedy = f"write a number of days above 0, {MOST_DAYS:.0f} at the most"
    problems.add("HISTORY_DAYS", f"is {show(value)}", remedy)
    return 0.0


def _watches_setting(values: Mapping[str, Any], problems: Problems) -> str | None:
    """Return the name under which the watches are set."""
    if "WATCHES" in values:
        return "WATCHES"
    if _OLD_WATCHES in values:
        problems.warn(_OLD_WATCHES, "is the old name of WATCHES", "write WATCHES")
        return _OLD_WATCHES
    problems.add("WATCHES", "is not set, so nothing would be watched", f"write {watches.EXAMPLE}")
    return None


def _check_names(main: config_file.ConfigFile, problems: Problems) -> None:
    """Note names that look like misspelt settings, and settings that belong elsewhere.

    A name that the file itself reads is a helper of its author's, and so is one that came with
    an import next to the setting that it looks like.
    """
    for name in main.values:
        if name in SETTINGS or name in main.read:
            continue
        if name in own_places.OLD_NAMES:
            if name == "INOTIFIER_DAEMON_PID_FILE":
                problems.warn(name, "is the old name of PID_FILE", "write PID_FILE")
        elif name.upper().startswith("INOTIFIER_") and name != _OLD_WATCHES:
            known = ", ".join((_OLD_WATCHES, *own_places.OLD_NAMES))
            problems.warn(name, "is ignored", f"of that kind there are {known}")
        elif name.upper().startswith(("BROKER_URL", "BROKER_READ_URL", "BROKER_WRITE_URL")):
            problems.warn(name, "is ignored", "write the brokers' URLs in BROKERS")
        elif name.startswith(("CELERY_", "CELERYD_", "CELERYBEAT_")):
            problems.warn(name, "is ignored here", "Celery's settings belong in celeryconfig.py")
        else:
            _check_spelling(name, main, problems)


def _check_spelling(name: str, main: config_file.ConfigFile, problems: Problems) -> None:
    folded = {setting.casefold(): setting for setting in SETTINGS}
    close = folded.get(name.casefold())
    if close is None and name.isupper():
        close = closest(name, SETTINGS, _CLOSE)
    if close is None or (close in main.values and name not in main.assigned):
        return
    problems.add(name, "unknown setting", f"write {close}, or give it a name less like it")
