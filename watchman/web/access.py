"""Who may ask what, and what browsers are told to do with the answer."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from flask import Flask, Request, Response, abort, request
from werkzeug.exceptions import ServiceUnavailable

from watchman.web.passwords import BusyWithPasswords, PasswordFile

METHODS = ("GET", "HEAD")

HEADERS = {
    # All comes from here; nothing is inline, so that no name of a file can become a script.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


class Access:
    """What is checked before each answer.

    Without passwords only this machine can ask (:mod:`watchman.web.server` sees to it), but a page
    from elsewhere could have its name lead here, and read on in the browser of whoever looks at it
    (DNS rebinding). Such a browser says that name in the Host header.
    """

    def __init__(self, passwords: PasswordFile | None, hosts: Collection[str] = ()) -> None:
        """``hosts``: names besides ``localhost`` by which may be asked without a password."""
        self._passwords = passwords
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}

    def guard(self, app: Flask) -> None:
        """Have an application checked."""
        app.before_request(self._check)
        app.after_request(_say_how_to_take_it)

    def _check(self) -> Response | None:
        if request.method not in METHODS:
            abort(405)
        if self._passwords is None:
            if not self.is_ours(request.environ.get("HTTP_HOST", "")):
                abort(421)
            return None
        return self._authenticate(request, self._passwords)

    def is_ours(self, host: str) -> bool:
        """Whether a Host header names this machine to itself; one that is missing does."""
        if not host:
            return True  # HTTP/1.0: no browser
        name = _without_port(host).lower().rstrip(".")
        try:
            return name in self._hosts or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False

    @staticmethod
    def _authenticate(asked: Request, passwords: PasswordFile) -> Response | None:
        try:
            given = asked.authorization
        except ValueError:  # letters beyond ASCII where base64 should be
            given = None
        try:
            if given is not None and given.type == "basic":
                name, password = given.username or "", given.password or ""
                if passwords.accepts(name, password):
                    return None
        except BusyWithPasswords:
            raise ServiceUnavailable(retry_after=2) from None
        return Response(
            "Name and password are needed.\n",
            401,
            {"WWW-Authenticate": 'Basic realm="watchman", charset="UTF-8"'},
            content_type="text/plain; charset=utf-8",
        )


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _say_how_to_take_it(response: Response) -> Response:
    response.headers.update(HEADERS)
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response
