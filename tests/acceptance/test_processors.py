"""A processor and a signal receiver of the user's own, beside the main job on the same tree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.acceptance.started import Daemon
from tests.acceptance.workers import queued
from tests.waiting import wait_until

ROUNDS = 200
"""Of five operations each."""

MODULE = """\
import os

import pyinotify

from watchman import signals

HERE = os.path.dirname(os.path.abspath(__file__))


def note(name, event):
    with open(os.path.join(HERE, name), 'a') as file:
        file.write(f'{event.maskname} {event.name}\\n')


class Processor(pyinotify.ProcessEvent):
    def process_default(self, event):
        note('processed', event)
        if event.name == 'dir7':
            raise ValueError('a mistake in the processor')


@signals.in_moved_to.connect
def moved_to(sender, event):
    note('signalled', event)
"""

CONFIG = """\
import pyinotify

BROKERS = {{'3di': {url!r}}}
WATCHES = [
    {{'path': {upload!r}, 'rec': True, 'auto_add': True}},
    ({upload!r}, pyinotify.IN_CREATE | pyinotify.IN_CLOSE_WRITE | pyinotify.IN_ATTRIB
     | pyinotify.IN_MOVED_FROM | pyinotify.IN_MOVED_TO | pyinotify.IN_DELETE, 'mysite.Processor'),
    ({upload!r}, pyinotify.ALL_EVENTS, 'watchman.processors.AllEventsSignaler'),
]
PATTERNS = [('{upload}/*.nc', {{'broker': '3di', 'task': 'import_grid'}})]
"""


def operate(upload: Path) -> list[str]:
    """Do five operations a round; return the events that they make, in order."""
    expected = []
    for number in range(ROUNDS):
        new, final = upload / f"new{number}", upload / f"final{number}.nc"
        new.write_text("x")
        new.chmod(0o600)
        new.rename(final)
        (upload / f"dir{number}").mkdir()
        (upload / f"dir{number}").rmdir()
        expected += [
            f"IN_CREATE {new.name}",
            f"IN_CLOSE_WRITE {new.name}",
            f"IN_ATTRIB {new.name}",
            f"IN_MOVED_FROM {new.name}",
            f"IN_MOVED_TO {final.name}",
            f"IN_CREATE|IN_ISDIR dir{number}",
            f"IN_DELETE|IN_ISDIR dir{number}",
        ]
    return expected


def test_a_thousand_operations_beside_the_main_job(
    tmp_path: Path, daemon: Callable[..., Daemon], redis_url: str
) -> None:
    upload = tmp_path / "upload"
    upload.mkdir()
    notify = daemon(CONFIG.format(url=redis_url, upload=str(upload)))
    site = tmp_path / "site0"
    (site / "mysite.py").write_text(MODULE)
    with notify:
        expected = operate(upload)
        finals = {str(upload / f"final{number}.nc") for number in range(ROUNDS)}
        wait_until(lambda: {task.path for task in queued(redis_url)} == finals, 30, "all tasks")

        def noted(name: str) -> list[str]:
            path = site / name
            return path.read_text().splitlines() if path.exists() else []

        wait_until(lambda: len(noted("processed")) >= len(expected), 30, "all events")
        wait_until(lambda: len(noted("signalled")) >= ROUNDS, 30, "all signals")
        notify.stop()
    assert noted("processed") == expected
    assert noted("signalled") == [line for line in expected if line.startswith("IN_MOVED_TO ")]
    assert len(queued(redis_url)) == ROUNDS
    assert any("a mistake in the processor" in line for line in notify.lines())
