"""The daemon: ``notify start``, ``stop``, ``restart`` and ``reload``.

Its files are a pid file and two that take its output, which it rotates itself (``rotation``), or
logrotate does, and sends SIGHUP: they are opened again then, and the configuration is read again.
"""

from watchman.daemon.process import Running, running

__all__ = ["Running", "running"]
