"""What a fake server does in place of one answer."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple


class Then(Enum):
    """How the connection goes on."""

    GO_ON = "go on"
    SILENCE = "silence"
    """Nothing more is said on this connection."""
    CLOSE = "close"
    BEAT = "beat"
    """Nothing but heartbeats, for ever (AMQP)."""
    CHANNEL = "channel"
    """What comes on this channel is ignored until it is opened again (AMQP)."""


class Turn(NamedTuple):
    """One thing that is said in place of an answer."""

    name: str
    said: Callable[[int, bytes], bytes] = lambda channel, answer: b""
    """Given the channel (AMQP) and the true answer: what is said."""
    then: Then = Then.GO_ON
    done: bool = False
    """Whether what was asked for has been done all the same."""
    blocking: bool = False
    """Whether the connection is blocked until the server is well again (AMQP)."""
    returned: bool = False
    """Whether the message that it answers is given back before (AMQP)."""
    slow: bool = False
    """Whether the client's library has a long patience of its own after that."""
    refusing: bool = False
    """Whether what was asked for can be called hopeless after that."""

    def __str__(self) -> str:
        return self.name


BREAKS = (
    Turn("half an answer", lambda _, true: true[: len(true) // 2], Then.SILENCE),
    Turn("half an answer, and done", lambda _, true: true[: len(true) // 2], Then.CLOSE, done=True),
    Turn("silence", then=Then.SILENCE),
    Turn("silence, and done", then=Then.SILENCE, done=True),
    Turn("close", then=Then.CLOSE),
    Turn("close, and done", then=Then.CLOSE, done=True),
)
"""An answer that does not come, or not all of it, in any protocol."""

Disturb = Callable[[int, str], "Turn | None"]
"""Given the number and the name of an answer: what to do in its place; None for the answer."""


def nothing(_number: int, _name: str) -> Turn | None:
    """Disturb nothing."""
    return None
