"""supervisord with the checked-in supervisord.conf, on a port of its own, ended by its pid."""

from __future__ import annotations

import os
import select
import signal
import xmlrpc.client
from pathlib import Path
from typing import Any

import psutil

from tests.servers import free_port, tail
from tests.waiting import wait_until

ADDRESS = "127.0.0.1:9001"
START_SECONDS = 30.0
STOP_SECONDS = 45.0


def own_port(settings: Path) -> int:
    """Change the port in a copy of supervisord.conf, and nothing else; return the new one."""
    before = settings.read_text(encoding="utf-8")
    port = free_port()
    after = before.replace(f"port={ADDRESS}", f"port=127.0.0.1:{port}")
    assert len(after.splitlines()) == len(before.splitlines())
    [line] = set(after.splitlines()) - set(before.splitlines())
    assert line == f"port=127.0.0.1:{port}"
    settings.write_text(after, encoding="utf-8")
    return port


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return the processes whose command line names something in the directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if any(str(directory) in word for word in words) and process.pid != os.getpid():
            found.append(process)
    return found


class Supervisor:
    """The supervisord that runs for a directory; somebody else has started it, or will."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{own_port(directory / 'supervisord.conf')}/"
        self.log = directory / "var/log/notify.log"
        self.own_log = directory / "var/log/supervisord.log"

    @property
    def pid(self) -> int:
        """Its process id; 0 where none runs."""
        try:
            return int((self.directory / "var/supervisord.pid").read_text())
        except (OSError, ValueError):
            return 0

    def ask(self, method: str) -> Any:
        """Call a method of its XML-RPC interface with the name of our program."""
        with xmlrpc.client.ServerProxy(f"{self.url}RPC2") as server:
            return getattr(server.supervisor, method)("notify")

    def state(self) -> str:
        """Return the state of our program, such as RUNNING."""
        return str(self.ask("getProcessInfo")["statename"])

    def running_as(self, other_than: int = 0) -> int:
        """Wait until our program runs, as another process than before; return its id."""

        def there() -> int:
            info = self.ask("getProcessInfo")
            assert info["statename"] != "FATAL", tail(self.log)
            pid = int(info["pid"])
            return pid if info["statename"] == "RUNNING" and pid != other_than else 0

        return wait_until(there, START_SECONDS, "notify runs", interval=0.05)

    def end(self) -> None:
        """End it and our program with it; fail if either has to be forced."""
        pid = self.pid
        if not pid:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            below = psutil.Process(pid).children(recursive=True)
            os.kill(pid, signal.SIGTERM)
            ended = select.select([descriptor], [], [], STOP_SECONDS)[0]
            left = [process for process in below if process.is_running()]
            for process in left:
                process.kill()
            if not ended:
                os.kill(pid, signal.SIGKILL)
            assert ended, tail(self.own_log)
            assert left == [], tail(self.own_log)
        finally:
            os.close(descriptor)
