"""The process that reads files, where functions of a configuration are among what is asked.

It reads the configuration once more, since a function cannot be sent to another process.
"""

from __future__ import annotations

from watchman.verdicts import reader_process
from watchman.verdicts.reader_process import Callables


def main(connection: int, memory: int, slot: int, parent: int, path: str) -> None:
    """Be the process; ``path`` is the configuration's."""
    reader_process.main(connection, memory, slot, parent, lambda: _callables(path))


def _callables(path: str) -> Callables:
    from watchman.config.loading import load
    from watchman.errors import ConfigError

    try:
        config = load(path)
    except ConfigError:
        return {}  # it is being edited: what is asked of it is answered so
    each = [criteria for criteria in config.criteria if criteria is not None]
    # What matches a pattern of directories may have come since, or come later.
    watches = (*config.watches, *config.globs)
    each += [watch.criteria for watch in watches if watch.criteria is not None]
    return {
        one.argument: one.function
        for criteria in each
        for one in criteria.each
        if one.kind == "callable"
    }
