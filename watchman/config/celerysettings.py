"""celeryconfig.py: Celery's own settings, by their old or their new names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from watchman.config.config_file import ConfigFile
from watchman.config.problems import Problems, kind, show
from watchman.config.values import MOST_SECONDS, import_error, is_number, is_text, plain

FILE = "celeryconfig.py"

_BROKER = re.compile(
    r"(celery_)?broker_((read_|write_)?url|host|port|user|password|vhost|transport)", re.IGNORECASE
)
_ENVIRONMENT = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")
_OLD = re.compile(r"(CELERY|CELERYD|CELERYBEAT|BROKER)_[A-Z0-9_]+")
_NEW = re.compile(r"(task|worker|broker|result|beat|event|control|security)_[a-z0-9_]+")
_NEW_WORDS = frozenset({"accept_content", "enable_utc", "imports", "include", "timezone"})

# Old names of which Celery's new one is not made by the rules of `new_name`.
_IRREGULAR = {
    "CELERYD_WORKER_LOST_WAIT": "worker_lost_wait",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_RESULT_DBURI": "database_url",
    "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS": "database_short_lived_sessions",
    "CELERY_RESULT_DB_TABLENAMES": "database_table_names",
    "CELERY_RESULT_ENGINE_OPTIONS": "database_engine_options",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
}
_WORKER = frozenset(
    {"DISABLE_RATE_LIMITS", "ENABLE_REMOTE_CONTROL", "REDIRECT_STDOUTS", "REDIRECT_STDOUTS_LEVEL"}
)
_BARE = re.compile(
    r"(ACCEPT_CONTENT|IMPORTS|INCLUDE|TIMEZONE)$"
    r"|(RESULT|EVENT|SECURITY|WORKER|TASK|REDIS|MONGODB|CACHE|COUCHBASE|ARANGODB|ELASTICSEARCH)_"
)
# CELERY_TASK_ROUTES, as it stands where the name space CELERY is used: config_from_object(…,
# namespace="CELERY"). Celery itself knows no such name without it.
_NAMESPACED = re.compile(
    r"CELERY_((TASK_(?!SERIALIZER$|PROTOCOL$|PUBLISH_RETRY|RESULT_EXPIRES$)"
    r"|WORKER_(?!DIRECT$)|BEAT_|BROKER_)[A-Z0-9_]+|ENABLE_UTC)"
)


def _is_one_of(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types)


_SECONDS = (is_number, f"a number of seconds, {MOST_SECONDS:.0f} at the most")
_DICT = (_is_one_of(dict), "a dict")
_TEXT = (is_text, "a string")
_FLAG = (_is_one_of(bool, int), "True or False")
_WHOLE = (lambda value: type(value) is int and 0 <= value < 1 << 31, "a whole number")
_PRIORITY = (lambda value: type(value) is int and 0 <= value <= 255, "0 to 255")
# What Celery reads when it sends a task, under its new name, besides None, which it all may be.
_SENDING: dict[str, tuple[Callable[[Any], bool], str]] = {
    "broker_connection_timeout": _SECONDS,
    "broker_heartbeat": _SECONDS,
    "broker_transport_options": _DICT,
    "broker_use_ssl": (_is_one_of(bool, dict), "True, False or a dict"),
    "broker_login_method": _TEXT,
    "enable_utc": _FLAG,
    "event_queue_prefix": _TEXT,
    "event_exchange": _TEXT,
    "event_serializer": _TEXT,
    "task_annotations": (_is_one_of(dict, list, tuple), "a dict or a list"),
    "task_compression": _TEXT,
    "task_create_missing_queues": _FLAG,
    "task_default_delivery_mode": (
        lambda value: value in (1, 2, "transient", "persistent"),
        "1 or 2",
    ),
    "task_default_exchange": (lambda value: value == "" or is_text(value), "a string"),
    "task_default_exchange_type": _TEXT,
    "task_default_priority": _PRIORITY,
    "task_default_queue": _TEXT,
    "task_default_routing_key": _TEXT,
    "task_protocol": (lambda value: value in (1, 2), "1 or 2"),
    "task_publish_retry_policy": _DICT,
    "task_queue_max_priority": _PRIORITY,
    "task_queues": (_is_one_of(dict, list, tuple, set), "a list of kombu.Queue, or a dict"),
    "task_repr_maxlevels": _WHOLE,
    "task_send_sent_event": _FLAG,
    "task_serializer": _TEXT,
}


def new_name(old: str) -> str:
    """Return the name since Celery 4 of a setting's old upper-case name."""
    if old in _IRREGULAR:
        return _IRREGULAR[old]
    prefix, _, rest = old.partition("_")
    if prefix == "CELERYBEAT":
        return f"beat_{rest.lower()}"
    if prefix == "CELERYD":
        return rest.lower() if re.match(r"TASK_(SOFT_)?TIME_", rest) else f"worker_{rest.lower()}"
    if prefix == "CELERY":
        if rest in _WORKER:
            return f"worker_{rest.lower()}"
        return rest.lower() if _BARE.match(rest) else f"task_{rest.lower()}"
    return old.lower()


