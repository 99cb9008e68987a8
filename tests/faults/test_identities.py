"""Random programs of uploads and faults, on several file systems, against a model of identities.

``WATCHMAN_LONG=1`` runs many more. A failure names its seed; programs are run by hand with

    python -m tests.faults.test_identities KINDS MOVES FIRST-LAST [BURSTS]

such as ``disk,fuse ,same,other 1-20``.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.driver import Launcher
from tests.faults.programs import Step, program
from tests.faults.sites import KINDS, MOVES, Site
from tests.servers.fuse import needs_fuse
from tests.servers.redis import RedisServer

LONG = os.environ.get("WATCHMAN_LONG") == "1"
PROGRAMS = 30 if LONG else 1
BURSTS = {"disk": 30, "tmpfs": 30, "fuse": 15, "polled": 15} if LONG else {"disk": 12, "tmpfs": 12}
FEW = 4
"""Bursts on what is slow, because files have to settle there."""
_queues = (f"identities{number}" for number in itertools.count(1))

WORLDS = [pytest.param(kind, moves, marks=needs_fuse) for kind in KINDS for moves in MOVES]


def run(
    kind: str, moves: str, steps: Sequence[Step], launcher: Launcher, server: RedisServer
) -> None:
    with Site(kind, moves, launcher, server, next(_queues)) as site:
        site.run(steps)


@pytest.mark.timeout(7200 if LONG else 180)
@pytest.mark.parametrize(("kind", "moves"), WORLDS)
def test_programs(kind: str, moves: str, launcher: Launcher, redis_server: RedisServer) -> None:
    for seed in range(1, 1 + PROGRAMS):
        try:
            run(kind, moves, program(seed, BURSTS.get(kind, FEW)), launcher, redis_server)
        except AssertionError as error:
            raise AssertionError(f"seed {seed} on {kind}, MOVES {moves!r}: {error}") from error


def main(kinds: str, moves: str, seeds: str, bursts: int = 12) -> None:
    """Run seeds FIRST-LAST by hand; names separated by commas."""
    first, _, last = seeds.partition("-")
    launcher = Launcher()
    server = RedisServer(Path(tempfile.mkdtemp(prefix="watchman-identities-redis-")))
    server.start()
    failures = 0
    try:
        for seed in range(int(first), int(last or first) + 1):
            for kind, move in itertools.product(kinds.split(","), moves.split(",")):
                begun = time.monotonic()
                verdict = "ok"
                try:
                    run(kind, move, program(seed, bursts), launcher, server)
                except Exception:  # noqa: BLE001 — whatever it is, it is shown
                    verdict = f"FAILED\n{traceback.format_exc()}"
                    failures += 1
                print(
                    f"{kind} {move!r} {seed}: {time.monotonic() - begun:.1f} s {verdict}",
                    flush=True,
                )
    finally:
        server.stop()
        launcher.end()
    print(f"{failures} failed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
