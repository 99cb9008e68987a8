"""``notify match``: what would become of a path, without looking at the disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from watchman import coverage
from watchman.checks import reasons
from watchman.checks.asked import COMPANION, Asked
from watchman.coverage import LeftOut
from watchman.model import Config, Criteria, Route, Watch, WatchKind
from watchman.router import Router
from watchman.text import normal_path, printable

_SHOWN = 5
"""How many of several reasons are shown to people; JSON has all."""


class RouteTarget(Protocol):
    """Where a message would go (``brokers.Preview``)."""

    @property
    def problem(self) -> str:
        """Why there would be none; empty if there would."""
        ...

    @property
    def queue(self) -> str | None:
        """The queue that it would be in; None where only an exchange is named."""
        ...

    @property
    def exchange(self) -> str:
        """The exchange; empty for the broker's default one, which leads to any queue by name."""
        ...

    @property
    def routing_key(self) -> str:
        """What the exchange would choose the queues by."""
        ...

    @property
    def declares(self) -> bool:
        """Whether the exchange is made with the first message, if it is not there."""
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
    exchange: str = ""
    routing_key: str = ""
    """As in the message that Celery would send; empty for the broker's default exchange."""
    destination: str | None = None
    ignored: bool = False
    dry_run: bool = False
    reason: str = ""
    """Why no task would be sent; empty if one would."""
    condition: str = ""
    """What must hold for the path to be seen; empty where nothing must."""
    shadowed: tuple[str, ...] = ()
    """The patterns below ``pattern`` that match as well, and have no effect on this path."""
    asked: tuple[str, ...] = ()
    """What the file must meet before it counts (``complete``, ``with``, ``require_log``)."""
    incomplete_after: float = Criteria(()).incomplete_after
    """Seconds after which a file that does not is incomplete."""
    told_now: str = ""
    """What stands beside the file that is there says of it now; empty where nobody has looked."""
    batch: Mapping[str, Any] | None = None
    """With which other files it would be announced, as PATTERNS has it."""
    because: tuple[str, ...] = ()
    """What the reason comes of: entries of IGNORE or DRY_RUN, patterns that nearly match, what
    other watches say of the path."""

    def text(self) -> str:
        """Return it as lines for people."""
        lines = [printable(self.path)]
        rows: list[tuple[str, str | None]] = [
            ("watch", self.watch),
            ("pattern", self.pattern),
            *(("", f"before {pattern}, which matches too") for pattern in self.shadowed[:_SHOWN]),
            ("task", self.task),
            ("batch", _words(self.batch) if self.batch else None),
            ("broker", self.broker),
            ("queue", self.queue),
            ("moved to", self.destination),
            ("only", self.condition or None),
            *(("" if number else "asked", one) for number, one in enumerate(self.asked)),
            ("now", self.told_now or None),
            ("no task", self.reason or None),
            *(("", words) for words in self.because[:_SHOWN]),
        ]
        for label, value in rows:
            if value is not None:
                lines.append(f"  {label + ':' if label else '':<10}{printable(value)}")
        return "\n".join(lines)


def match(
    config: Config, path: str, preview: Callable[[Route], RouteTarget] | None = None
) -> Match:
    """Say what would become of ``path``, an absolute path, as the pipeline would decide it.

    ``preview`` says where a route's messages go.
    """
    path = normal_path(path)
    router = Router(config.patterns, config.moves, config.ignore, config.dry_run)
    around = [watch for watch in config.watches if path.startswith(watch.prefix)]
    watch, verdict = _watch(around, path, router)
    if not around:
        watch, verdict = _later(config, path, router) or (watch, verdict)
    if verdict.reason:
        ignored = verdict.left_out is LeftOut.IGNORED
        because = _why_unseen(config, path, around, verdict, router)
        return Match(
            path,
            watch.path if watch else None,
            ignored=ignored,
            reason=verdict.reason,
            because=because,
        )
    assert watch is not None
    if watch.kind is WatchKind.DIRECTORIES:
        return _routed(config, path, watch, verdict, router, preview)
    asked = Asked(config)
    beside = asked.why_beside(path)
    if beside:
        words = asked.words(path) if beside != COMPANION else ()
        return Match(path, watch.path, reason=beside, condition=verdict.condition, asked=words)
    found = _routed(config, path, watch, verdict, router, preview)
    after = (asked.criteria(path) or Criteria(())).incomplete_after
    return replace(found, asked=asked.words(path), incomplete_after=after)


