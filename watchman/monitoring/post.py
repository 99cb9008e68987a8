"""A program: POSTs JSON to a URL. Both come on standard input, the URL in the first line.

Of the standard library alone: it is run by its file. Exit status 1 and a line on standard error say
that it did not work.
"""

from __future__ import annotations

import base64
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

TIMEOUT = 20.0
"""Seconds for each step; who runs this has a limit for all of it."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another place would be asked with GET, and told nothing."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none: its status is the answer."""


def post(url: str, words: bytes) -> str:
    """POST; return why it did not work, empty if it did."""
    parts = urllib.parse.urlsplit(url)
    headers = {"Content-Type": "application/json", "User-Agent": "watchman"}
    user, at, host = parts.netloc.rpartition("@")
    if at:
        secret = urllib.parse.unquote(user).encode()
        headers["Authorization"] = f"Basic {base64.b64encode(secret).decode()}"
    plain = urllib.parse.urlunsplit(parts._replace(netloc=host))
    request = urllib.request.Request(plain, words, headers)  # noqa: S310 — http or https, by the configuration
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT):
            return ""
    except urllib.error.HTTPError as error:
        error.close()
        return f"the server answered {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return f"{error.reason}"
    except Exception as error:  # noqa: BLE001 — http.client's, ssl's …: said in a line
        return f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    _url, _, _words = sys.stdin.buffer.read().partition(b"\n")
    _why = post(_url.decode(), _words)
    if _why:
        sys.stderr.write(f"{_why}\n")
        sys.exit(1)
