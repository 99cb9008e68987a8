"""A configuration as plain values under the names of its settings, without any secret."""

from __future__ import annotations

import dataclasses
import enum
from itertools import zip_longest
from typing import Any

from watchman.config.monitoring_settings import HOOKS
from watchman.masking import public
from watchman.model import Broker, Config, Criteria, Hook, Route, TransferLog, Watch

_DAY = 86400.0
_NAMES = {"exclude": "exclude_filter", "processor_name": "proc_fun"}
_LEFT_OUT = {"processor", "pattern", "criteria"}


def settings(config: Config) -> dict[str, Any]:
    """Return every setting of config.py with the value that is in effect."""
    return {
        "BROKERS": {name: _broker(one) for name, one in config.brokers.items()},
        "WATCHES": [
            *(_watch(one) for one in config.watches if not one.pattern),
            *({**_watch(one), "do_glob": True} for one in config.globs),
        ],
        "PATTERNS": [
            [pattern, _route(route) | _criteria(asked)]
            for (pattern, route), asked in zip_longest(config.patterns, config.criteria)
        ],
        "MOVES": dict(config.moves),
        "IGNORE": list(config.ignore),
        "DRY_RUN": list(config.dry_run),
        "ProFTPD": config.proftpd,
        "LOGGING": public(config.logging),
        "LOG_MEGABYTES": config.log_size / 1e6,
        "LOG_FILES": config.log_files,
        "STATE_DIR": config.state_dir,
        "PID_FILE": config.pid_file,
        "LOG_DIR": config.log_dir,
        "HISTORY_DAYS": config.retention / _DAY,
        "QUARANTINE": config.quarantine or None,
        "TRANSFER_LOGS": [_transfer_log(log) for log in config.transfer_logs],
        "METRICS_FILE": config.metrics_file,
        **{setting: _hook(config.hooks.get(setting)) for setting in HOOKS},
    }


def celery_settings(config: Config) -> dict[str, Any]:
    """Return what celeryconfig.py sets."""
    return {name: public(value, name) for name, value in config.celery.items()}


def _broker(broker: Broker) -> dict[str, Any]:
    urls = [public(url) for url in broker.urls]
    return {"url": urls[0] if len(urls) == 1 else urls, **public(broker.options)}


def _criteria(criteria: Criteria | None) -> dict[str, Any]:
    """Return what is asked of files, under the names of its keys; nothing where nothing is."""
    if criteria is None:
        return {}
    task = criteria.incomplete.task if criteria.incomplete is not None else None
    members = [f"{one.template}{'?' * one.optional}" for one in criteria.members]
    each = [
        one.argument if one.kind in ("format", "callable") else {one.kind: one.argument}
        for one in criteria.each
    ]
    return {
        **({"complete": each} if each else {}),
        "incomplete_after": criteria.incomplete_after,
        "incomplete_task": task,
        "marker_action": criteria.marker_action,
        **({"with": members, "set_after": criteria.set_after} if members else {}),
    }


def _transfer_log(log: TransferLog) -> dict[str, Any]:
    """Return an entry as it may be written; log_format is for one format alone."""
    names = ("path", "format", "prefixes", "utc", "wait")
    found = {name: getattr(log, name) for name in names}
    return found | ({"log_format": log.log_format} if log.log_format else {})


def _hook(hook: Hook | None) -> Any:
    """Return whom it tells; None where there is none."""
    return None if hook is None else public(hook.command or hook.url or hook.function)


def _watch(watch: Watch) -> dict[str, Any]:
    """Return what is set; a function by its name."""
    found = {}
    for field in dataclasses.fields(watch):
        value = getattr(watch, field.name)
        if field.name in _LEFT_OUT or value is None or value == "":
            continue
        value = value.value if isinstance(value, enum.Enum) else value
        found[_NAMES.get(field.name, field.name)] = public(value)
    return found | _criteria(watch.criteria)


def _route(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = {"broker": route.broker, "task": route.task}
    for name in ("args", "kwargs", "options"):
        if getattr(route, name):
            found[name] = public(getattr(route, name))
    if route.batch is not None:
        found["batch"] = route.batch.as_given()
    return found
