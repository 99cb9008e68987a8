"""Random programs of uploads and faults: plain data, the same for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

FOLDERS = ("", "d", "d", "d/deep", "e")
NAMES = ("a", "b", "c")
SIZES = (20, 20, 20, 20, 70, 3 << 20)
"""Mostly one: then the size tells nothing, and an inode number is soon used again."""
TRIPS = (("d", "e"), ("e", "d"), ("d", "away/d"), ("away/d", "d"), ("d", "f"), ("f", "d"))
"""Renames of directories; ``away`` is outside of what is watched."""
TIMES = ("", "keep", "after")
"""The mtime of a write: the clock's, an old one set before the close, or after it."""


class Step(NamedTuple):
    """One line of a program: a method's name and its arguments."""

    do: str
    args: tuple[Any, ...] = ()


def program(seed: int, bursts: int, *, faults: bool = True) -> list[Step]:
    """Return a program of so many bursts; after most of them everything has to be settled."""
    random = Random(seed)
    steps: list[Step] = []
    for _ in range(bursts):
        steps += _burst(random, faults=faults)
        if random.random() < 0.85:
            steps.append(Step("settle"))
    return [*steps, Step("finish"), Step("settle"), Step("kill"), Step("settle")]


def _burst(random: Random, *, faults: bool) -> Iterator[Step]:
    """A few steps in a row, with no, one or two faults around or among them."""
    length = random.choice((1, 1, 2, 3, 5, 8))
    before: Step | None = None
    after: Step | None = None
    if faults and random.random() < 0.4:
        name = random.choice(("kill", "reload", "outage", "full", "down", "remount"))
        pair = {"outage": "over", "full": "free", "down": "up"}.get(name)
        before, after = (Step(name), Step(pair)) if pair else (None, Step(name))
        if not pair and random.random() < 0.5:
            before, after = after, None
    steps = [step for _ in range(length) for step in _steps(random)]
    if before is not None:
        steps.insert(random.randrange(length), before)
    if after is not None:
        steps.append(after)
    if random.random() < 0.4:
        steps.extend(_steps(random))
    for step in steps:
        yield step
        if random.random() < 0.3:
            yield Step("lull", (random.choice((1, 3, 10, 30, 100)),))
        if random.random() < 0.1:
            yield Step("seen")


def _steps(random: Random) -> list[Step]:
    """Return a step; mostly with another before it that makes what it needs."""
    step = _step(random)
    if step.do in ("write", "replace", "link_in", "hold", "finish") or random.random() < 0.3:
        return [step]
    first = step.args[0]
    if first.startswith("away/"):
        return [step]
    path = (
        f"{first}/{random.choice(NAMES)}" if "directory" in step.do or step.do == "swing" else first
    )
    made = Step("write", (path, random.choice(SIZES), random.choice(TIMES)))
    between = [Step("seen")] if random.random() < 0.3 else []
    return [made, *between, step]


def _step(random: Random) -> Step:
    path, to = _path(random), _path(random)
    size, time = random.choice(SIZES), random.choice(TIMES)
    return random.choice(
        (
            *[Step("write", (path, size, time))] * 3,
            *[Step("rewrite", (path,))] * 2,
            Step("append", (path,)),
            Step("open_only", (path,)),
            *[Step("rename", (path, to))] * 2,
            Step("there_and_back", (path, to)),
            *[Step("replace", (path, size, time, random.random() < 0.5))] * 2,
            Step("link", (path, to)),
            Step("link_in", (path, size)),
            Step("delete", (path,)),
            *[Step("remake", (path,))] * 2,
            Step("utime", (path, random.choice((1, 2, 10**18)))),
            Step("chmod", (path, random.choice((0o600, 0o640, 0o644)))),
            Step("truncate", (path, random.choice((10, 20, 70)))),
            *[Step("rename_directory", random.choice(TRIPS))] * 2,
            *[Step("swing", ("d", random.choice(("e", "away/d")), random.randint(1, 3)))] * 2,
            Step("delete_directory", (random.choice(("d", "e")),)),
            Step("hold", ("d" if random.random() < 0.7 else "",)),
            Step("finish"),
        )
    )


def _path(random: Random) -> str:
    return f"{random.choice(FOLDERS)}/{random.choice(NAMES)}".lstrip("/")
