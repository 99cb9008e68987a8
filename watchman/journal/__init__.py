"""The journal: watchman's memory of deliveries and of known versions."""

from watchman.journal.store import Journal, Known, NewDelivery

__all__ = ["Journal", "Known", "NewDelivery"]
