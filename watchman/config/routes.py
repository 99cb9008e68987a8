"""BROKERS and PATTERNS: which task is sent where."""

from __future__ import annotations

import datetime
import fnmatch
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from watchman.config import batch, criteria
from watchman.config.problems import NOT_A_PAIR, Problems, kind, names, pairs, show
from watchman.config.shadows import Shadows
from watchman.config.values import MOST_DAYS, is_number, is_text, pattern_error
from watchman.masking import mask, split_urls
from watchman.model import Broker, Criteria, Route, Watch

CheckURL = Callable[[str], "str | None"]
"""Says why something is no broker URL; None if it is. Must not repeat the URL's password."""

BROKERS_EXAMPLE = "BROKERS = {'name': 'amqp://user:password@host:5672//'}"
PATTERNS_EXAMPLE = "PATTERNS = [('/srv/ftp/*.csv', {'broker': 'name', 'task': 'my_task'})]"

_NESTED_OPTIONS = "transport_options"
_SAME_TRANSPORT = {"amqps": "amqp", "pyamqp": "amqp", "rediss": "redis", "sentinel": "redis"}
_TLS = "use_ssl"
_TLS_EXAMPLE = "'use_ssl': {'ca_certs': '/etc/ssl/my-ca.pem'}"

_Test = Callable[[Any], bool]
_TEXT: tuple[_Test, str] = (is_text, "a string")
_FLAG: tuple[_Test, str] = (lambda value: isinstance(value, bool), "True or False")
_SECONDS: tuple[_Test, str] = (
    lambda value: is_number(
        value.total_seconds() if isinstance(value, datetime.timedelta) else value,
        most=MOST_DAYS * 86400,
    ),
    "a number of seconds",
)
_MAPPING: tuple[_Test, str] = (
    lambda value: isinstance(value, Mapping) and all(isinstance(key, str) for key in value),
    "a dict with strings as keys",
)
# https://docs.celeryq.dev/en/stable/reference/celery.app.task.html#celery.app.task.Task.apply_async
_APPLY_ASYNC: dict[str, tuple[_Test, str]] = {
    "queue": _TEXT,
    "exchange": _TEXT,
    "exchange_type": _TEXT,
    "routing_key": _TEXT,
    "priority": (lambda value: type(value) is int and 0 <= value <= 255, "0 to 255"),
    "expires": (
        lambda value: _SECONDS[0](value) or isinstance(value, datetime.datetime),
        "a number of seconds or a datetime",
    ),
    "countdown": _SECONDS,
    "eta": (lambda value: isinstance(value, datetime.datetime), "a datetime, or use 'countdown'"),
    "headers": _MAPPING,
    "serializer": _TEXT,
    "compression": _TEXT,
    "time_limit": _SECONDS,
    "soft_time_limit": _SECONDS,
    "delivery_mode": (lambda value: value in (1, 2, "transient", "persistent"), "1 or 2"),
    "ignore_result": _FLAG,
    "reply_to": _TEXT,
    "shadow": _TEXT,
    "mandatory": _FLAG,
    "retry": _FLAG,
    "retry_policy": _MAPPING,
    "user_id": _TEXT,
    "app_id": _TEXT,
}


def some_url(url: str) -> str | None:
    """Accept anything that looks like a URL: the test where nobody who knows brokers is asked."""
    return None if re.match(r"[A-Za-z][\w+.-]*://", url) else "it has no scheme such as amqp://"


def brokers(value: Any, check_url: CheckURL, problems: Problems) -> dict[str, Broker]:
    """Return the brokers by name. No value of this setting is ever shown: passwords."""
    if not isinstance(value, Mapping):
        problems.add("BROKERS", f"is {kind(value)}, not a dict", f"write {BROKERS_EXAMPLE}")
        return {}
    found = {}
    for name, given in value.items():
        label = f"BROKERS[{show(name)}]"
        if not is_text(name):
            problems.add(label, "the name is no string", "write the name in quotes")
            continue
        found[name] = _broker(name, given, label, check_url, problems)
    return found


