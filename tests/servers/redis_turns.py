"""All that a Redis server may say, and what none should, in place of an answer."""

from __future__ import annotations

import random

from tests.servers.turns import BREAKS, Then, Turn

PASSWORD = "swordfish-9"
_REFUSING = frozenset({"CROSSSLOT", "NOPERM", "WRONGTYPE"})
ERRORS = {
    "ERR": "ERR something else",
    "ERR clients": "ERR max number of clients reached",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY": "READONLY You can't write against a read only replica.",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is 'no'.",
    "NOAUTH": "NOAUTH Authentication required.",
    "WRONGPASS": f"WRONGPASS invalid username-password pair: {PASSWORD}",
    "NOPERM": "NOPERM User default has no permissions to run the command",
    "BUSY": "BUSY Redis is busy running a script. You can only call SCRIPT KILL",
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but it cannot",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
    "MOVED": "MOVED 3999 127.0.0.1:6381",
    "MOVED odd": "MOVED",
    "ASK": "ASK 3999 127.0.0.1:6381",
    "ASK odd": "ASK to whom it may concern",
    "CROSSSLOT": "CROSSSLOT Keys in request don't hash to the same slot",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "EXECABORT": "EXECABORT Transaction discarded because of previous errors.",
    "WRONGTYPE": "WRONGTYPE Operation against a key holding the wrong kind of value",
    "UNKILLABLE": "UNKILLABLE Sorry the script already executed write commands",
    "NOSCRIPT": "NOSCRIPT No matching script.",
    "unknown": "ZZTOP nobody has heard of this",
    "empty": "",
    "controls": "ERR \x1b[31mred\x1b[0m \x07\x00\x85\u202e \x7f bell",
    "password": f"ERR as redis://user:{PASSWORD}@host/0 you may not, {PASSWORD}",
    "long": "ERR " + "very long " * 20_000,
}


def _error(name: str, text: str) -> Turn:
    said = b"-" + text.encode() + b"\r\n"
    return Turn(f"-{name}", lambda *_: said, refusing=name.split(" ", maxsplit=1)[0] in _REFUSING)


def _say(name: str, said: bytes, then: Then = Then.GO_ON) -> Turn:
    return Turn(name, lambda *_: said, then)


_ODD = {
    "not UTF-8": b"-ERR caf\xe9 \xff\xfe\r\n",
    "blob error": b"!10\r\nERR a\x1bb\nc\r\n",
    "nil": b"$-1\r\n",
    "nil of RESP3": b"_\r\n",
    "zero": b":0\r\n",
    "negative": b":-1\r\n",
    "no number": b":many\r\n",
    "a huge number": b":" + b"9" * 5000 + b"\r\n",
    "OK": b"+OK\r\n",
    "QUEUED": b"+QUEUED\r\n",
    "true": b"#t\r\n",
    "double": b",99.5\r\n",
    "big number": b"(-99\r\n",
    "bulk": b"$2\r\n99\r\n",
    "bulk too short": b"$2\r\n9999\r\n",
    "bulk without a length": b"$x\r\n99\r\n",
    "bulk that goes on": b"$99\r\n99\r\n",
    "empty array": b"*0\r\n",
    "nil array": b"*-1\r\n",
    "array": b"*2\r\n:99\r\n$2\r\nok\r\n",
    "array with an error": b"*1\r\n-ERR inside\r\n",
    "deep array": b"*1\r\n" * 3000 + b":1\r\n",
    "map": b"%1\r\n+a\r\n:99\r\n",
    "map of arrays": b"%1\r\n*1\r\n:1\r\n:99\r\n",
    "garbage": bytes(range(256)),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "noise": random.Random(1).randbytes(300) + b"\r\n",
    "empty line": b"\r\n",
}
PUSHES = {
    "push": b">2\r\n$7\r\nmessage\r\n$1\r\nx\r\n",
    "invalidation": b">2\r\n+invalidate\r\n*0\r\n",
    "moving": b">4\r\n+MOVING\r\n:1\r\n:2\r\n+nowhere:1\r\n",
    "odd push": b">1\r\n:7\r\n",
}

TURNS = [
    *(_error(name, text) for name, text in ERRORS.items()),
    *(_say(name, said) for name, said in _ODD.items()),
    *(
        # After MOVING redis-py waits 10 s, whatever it was told.
        _say(f"{name} alone", said)._replace(slow=name == "moving")
        for name, said in PUSHES.items()
    ),
    *(
        Turn(f"{name} before", lambda _, true, said=said: said + true, done=True)  # type: ignore[misc]  # — mypy knows no defaults of a lambda
        for name, said in PUSHES.items()
    ),
    Turn("two answers", lambda _, true: true + b":99\r\n", done=True),
    *BREAKS,
]
