"""A RabbitMQ node of the tests' own, with its own epmd, cookie and ports."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import kombu

from tests.servers import BrokerServer, Process, free_port, listening, require, tail
from tests.waiting import wait_until

START_SECONDS = 60.0
SCRIPTS = Path("/usr/lib/rabbitmq/bin")
"""Debian's wrappers in /usr/sbin insist on one user and directory; these scripts do not."""


class RabbitServer(BrokerServer):
    """A RabbitMQ node that listens on 127.0.0.1 only; ``beside`` is one to share epmd with.

    ``settings`` are further lines of rabbitmq.conf.
    """

    def __init__(
        self, directory: Path, beside: RabbitServer | None = None, settings: str = ""
    ) -> None:
        wrapper = Path(require("rabbitmq-server"))
        self.epmd_binary = require("epmd")
        self.scripts = SCRIPTS if SCRIPTS.is_dir() else wrapper.parent
        self.directory = directory
        self.port, self.dist_port = free_port(), free_port()
        self.epmd_port: int = beside.epmd_port if beside else free_port()
        self.home: Path = beside.home if beside else directory
        self._beside = beside
        self.node = f"watchman{self.port}@localhost"
        self.epmd: Process | None = None
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\n{settings}"
        )
        (directory / "plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        """The broker URL of its default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    @property
    def environment(self) -> dict[str, str]:
        """What the node and its command-line tools need to find each other."""
        here = str(self.directory)
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        return kept | {
            "HOME": str(self.home),  # the cookie is there
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{here}/none.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/plugins",
            "RABBITMQ_PID_FILE": f"{here}/node.pid",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false +S 2:2 +sbwt none"
            ),
        }

    def start(self) -> None:
        """Start epmd and the node, and wait until it accepts a login."""
        log = self.directory / "output.log"
        try:
            if self.epmd is None and self._beside is None:
                argv = [self.epmd_binary, "-port", str(self.epmd_port), "-address", "127.0.0.1"]
                self.epmd = Process(argv, self.directory / "epmd.log")
                wait_until(lambda: listening(self.epmd_port), what="epmd")
            argv = [str(self.scripts / "rabbitmq-server")]
            self.process = Process(argv, log, self.environment)
            wait_until(self._answers, START_SECONDS, f"RabbitMQ: {tail(log)}", interval=0.1)
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.running, tail(self.process.log)
        try:
            with self.connection() as connection:
                connection.connect()
        except (OSError, kombu.exceptions.KombuError):
            return False
        return True

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End the node and its epmd."""
        super().stop(number)
        if self.epmd is not None:
            self.epmd.stop()
            self.epmd = None

    def control(self, *arguments: str) -> str:
        """Run ``rabbitmqctl`` with these arguments (takes seconds); return what it printed."""
        argv = [str(self.scripts / "rabbitmqctl"), "-n", self.node, "-q", *arguments]
        done = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def join(self, other: RabbitServer) -> None:
        """Make a cluster of this node and the other one (takes seconds)."""
        self.control("stop_app")
        self.control("join_cluster", other.node)
        self.control("start_app")

    def connection(self, **options: Any) -> kombu.Connection:
        """Return a kombu connection to it that does not wait long."""
        return kombu.Connection(self.url, connect_timeout=5.0, **options)

    def count(self, queue: str) -> int:
        """Return the number of messages ready in the queue; 0 if there is no such queue."""
        with self.connection() as connection:
            try:
                declared = connection.default_channel.queue_declare(queue, passive=True)
            except connection.channel_errors:
                return 0
            return int(declared.message_count)

    def delete(self, queue: str) -> None:
        """Delete the queue with all that is in it."""
        with self.connection() as connection:
            connection.default_channel.queue_delete(queue)
