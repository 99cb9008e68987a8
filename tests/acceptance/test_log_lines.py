"""The log lines that operators rely on."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from tests.acceptance.started import Daemon
from tests.acceptance.workers import queued
from tests.servers import free_port

CONFIG = """\
BROKERS = {{'lizard': {url!r}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = {{
    ('{upload}/*.csv', {{'broker': 'lizard', 'task': 'lizard_task'}}),
}}
"""
STAMP = r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3})"


def stamp_of(line: str, said: str) -> float:
    """Return when the line was logged; fail unless it is ``said`` in the documented form."""
    found = re.fullmatch(rf"{STAMP} \[INFO\] watchman\.notify: (.*)", line)
    assert found, line
    assert found[2] == said
    return datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").timestamp()


def send_first(upload: Path, notify: Daemon) -> int:
    """Have the sender import what it needs and connect; return how many lines there are then."""
    (upload / "first.csv").touch()
    notify.wait_for("Sending task")
    return len(notify.lines())


def test_touch_gives_two_lines_within_a_second(
    upload: Path, redis_url: str, daemon: Callable[..., Daemon]
) -> None:
    with daemon(CONFIG.format(url=redis_url, upload=str(upload))) as notify:
        before = send_first(upload, notify)
        subprocess.run(["touch", str(upload / "data.csv")], check=True)
        touched = (upload / "data.csv").stat().st_ctime
        notify.wait_for("Sending task", 2)
        notify.stop()
    notified, sending, *rest = notify.lines()[before:]
    first = stamp_of(notified, f"Notified of {upload}/data.csv")
    second = stamp_of(sending, "Sending task lizard_task")
    # The log cuts its times to milliseconds; the file's comes from a clock that ticks less often.
    assert touched - 0.011 <= first <= second <= touched + 1.0
    assert [line.partition("]")[2] for line in rest] == [
        " watchman.service: Watching has been stopped"
    ]
    assert [(task.name, task.path) for task in queued(redis_url)] == [
        ("lizard_task", f"{upload}/first.csv"),
        ("lizard_task", f"{upload}/data.csv"),
    ]


def test_touch_with_a_move_gives_three_lines_within_a_second(
    upload: Path, storage: Path, redis_url: str, daemon: Callable[..., Daemon]
) -> None:
    moves = f"MOVES = {{{str(upload)!r}: {str(storage)!r}}}\n"
    with daemon(CONFIG.format(url=redis_url, upload=str(upload)) + moves) as notify:
        before = send_first(upload, notify)
        # In one step: the daemon moves the file before one could look at it here.
        (upload / "data.csv").touch()
        notify.wait_for("Sending task", 2)
        notify.stop()
    notified, moving, sending = notify.lines()[before:][:3]
    stamps = [
        stamp_of(notified, f"Notified of {upload}/data.csv"),
        stamp_of(moving, f"Moving {upload}/data.csv to {storage}/data.csv"),
        stamp_of(sending, "Sending task lizard_task"),
    ]
    # A rename sets neither: this is the time of the touch.
    touched = (storage / "data.csv").stat().st_mtime
    assert stamps == sorted(stamps)
    assert touched - 0.011 <= stamps[0] <= stamps[2] <= touched + 1.0


def test_control_characters_in_names_are_escaped(
    upload: Path, redis_url: str, daemon: Callable[..., Daemon]
) -> None:
    name = b"a\n2020-01-01 00:00:00,000 [INFO] forged\x1b[31m\xe9.csv"
    with daemon(CONFIG.format(url=redis_url, upload=str(upload))) as notify:
        before = len(notify.lines())
        Path(os.fsdecode(os.fsencode(upload) + b"/" + name)).touch()
        notify.wait_for("Sending task")
        notify.stop()
    notified, sending, *rest = notify.lines()[before:]
    assert "a\\x0a2020-01-01 00:00:00,000 [INFO] forged\\x1b[31m\\xe9.csv" in notified
    assert notified.isprintable()
    stamp_of(sending, "Sending task lizard_task")
    assert len(rest) == 1


def test_a_broker_that_is_down_is_told_once_and_without_its_password(
    upload: Path, daemon: Callable[..., Daemon]
) -> None:
    url = f"amqp://user:sesame@127.0.0.1:{free_port()}//"
    with daemon(CONFIG.format(url=url, upload=str(upload))) as notify:
        (upload / "a.csv").touch()
        notify.wait_for("Broker lizard takes no tasks")
        (upload / "b.csv").touch()
        notify.wait_for("Sending task", 2)
        notify.stop()
    assert notify.count("takes no tasks") == 1
    assert notify.count("sesame") == 0
    assert notify.count("Traceback") == 0
