"""Watches that cover the same directory, or one that watchman itself writes to."""

from __future__ import annotations

from collections.abc import Callable

from watchman import coverage, mounts
from watchman.config.problems import Problems
from watchman.model import Watch, WatchKind


def covers(
    watch: Watch, directory: str, real_path: Callable[[str], str] = mounts.real_path
) -> bool:
    """Say whether what is made in ``directory`` can be an arrival of that watch."""
    inner, outer = real_path(directory), real_path(watch.path)
    if inner != outer and not inner.startswith(outer.rstrip("/") + "/"):
        return False
    return coverage.may_reach(watch, inner[len(outer.rstrip("/")) + 1 :])


def meet(one: Watch, other: Watch, real_path: Callable[[str], str]) -> bool:
    """Say whether both would announce the same. Processors of the user's own are free to."""
    if one.processor_name or other.processor_name:
        return False
    return real_path(one.path) == real_path(other.path) or any(
        _has(outer, inner, real_path) for inner, outer in ((one, other), (other, one))
    )


def _has(outer: Watch, inner: Watch, real_path: Callable[[str], str]) -> bool:
    """Say whether what the inner watch announces is announced by the outer one as well.

    One for whole directories has, with ``rec``, those in a directory that is itself not asked for;
    which one noted it first would decide.
    """
    alike = outer.kind is WatchKind.FILES or inner.kind is WatchKind.DIRECTORIES
    return outer.rec and alike and covers(outer, inner.path, real_path)


def check_overlap(found: list[tuple[str, Watch]], problems: Problems) -> None:
    """Note what would be announced twice. Processors of the user's own may watch what they like."""
    plain = [(label, watch) for label, watch in found if not watch.processor_name]
    real = {watch.path: mounts.real_path(watch.path) for _, watch in plain}.__getitem__
    for number, (label, watch) in enumerate(plain):
        for other_label, other in plain[:number]:
            if real(watch.path) == real(other.path):
                problems.add(
                    label,
                    f"the directory {watch.path} is already watched by {other_label}",
                    "remove one of the two",
                )
                continue
            for inner_label, inner, outer_label, outer in (
                (label, watch, other_label, other),
                (other_label, other, label, watch),
            ):
                if _has(outer, inner, real):
                    problems.add(
                        inner_label,
                        f"the directory {inner.path} lies in {outer.path}, "
                        f"which {outer_label} watches with all below it",
                        "remove one of the two",
                    )
