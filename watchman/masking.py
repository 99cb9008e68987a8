"""Keeping passwords out of every text that leaves the process: the one place where that is done.

Twice over: by parsing, so that a URL is shown without its credentials, and by blotting out the
secrets themselves, in whatever shape and text a library repeats them.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from watchman.text import printable

MASK = "**"
_SHORTEST = 3
"""One or two letters are left alone: to blot them out would garble every message."""

_KEY = r"[^=&;?#\s]*(?:pass|secret|token|key|credential|auth)[^=&;?#\s]*"
_SECRET = re.compile(rf"(?i)([?&;]{_KEY}=)([^&]*)")
_SECRET_IN_TEXT = re.compile(rf"(?i)([?&;]{_KEY}=)[^&\s]*")
_SECRET_NAME = re.compile(rf"(?i){_KEY}$")
_NO_SECRET = re.compile(r"(?i)(cert|file|prefix|check|url|name|routing)")
"""Names such as ssl_keyfile, global_keyprefix and routing_key: what they hold is no secret."""
_SURE = re.compile(r"(?i)(pass(word|wd|phrase)?|secret|token)$")
"""How the names of secrets end, whatever else is in them: tlsCertificateKeyFilePassword."""
_SEVERAL = re.compile(r";(?=[A-Za-z][\w+.-]*://)")
_QUERY = re.compile(r"\?[\w.-]+=")
_DELIMITERS = re.compile(r"[@:/?#;\[\]]")
_USERINFO = re.compile(r"(?<=://)[^/?#\s]*@")

_lock = threading.Lock()
_secrets: set[str] = set()
_pattern: re.Pattern[str] | None = None


def public_url(url: str) -> str:
    """Return the URL with its credentials replaced by ``**``, for logs and errors.

    It errs on the side of hiding: a password with an unquoted ``/``, ``@`` or ``?`` in it is a
    frequent mistake, so all between ``://`` and the last ``@`` goes, and all of the URL behind
    ``://`` where it could be read in two ways. Where that is missing, so does all before the ``@``.
    """
    return ";".join(map(_public, _SEVERAL.split(url)))


def split_urls(urls: str) -> list[str]:
    """Return the URLs of Celery's notation for failover: ``amqp://one;amqp://two``.

    A semicolon before anything else is somebody's password, and is left for who checks the URL.
    """
    return [part for part in (one.strip(";") for one in _SEVERAL.split(urls)) if part] or [urls]


def _public(url: str) -> str:
    begin, credentials, at, behind = _split(url)
    if not at:
        return _SECRET.sub(rf"\1{MASK}", url)
    if _QUERY.search(credentials):
        return f"{begin}{MASK}"
    return _SECRET.sub(rf"\1{MASK}", f"{begin}{MASK}@{behind}")


def _split(url: str) -> tuple[str, str, str, str]:
    """Return the scheme with its mark, what is before the last ``@``, that, and what is behind it.

    Nothing before it where no host is named.
    """
    scheme, mark, rest = url.partition("://")
    if not mark:
        scheme, rest = "", url
    if rest.startswith("/"):  # a path, as of a socket
        return f"{scheme}{mark}", "", "", rest
    return f"{scheme}{mark}", *rest.rpartition("@")


def remember(*urls: str, options: Mapping[str, Any] | None = None) -> None:
    """Have :func:`mask` blot out the secrets of these URLs and of an option dict from now on."""
    found = {secret for url in urls for secret in _secrets_of(url)}
    found.update(_secrets_in(options or {}))
    with _lock:
        global _pattern  # noqa: PLW0603 — one for the process, as the log is
        if not found <= _secrets:
            _secrets.update(found)
            longest_first = sorted(_secrets, key=len, reverse=True)
            _pattern = re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


def _secrets_of(url: str) -> Iterator[str]:
    for part in _SEVERAL.split(url):
        _, credentials, at, _ = _split(part)
        if at:
            yield from _shapes(credentials.partition(":")[2] or credentials)
        for key, value in _SECRET.findall(part):
            if _is_secret(key.strip("?&;=")):
                yield from _shapes(value)


def _is_secret(name: str) -> bool:
    return bool(_SURE.search(name) or (_SECRET_NAME.match(name) and not _NO_SECRET.search(name)))


def _secrets_in(options: Mapping[str, Any]) -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _secrets_in(value)
        elif isinstance(value, str) and _is_secret(str(key)):
            yield from _shapes(value)


def public(value: Any, name: str = "") -> Any:
    """Return a copy of a value in plain types, without secrets: for JSON, or to be shown.

    What stands under the name of a secret (``password``, ``credentials``) is masked whole, URLs
    lose their credentials. Functions and classes become their names.
    """
    if name and _is_secret(name) and value:
        return MASK
    if isinstance(value, Mapping):
        return {str(key): public(one, str(key)) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [public(one) for one in value]
    if isinstance(value, str):
        return blot(public_url(value) if "://" in value else value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return blot(str(getattr(value, "__qualname__", value)))


def _shapes(secret: str) -> Iterator[str]:
    """Yield what a library may make of a secret: unquoted, or cut where it ends for a parser."""
    for shape in {secret, unquote(secret)}:
        for piece in (shape, *_DELIMITERS.split(shape)):
            if len(piece) >= _SHORTEST:
                yield piece


def mask(text: str, *urls: str) -> str:
    """Return a text on one line, printable, without credentials: its own, and all remembered.

    Whatever a broker or its library says comes this way before anybody sees it. ``urls`` are
    remembered first.
    """
    if urls:
        remember(*urls)
        for url in urls:
            text = text.replace(url, public_url(url))
    text = _SECRET_IN_TEXT.sub(rf"\1{MASK}", _USERINFO.sub(f"{MASK}@", blot(text)))
    return printable(" ".join(text.split()))


def blot(text: str) -> str:
    """Return the text, lines and all, with every secret that is remembered blotted out."""
    pattern = _pattern
    return text if pattern is None else pattern.sub(MASK, text)


def guard_logging() -> None:
    """Have the log records of other libraries, and all tracebacks, blotted from now on."""
    made = logging.getLogRecordFactory()
    if isinstance(made, _Blotting):
        return
    logging.setLogRecordFactory(_Blotting(made))


class _Blotting:
    """Makes log records without secrets. Our own messages are made without them."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def __call__(self, name: str, *arguments: Any, **options: Any) -> logging.LogRecord:
        record: logging.LogRecord = self._made(name, *arguments, **options)
        if _pattern is None:
            return record
        if not name.startswith("watchman"):
            said = record.getMessage()
            blotted = blot(said)
            if blotted != said:
                record.msg, record.args = blotted, ()
        if record.exc_info:
            text = logging.Formatter().formatException(record.exc_info)
            record.exc_text = blot(text)
        return record
