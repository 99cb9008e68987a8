"""The options behind the ``?`` of a broker's URL: those that kombu knows, and their values."""

from __future__ import annotations

import math
from urllib.parse import parse_qsl

# kombu parses the URLs of these; other transports have ways of their own.
_PARSED = frozenset({"amqp", "amqps", "pyamqp", "redis", "rediss"})
_NUMBERS = frozenset({"connect_timeout", "heartbeat"})
# The parameters of kombu.Connection that a URL can hold as text.
KNOWN = _NUMBERS | {"credential_provider", "insist", "login_method", "ssl"}
_TLS = "ssl_"
_CERT_REQS = frozenset({"CERT_REQUIRED", "required", "CERT_OPTIONAL", "optional"}) | {
    "CERT_NONE",
    "none",
}


def check_options(url: str, scheme: str) -> str | None:
    """Return which option of the URL cannot be used, and what to write; None if all can."""
    _, mark, query = url.partition("?")
    if not mark or scheme not in _PARSED or "+" in url.partition("://")[0] or "@" in query:
        return None
    for name, value in parse_qsl(query):
        if name in _NUMBERS and not _is_number(value):
            return f"the option {name!r} in the URL is {value!r}; write a number of seconds"
        if name == "ssl_cert_reqs" and value not in _CERT_REQS:
            return f"the option {name!r} in the URL is {value!r}; write required, optional or none"
        if name not in KNOWN and not name.startswith(_TLS):
            return (
                f"the URL has an option {name!r}, which kombu does not know there; write it beside "
                f"the URL: {{'url': …, {name!r}: …}}"
            )
    return None


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and 0 <= float(text) <= 2_000_000
    except ValueError:
        return False
