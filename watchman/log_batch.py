"""Logging many lines of one kind at the price of a few.

A burst of 20,000 files a second is 40,000 log lines a second, and the standard way costs more
for each than the lease test and the journal together. What a reader of the log sees is the same.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Sequence

from watchman.queued_logging import queue_of

_PLAIN_HANDLERS = (logging.StreamHandler, logging.FileHandler)
_FIELD = re.compile(r"%\((\w+)\)")
_PLAIN_FIELDS = {"asctime", "levelname", "levelno", "message", "msecs", "name", "process"}
"""Fields that are the same for all records of a logger made in the same moment."""


def info_all(logger: logging.Logger, message: str, arguments: Sequence[str]) -> None:
    """Log ``message % argument`` at INFO for each argument, as so many records.

    Where every handler is a plain stream or file, the lines are formatted and written together
    and carry the same time; any other handler or filter gets a record for each line.
    """
    if not arguments or not logger.isEnabledFor(logging.INFO):
        return
    handlers = _handlers(logger)
    if len(arguments) < 3 or handlers is None or not all(map(_is_plain, handlers)):
        for argument in arguments:
            logger.info(message, argument)
        return
    record = logger.makeRecord(logger.name, logging.INFO, "", 0, "", (), None)
    for handler in handlers:
        if record.levelno < handler.level:
            continue
        # The message comes last in a plain format, so formatting an empty one gives the prefix.
        prefix = handler.format(record)
        lines = [prefix + message % argument for argument in arguments]
        text = "\n".join(lines) + handler.terminator
        queue = queue_of(handler)
        if queue is not None:
            queue.put_lines(text, len(lines))
            continue
        with handler.lock or contextlib.nullcontext():
            try:
                handler.stream.write(text)
                handler.flush()
            except Exception:  # noqa: BLE001 — as logging.Handler.emit does
                handler.handleError(record)


def _handlers(logger: logging.Logger) -> list[logging.StreamHandler] | None:  # type: ignore[type-arg]  # — any stream
    """Return the handlers that a record of ``logger`` reaches; None if a filter may interfere."""
    found: list[logging.Handler] = []
    current: logging.Logger | None = logger
    if logger.filters:
        return None
    while current is not None:
        found += current.handlers
        current = current.parent if current.propagate else None
    plain = [handler for handler in found if isinstance(handler, logging.StreamHandler)]
    return plain if found and len(plain) == len(found) else None


def _is_plain(handler: logging.StreamHandler) -> bool:  # type: ignore[type-arg]  # — any stream
    formatter = handler.formatter
    if type(handler) not in _PLAIN_HANDLERS or handler.filters or handler.stream is None:
        return False
    if type(formatter) is not logging.Formatter or handler.terminator != "\n":
        return False
    text = formatter._fmt or ""
    return text.endswith("%(message)s") and set(_FIELD.findall(text)) <= _PLAIN_FIELDS
