"""What a sender hands to its publisher, and what it says of what was refused."""

from __future__ import annotations

import collections
import logging
from collections.abc import Mapping, Sequence
from typing import Protocol

from watchman.masking import mask
from watchman.model import INCOMPLETE, Delivery, Message, Upload, record_of
from watchman.text import printable

log = logging.getLogger("watchman.notify")

_NO_HEADERS: dict[str, str | int | float] = {}


class UploadStore(Protocol):
    """What transfer logs tell."""

    def of(self, deliveries: Sequence[Delivery]) -> Mapping[int, Upload]:
        """Return what they tell of deliveries that are about to be sent, by seq."""
        ...


def words(error: Exception) -> str:
    """Return what a library raised as it can be shown: in one line, without credentials."""
    return mask(f"{type(error).__name__}: {error}")


def cannot_look(obstacle: str) -> str:
    """Say that files whose tasks are ready cannot be looked at."""
    return (
        f"Cannot look at {obstacle}; its task and those of other files like it wait until that "
        "works: mount what is missing, or give watchman's user read and search permission"
    )


def message_for(delivery: Delivery, upload: Upload | None = None) -> Message:
    """Return the message that announces a delivery with a route."""
    assert delivery.route is not None
    version = delivery.version
    message: Message = record_of(
        Message,
        (
            delivery.task_id,
            delivery.final,
            delivery.source,
            version.size,
            version.mtime_ns,
            delivery.arrived_ns,
            delivery.route,
            _headers(delivery.told, upload) if upload or delivery.told else _NO_HEADERS,
            (),
        ),
    )
    return message


def _headers(told: str, upload: Upload | None) -> dict[str, str | int | float]:
    """Return the headers that tell of a file what was told of it, and of its upload."""
    headers = {} if upload is None else upload_headers(upload)
    if told.startswith(INCOMPLETE):
        headers["watchman_incomplete"] = told.removeprefix(INCOMPLETE)
    elif told:
        headers["watchman_checksum"] = told
    return headers


def messages_for(deliveries: Sequence[Delivery], uploads: UploadStore | None) -> list[Message]:
    """Return the messages of deliveries; ``uploads`` is asked where transfer logs are read."""
    if uploads is None:
        return list(map(message_for, deliveries))
    told = uploads.of(deliveries)
    return [message_for(delivery, told.get(delivery.seq)) for delivery in deliveries]


def upload_headers(upload: Upload) -> dict[str, str | int | float]:
    """Return what a worker is told of an upload; what the log does not tell is left out."""
    headers: dict[str, str | int | float] = {
        "watchman_upload_user": upload.user,
        "watchman_upload_host": upload.host,
        "watchman_upload_protocol": upload.protocol,
        "watchman_upload_size": upload.size,
    }
    if upload.seconds is not None:
        headers["watchman_upload_seconds"] = upload.seconds
    return headers


def say_sent(sent: Sequence[Delivery]) -> None:
    """Say what the broker has, for who wants to know all (DEBUG)."""
    if log.isEnabledFor(logging.DEBUG):
        for delivery in sent:
            task = delivery.route.task if delivery.route else ""
            log.debug("Sent task %s %s for %s", task, delivery.task_id, printable(delivery.final))


def say_vanished(vanished: Sequence[tuple[Delivery, str]]) -> None:
    """Name one file for each reason: thousands may be removed at once."""
    count = collections.Counter(reason for _, reason in vanished)
    first = {reason: delivery for delivery, reason in reversed(vanished)}
    for reason, delivery in first.items():
        others = count[reason] - 1
        log.warning(
            "Not sent: %s%s: %s",
            printable(delivery.final),
            f" (and {others} more)" if others else "",
            reason,
        )


def say_refused(refused: Sequence[tuple[Delivery, str]], broker: str) -> None:
    """Name one file for each reason: thousands may be refused for the same."""
    first: dict[tuple[str, str], Delivery] = {}
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    for delivery, reason in refused:
        key = (delivery.route.task if delivery.route else "", reason)
        first.setdefault(key, delivery)
        count[key] += 1
    for (task, reason), delivery in first.items():
        others = count[task, reason] - 1
        log.error(
            "Task %s for %s%s was refused by broker %s: %s; mend the cause, then run "
            "'notify retry', or drop it with 'notify discard'",
            task,
            printable(delivery.final),
            f" (and for {others} more files)" if others else "",
            broker,
            reason,
        )
