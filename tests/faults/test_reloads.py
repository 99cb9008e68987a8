"""A daemon that is told to reload again and again holds no more than after the first time."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.faults.driver import Daemon, in_directory, in_redis, wait_for_tasks
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

CONFIG = """\
STATE_DIR = {state!r}
BROKERS = {{'r': {url!r}, 'b': 'filesystem://'}}
WATCHES = [
    {{'path': {plain!r}, 'rec': True, 'auto_add': True}},
    {{'path': {moved!r}}},
    {{'path': {copied!r}}},
    {{'path': {whole!r}, 'kind': 'directories', 'marker': 'done'}},
    ({own!r}, 8, 'watchman.processors.AllEventsSignaler'),
]
PATTERNS = [('*.r', {{'broker': 'r', 'task': 't'}}), ('*', {{'broker': 'b', 'task': 't'}})]
MOVES = {{{moved!r}: {store!r}, {copied!r}: {far!r}}}
"""
RELOADS = 35
SETTLED = 10
"""Reloads after which whatever is only made once is there."""
PAGES = os.sysconf("SC_PAGE_SIZE")


def held(pid: int) -> Counter[str]:
    """Return what a process holds: its descriptors by what they are, threads, and memory maps."""
    found: Counter[str] = Counter()
    directory = f"/proc/{pid}/fd"
    for number in os.listdir(directory):
        with contextlib.suppress(FileNotFoundError):
            found[re.sub(r"\d+", "N", os.readlink(f"{directory}/{number}"))] += 1
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(FileNotFoundError):
            found["thread " + Path(f"/proc/{pid}/task/{thread}/comm").read_text().strip()] += 1
    return found


def memory(pid: int) -> int:
    """Return the resident memory of a process, in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGES


def test_nothing_grows(tmp_path: Path, other_device: Path, daemon: Callable[..., Daemon]) -> None:
    names = ("plain", "moved", "copied", "whole", "own", "store")
    places = {name: str(tmp_path / name) for name in names}
    for place in places.values():
        os.mkdir(place)
    server = RedisServer(tmp_path / "redis")
    server.start()
    config = tmp_path / "config.py"
    state = tmp_path / "state"
    places |= {"far": str(other_device), "state": str(state), "url": server.url}
    config.write_text(CONFIG.format(**places))

    def upload(number: int) -> None:
        paths = []
        for name in ("plain", "moved", "copied", "own"):
            for suffix in ("r", "b"):
                paths.append(f"{places[name]}/{number}.{suffix}")
                Path(paths[-1]).write_text("x")
        directory = Path(places["whole"]) / f"{number}"
        directory.mkdir()
        (directory / "done").write_text("x")
        paths.append(str(directory))
        wanted = [path for path in paths if not path.startswith(places["own"])]
        wait_for_tasks(wanted, lambda: in_directory(state) + in_redis(server.port))

    def reload(runs: int) -> None:
        os.kill(running.pid, signal.SIGHUP)
        wait_until(lambda: running.output.count(": Watching ") == runs, 30)

    running = daemon(config).wait_watching()
    try:
        seen: list[tuple[Counter[str], int]] = []
        for number in range(RELOADS + 1):
            upload(number)
            seen.append((held(running.pid), memory(running.pid)))
            reload(number + 2)
        held_then, memory_then = seen[SETTLED]
        held_last, memory_last = seen[-1]
        more = {what: n - held_then[what] for what, n in held_last.items() if n > held_then[what]}
        assert not more, f"{sum(held_then.values())} -> {sum(held_last.values())}: {more}"
        assert memory_last - memory_then < 3 << 20
        running.stop()
        assert "Traceback" not in running.output
    finally:
        server.stop()
