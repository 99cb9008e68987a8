"""How it stands with watchman.

The pipeline writes a snapshot every few seconds, and when it is asked for one: whenever an event
of its heartbeat has come to it through the kernel. So an old snapshot under a held lock means a
process that lives and does not watch: it hangs. Who holds the lock, and what the journal counts,
is passed in.
"""

from watchman.status.lines import as_text
from watchman.status.report import Counts, Now, Status, as_json, compose
from watchman.status.snapshot import (
    HEARTBEAT,
    BrokerStatus,
    MoveStatus,
    Snapshot,
    TroubleStatus,
    WatchStatus,
    ask,
    handler,
    read,
    run_of,
    write,
)

__all__ = [
    "HEARTBEAT",
    "BrokerStatus",
    "Counts",
    "MoveStatus",
    "Now",
    "Snapshot",
    "Status",
    "TroubleStatus",
    "WatchStatus",
    "as_json",
    "as_text",
    "ask",
    "compose",
    "handler",
    "read",
    "run_of",
    "write",
]