def settings(
    source: ConfigFile | None, environ: Mapping[str, str], problems: Problems
) -> dict[str, Any]:
    """Return what celeryconfig.py sets, without anything that names a broker.

    Watchman sends to the brokers of its own BROKERS; one URL for all of them, from this file
    or the environment, would redirect every task.
    """
    for name in _ENVIRONMENT:
        if environ.get(name):
            problems.warn(
                "environment", f"{name} is ignored", "the brokers are those of BROKERS in config.py"
            )
    if source is None:
        return {}
    kept = {}
    for name, value in source.values.items():
        if _BROKER.fullmatch(name):
            if name not in source.read:
                problems.warn(
                    FILE, f"{name} is ignored", "the brokers are those of BROKERS in config.py"
                )
        else:
            kept[name] = value
            _check_value(name, value, problems)
    _check_mixture(kept, source.read, problems)
    if any(_NAMESPACED.fullmatch(name) for name in kept):
        # All by their new names then: Celery refuses a mixture.
        renamed = {_modern(name): value for name, value in kept.items()}
        kept = {**renamed, **{name: value for name, value in kept.items() if name in renamed}}
    _check_routers(kept, problems)
    return kept


def _modern(name: str) -> str:
    """Return a setting's name as it is since Celery 4; any other name as it is."""
    namespaced = _NAMESPACED.fullmatch(name)
    if namespaced:
        return namespaced[1].lower()
    return new_name(name) if _OLD.fullmatch(name) else name


def _check_routers(settings: Mapping[str, Any], problems: Problems) -> None:
    """Import the routers that are named by their dotted path, as Celery does before it sends."""
    for name, value in settings.items():
        if _modern(name) != "task_routes":
            continue
        with problems.guard(FILE):
            for router in [value] if isinstance(value, str) else value or ():
                wrong = import_error(router) if isinstance(router, str) else ""
                if wrong and not isinstance(value, Mapping):
                    problems.add(
                        FILE,
                        f"{name}: the router {show(router)} cannot be imported ({wrong})",
                        "write 'module.Router', importable from beside the configuration",
                    )


def _check_value(name: str, value: Any, problems: Problems) -> None:
    """Note a setting that sending reads and cannot use; its value is not shown: passwords."""
    wanted = _SENDING.get(_modern(name))
    if wanted is None or value is None:
        return
    accept, words = wanted
    good = False
    with problems.guard(FILE):
        good = accept(plain(value))
        if not good:
            problems.add(FILE, f"{name} is {kind(value)} and cannot be used", f"write {words}")


def _check_mixture(have: Iterable[str], read: frozenset[str], problems: Problems) -> None:
    """Refuse what Celery refuses: old and new names together, unless they say the same twice.

    See ``celery.app.utils.detect_settings``. The names that the file itself reads are helpers.
    """
    have = set(have)
    old = {n: new_name(n) for n in have if _OLD.fullmatch(n) and not _NAMESPACED.fullmatch(n)}
    new = {n for n in have - read if _NEW.fullmatch(n) or n in _NEW_WORDS}
    left = sorted(name for name, renamed in old.items() if renamed not in new)
    if not new - set(old.values()) or not left:
        return
    renames = ", ".join(f"{old[name]} for {name}" for name in left)
    problems.add(
        FILE,
        f"old setting names are mixed with new ones ({', '.join(sorted(new))}), "
        "which Celery refuses",
        f"write {renames}",
    )
