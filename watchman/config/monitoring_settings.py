"""METRICS_FILE and the hooks: ON_FAILED, ON_TROUBLE, ON_RECOVERED."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from watchman.config import paths
from watchman.config.problems import Problems, show
from watchman.config.values import encodes, imported, is_text
from watchman.masking import public_url, remember
from watchman.model import Hook, Watch

HOOKS = ("ON_FAILED", "ON_TROUBLE", "ON_RECOVERED")
_SUFFIX = ".prom"
_HOOK_REMEDY = (
    "write a list of arguments such as ['/usr/bin/mail', 'root'], a URL such as "
    "'https://host/path', a function, or its dotted path"
)


def metrics_file(
    values: Mapping[str, Any], base: str, watched: Sequence[Watch], problems: Problems
) -> str:
    """Return the path of METRICS_FILE; empty where it is not set or wrong."""
    value = values.get("METRICS_FILE")
    if value is None:
        return ""
    path = paths.own_place(value, "METRICS_FILE", base, watched, problems)
    if path and not path.endswith(_SUFFIX):
        problems.add(
            "METRICS_FILE",
            f"{show(path)} does not end in {_SUFFIX}, and node_exporter reads nothing else",
            "write METRICS_FILE = '/var/lib/prometheus/node-exporter/watchman.prom'",
        )
    return path


def hooks(values: Mapping[str, Any], problems: Problems) -> dict[str, Hook]:
    """Return the hooks that are set, by setting."""
    found: dict[str, Hook] = {}
    for setting in HOOKS:
        if values.get(setting) is not None:
            with problems.guard(setting):
                hook = _hook(setting, values[setting], problems)
                if hook is not None:
                    found[setting] = hook
    return found


def _hook(setting: str, value: Any, problems: Problems) -> Hook | None:
    if isinstance(value, (list, tuple)):
        return _command(setting, value, problems)
    if isinstance(value, str) and "://" in value:
        return _url(setting, value, problems)
    function, wrong = value, ""
    if isinstance(value, str):
        function, wrong = imported(value) if is_text(value) else (None, "is no dotted path")
    shown = show(public_url(value) if isinstance(value, str) else value)
    if wrong:
        problems.add(setting, f"{shown}: {wrong}", _HOOK_REMEDY)
    elif not callable(function):
        problems.add(setting, f"{shown} cannot be called", _HOOK_REMEDY)
    else:
        named = value if isinstance(value, str) else getattr(function, "__qualname__", "")
        name = f"the function {named or type(function).__name__}"
        return Hook(setting, name, function=function)
    return None


def _command(setting: str, value: Sequence[Any], problems: Problems) -> Hook | None:
    good = all(isinstance(one, str) and "\0" not in one and encodes(one) for one in value)
    if not (value and good and value[0]):
        # Its arguments may be secrets.
        problems.add(setting, "is no list of texts, the first of them a program", _HOOK_REMEDY)
        return None
    return Hook(setting, f"the command {value[0]}", command=tuple(value))


def _url(setting: str, value: str, problems: Problems) -> Hook | None:
    try:
        parts = urlsplit(value)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and is_text(value)
        _ = parts.port
    except ValueError:
        good = False
    if not good or any(letter.isspace() for letter in value):
        problems.add(setting, f"{show(public_url(value))} is no URL of http or https", _HOOK_REMEDY)
        return None
    remember(value)
    return Hook(setting, public_url(value), url=value)
