"""How it stands with watchman.

The pipeline writes a snapshot every few seconds, and when it is asked for one: whenever an event
of its heartbeat has come to it through the kernel. So an old snapshot under a held lock means a
process that lives and does not watch: it hangs. Who holds the lock, and what the journal counts,
is passed in.
"""

from watchman.status.status_file import (
    HEARTBEAT,
    ShownBroker,
    ShownCopy,
    ShownMove,
    ShownPartial,
    ShownReading,
    ShownScan,
    ShownTrouble,
    ShownWatch,
    Snapshot,
    broker_trouble,
    handler,
    have_written,
    plain,
    read,
    remove_drafts,
    run_of,
    write,
)

__all__ = [
    "HEARTBEAT",
    "ShownBroker",
    "ShownCopy",
    "ShownMove",
    "ShownPartial",
    "ShownReading",
    "ShownScan",
    "ShownTrouble",
    "ShownWatch",
    "Snapshot",
    "broker_trouble",
    "handler",
    "have_written",
    "plain",
    "read",
    "remove_drafts",
    "run_of",
    "write",
]
