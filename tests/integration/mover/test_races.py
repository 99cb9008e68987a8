"""An uploader that never waits, against a mover that never waits."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.mover.rig import Rig
from tests.waiting import wait_until
from watchman.file_access import version_of
from watchman.model import State

APPENDER = """
import random, sys, threading
pause = threading.Event().wait
path, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    with open(path, "ab", buffering=0) as file:
        file.write(b"%d\\n" % number)
    print(number, flush=True)
    if number % 150 == 149:
        sys.stdin.readline()
    pause(random.random() / 1000)
"""
REPLACER = """
import os, random, sys, threading
pause = threading.Event().wait
path, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    with open(path + ".part", "wb") as file:
        file.write(b"%d\\n" % number)
    os.rename(path + ".part", path)
    print(number, flush=True)
    if number % 150 == 149:
        sys.stdin.readline()
    pause(random.random() / 1000)
"""


def upload_and_record(rig: Rig, script: str, count: int) -> None:
    """Run an uploader in a process of its own; record each version of the file it leaves.

    Now and then the uploader waits until the mover has caught up, or it would always be ahead.
    """
    path = rig.inbox / "f"
    command = [sys.executable, "-c", script, str(path), str(count)]
    recorded = set()
    rows = rig.store.rows

    def record() -> None:
        with contextlib.suppress(FileNotFoundError):
            version = version_of(os.lstat(path))
            if version not in recorded:
                recorded.add(version)
                rig.record_version("f", version)
                rig.wake()

    def all_ended() -> bool:
        # What was away for a moment, moved by mistake and put back, is looked at again.
        record()
        return all(row.state is not State.MOVING for row in list(rows.values()))

    pipe = subprocess.PIPE
    with rig.running(), subprocess.Popen(command, stdin=pipe, stdout=pipe) as uploader:
        assert uploader.stdin
        assert uploader.stdout
        for line in uploader.stdout:
            record()
            if int(line) % 150 == 149:
                wait_until(all_ended, 60, "every delivery to end")
                uploader.stdin.write(b"\n")
                uploader.stdin.flush()
        wait_until(all_ended, 60, "every delivery to end")
        wait_until(
            lambda: len(rig.heard.rows) == sum(r.state is State.READY for r in rows.values())
        )


def test_an_appender_loses_no_line(rig: Rig) -> None:
    upload_and_record(rig, APPENDER, 700)
    ready = {row.final: row for row in rig.heard.rows}
    assert len(ready) == len(rig.heard.rows) > 1
    for final, row in ready.items():
        assert version_of(os.lstat(final)).same_content(row.version), "written after its move"
    lines = b"".join(rig.files().values()).splitlines()
    assert sorted(map(int, lines)) == list(range(700))
    assert rig.left() == {}


def test_an_appender_loses_no_line_across_file_systems(far: Rig) -> None:
    upload_and_record(far, APPENDER, 700)
    assert len({row.final for row in far.heard.rows}) == len(far.heard.rows) > 1
    for row in far.heard.rows:
        assert os.lstat(row.final).st_size == row.version.size
    lines = b"".join(far.files().values()).splitlines()
    assert set(map(int, lines)) == set(range(700))
    assert far.left() == {}
    assert not [name for name in far.files() if name.startswith(".")]


def test_a_replacer_gets_each_version_announced_at_most_once(any_rig: Rig) -> None:
    upload_and_record(any_rig, REPLACER, 1000)
    assert len({row.final for row in any_rig.heard.rows}) == len(any_rig.heard.rows) > 1
    found = [Path(row.final).read_bytes() for row in any_rig.heard.rows]
    assert len(set(found)) == len(found)
    assert b"999\n" in found
    # Moved by mistake and put back, but the name was taken again: an arrival of its own.
    assert all(name.startswith("f@") for name in any_rig.left())
    assert not set(any_rig.left().values()) & set(found)
    assert len(any_rig.files()) == len(found), "something moved without its delivery"
