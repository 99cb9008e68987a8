"""All that an AMQP server may say, and what none should, in place of an answer."""

from __future__ import annotations

import random
from struct import pack

from tests.servers.fake_amqp import (
    ACK,
    BLOCKED,
    CHANNEL_CLOSE,
    CLOSE,
    HEARTBEAT,
    METHOD,
    NACK,
    UNBLOCKED,
    frame,
)
from tests.servers.turns import BREAKS, Then, Turn

PASSWORD = "swordfish-9"
FLOW, CANCEL = (20, 20), (60, 30)

REPLIES = {
    311: "CONTENT_TOO_LARGE",
    312: "NO_ROUTE",
    313: "NO_CONSUMERS",
    320: "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'",
    402: "INVALID_PATH - vhost not found",
    403: "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'u'",
    404: "NOT_FOUND - no queue 'q' in vhost '/'",
    405: "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q'",
    406: "PRECONDITION_FAILED - message size 9 is larger than configured max size 8",
    501: "FRAME_ERROR - type 9, all octets = <<>>: unknown_frame",
    502: "SYNTAX_ERROR - illegal field",
    503: "COMMAND_INVALID - unknown exchange type 'x'",
    504: "CHANNEL_ERROR - expected 'channel.open'",
    505: "UNEXPECTED_FRAME - expected method frame",
    506: "RESOURCE_ERROR - out of memory",
    530: "NOT_ALLOWED - vhost x not found",
    540: "NOT_IMPLEMENTED - active=false",
    541: "INTERNAL_ERROR",
    200: "Bye",
    0: "",
    999: "nobody has heard of this",
}
_REFUSING = frozenset({311, 403, 404, 406, 501, 502, 503, 540})
TEXTS = {
    "controls": "NOT_ALLOWED \x1b[31mred\x1b[0m \x07\x00 \x85\u202e",
    "password": f"NOT_ALLOWED as amqp://user:{PASSWORD}@host// you may not, {PASSWORD}",
    "long": "x" * 255,
}


def _short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _closing(code: int, text: bytes, *, whole: bool) -> Turn:
    arguments = pack(">H", code) + _short(text) + pack(">HH", 0, 0)
    name = f"{'connection' if whole else 'channel'}.close {code} {text[:8]!r}"
    refusing = code in _REFUSING
    if whole:
        said = frame(0, CLOSE, arguments)
        return Turn(name, lambda *_: said, Then.SILENCE, refusing=refusing)
    return Turn(
        name,
        lambda channel, _: frame(channel, CHANNEL_CLOSE, arguments),
        Then.CHANNEL,
        refusing=refusing,
    )


def _ack(channel: int, tag: int, multiple: int, method: tuple[int, int] = ACK) -> bytes:
    return frame(channel, method, pack(">QB", tag, multiple))


def _raw(name: str, said: bytes, then: Then = Then.GO_ON) -> Turn:
    return Turn(name, lambda *_: said, then)


_BLOCKED = frame(0, BLOCKED, _short(b"low on memory"))
_UNBLOCKED = frame(0, UNBLOCKED)

TURNS = [
    *(
        _closing(code, text.encode(), whole=whole)
        for code, text in REPLIES.items()
        for whole in (True, False)
    ),
    *(
        _closing(530, text.encode(), whole=whole)
        for text in TEXTS.values()
        for whole in (True, False)
    ),
    _closing(530, b"caf\xe9 \xff", whole=True),
    _closing(406, b"caf\xe9 \xff", whole=False),
    Turn("nack", lambda channel, _: _ack(channel, 1, 0, NACK)),
    Turn("nack of all", lambda channel, _: _ack(channel, 0, 1, NACK)),
    Turn("ack of a tag that is none", lambda channel, _: _ack(channel, 2**63, 0)),
    Turn("ack up to a tag that is none", lambda channel, _: _ack(channel, 2**63, 1)),
    Turn("ack twice", lambda _, true: true + true, done=True),
    Turn("return and ack", lambda _, true: true, returned=True, refusing=True),
    Turn("return without ack", returned=True),
    Turn("return and nack", lambda channel, _: _ack(channel, 1, 0, NACK), returned=True),
    Turn("blocked", lambda *_: _BLOCKED, blocking=True),
    Turn("blocked, and the answer", lambda _, true: _BLOCKED + true, done=True, blocking=True),
    Turn("blocked and unblocked", lambda _, true: _BLOCKED + _UNBLOCKED + true, done=True),
    Turn("unblocked", lambda _, true: _UNBLOCKED + true, done=True),
    Turn("flow", lambda channel, true: frame(channel, FLOW, b"\0") + true, done=True),
    Turn("cancel", lambda channel, true: frame(channel, CANCEL, b"\1t\1") + true, done=True),
    Turn("heartbeat", lambda _, true: HEARTBEAT + true, done=True),
    Turn("heartbeats without an answer", then=Then.BEAT),
    Turn("unknown method", lambda channel, _: frame(channel, (60, 999))),
    Turn("unknown class", lambda *_: frame(0, (999, 10))),
    Turn("start once more", lambda *_: frame(0, (10, 10), b"\0\x09" + pack(">I", 0) * 3)),
    Turn("another channel", lambda channel, true: true[:1] + pack(">H", channel + 7) + true[3:]),
    Turn("frame of a wrong type", lambda _, true: b"\x09" + true[1:]),
    Turn("a header", lambda channel, true: b"\x02" + true[1:]),
    Turn("frame too long", lambda _, true: true[:3] + pack(">I", 10**7) + true[7:]),
    Turn("frame too short", lambda _, true: true[:3] + pack(">I", 5) + true[7:]),
    Turn("no end of frame", lambda _, true: true[:-1] + b"\x00"),
    Turn("no arguments", lambda channel, true: pack(">BHI", 1, channel, 4) + true[7:11] + b"\xce"),
    Turn("no method", lambda channel, _: pack(">BHI", METHOD, channel, 2) + b"\0\x0a\xce"),
    Turn("empty frame", lambda channel, _: pack(">BHI", METHOD, channel, 0) + b"\xce"),
    _raw("another protocol", b"AMQP\x00\x01\x00\x00", Then.CLOSE),
    _raw("garbage", bytes(range(256))),
    _raw("noise", random.Random(1).randbytes(300)),
    _raw("HTTP", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", Then.CLOSE),
    *BREAKS,
]
