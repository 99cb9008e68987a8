"""How it stands with watchman.

The pipeline writes a snapshot every few seconds, and when it is asked for one: whenever an event
of its heartbeat has come to it through the kernel. So an old snapshot under a held lock means a
process that lives and does not watch: it hangs. Who holds the lock, and what the journal counts,
is passed in.
"""

from watchman.status.asking import StatusAnswer, ask
from watchman.status.lines import Style, as_text
from watchman.status.overview import NOT_YET, Counts, HeldTasks, Now, Status, as_json, compose
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
    "NOT_YET",
    "Counts",
    "HeldTasks",
    "Now",
    "ShownBroker",
    "ShownCopy",
    "ShownMove",
    "ShownPartial",
    "ShownReading",
    "ShownScan",
    "ShownTrouble",
    "ShownWatch",
    "Snapshot",
    "Status",
    "StatusAnswer",
    "Style",
    "as_json",
    "as_text",
    "ask",
    "broker_trouble",
    "compose",
    "handler",
    "have_written",
    "plain",
    "read",
    "remove_drafts",
    "run_of",
    "write",
]
