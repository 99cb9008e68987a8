"""A stock Celery worker in its own process, which notes every task that it executes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.servers import Process, tail
from tests.waiting import wait_until

START_SECONDS = 30.0

APPLICATION = '''\
"""Written by tests/servers/worker.py."""
import json, os
from celery import Celery, signals

settings = json.load(open(os.environ["TEST_WORKER_SETTINGS"]))
app = Celery("worker", broker=settings["broker"])
app.conf.update(settings["celery"])


def note(self, *args, **kwargs):
    opened = []
    for path in args[:1]:
        try:
            with open(path, "rb") as file:
                opened.append(len(file.read()))
        except (OSError, TypeError, ValueError) as error:
            opened.append(repr(error))
    line = json.dumps({
        "name": self.name, "id": self.request.id, "args": args, "kwargs": kwargs,
        "headers": self.request.headers, "opened": opened,
        "delivery_info": self.request.delivery_info, "expires": self.request.expires,
        "eta": self.request.eta, "ignore_result": self.request.ignore_result,
    }, default=str)
    descriptor = os.open(settings["output"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line.encode("ascii") + b"\\n")
    os.close(descriptor)
    if settings["result"] is not None:
        return settings["result"]


for name in settings["tasks"]:
    app.task(note, name=name, bind=True)


@signals.worker_ready.connect
def ready(**kwargs):
    open(settings["ready"], "w").close()
'''


class CeleryWorker:
    """``celery worker`` with the named tasks, each of which appends one line to a file."""

    def __init__(
        self,
        broker_url: str,
        directory: Path,
        tasks: Sequence[str],
        *,
        queues: Sequence[str] = (),
        transport_options: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        concurrency: int = 1,
        result: Any = None,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.output = directory / "executed.jsonl"
        self.ready = directory / "ready"
        self.queues = tuple(queues)
        self.concurrency = concurrency
        self.process: Process | None = None
        # A solo worker acknowledges in the next turn of its event loop, and with a whole prefetch
        # waiting for that, RabbitMQ sends nothing for seconds: no limit.
        celery: dict[str, Any] = {
            "worker_hijack_root_logger": False,
            "worker_prefetch_multiplier": 0,
        }
        if transport_options:
            celery["broker_transport_options"] = dict(transport_options)
        celery.update(settings or {})
        (directory / "test_worker_application.py").write_text(APPLICATION)
        (directory / "settings.json").write_text(
            json.dumps(
                {
                    "broker": broker_url,
                    "celery": celery,
                    "tasks": list(tasks),
                    "output": str(self.output),
                    "ready": str(self.ready),
                    "result": result,
                }
            )
        )

    def start(self) -> CeleryWorker:
        """Start it and wait until it consumes."""
        self.ready.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "celery", "-A", "test_worker_application", "worker"]
        argv += ["--loglevel", "INFO", "--concurrency", str(self.concurrency), "--pool", "solo"]
        argv += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        argv += ["--hostname", f"test{os.getpid()}@localhost"]
        if self.queues:
            argv += ["--queues", ",".join(self.queues)]
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        env = kept | {
            "PYTHONPATH": str(self.directory),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TEST_WORKER_SETTINGS": str(self.directory / "settings.json"),
            "C_FORCE_ROOT": "1",
            "LC_ALL": "C.UTF-8",
        }
        log = self.directory / "worker.log"
        self.process = Process(argv, log, env)
        try:
            wait_until(self._is_ready, START_SECONDS, f"the worker: {tail(log)}", interval=0.05)
        except BaseException as error:
            self.stop()
            raise AssertionError(f"the worker did not start: {tail(log)}") from error
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.running, tail(self.process.log)
        return self.ready.exists()

    def executed(self) -> list[dict[str, Any]]:
        """Return what it executed so far, oldest first.

        Each item has ``name``, ``id``, ``args``, ``kwargs``, ``headers``, ``opened`` (the size
        of the file at the first argument, or the error), ``expires``, ``eta``.
        """
        if not self.output.exists():
            return []
        lines = self.output.read_text("ascii").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def wait_for(self, count: int, timeout: float = 20.0) -> list[dict[str, Any]]:
        """Wait until at least ``count`` tasks have been executed, and return them all."""

        def enough() -> list[dict[str, Any]] | None:
            done = self.executed()
            return done if len(done) >= count else None

        done = wait_until(enough, timeout, f"{count} tasks; {tail(self.directory / 'worker.log')}")
        assert done is not None
        return done

    def stop(self) -> None:
        """End it by SIGTERM, and soon by force.

        A solo worker on RabbitMQ sees the signal only when the next frame comes. It has nothing
        in hand that a test still looks at: each task was noted as it was executed.
        """
        if self.process is not None:
            self.process.stop(seconds=1.0)
            self.process = None

    def __enter__(self) -> CeleryWorker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