def _routed(
    config: Config,
    path: str,
    watch: Watch,
    verdict: coverage.Verdict,
    router: Router,
    preview: Callable[[Route], RouteTarget] | None,
) -> Match:
    """Return what becomes of a path that the watch sees."""
    route, destination = router.route(path), router.destination(path)
    target = preview(route) if preview and route else None
    reason = ""
    because: tuple[str, ...] = ()
    if route is None:
        reason = "no pattern matches"
        because = tuple(reasons.near_misses(config, path, destination))
    elif router.is_dry_run(path):
        reason = "DRY_RUN matches: it is logged, but neither moved nor sent"
        because = tuple(reasons.why_dry(config, path))
    elif target is not None and target.problem:
        reason = f"Celery can make no message of it: {target.problem}"
    sent = target if target is not None and not target.problem else None
    return Match(
        path,
        watch.path,
        router.pattern(path),
        route.task if route else None,
        route.broker if route else None,
        sent.text() if sent else None,
        sent.exchange if sent else "",
        sent.routing_key if sent else "",
        destination,
        dry_run=router.is_dry_run(path),
        reason=reason,
        condition=verdict.condition,
        shadowed=reasons.shadowed(config, path),
        batch=route.batch.as_given() if route and route.batch else None,
        because=because,
    )


def _words(batch: Mapping[str, Any]) -> str:
    where = " of its directory" if "by" in batch else ""
    return f"up to {batch['size']} files{where}, sent after {batch['seconds']:g} s at the latest"


def _why_unseen(
    config: Config, path: str, around: Iterable[Watch], verdict: coverage.Verdict, router: Router
) -> tuple[str, ...]:
    """Return what the reason comes of, and what the other watches around the path say of it."""
    found = list(reasons.why_left_out(config, path))
    verdicts = (coverage.judge(watch, path, router).reason for watch in around)
    found += [words for words in verdicts if words and words != verdict.reason]
    pattern = router.pattern(path)
    if pattern is not None:
        found.append(f"the pattern {pattern!r} would match it")
    return tuple(dict.fromkeys(found))


def _later(
    config: Config, path: str, router: Router
) -> tuple[Watch | None, coverage.Verdict] | None:
    """Return the same of a directory above that gets a watch when it is made (``do_glob``)."""
    above = os.path.dirname(path)
    while above != os.path.dirname(above):
        for glob in config.globs:
            if coverage.begins_to_match(glob.path, above):
                watch = replace(glob, path=above)
                verdict = coverage.judge(watch, path, router)
                if verdict.reason:
                    return watch if verdict.left_out is not None else None, verdict
                made = f"if {above} is made, which then matches {glob.path}"
                condition = f"{made}, and {verdict.condition}" if verdict.condition else made
                return watch, verdict._replace(condition=condition)
        above = os.path.dirname(above)
    return None


def _watch(
    around: Iterable[Watch], path: str, router: Router
) -> tuple[Watch | None, coverage.Verdict]:
    """Return the watch that sees the path, and on what condition; else why none does.

    Of several it is one without a condition, the innermost. Where its name leaves the path out, the
    watch is the one that it is in; else None.
    """
    innermost = sorted(around, key=lambda watch: -len(watch.path))
    found = [(watch, coverage.judge(watch, path, router)) for watch in innermost]
    seen = [one for one in found if not one[1].reason]
    if seen:
        return next((one for one in seen if not one[1].condition), seen[0])
    left_out = next((one for one in found if one[1].left_out is not None), None)
    if left_out is not None:
        return left_out
    return None, found[-1][1] if found else coverage.Verdict("it lies in no watched directory")
