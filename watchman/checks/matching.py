"""``notify match``: what would become of a path, without looking at the disk."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from watchman.model import Config, Route, Watch
from watchman.router import Router
from watchman.text import printable


class Target(Protocol):
    """Where a message would go (``brokers.Preview``)."""

    @property
    def problem(self) -> str:
        """Why there would be none; empty if there would."""
        ...

    def text(self) -> str:
        """Return the queue or the exchange in words."""
        ...


@dataclass(frozen=True)
class Match:
    """What would become of a complete file (or finished directory) at ``path``."""

    path: str
    watch: str | None = None
    pattern: str | None = None
    task: str | None = None
    broker: str | None = None
    queue: str | None = None
    """The queue, or the exchange and the routing key where the route names no queue."""
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


def match(config: Config, path: str, preview: Callable[[Route], Target] | None = None) -> Match:
    """Say what would become of ``path``, an absolute path, as the pipeline would decide it.

    ``preview`` says where a route's messages go.
    """
    path = os.path.normpath(path)
    router = Router(config.patterns, config.moves, config.ignore, config.dry_run)
    around = [watch for watch in config.watches if path.startswith(watch.prefix)]
    watch, reason = _watch(around, path, router)
    if watch is None:
        return Match(path, reason=reason)
    ignored = _ignored(router, watch, path)
    if ignored:
        return Match(path, watch.path, ignored=True, reason=ignored)
    if watch.kind == "directories" and _unfinished(watch, path):
        return Match(path, watch.path, reason="its name says that it is unfinished ('unfinished')")
    route = router.route(path)
    target = preview(route) if preview and route else None
    dry_run = router.is_dry_run(path)
    if route is None:
        reason = "no pattern matches"
    elif dry_run:
        reason = "DRY_RUN matches: it is logged, but neither moved nor sent"
    elif target is not None and target.problem:
        reason = f"Celery can make no message of it: {target.problem}"
    return Match(
        path,
        watch.path,
        router.pattern(path),
        route.task if route else None,
        route.broker if route else None,
        target.text() if target is not None and not target.problem else None,
        router.destination(path),
        dry_run=dry_run,
        reason=reason,
    )


def _watch(around: Iterable[Watch], path: str, router: Router) -> tuple[Watch | None, str]:
    """Return the innermost watch that sees the path; else None and why there is none."""
    reason = "it lies in no watched directory"
    for watch in sorted(around, key=lambda watch: -len(watch.path)):
        below = path[len(watch.prefix) :]
        if watch.processor is not None:
            reason = f"{watch.path} is left to the processor {watch.processor_name}"
        elif watch.kind == "directories":
            reason = _not_a_unit(watch, below, router)
            if not reason:
                return watch, ""
        elif "/" in below and not (watch.rec or watch.auto_add):
            reason = f"{watch.path} is watched without what is below it ('rec')"
        elif _is_excluded(watch, below):
            reason = f"'exclude_filter' leaves it out of {watch.path}"
        else:
            return watch, ""
    return None, reason


def _not_a_unit(watch: Watch, below: str, router: Router) -> str:
    """Say why a path in a watch for whole directories is none; empty if it is.

    With ``rec``, a directory that becomes no task itself is entered, and those in it count.
    """
    path, (*above, _) = watch.path, below.split("/")
    if above and not watch.rec:
        return f"{watch.path} watches for whole directories"
    for name in above:
        path = os.path.join(path, name)
        if _unfinished(watch, path):
            return f"{path} is unfinished by its name, and nothing below it is looked at"
        if watch.exclude is not None and watch.exclude(path):
            return f"'exclude_filter' leaves out {path}"
        if router.route(path) is not None or router.destination(path) is not None:
            return (
                f"{path} is itself a directory that is moved or sent as a whole (unless it was "
                "there before the first run)"
            )
    full = os.path.join(watch.path, below)
    if watch.exclude is not None and watch.exclude(full):
        return f"'exclude_filter' leaves out {full}"
    return ""


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
