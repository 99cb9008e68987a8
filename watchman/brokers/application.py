"""A Celery application of our own: the user's settings, no broker of its own, nothing global.

Celery's ``CELERY_BROKER_URL`` overrides the broker of every application of a process, and its
pools are shared by all of them: so the broker's URL is always given, and no pool is used.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from watchman.brokers.tls import OPTION, tls_options
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
    own = options.pop(OPTION, None)
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
