"""``notify match``: what would become of a path, without looking at the disk."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from watchman.model import Config, Route, Watch
from watchman.router import Router
from watchman.text import printable

_ROUTES = ("task_routes", "CELERY_ROUTES")
_DEFAULT_QUEUE = ("task_default_queue", "CELERY_DEFAULT_QUEUE")


@dataclass(frozen=True)
class Match:
    """What would become of a complete file (or finished directory) at ``path``."""

    path: str
    watch: str | None = None
    pattern: str | None = None
    task: str | None = None
    broker: str | None = None
    queue: str | None = None
    destination: str | None = None
    ignored: bool = False
    dry_run: bool = False
    reason: str = ""
    """Why no task would be sent; empty if one would."""

    def text(self) -> str:
        """Return it as lines for people."""
        lines = [printable(self.path)]
        for label, value in (
            ("watch", self.watch),
            ("pattern", self.pattern),
            ("task", self.task),
            ("broker", self.broker),
            ("queue", self.queue),
            ("moved to", self.destination),
        ):
            if value is not None:
                lines.append(f"  {label + ':':<10}{printable(value)}")
        if self.reason:
            lines.append(f"  {'no task:':<10}{printable(self.reason)}")
        return "\n".join(lines)


def match(config: Config, path: str) -> Match:
    """Say what would become of ``path``, an absolute path, as the pipeline would decide it."""
    path = os.path.normpath(path)
    router = Router(config.patterns, config.moves, config.ignore, config.dry_run)
    around = [watch for watch in config.watches if path.startswith(watch.prefix)]
    watch, reason = _watch(around, path)
    if watch is None:
        return Match(path, reason=reason)
    ignored = _ignored(router, watch, path)
    if ignored:
        return Match(path, watch.path, ignored=True, reason=ignored)
    if watch.kind == "directories" and _unfinished(watch, path):
        return Match(path, watch.path, reason="its name says that it is unfinished ('unfinished')")
    route = router.route(path)
    dry_run = router.is_dry_run(path)
    if route is None:
        reason = "no pattern matches"
    elif dry_run:
        reason = "DRY_RUN matches: it is logged, but neither moved nor sent"
    return Match(
        path,
        watch.path,
        router.pattern(path),
        route.task if route else None,
        route.broker if route else None,
        queue(route, config.celery) if route else None,
        router.destination(path),
        dry_run=dry_run,
        reason=reason,
    )


def _watch(around: Iterable[Watch], path: str) -> tuple[Watch | None, str]:
    """Return the innermost watch that sees the path; else None and why there is none."""
    reason = "it lies in no watched directory"
    for watch in sorted(around, key=lambda watch: -len(watch.path)):
        below = path[len(watch.prefix) :]
        if watch.processor is not None:
            reason = f"{watch.path} is left to the processor {watch.processor_name}"
        elif "/" in below and watch.kind == "directories":
            reason = f"{watch.path} watches for whole directories"
        elif "/" in below and not (watch.rec or watch.auto_add):
            reason = f"{watch.path} is watched without what is below it ('rec')"
        elif _is_excluded(watch, below):
            reason = f"'exclude_filter' leaves it out of {watch.path}"
        else:
            return watch, ""
    return None, reason


def _is_excluded(watch: Watch, below: str) -> bool:
    if watch.exclude is None:
        return False
    directory = watch.path
    for component in below.split("/")[:-1]:
        directory = os.path.join(directory, component)
        if watch.exclude(directory):
            return True
    return False


def _ignored(router: Router, watch: Watch, path: str) -> str:
    """Return which entry on the way is ignored: a directory's name counts as well."""
    directory = watch.path
    for name in path[len(watch.prefix) :].split("/"):
        directory = os.path.join(directory, name)
        if router.ignored(name, directory):
            return f"IGNORE matches {directory}"
    return ""


def _unfinished(watch: Watch, path: str) -> bool:
    name = os.path.basename(path)
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in watch.unfinished)


def queue(route: Route, celery: Mapping[str, Any]) -> str:
    """Return the task's queue: the pattern's own, else that of Celery's routes, else the default.

    See https://docs.celeryq.dev/en/stable/userguide/routing.html. Routes that are functions are
    not asked: they may do anything.
    """
    if "queue" in route.options:
        return str(route.options["queue"])
    routes = next((celery[name] for name in _ROUTES if celery.get(name)), ())
    if isinstance(routes, Mapping) or not isinstance(routes, (list, tuple)):
        routes = [routes]
    for one in routes:
        if callable(one) or isinstance(one, str):
            return "(decided by task_routes)"
        found = _routed(route.task, one)
        if found:
            return found
    return next((str(celery[name]) for name in _DEFAULT_QUEUE if name in celery), "celery")


def _routed(task: str, routes: Any) -> str | None:
    """Look the task up as Celery does: an exact name first, then the patterns in their order."""
    items = list(routes.items() if isinstance(routes, Mapping) else routes)
    exact = [target for name, target in items if name == task]
    similar = [
        target
        for name, target in items
        if (isinstance(name, re.Pattern) and name.match(task))
        or (isinstance(name, str) and "*" in name and fnmatch.fnmatch(task, name))
    ]
    for target in (exact + similar)[:1]:
        named = target.get("queue") if isinstance(target, Mapping) else target
        return str(getattr(named, "name", named)) if named else None
    return None