def _broker(name: str, given: Any, label: str, check_url: CheckURL, problems: Problems) -> Broker:
    options: dict[str, Any] = {}
    urls = given
    if isinstance(given, Mapping):
        if "url" not in given:
            problems.add(label, "has no 'url'", "write {'url': 'amqp://…', …}")
            return Broker(name, ())
        urls = given["url"]
        options = {key: item for key, item in given.items() if key != "url"}
        if isinstance(options.get(_NESTED_OPTIONS), Mapping):
            options |= options.pop(_NESTED_OPTIONS)
        if not isinstance(options.get(_TLS, False), (bool, Mapping)):
            wrong = f"{_TLS!r} is {kind(options[_TLS])}"
            problems.add(label, wrong, f"write {_TLS_EXAMPLE}, or True for the system's CAs")
        if not all(isinstance(key, str) for key in options):
            problems.add(label, "an option's name is no string", "write the names in quotes")
    several = list(urls) if isinstance(urls, (list, tuple)) else [urls]
    if not several or not all(map(is_text, several)):
        wrong = "the list of URLs is empty" if not several else f"a URL is {_odd(several)}"
        problems.add(label, wrong, "write a URL, a list of URLs, or {'url': …, …}")
        return Broker(name, ())
    # Celery's own notation for failover: 'amqp://one;amqp://two'.
    several = [part for url in several for part in split_urls(url)]
    before = len(problems.problems)
    for url in several:
        reason = check_url(url)
        if reason:
            remedy = "" if "; " in reason else "write transport://user@host/…"
            problems.add(label, mask(reason, url), remedy)
    transports = list(dict.fromkeys(map(_transport, several)))
    if len(transports) > 1 and len(problems.problems) == before:
        problems.add(
            label,
            f"its URLs are for {' and '.join(transports)}, and what is made for one transport "
            "cannot be sent by another",
            "give each transport a name of its own",
        )
    return Broker(name, tuple(several), options)


def _transport(url: str) -> str:
    """Return what sends to a URL: several schemes may be served by the same."""
    scheme = url.partition("://")[0].partition("+")[0].lower()
    return _SAME_TRANSPORT.get(scheme, scheme)


def _odd(values: Sequence[Any]) -> str:
    odd = next(value for value in values if not is_text(value))
    if isinstance(odd, str):
        return "no UTF-8" if odd else "empty"
    return kind(odd)


def patterns(
    value: Any,
    known: Mapping[str, Broker],
    watched: Sequence[Watch],
    problems: Problems,
) -> tuple[tuple[tuple[str, Route], ...], tuple[Criteria | None, ...]]:
    """Return the patterns and their routes, in the order written, and what each asks of a file."""
    entries = pairs(value)
    if entries is None:
        problems.add(
            "PATTERNS", f"{show(value)} is no list of pairs or dict", f"write {PATTERNS_EXAMPLE}"
        )
        return (), ()
    found: list[tuple[str, Route]] = []
    asked: list[Criteria | None] = []
    shadows = Shadows()
    for number, (pattern, options) in enumerate(entries):
        if options is NOT_A_PAIR or not isinstance(pattern, str) or not pattern:
            problems.add(
                f"PATTERNS[{number}]",
                f"{show(pattern)} is no pair of a pattern and a dict",
                "write ('/srv/ftp/*.csv', {'broker': …, 'task': …})",
            )
            continue
        label = f"PATTERNS[{show(pattern)}]"
        wrong = pattern_error(pattern)
        if wrong:
            problems.add(label, f"is no fnmatch pattern ({wrong})", "correct what is in [ ]")
            continue
        route = _route(options, label, known, problems)
        above = shadows.above(pattern)
        if above is not None:
            same = above == pattern
            which = (
                "the same pattern stands" if same else f"{show(above)} matches all of it and stands"
            )
            remedy = "remove one of the two" if same else "write it above that one"
            problems.warn(label, f"is never reached: {which} above it", remedy)
        _check_reach(pattern, label, watched, problems)
        _check_brackets(pattern, label, watched, problems)
        found.append((pattern, route))
        # Functions are found again by it, so it must be no other's.
        of_entry = label if repr(pattern) in label else f"{label}, number {number}"
        asked.append(_criteria(options, pattern, route, of_entry, problems))
        _check_members(pattern, asked[-1], shadows, label, problems)
    return tuple(found), tuple(asked)


def _criteria(
    given: Any, pattern: str, route: Route, label: str, problems: Problems
) -> Criteria | None:
    """Return what an entry asks of a file; an incomplete one's task is told like the other."""
    if not isinstance(given, Mapping):
        return None
    task = given.get("incomplete_task")
    if task is not None and not is_text(task):
        problems.add(label, f"'incomplete_task' is {show(task)}", "write the name of a Celery task")
        task = None
    incomplete = None if task is None else route._replace(task=task, batch=None)
    asked = criteria.criteria(given, label, problems, incomplete)
    return criteria.with_set(given, pattern, asked, label, problems)


def _check_members(
    pattern: str, asked: Criteria | None, shadows: Shadows, label: str, problems: Problems
) -> None:
    """Warn of a pattern above by which files of a set are announced by themselves."""
    for member in asked.members if asked is not None else ():
        of_member = criteria.pattern_of(member, pattern)
        above = shadows.covering(of_member) if of_member else None
        if above not in (None, pattern):
            problems.warn(
                label,
                f"'with': {member.template!r} is matched by {show(above)} above it, and gives a "
                "task of its own",
                "write that one below it",
            )


