"""Where it listens, and the server itself."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from watchman.errors import WatchmanError
from watchman.model import Config
from watchman.text import printable

DEFAULT = "127.0.0.1:9002"
_EXAMPLE = f"an address and a port are meant, such as {DEFAULT} or [::1]:9002"
_PORT = re.compile(r"[0-9]{1,5}")
_THREADS = 6
_SETTINGS = {
    "ident": "watchman",
    "threads": _THREADS,
    # Below it by far: who is over MOST is let go, while this would have all others wait.
    "connection_limit": 1000,
    "channel_timeout": 20,
    "cleanup_interval": 5,
    "asyncore_use_poll": True,
    # Nobody has anything to tell.
    "max_request_header_size": 32_768,
    "max_request_body_size": 1024,
    "clear_untrusted_proxy_headers": True,
    "expose_tracebacks": False,
}
MOST = 200
"""Connections that are kept: for one more, that which has been silent for longest is let go."""
_NICE = 5
"""What is below the daemon's priority, which is 0."""


class Listening(NamedTuple):
    """A socket, and how it is called in a browser."""

    socket: socket.socket
    url: str


def listen(text: str, *, has_passwords: bool) -> list[Listening]:
    """Return sockets for an address. Raises WatchmanError."""
    host, port = _parsed(text)
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no name of a host"
        raise WatchmanError(f"--listen {printable(text)}: {why}; {_EXAMPLE}") from error
    # What was looked at is what is bound: the name may mean another machine a moment later.
    places = [(family, where) for family, _, _, _, where in infos]
    if not has_passwords and not all(_is_loopback(str(where[0])) for _, where in places):
        raise WatchmanError(
            f"--listen {printable(text)}: other machines can ask there, and what is shown is not "
            "for everybody; name a file of passwords with --auth, or listen on 127.0.0.1"
        )
    return _bound(text, places)


def serve(
    config: Config,
    places: Sequence[Listening],
    app: Callable[..., Any],
    say: Callable[[str], None],
) -> None:
    """Answer until SIGTERM or Ctrl-C."""
    import waitress

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logging.basicConfig(format="%(asctime)s [%(levelname)s] %(name)s: %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # that some wait is no news
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    open_sockets: dict[int, Any] = {}
    sockets = [one.socket for one in places]
    server = waitress.create_server(app, open_sockets, sockets=sockets, **_SETTINGS)
    _let_go_of_the_silent(open_sockets)
    for one in places:
        say(f"{printable(config.state_dir)} is shown on {one.url} until Ctrl-C")
    try:
        server.run()
    finally:
        server.close()


def _let_go_of_the_silent(open_sockets: dict[int, Any]) -> None:
    """Have whoever holds connections and says nothing keep nobody out.

    ``open_sockets`` has waitress's servers and, later, their connections by descriptor.
    """
    from waitress.channel import HTTPChannel

    class Channel(HTTPChannel):  # type: ignore[misc]  # — waitress has no types
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            if len(open_sockets) > MOST:
                channels = (one for one in open_sockets.values() if isinstance(one, HTTPChannel))
                _let_one_go([one for one in channels if one is not self])

    for server in open_sockets.values():
        if hasattr(server, "channel_class"):
            server.channel_class = Channel


def _let_one_go(channels: Sequence[Any]) -> None:
    """Close the connection that was silent for longest, of those that wait for no answer."""
    silent = [one for one in channels if not (one.requests or one.will_close)]
    if silent:
        longest = min(silent, key=lambda one: one.last_activity)
        longest.will_close = True
        # Who reads nothing of an answer would never have it closed: it can never be written.
        with contextlib.suppress(OSError):
            longest.socket.shutdown(socket.SHUT_RDWR)


def _parsed(text: str) -> tuple[str, int]:
    host, mark, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        mark = ""  # an address of IPv6 without brackets: which is the port?
    if not (mark and host and _PORT.fullmatch(port) and int(port) < 1 << 16):
        raise WatchmanError(f"--listen {printable(text)}: {_EXAMPLE}")
    return host, int(port)


def _is_loopback(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


def _bound(text: str, places: Sequence[tuple[int, Any]]) -> list[Listening]:
    """Bind all that can be: ``localhost`` may have two addresses, and one of no use."""
    found: list[Listening] = []
    failed: OSError | None = None
    for family, where in places:
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(where)
        except OSError as error:
            failed = error
            one.close()
            continue
        host, port = one.getsockname()[:2]
        name = f"[{host}]" if family == socket.AF_INET6 else host
        found.append(Listening(one, f"http://{name}:{port}/"))
    if not found:
        assert failed is not None
        raise WatchmanError(
            f"--listen {printable(text)}: {failed.strerror}; choose another address or port"
        ) from failed
    return found
