"""Signals that other code can connect to (blinker): each kernel event, and our own steps.

The signals named ``in_…`` are sent by :class:`watchman.processors.AllEventsSignaler` for watches
that name it, with the processor as sender and the ``pyinotify.Event`` as ``event``::

    from watchman import signals

    @signals.in_close_write.connect
    def closed(sender, event):
        print(event.pathname)

Our own are sent with the name of the broker as sender (empty where a file is only moved), the
path at the time as ``path``, and the record it is about as ``delivery``: it has ``task_id``,
``source``, ``final``, ``version``, ``route`` and ``kind`` (:class:`watchman.model.Delivery`)::

    @signals.sent.connect_via("lizard")
    def sent(sender, path, delivery):
        ...

Receivers run in the thread that sends; a slow one holds up that thread, and a failing one is
logged and harms nothing. blinker holds receivers weakly: keep a reference to them. What config.py
and the modules beside it connect goes on as long as that configuration is in force.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from typing import Any, Protocol

from blinker import Signal

from watchman.text import describe, printable

log = logging.getLogger("watchman.notify")


class _Signal(Signal):
    """Can also be sent as Django's signals are, with the sender by name."""

    def send(self, *sender: Any, **values: Any) -> list[tuple[Any, Any]]:
        """Call every receiver; return each with what it returned."""
        if not sender and "sender" in values:
            sender = (values.pop("sender"),)
        return super().send(*sender, **values)


in_access = _Signal("IN_ACCESS: a file was read")
in_attrib = _Signal("IN_ATTRIB: permissions, owner, times or the number of links changed")
in_close_nowrite = _Signal("IN_CLOSE_NOWRITE: a file that was not open for writing was closed")
in_close_write = _Signal("IN_CLOSE_WRITE: a file that was open for writing was closed")
in_create = _Signal("IN_CREATE: an entry was made")
in_delete = _Signal("IN_DELETE: an entry was removed")
in_delete_self = _Signal("IN_DELETE_SELF: a watched directory was removed")
in_modify = _Signal("IN_MODIFY: a file was written to or truncated")
in_move_self = _Signal("IN_MOVE_SELF: a watched directory was renamed")
in_moved_from = _Signal("IN_MOVED_FROM: an entry left under this name")
in_moved_to = _Signal("IN_MOVED_TO: an entry came under this name")
in_open = _Signal("IN_OPEN: a file or directory was opened")
in_ignored = _Signal("IN_IGNORED: the kernel dropped a watch")
in_unmount = _Signal("IN_UNMOUNT: the file system below a watch was unmounted")
in_q_overflow = _Signal("IN_Q_OVERFLOW: events were lost")

arrived = _Signal("an arrival is recorded in the journal")
moved = _Signal("a file or directory is at its final path")
sent = _Signal("a broker has acknowledged the task")
failed = _Signal("no retry can help; an operator has to act")


WEAK = (weakref.ref,)
"""What a receiver is wrapped in that blinker holds weakly."""


def every() -> tuple[Signal, ...]:
    """Return all signals of this module."""
    return tuple(value for value in globals().values() if isinstance(value, Signal))


class Announced(Protocol):
    """What our own signals need of a delivery."""

    @property
    def source(self) -> str:
        """The path before the move."""
        ...

    @property
    def final(self) -> str | None:
        """The path after the move; None or the same where nothing is moved."""
        ...

    @property
    def route(self) -> Any:
        """A Route, or None."""
        ...


def send_safely(signal: Signal, sender: Any, **values: Any) -> None:
    """Call every receiver of ``signal``; log what one of them raises, and go on.

    Costs next to nothing while nobody is connected.
    """
    if not signal.receivers or signal.is_muted:
        return
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, **values)
        except BaseException as error:
            # Also what is no Exception, such as asyncio's CancelledError: it would end the thread.
            log.error(
                "A receiver of the signal '%s' failed: %s",
                (signal.__doc__ or "").partition(":")[0],
                printable(describe(error)),
                exc_info=log.isEnabledFor(logging.DEBUG),
            )


def announce(signal: Signal, deliveries: Iterable[Announced]) -> None:
    """Send one of our own signals for each delivery."""
    if not signal.receivers:
        return
    for delivery in deliveries:
        # What has only just arrived is not at its destination yet.
        path = delivery.source if signal is arrived else delivery.final or delivery.source
        broker = "" if delivery.route is None else delivery.route.broker
        send_safely(signal, broker, path=path, delivery=delivery)
