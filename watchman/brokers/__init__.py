"""Handing task messages to brokers: one publisher for each BROKERS entry.

Nothing here imports celery, kombu, amqp or redis before a publisher is opened. The modules:

- ``base``: what publishers share: the connection that is kept, the URLs in turn, the answers
- ``redis``, ``amqp``, ``filesystem``: write messages themselves, and hand to ``kombu`` what only
  that can send
- ``kombu``: Celery's own ``send_task`` over any transport, in a thread that is given up
- ``amqp_connection``, ``amqp_confirms``, ``amqp_frames``: a connection to RabbitMQ, what it has
  said by delivery tag, how messages are written for it
- ``kombu_connection``: where kombu sends each message, and whether it was stored there
- ``message_factory``: one encoder for each route, a template or Celery for each message
- ``capture``: what Celery would publish for a message
- ``template``, ``json_format``: how a template is filled in; the JSON of kombu's transports
- ``faults``: whose fault it is what a broker says
- ``app``, ``urls``: Celery applications, connections and TLS; what can be wrong with a URL
- ``worker_inspection``: who takes tasks from a broker
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Hashable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from watchman.brokers.urls import AMQP, REDIS, check_url, scheme_of
from watchman.masking import guard_logging, public_url, remember
from watchman.model import Broker, Publisher, Route

if TYPE_CHECKING:
    from watchman.brokers.capture import Preview
    from watchman.brokers.worker_inspection import Workers

__all__ = [
    "PublishingSignals",
    "ask_workers",
    "check_url",
    "open_publisher",
    "preview",
    "public_url",
]


_opening = threading.Lock()
"""Held while a publisher is opened: celery replaces its own module while it is imported, so two
threads that import it at once can see it half-made."""


def preview(broker: Broker, celery_settings: Mapping[str, Any], route: Route) -> Preview:
    """Return where a message of that route would go, or why there would be none; sends nothing."""
    from watchman.brokers import capture

    with _opening:
        return capture.preview(broker, celery_settings, route)


def ask_workers(
    broker: Broker,
    celery_settings: Mapping[str, Any],
    state_dir: str,
    queues: Iterable[str],
    exchanges: Iterable[str],
) -> Workers:
    """Say who takes tasks from a broker, and whether these queues and exchanges are there."""
    remember(*broker.urls, options=broker.options)
    from watchman.brokers import worker_inspection

    return worker_inspection.ask(broker, celery_settings, state_dir, queues, exchanges)


def open_publisher(broker: Broker, celery_settings: Mapping[str, Any], state_dir: str) -> Publisher:
    """Return the publisher for a broker; it connects when it is first used.

    ``celery_settings`` are celeryconfig.py's, in old or new names. ``state_dir`` holds the
    embedded broker's directories, for ``filesystem://``. May be called from several threads.
    """
    remember(*broker.urls, options=broker.options)
    guard_logging()
    with _opening:
        return _open(broker, celery_settings, state_dir)


def _open(broker: Broker, celery_settings: Mapping[str, Any], state_dir: str) -> Publisher:
    scheme = scheme_of(broker.urls[0])
    plain = "+" not in broker.urls[0].partition("://")[0]
    if scheme == "filesystem":
        from watchman.brokers.filesystem import FilesystemPublisher

        return FilesystemPublisher(broker, celery_settings, state_dir)
    if scheme in AMQP and plain:
        from watchman.brokers.amqp import AmqpPublisher

        return AmqpPublisher(broker, celery_settings)
    if scheme in REDIS:
        from watchman.brokers.redis import RedisPublisher

        return RedisPublisher(broker, celery_settings)
    from watchman.brokers.kombu import KombuPublisher

    return KombuPublisher(broker, celery_settings)


class PublishingSignals:
    """Receivers of Celery's signals about publishing, which a configuration may connect.

    A group of signals (``config.belongings.Signals``). Celery is not imported for it: where
    nobody has, there are none.
    """

    def connected(self) -> frozenset[Hashable]:
        """Return the names of the signals with Celery's own keys of their receivers."""
        return frozenset((name, key) for name, signal in _signals() for key, _ in signal.receivers)

    def disconnect(self, connections: frozenset[Hashable]) -> None:
        """Take these connections away."""
        for name, signal in _signals():
            with signal.lock:
                signal.receivers[:] = [
                    entry for entry in signal.receivers if (name, entry[0]) not in connections
                ]
                signal.sender_receivers_cache.clear()


def _signals() -> list[tuple[str, Any]]:
    module = sys.modules.get("celery.signals")
    names = ("before_task_publish", "after_task_publish", "task_sent")
    found = [(name, getattr(module, name, None)) for name in names]
    return [(name, signal) for name, signal in found if signal is not None]
