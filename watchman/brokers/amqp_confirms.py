"""What an AMQP broker has said about the messages of one channel, by delivery tag.

https://www.rabbitmq.com/docs/confirms: tags count from 1 for each channel, an acknowledgement may
be for one tag or for all up to it, and an unroutable message is returned before it is
acknowledged.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

Sent = TypeVar("Sent")


class Confirms(Generic[Sent]):
    """Keeps what was sent until the broker has settled it."""

    def __init__(self) -> None:
        self.pending: dict[int, Sent] = {}
        """Delivery tag -> what was sent under it, for what is not settled."""
        self.returned: dict[str, str] = {}
        """Task id -> why the broker gave it back."""
        self.settled: list[tuple[Sent, bool]] = []
        """What the broker has settled: acknowledged, or (False) not taken."""
        self.start_again()

    def start_again(self) -> None:
        """Begin a new channel: its tags start at 1, and nothing of the old one is confirmed."""
        self.pending.clear()
        self.returned.clear()
        self._next = 1
        self._lowest = 1

    def sent(self, what: Sent) -> None:
        """Note the next message written to the channel."""
        self.pending[self._next] = what
        self._next += 1

    def take(self) -> list[tuple[Sent, bool]]:
        """Return what has been settled since the last call."""
        settled, self.settled = self.settled, []
        return settled

    def ack(self, tag: int, multiple: bool) -> None:
        """Handle basic.ack."""
        self._settle(tag, multiple, True)

    def nack(self, tag: int, multiple: bool) -> None:
        """Handle basic.nack."""
        self._settle(tag, multiple, False)

    def _settle(self, tag: int, multiple: bool, good: bool) -> None:
        if tag >= self._next:
            return  # nothing was sent under it: what is said of it says nothing of what was
        tags = range(self._lowest, tag + 1) if multiple else (tag,)
        for each in tags:
            if each in self.pending:
                self.settled.append((self.pending.pop(each), good))
        if multiple:
            self._lowest = tag + 1

    def give_back(self, error: Any, _exchange: str, _routing_key: str, message: Any) -> None:
        """Handle basic.return."""
        self.returned[str(message.properties.get("correlation_id", ""))] = str(error)
