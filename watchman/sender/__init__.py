"""Sending: one thread for each broker takes ready deliveries from the journal, in order.

Retry and back-off are here and nowhere else: a publisher only says what became of each message.
"""

from watchman.sender.pages import Ledger
from watchman.sender.sending import Sender

__all__ = ["Ledger", "Sender"]
