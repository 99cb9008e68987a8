"""Log records as JSON, one on each line (``LOG_FORMAT = 'json'``).

Imported by dictConfig only where it is asked for. All beyond ASCII is escaped, so that no name of
a file can end a line or turn a terminal's writing.
"""

from __future__ import annotations

import logging
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from watchman.masking import blot


class JsonLines(JsonFormatter):
    """``time`` (ISO 8601, UTC), ``level``, ``logger``, ``message``, and ``exception`` if any."""

    def __init__(self) -> None:
        super().__init__(
            "%(levelname)s %(name)s %(message)s",
            rename_fields={"levelname": "level", "name": "logger", "exc_info": "exception"},
            timestamp="time",
            json_ensure_ascii=True,
        )

    def formatException(self, ei: Any) -> str:  # noqa: N802 — logging calls it so
        """Return the traceback without secrets, as other formatters show it (``masking``)."""
        return blot(logging.Formatter.formatException(self, ei))
