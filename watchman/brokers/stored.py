"""Whether one of kombu's virtual transports has kept a message.

They deliver to the queues that are bound to an exchange, and say nothing where there are none:
what "sent" then means is that nobody will ever see it.
"""

from __future__ import annotations

from typing import Any

from watchman.brokers.replies import number_in


class Unstored(Exception):  # noqa: N818 — a state of the exchange; it heals when a queue is bound
    """A message was published, and the broker has kept it nowhere."""


class StoreCounter:
    """Counts the queues that a channel has put messages into. One channel, one thread."""

    def __init__(self, channel: Any) -> None:
        self.virtual = is_virtual(channel)
        """False where the broker itself answers for that, as an AMQP broker does."""
        self.count = 0
        if self.virtual:
            self._count_put(channel)
            self._count_fanout(channel)
            _check_pushes(channel)

    def _count_put(self, channel: Any) -> None:
        put = channel._put

        def counting(queue: Any, message: Any, **options: Any) -> None:
            put(queue, message, **options)
            self.count += 1

        channel._put = counting

    def _count_fanout(self, channel: Any) -> None:
        put = getattr(channel, "_put_fanout", None)
        if put is None:
            return
        if not hasattr(channel, "_get_publish_topic"):  # not Redis: they store, or call _put()

            def storing(*arguments: Any, **options: Any) -> None:
                stored_before = self.count
                put(*arguments, **options)
                if not _stores_by_put(channel):
                    self.count = stored_before + 1

            channel._put_fanout = storing
            return

        def publishing(exchange: str, message: Any, routing_key: str, **_: Any) -> None:
            """As kombu's, which drops the number of clients that have heard it."""
            from kombu.utils.json import dumps

            several = getattr(channel, "_get_publish_topics", None)
            topics = (
                several(exchange, routing_key)
                if several is not None
                else [channel._get_publish_topic(exchange, routing_key)]
            )
            with channel.conn_or_acquire() as client:
                for topic in topics:
                    heard = client.publish(topic, dumps(message))
                    self.count += number_in(heard, "PUBLISH", 0)

        channel._put_fanout = publishing


def _check_pushes(channel: Any) -> None:
    """On Redis, have each push fail whose answer is not the length of a list: kombu drops it."""
    create = getattr(channel, "_create_client", None)
    if create is None or not hasattr(channel, "_get_publish_topic"):
        return

    def creating(*arguments: Any, **options: Any) -> Any:
        client = create(*arguments, **options)
        client.set_response_callback("LPUSH", lambda answer, **_: number_in(answer, "LPUSH", 1))
        return client

    channel._create_client = creating


def is_virtual(channel: Any) -> bool:
    """True for a channel of a transport that kombu itself has given queues and exchanges."""
    from kombu.transport.virtual import Channel

    return isinstance(channel, Channel)


def _stores_by_put(channel: Any) -> bool:
    """True for the transports whose fanout puts into each queue that is bound."""
    from kombu.transport import filesystem, memory

    return isinstance(channel, (filesystem.Channel, memory.Channel))
