"""Sending: one thread for each broker takes ready deliveries from the journal, in order.

Retry and back-off are here and nowhere else: a publisher only says what became of each message.
"""

from watchman.sender.pages import ReadyStore
from watchman.sender.sender import Sender, SendListener

__all__ = ["ReadyStore", "SendListener", "Sender"]
