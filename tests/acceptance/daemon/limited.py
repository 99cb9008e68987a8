"""Run as a program: ``notify`` with a limit of the operating system, as ``ulimit`` sets it.

``limited.py NAME NUMBER ARGUMENT…``: RLIMIT_NAME is NUMBER, or for AS so many bytes more than the
process has with its modules loaded.
"""

import resource
import sys

from watchman.cli import main


def address_space() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


name, number, *arguments = sys.argv[1:]
limit = int(number)
if name == "AS":
    import watchman.service  # noqa: F401 — for its size

    limit += address_space()
resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (limit, limit))
main(arguments, prog_name="notify")
