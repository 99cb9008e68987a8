"""``notify match``: what would become of a path, without looking at the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from watchman import coverage
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
    condition: str = ""
    """What must hold for the path to be seen; empty where nothing must."""

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
        if self.condition:
            lines.append(f"  {'only:':<10}{printable(self.condition)}")
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
    watch, verdict = _watch(around, path, router)
    reason = verdict.reason
    if watch is None:
        return Match(path, reason=reason)
    unfinished = watch.kind == "directories" and coverage.is_unfinished(
        os.path.basename(path), watch.unfinished
    )
    if verdict.ignored and not unfinished:
        return Match(path, watch.path, ignored=True, reason=reason)
    if unfinished:
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
        condition=verdict.condition,
    )


def _watch(
    around: Iterable[Watch], path: str, router: Router
) -> tuple[Watch | None, coverage.Verdict]:
    """Return the innermost watch that sees the path; else None and why there is none."""
    verdict = coverage.Verdict("it lies in no watched directory")
    for watch in sorted(around, key=lambda watch: -len(watch.path)):
        verdict = coverage.judge(watch, path, router)
        if not verdict.reason or verdict.ignored:
            return watch, verdict
    return None, verdict
