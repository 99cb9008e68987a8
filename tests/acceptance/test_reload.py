"""Signals: SIGHUP takes up a new configuration, SIGTERM and SIGINT end what is in hand."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance import writer
from tests.acceptance.started import NOTIFIED, SENDING, Daemon
from tests.acceptance.workers import queued
from tests.waiting import wait_until

CONFIG = """\
BROKERS = {{'3di': {url!r}}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [('{upload}/*.nc', {{'broker': '3di', 'task': {task!r}}})]
MOVES = {{{upload!r}: {storage!r}}}
"""


@contextmanager
def uploading(root: Path, count: int) -> Iterator[None]:
    """Upload in another process while the block lasts, and a little longer."""
    process = writer.start(root, 0, count, held=50)
    try:
        yield
        writer.finish(process)
    finally:
        process.kill()
        process.wait()


def finals(storage: Path, count: int) -> list[str]:
    return [str(storage / writer.name_of(number, 20)) for number in range(count)]


def wait_for_all(url: str, paths: list[str]) -> None:
    wait_until(lambda: len(queued(url)) >= len(paths), 60, f"{len(paths)} tasks", interval=0.2)


def test_new_patterns_take_effect_and_no_upload_is_lost(
    upload: Path, storage: Path, redis_url: str, daemon: Callable[..., Daemon]
) -> None:
    count, reloads = 2000, 3
    places = {"url": redis_url, "upload": str(upload), "storage": str(storage)}
    with daemon(CONFIG.format(task="task0", **places)) as notify:
        with uploading(upload, count):
            for number in range(1, reloads + 1):
                notify.wait_for(NOTIFIED, number * 400)
                notify.config.write_text(CONFIG.format(task=f"task{number}", **places))
                notify.send(signal.SIGHUP)
                notify.wait_for("watchman.service: Reloaded", number)
                notify.wait_for(": Watching ", number + 1)
                (upload / f"after{number}.nc").write_text("x")
                notify.wait_for(f"{SENDING}task{number}\n")
        after = {str(storage / f"after{n}.nc"): f"task{n}" for n in range(1, reloads + 1)}
        expected = [*finals(storage, count), *after]
        wait_for_all(redis_url, expected)
        notify.stop()
    tasks = queued(redis_url)
    assert sorted(task.path for task in tasks) == sorted(expected)
    names = {task.path: task.name for task in tasks}
    assert names[finals(storage, 1)[0]] == "task0"
    assert names[finals(storage, count)[-1]] == f"task{reloads}"
    assert after.items() <= names.items()
    assert all(Path(path).exists() for path in expected)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("PATTERNS = [", "config.py, line 5: syntax error"),
        ("WATCHES = []\n", "WATCHES: is empty"),
    ],
)
def test_a_mistake_is_logged_and_the_old_configuration_stays(
    broken: str,
    said: str,
    upload: Path,
    storage: Path,
    redis_url: str,
    daemon: Callable[..., Daemon],
) -> None:
    text = CONFIG.format(url=redis_url, upload=str(upload), storage=str(storage), task="3di_task")
    with daemon(text) as notify:
        notify.config.write_text(text + broken)
        notify.send(signal.SIGHUP)
        notify.wait_for("[ERROR] watchman.service: Not reloaded: ")
        (upload / "a.nc").write_text("a")
        wait_for_all(redis_url, ["a"])
        assert notify.count(f"Not reloaded: {said}") == 1
        assert notify.count("Reloaded") == notify.count("Traceback") == 0
        notify.config.write_text(text.replace("3di_task", "mended"))
        notify.send(signal.SIGHUP)
        notify.wait_for("watchman.service: Reloaded")
        (upload / "b.nc").write_text("b")
        wait_for_all(redis_url, ["a", "b"])
        notify.stop()
    assert [(task.name, task.path) for task in queued(redis_url)] == [
        ("3di_task", f"{storage}/a.nc"),
        ("mended", f"{storage}/b.nc"),
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_end_in_the_middle_of_a_burst(
    number: int, upload: Path, storage: Path, redis_url: str, daemon: Callable[..., Daemon]
) -> None:
    count = 2000
    text = CONFIG.format(url=redis_url, upload=str(upload), storage=str(storage), task="3di_task")
    with daemon(text) as notify:
        with uploading(upload, count):
            notify.wait_for(NOTIFIED, 500)
            # Whoever sends finishes what is in hand.
            notify.wait_for(SENDING)
            notify.stop(number)
            sent = queued(redis_url)
            assert 0 < len(sent) < count
        notify.start()
        wait_for_all(redis_url, finals(storage, count))
        notify.stop()
    # It ended in order, so nothing was sent twice.
    tasks = queued(redis_url)
    assert sorted(task.path for task in tasks) == sorted(finals(storage, count))
    assert tasks[: len(sent)] == sent
    assert all(Path(task.path).exists() for task in tasks)
    assert notify.count("Traceback") == notify.count("[ERROR]") == 0
