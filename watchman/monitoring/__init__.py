"""What the daemon tells others by itself: hooks are called, and metrics are written into a file.

All of it has threads of its own, and processes where possible: no file waits for any of it.
"""

from watchman.monitoring.monitoring import Monitoring

__all__ = ["Monitoring"]
