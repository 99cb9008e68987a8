"""How it stands with watchman.

The pipeline writes a snapshot every few seconds, when an event of its own has come back to it
through the kernel. So an old snapshot under a held lock means a process that lives and does not
watch: it hangs. Who holds the lock, and what the journal counts, is passed in.
"""

from watchman.status.lines import as_text
from watchman.status.report import Counts, Status, as_json, compose
from watchman.status.snapshot import (
    BrokerStatus,
    Snapshot,
    TroubleStatus,
    WatchStatus,
    handler,
    read,
    write,
)

__all__ = [
    "BrokerStatus",
    "Counts",
    "Snapshot",
    "Status",
    "TroubleStatus",
    "WatchStatus",
    "as_json",
    "as_text",
    "compose",
    "handler",
    "read",
    "write",
]
