"""The daemon: ``notify start``, ``stop``, ``restart`` and ``reload``.

Its files are a pid file and two that take its output, which it rotates itself (``rotation``), or
logrotate does, and sends SIGHUP: they are opened again then, and the configuration is read again.
"""

from watchman.daemon.control import reload, rescan, restart, start, stop
from watchman.daemon.process import Running, running
from watchman.daemon.succession import await_turn
from watchman.daemon.systemd import Manager

__all__ = [
    "Manager",
    "Running",
    "await_turn",
    "reload",
    "rescan",
    "restart",
    "running",
    "start",
    "stop",
]
