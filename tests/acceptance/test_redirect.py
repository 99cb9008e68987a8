"""Celery's own ways to name a broker redirect nothing: BROKERS says where tasks go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests import embedded
from tests.acceptance.started import Daemon
from tests.acceptance.workers import Bench, queued
from tests.waiting import wait_until

CONFIG = """\
BROKERS = {{'lizard': {rabbit!r}, '3di': {redis!r}, 'here': 'filesystem://'}}
WATCHES = [{{'path': {upload!r}, 'rec': True, 'auto_add': True}}]
PATTERNS = [
    ('{upload}/*.csv', {{'broker': 'lizard', 'task': 'lizard_task'}}),
    ('{upload}/*.nc', {{'broker': '3di', 'task': '3di_task'}}),
    ('{upload}/*.txt', {{'broker': 'here', 'task': 'text_task'}}),
]
"""
REMEDY = "is ignored; the brokers are those of BROKERS in config.py"
BY_OLD_NAMES = ("BROKER_URL", "CELERY_BROKER_URL")
BY_NEW_NAMES = ("broker_url", "CELERY_BROKER_WRITE_URL")


@pytest.mark.parametrize(("setting", "variable"), [BY_OLD_NAMES, BY_NEW_NAMES])
def test_nothing_is_redirected_and_it_is_said(
    setting: str,
    variable: str,
    upload: Path,
    redis_url: str,
    decoy_url: str,
    daemon: Callable[..., Daemon],
    on_rabbit: Bench,
) -> None:
    text = CONFIG.format(rabbit=on_rabbit.url, redis=redis_url, upload=str(upload))
    notify = daemon(text, **{variable: decoy_url})
    notify.config.with_name("celeryconfig.py").write_text(f"{setting} = {decoy_url!r}\n")
    state = notify.config.with_name("var")
    with notify:
        for name in ("a.csv", "a.nc", "a.txt"):
            (upload / name).touch()
        on_rabbit.wait_for([f"{upload}/a.csv"])
        wait_until(lambda: queued(redis_url), what="the task in Redis")
        wait_until(lambda: embedded.messages(state), what="the task in the embedded broker")
        notify.stop()
    assert [task.path for task in queued(redis_url)] == [f"{upload}/a.nc"]
    assert [one["task"] for one in embedded.headers(state)] == ["text_task"]
    assert queued(decoy_url) == []
    said = [line for line in notify.lines() if REMEDY in line]
    assert [line.partition("watchman.service: ")[2] for line in said] == [
        f"environment: {variable} {REMEDY}",
        f"celeryconfig.py: {setting} {REMEDY}",
    ]
    assert all("[WARNING]" in line for line in said)
