"""What a broker's error replies mean: whose fault it is, and so whether a retry can help.

AMQP: the codes are those of the specification, the words RabbitMQ's own, read in its source
(``rabbit_channel``, ``rabbit_amqqueue``, ``rabbit_reader`` of 3.10 to 4.2):

    code                     what RabbitMQ says with it                             whose fault
    311 CONTENT_TOO_LARGE    nothing; other brokers: the message is too large       message
    312 NO_ROUTE             no queue is bound (``basic.return``)                   target
    313 NO_CONSUMERS         nothing                                                target
    320 CONNECTION_FORCED    it shuts down, or an operator closed the connection    broker
    402 INVALID_PATH         nothing; the old name of an unknown virtual host       broker
    403 ACCESS_REFUSED       no permission, internal exchange, reserved name        message
                             … a backend "returned an error"                        target
    404 NOT_FOUND            "no exchange", "no queue"                              message
                             home node down, crashed, leader stopping, time-out     target
    405 RESOURCE_LOCKED      a queue that is exclusive to another connection        target
    406 PRECONDITION_FAILED  too large, a wrong expiration, argument or user id     message
                             a limit on queues is reached, something timed out      target
    501 FRAME_ERROR, 502 SYNTAX_ERROR, 503 COMMAND_INVALID, 540 NOT_IMPLEMENTED     message
    504 CHANNEL_ERROR, 505 UNEXPECTED_FRAME   frames that cross each other          broker
    506 RESOURCE_ERROR       a queue could not take it, no memory, a full disk      target
    530 NOT_ALLOWED          no such virtual host, too many connections             broker
    541 INTERNAL_ERROR       something in the broker crashed or timed out           target

From 500 on, and 320 and 402, the reply closes the whole connection. Then the table holds where
one message or one declaration was under way; where there were more it is anybody's, and the
broker's for the time being. What nobody has thought of may heal.
"""

from __future__ import annotations

import enum
import re
import reprlib
import struct
import traceback
from json import JSONDecodeError
from typing import Any


class Fault(enum.Enum):
    """Whose fault it is that a message was not taken."""

    MESSAGE = "message"
    """It will never be taken as it is."""
    TARGET = "target"
    """Its queue or exchange cannot take it now; others can."""
    BROKER = "broker"
    """Nothing can be sent now, at least not on this connection."""


_AMQP = {
    311: Fault.MESSAGE,
    312: Fault.TARGET,
    313: Fault.TARGET,
    320: Fault.BROKER,
    402: Fault.BROKER,
    403: Fault.MESSAGE,
    404: Fault.TARGET,
    405: Fault.TARGET,
    406: Fault.MESSAGE,
    501: Fault.MESSAGE,
    502: Fault.MESSAGE,
    503: Fault.MESSAGE,
    504: Fault.BROKER,
    505: Fault.BROKER,
    506: Fault.TARGET,
    530: Fault.BROKER,
    540: Fault.MESSAGE,
    541: Fault.TARGET,
}
_ABSENT = re.compile(r"(NOT_FOUND - )?no (exchange|queue|binding)\b", re.IGNORECASE)
_TRANSIENT = re.compile(
    r"returned an error|limit .*(is )?(reached|exceeded)|timed? ?-?out|down or inaccessible"
    r"|unavailable",
    re.IGNORECASE,
)


def amqp_fault(error: Exception) -> Fault:
    """Return whose fault an AMQP error is, given that one message or declaration was under way."""
    if getattr(error, "method_sig", None) is None and is_unreadable(error):
        return Fault.BROKER  # py-amqp's own word for what the broker has said; 540 for a method
    code = int(getattr(error, "reply_code", 0) or getattr(error, "code", 0) or 0)
    text = str(getattr(error, "reply_text", "") or error)
    if not code:  # py-amqp's own: the connection is gone
        return Fault.BROKER
    if code == 404 and _ABSENT.search(text):
        return Fault.MESSAGE
    if code in (403, 406) and _TRANSIENT.search(text):
        return Fault.TARGET
    return _AMQP.get(code, Fault.TARGET)


