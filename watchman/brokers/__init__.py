"""Handing task messages to brokers: one publisher for each BROKERS entry.

Nothing here imports celery, kombu, amqp or redis before a publisher is opened.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from watchman.brokers.receivers import PublishingSignals
from watchman.brokers.urls import check_url, scheme_of
from watchman.masking import guard_logging, public_url, remember
from watchman.model import Broker, Publisher, Route

if TYPE_CHECKING:
    from watchman.brokers.previews import Preview

__all__ = ["PublishingSignals", "check_url", "open_publisher", "preview", "public_url"]


_opening = threading.Lock()
"""Held while a publisher is opened: celery replaces its own module while it is imported, so two
threads that import it at once can see it half-made."""


def preview(broker: Broker, celery_settings: Mapping[str, Any], route: Route) -> Preview:
    """Return where a message of that route would go, or why there would be none; sends nothing."""
    from watchman.brokers.previews import preview as of

    with _opening:
        return of(broker, celery_settings, route)


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
    if scheme in ("amqp", "amqps", "pyamqp") and plain:
        from watchman.brokers.amqp import AmqpPublisher

        return AmqpPublisher(broker, celery_settings)
    if scheme in ("redis", "rediss", "sentinel"):
        from watchman.brokers.redis import RedisPublisher

        return RedisPublisher(broker, celery_settings)
    from watchman.brokers.kombu import KombuPublisher

    return KombuPublisher(broker, celery_settings)
