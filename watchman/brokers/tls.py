"""``use_ssl``: TLS for one broker, in the words of whichever library connects."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from watchman.brokers.urls import scheme_of

OPTION = "use_ssl"
_FILES = ("ca_certs", "certfile", "keyfile")
_KNOWN = frozenset(
    {*_FILES, "cert_reqs", "check_hostname", "ciphers", "server_hostname", "version"}
)
_VERIFY = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_AMQP = frozenset({"amqp", "amqps", "pyamqp"})
_REDIS = frozenset({"redis", "rediss", "sentinel"})


def tls_options(url: str, own: Any, general: Any) -> Any:
    """Return kombu's ``ssl`` for a URL.

    ``own`` is the broker's ``use_ssl`` in BROKERS, None if there is none: a bool, or a dict with
    ``ca_certs``, ``certfile``, ``keyfile`` (paths), ``cert_reqs`` and ``check_hostname``. Unless it
    says otherwise the server's certificate and name are verified. ``general`` is Celery's
    ``broker_use_ssl``, which holds where ``own`` is None. Raises ValueError for a file that cannot
    be read: the libraries would not name it.
    """
    given = general if own is None else own
    if not given:
        return given
    options = {
        str(name).removeprefix("ssl_"): value
        for name, value in (given.items() if isinstance(given, Mapping) else ())
    }
    for name in _FILES:
        path = options.get(name)
        if isinstance(path, (str, os.PathLike)) and not os.access(path, os.R_OK):
            raise ValueError(f"{OPTION}: {name} {os.fspath(path)!r} cannot be read by this user")
    if own is None and not options:
        return given
    if own is not None and not options.keys() <= _KNOWN:
        unknown = ", ".join(sorted(options.keys() - _KNOWN))
        raise ValueError(f"{OPTION}: {unknown} is none of {', '.join(sorted(_KNOWN))}")
    scheme = scheme_of(url)
    if scheme in _AMQP:
        return _for_amqp(options, url, strict=own is not None)
    if scheme in _REDIS:
        return _for_redis(options, strict=own is not None)
    return given


def _verify(options: Mapping[str, Any]) -> Any:
    given = options.get("cert_reqs")
    if isinstance(given, str):
        name = given.lower().removeprefix("cert_")
        if name not in _VERIFY:
            raise ValueError(f"{OPTION}: cert_reqs {given!r} is none of {', '.join(_VERIFY)}")
        return _VERIFY[name]
    return given


def _for_amqp(options: dict[str, Any], url: str, *, strict: bool) -> dict[str, Any]:
    verify = _verify(options)
    by_name = options.pop("check_hostname", strict)
    if "version" in options:
        options["ssl_version"] = options.pop("version")
    if verify is None and strict:
        verify = ssl.CERT_REQUIRED
    if verify is not None:
        options["cert_reqs"] = verify
    if by_name and verify != ssl.CERT_NONE:
        # As it is written: kombu makes an address of "localhost" before it looks.
        host = urlsplit(f"http://{url.partition('://')[2]}").hostname
        options.setdefault("server_hostname", host or "localhost")
    return options


def _for_redis(options: dict[str, Any], *, strict: bool) -> dict[str, Any]:
    verify = _verify(options)
    if verify is None and strict:
        verify = ssl.CERT_REQUIRED
    if verify is not None:
        options["cert_reqs"] = verify
        if strict or verify == ssl.CERT_NONE:
            options["check_hostname"] = verify != ssl.CERT_NONE and bool(
                options.get("check_hostname", True)
            )
    return {f"ssl_{name}": value for name, value in options.items()}