_READING = frozenset({"blocking_read", "read_response", "parse_response"})
_CONNECTING = frozenset({"connect", "on_connect", "establish_connection", "confirm_select"})
"""Functions of py-amqp, redis-py and kombu."""


def is_unreadable(error: BaseException) -> bool:
    """True for what was raised while an answer was read, or a connection opened.

    What the libraries raise of their own there (ValueError, KeyError, struct.error …) is about
    what the server has said, and says nothing of the message.
    """
    if _was_in(error, _READING | _CONNECTING):
        return True
    # redis-py looks into the answers of a transaction elsewhere; what it cannot write it says.
    return not isinstance(error, UnicodeEncodeError) and any(
        str(frame.f_globals.get("__name__")).startswith("redis.")
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _was_in(error: BaseException, functions: frozenset[str]) -> bool:
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name in functions for frame, _ in frames)


_REDIS = {
    "CROSSSLOT": Fault.MESSAGE,
    "MOVED": Fault.TARGET,
    "ASK": Fault.TARGET,
    "NOPERM": Fault.MESSAGE,
    "WRONGTYPE": Fault.MESSAGE,
}
_BY_CLASS = {
    "AuthenticationError": "NOAUTH",
    "BusyLoadingError": "LOADING",
    "ClusterDownError": "CLUSTERDOWN",
    "MasterDownError": "MASTERDOWN",
    "NoPermissionError": "NOPERM",
    "ReadOnlyError": "READONLY",
}
"""For versions of redis-py that do not keep the code."""
_WORDS_BEFORE = re.compile(r"Command # \d+ \(.*?\) of pipeline caused error: ", re.DOTALL)
"""What redis-py puts before a reply to a part of a pipeline."""
ELSEWHERE = frozenset({"READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "WRONGPASS", "CLUSTERDOWN"})
"""Codes of a Redis server that is up, and of no use: another one, or the same one later, may be."""


def redis_code(error: Exception) -> str:
    """Return the code that a Redis error reply begins with; redis-py takes off those it knows."""
    code = getattr(error, "status_code", None) or _BY_CLASS.get(type(error).__name__)
    if code:
        return str(code)
    return _WORDS_BEFORE.sub("", str(error), count=1).partition(" ")[0]


def redis_fault(error: Exception) -> Fault:
    """Return whose fault a Redis error reply is; all that is not about a key is the server's."""
    return _REDIS.get(redis_code(error), Fault.BROKER)


def number_in(answer: Any, command: str, least: int) -> int:
    """Return the number that answers a push (the list's length after it) or a PUBLISH.

    Raises ConnectionError for another answer: it is from no Redis, or to something else.
    """
    if type(answer) is not int or answer < least:
        raise ConnectionError(f"no Redis: {command} was answered by {reprlib.repr(answer)}")
    return answer


def kombu_fault(error: Exception, *, virtual: bool) -> Fault:
    """Return whose fault an error is that was raised while one message was published.

    ``virtual``: by one of kombu's own transports, whose channel errors carry no code.
    """
    from amqp.exceptions import AMQPError, ChannelError, MessageNacked
    from kombu.exceptions import OperationalError
    from kombu.transport.virtual.base import NotEquivalentError

    # kombu wraps what its transports raise.
    while isinstance(error, OperationalError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if _was_in(error, _CONNECTING):
        return Fault.BROKER
    if isinstance(error, MessageNacked):
        return Fault.TARGET
    if isinstance(error, NotEquivalentError) or (virtual and isinstance(error, ChannelError)):
        return Fault.MESSAGE
    if isinstance(error, AMQPError):
        return amqp_fault(error) if isinstance(error, ChannelError) else Fault.BROKER
    if type(error).__module__.partition(".")[0] == "redis":
        return redis_fault(error)
    if isinstance(error, (OSError, JSONDecodeError, UnicodeDecodeError)):
        return Fault.BROKER  # what a server says that is not itself
    # A name or an option that the transport cannot express, or does not know.
    hopeless = isinstance(error, (LookupError, ValueError, TypeError, struct.error))
    return Fault.MESSAGE if hopeless and not is_unreadable(error) else Fault.BROKER