def _check_reach(pattern: str, label: str, watched: Sequence[Watch], problems: Problems) -> None:
    literal = re.split(r"[*?[]", pattern, maxsplit=1)[0]
    prefixes = [watch.prefix for watch in watched]
    if any(literal.startswith(prefix) or prefix.startswith(literal) for prefix in prefixes):
        return
    if literal.startswith("/"):
        remedy = f"the directories watched are {names(watch.path for watch in watched)}"
    else:
        remedy = "it is compared with the whole path: begin it with / or *"
    if watched:
        problems.warn(label, "matches no path in any watched directory", remedy)


def _check_brackets(pattern: str, label: str, watched: Sequence[Watch], problems: Problems) -> None:
    """Warn of a pattern that begins with a watched path in which there are brackets."""
    for watch in watched:
        if pattern.startswith(watch.prefix) and not fnmatch.fnmatchcase(watch.prefix, watch.prefix):
            problems.warn(
                label,
                f"matches no path in {watch.path}, as brackets stand for one of the letters in "
                "them",
                f"write glob.escape({show(watch.path)}) + {show(pattern[len(watch.path) :])}",
            )
            return


def _route(given: Any, label: str, known: Mapping[str, Broker], problems: Problems) -> Route:
    if not isinstance(given, Mapping):
        problems.add(label, f"{show(given)} is no dict", "write {'broker': …, 'task': …}")
        return Route("", "")
    keys = ("broker", "task", "args", "kwargs", "options", "incomplete_task")
    allowed = (*keys, *criteria.KEYS, *criteria.SET_KEYS, batch.KEY)
    for key in given:
        if key not in allowed:
            known_key = isinstance(key, str) and key in _APPLY_ASYNC
            if known_key:
                problems.add(
                    label,
                    f"'{key}' is an option of the message",
                    f"write 'options': {{'{key}': …}}",
                )
            else:
                problems.unknown(label, "key", key, allowed)
    _check_broker_name(given.get("broker"), label, known, problems)
    task = given.get("task")
    if not is_text(task):
        wrong = "has no 'task'" if task is None else f"'task' is {show(task)}"
        problems.add(label, wrong, "write the name of a Celery task, 'task': 'package.tasks.name'")
    args = given.get("args", ())
    if not isinstance(args, (list, tuple)) or not _is_json(args):
        problems.add(label, f"'args' is {show(args)}", "write a list of values that JSON can hold")
        args = ()
    kwargs = given.get("kwargs", {})
    if not _MAPPING[0](kwargs) or not _is_json(kwargs):
        problems.add(
            label, f"'kwargs' is {show(kwargs)}", "write a dict of names and values for JSON"
        )
        kwargs = {}
    elif kwargs and all(key in _APPLY_ASYNC for key in kwargs):
        # In watchman's original they were options of send_task.
        problems.warn(
            label,
            f"'kwargs' are arguments of the task, also {names(kwargs)}",
            "write 'options' instead of 'kwargs' if options of the message are meant",
        )
    options = _options(given.get("options", {}), label, problems)
    several = batch.batch(given, label, problems)
    return Route(str(given.get("broker")), str(task), tuple(args), dict(kwargs), options, several)


def _check_broker_name(
    name: Any, label: str, known: Mapping[str, Broker], problems: Problems
) -> None:
    if name is None:
        remedy = f"write 'broker': one of {names(known)}" if known else f"write {BROKERS_EXAMPLE}"
        problems.add(label, "has no 'broker'", remedy)
    elif not isinstance(name, str):
        problems.add(label, f"'broker' is {kind(name)}", "write the name of one of the BROKERS")
    elif name not in known:
        if known:
            problems.unknown(label, "broker", name, known)
        else:
            problems.add(
                label, f"there is no broker '{name}'", f"write BROKERS = {{'{name}': 'amqp://…'}}"
            )


def _options(given: Any, label: str, problems: Problems) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        problems.add(label, f"'options' is {show(given)}", "write a dict such as {'queue': 'fast'}")
        return {}
    options = {}
    for key, value in given.items():
        if key == "task_id":
            problems.add(label, "'task_id' cannot be set", "remove it: it tells versions apart")
        elif not isinstance(key, str) or key not in _APPLY_ASYNC:
            problems.unknown(label, "option", key, _APPLY_ASYNC)
        elif not _APPLY_ASYNC[key][0](value) or not _is_json(value, also=datetime.timedelta):
            problems.add(label, f"option '{key}' is {show(value)}", f"write {_APPLY_ASYNC[key][1]}")
        else:
            options[key] = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    return options


def _is_json(value: Any, also: type = datetime.datetime) -> bool:
    """Say whether JSON can hold the value; a datetime is written as text by Celery and us."""

    def encode(item: Any) -> str:
        if isinstance(item, (datetime.datetime, also)):
            return ""
        raise TypeError

    try:
        json.dumps(value, default=encode)
    except (TypeError, ValueError, RecursionError):
        return False
    return True
