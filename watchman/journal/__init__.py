"""The journal: watchman's memory of deliveries and of known versions."""

from watchman.journal.archiving import Archive
from watchman.journal.known import Known, KnownVersions, Scan
from watchman.journal.store import Journal, NewDelivery, NotedVersion

__all__ = [
    "Archive",
    "Journal",
    "Known",
    "KnownVersions",
    "NewDelivery",
    "NotedVersion",
    "Scan",
]
