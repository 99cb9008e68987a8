"""A Celery application of our own, and the connections that are made by it.

It has the user's settings, no broker of its own, and nothing global. Celery's
``CELERY_BROKER_URL`` overrides the broker of every application of a process, and its pools are
shared by all of them: so the broker's URL is always given, and no pool is used. ``use_ssl`` is
TLS for one broker, in the words of whichever library connects.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from watchman.brokers.urls import AMQP, REDIS, scheme_of
from watchman.model import Broker

CONNECT_SECONDS = 4.0
"""How long one attempt to connect may take."""

# The broker comes from BROKERS; eager tasks and result backends have no meaning for a sender.
_NOT_OURS = frozenset(
    {
        "broker_url",
        "broker_read_url",
        "broker_write_url",
        "broker_transport",
        "broker_host",
        "broker_port",
        "broker_user",
        "broker_password",
        "broker_vhost",
        "task_always_eager",
        "celery_always_eager",
        "broker_backend",
        "carrot_backend",
    }
)


def make_application(settings: Mapping[str, Any]) -> Any:
    """Return a Celery application with these settings (old or new names)."""
    from celery import Celery

    class Application(Celery):
        """Nobody here waits for results, and nothing here comes out of a pool."""

        backend = _NoBackend()
        producer_pool = None

    # fixups: none, or a DJANGO_SETTINGS_MODULE in the environment would start Django.
    app = Application("watchman", set_as_current=False, fixups=[])
    kept = {name: value for name, value in settings.items() if name.lower() not in _NOT_OURS}
    app.config_from_object(kept)
    return app


class _NoBackend:
    """Stands in for the result backend, so that a dead one cannot hold up the sending.

    Whether a worker stores it is between the worker's settings and the route's ``ignore_result``.
    """

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Celery calls this before a task is sent, to subscribe to its result."""


def connect_options(app: Any, broker: Broker, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the transport options: ours, then celeryconfig's, then the broker's own."""
    return {**defaults, **(app.conf.broker_transport_options or {}), **broker.options}


def make_connection(
    app: Any,
    url: str,
    transport_options: Mapping[str, Any],
    *,
    heartbeat: float = 0,
    tls: bool = True,
) -> Any:
    """Return a ``kombu.Connection`` to one URL, not yet connected.

    ``tls``: False for one that will never be connected. Raises ValueError for a ``use_ssl`` that
    cannot be.
    """
    timeout = app.conf.broker_connection_timeout or CONNECT_SECONDS
    options = dict(transport_options)
    own = options.pop(TLS_OPTION, None)
    connection = app.connection_for_write(
        url,
        ssl=tls_options(url, own, app.conf.broker_use_ssl) if tls else False,
        connect_timeout=min(timeout, CONNECT_SECONDS),
        heartbeat=heartbeat,
        transport_options={},
    )
    # Not through the constructor: Celery would merge celeryconfig's options over them.
    connection.transport_options = options
    # send_task() with a countdown asks the pool what kind of broker this is.
    app.producer_pool = SimpleNamespace(connections=SimpleNamespace(connection=connection))
    if app.conf.task_send_sent_event:
        # The type of the events' exchange depends on the transport, and by itself Celery would
        # ask the application's own broker, which is not ours: on Redis nobody heard the events.
        app.amqp._event_dispatcher = app.events.Dispatcher(connection, enabled=False)
    return connection


def establish(connection: Any) -> Any:
    """Return what kombu's transport connects with, open. Raises all that its library raises.

    py-amqp closes its socket only for an OSError: a broker that refuses a login, again and again,
    would leave one behind each time. And it waits for the end of the login as long as anything
    comes, be it heartbeats.
    """
    transport = connection.transport
    plain: Any = getattr(transport, "Connection", None)
    made: list[Any] = []

    def remember(*arguments: Any, **options: Any) -> Any:
        raw = plain(*arguments, **options)
        raw.blocking_read = bounded(raw.blocking_read, time.monotonic() + 2 * CONNECT_SECONDS)
        made.append(raw)
        return raw

    if hasattr(plain, "collect"):
        transport.Connection = remember
    try:
        opened = transport.establish_connection()
    except BaseException:
        for each in made:
            with contextlib.suppress(Exception):
                each.collect()
        raise
    for each in made:
        del each.blocking_read
    return opened


def bounded(read: Callable[..., Any], deadline: float) -> Callable[..., Any]:
    """Return a py-amqp ``blocking_read`` that raises TimeoutError after a moment (monotonic)."""

    def reading(timeout: float | None = None) -> Any:
        if time.monotonic() > deadline:
            raise TimeoutError("no answer, only other frames")
        return read(timeout)

    return reading


def let_go(connection: Any) -> None:
    """Close what kombu leaves open of a ``kombu.Connection`` that was closed or never opened.

    Its transport for Redis has an epoll descriptor that only the garbage collector finds.
    """
    cycle: Any = getattr(getattr(connection, "_transport", None), "cycle", None)
    with contextlib.suppress(Exception):
        cycle.poller.close()


def instrumented(app: Any) -> bool:
    """True if somebody wants to see each task being sent: signals, or task-sent events."""
    from celery import signals

    return bool(
        app.conf.task_send_sent_event
        or signals.before_task_publish.receivers
        or signals.after_task_publish.receivers
        or signals.task_sent.receivers
    )


# -- TLS

TLS_OPTION = "use_ssl"
_FILES = ("ca_certs", "certfile", "keyfile")
_KNOWN = frozenset(
    {*_FILES, "cert_reqs", "check_hostname", "ciphers", "server_hostname", "version"}
)
_VERIFY = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


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
            what = f"{name} {os.fspath(path)!r}"
            raise ValueError(f"{TLS_OPTION}: {what} cannot be read by this user")
    if own is None and not options:
        return given
    if own is not None and not options.keys() <= _KNOWN:
        unknown = ", ".join(sorted(options.keys() - _KNOWN))
        raise ValueError(f"{TLS_OPTION}: {unknown} is none of {', '.join(sorted(_KNOWN))}")
    scheme = scheme_of(url)
    if scheme in AMQP:
        return _for_amqp(options, url, strict=own is not None)
    if scheme in REDIS:
        return _for_redis(options, strict=own is not None)
    return given


def _verify(options: Mapping[str, Any]) -> Any:
    given = options.get("cert_reqs")
    if isinstance(given, str):
        name = given.lower().removeprefix("cert_")
        if name not in _VERIFY:
            raise ValueError(f"{TLS_OPTION}: cert_reqs {given!r} is none of {', '.join(_VERIFY)}")
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
