"""A broker that is a list: it shows that the contract suite is about publishers, not servers.

``memory://NAME`` publishers of one name share one :class:`Memory`, which a test gets by
:func:`memory` and can tell to be down, to refuse, or to be slow.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from watchman.masking import public_url
from watchman.model import ACCEPTED, Answer, Broker, Message, Outcome


class Memory:
    """What a memory broker holds, and how it behaves."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        """Every message accepted, oldest first."""
        self.batches: list[int] = []
        """The size of every batch offered."""
        self.down = False
        """True: everything is to be tried again."""
        self.refuse: Callable[[Message], bool] = _nothing
        """True for a message that can never be taken."""
        self.gate = threading.Event()
        """Cleared: publishing waits until it is set, or for ``gate_seconds``."""
        self.gate.set()
        self.gate_seconds = 10.0
        self.kept_alive = 0
        self.closed = 0
        self._lock = threading.Lock()

    def offer(self, message: Message, where: str) -> Outcome:
        """Take one message, or say why not."""
        if self.down:
            return Outcome(Answer.AGAIN, f"{where}: down")
        if self.refuse(message):
            return Outcome(Answer.REFUSED, f"{where}: refused")
        with self._lock:
            self.messages.append(message)
        return ACCEPTED


def _nothing(_: Message) -> bool:
    return False


_brokers: dict[str, Memory] = {}
_lock = threading.Lock()


def memory(url: str) -> Memory:
    """Return what is behind a ``memory://NAME`` URL."""
    with _lock:
        return _brokers.setdefault(url.partition("://")[2].strip("/"), Memory())


class MemoryPublisher:
    """Publishes to a :class:`Memory`."""

    def __init__(self, broker: Broker) -> None:
        self._url = broker.urls[0]
        self._memory = memory(self._url)

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        """Take the batch; see :class:`watchman.model.Publisher`."""
        where = public_url(self._url)
        self._memory.batches.append(len(batch))
        if not self._memory.gate.wait(self._memory.gate_seconds):
            return [Outcome(Answer.AGAIN, f"{where}: too slow")] * len(batch)
        return [self._memory.offer(message, where) for message in batch]

    def pause(self, targets: frozenset[str]) -> None:
        """No target of its is ever in trouble."""

    def keepalive(self) -> str | None:
        """Count the call."""
        self._memory.kept_alive += 1
        return self.check()

    def check(self) -> str | None:
        """Return the reason while it is down."""
        return f"{public_url(self._url)}: down" if self._memory.down else None

    def close(self) -> None:
        """Count the call."""
        self._memory.closed += 1
