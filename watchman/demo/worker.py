"""The demo's worker app: a stock Celery worker on the embedded broker.

Run by ``celery -A watchman.demo.worker worker``; it reads where the broker is from the
environment variable ``WATCHMAN_DEMO_STATE``, and prints one JSON line for each task received.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from celery import Celery, signals

from watchman.brokers.filesystem import embedded_options

STATE_VARIABLE = "WATCHMAN_DEMO_STATE"
TASKS = ("import_table", "import_grid", "import_events")

app = Celery("demo", broker="filesystem://", set_as_current=False)
app.conf.update(
    broker_transport_options=embedded_options(os.environ[STATE_VARIABLE]),
    worker_redirect_stdouts=False,
    worker_hijack_root_logger=False,
)


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _receive(self: Any, path: str) -> None:
    _say(task=self.name, id=self.request.id, path=path, bytes=os.path.getsize(path))


for _name in TASKS:
    app.task(_receive, name=_name, bind=True)


@signals.worker_ready.connect
def _ready(**_: Any) -> None:
    _say(ready=True)
