"""What happens to a journal that is damaged: set aside, and begun anew with what can be read.

One whose file somebody removed or replaced while it was open is written down anew, all of it.

A crash at any instant leaves one of these behind, and the next start goes on from it:

==============================  ==================================================================
found                           what is true, and done
==============================  ==================================================================
``journal.db.making``           half-made: removed; the journal's damage is found again. Where the
                                file had been removed nothing is left of it
``journal.db.fresh``            whole and durable: what is left of the old one is set aside, in
                                the order log, index of the log, file; then this takes its place
neither                         nothing was under way
==============================  ==================================================================

A log (``-wal``) is never left beside a file that it does not belong to: SQLite would play it back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterable

from watchman import queued_logging
from watchman.journal import schema
from watchman.journal.rescue import take_over
from watchman.journal.soundness import SUFFIXES, Lost, size

log = logging.getLogger("watchman.journal")

_INCOMPLETE = (
    ". Not all could: whatever is in the watches and no longer known is sent, where it was sent "
    "before under the same task id. Check the disk"
)
_MOVED_LOST = (
    ". A file that had been moved and not yet announced may need 'notify match' and a task by hand"
)
_ON_PURPOSE = (
    ". To begin anew on purpose, with what is there taken for old: stop watchman, and remove "
    "journal.db*, heartbeat and status.json there"
)


def finish(path: str) -> None:
    """Go on where a crash interrupted :func:`replace` or :func:`put_back`. Raises OSError."""
    for suffix in ("", *SUFFIXES[:2], "-journal"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}.making{suffix}")
    if os.path.exists(path + ".fresh"):
        _exchange(path)


def replace(path: str, damage: sqlite3.Error) -> None:
    """Begin a new journal at ``path`` with what can be read of the damaged one.

    Nobody may have it open. Raises sqlite3.Error and OSError where the new one cannot be made.
    """
    empty = not size(path)
    if not empty:
        log.info("The journal %s is damaged: saving what can be read of it", path)
        queued_logging.start()  # it may take minutes
    fresh = schema.connect(path + ".making")
    try:
        schema.create(fresh)
        saved = take_over(path, fresh, whole=not isinstance(damage, Lost))
    finally:
        fresh.close()  # merges its log
    os.rename(path + ".making", path + ".fresh")
    _sync(path)
    aside = _exchange(path)
    log.error(
        "The journal %s is damaged (%s). %sA new one has been begun: %d deliveries could be read "
        "and are in it%s%s%s",
        path,
        damage,
        f"It is kept as {aside}. " if aside else "",
        saved.deliveries,
        "" if saved.complete else _INCOMPLETE,
        "" if saved.moved else _MOVED_LOST,
        _ON_PURPOSE if empty else "",
    )


def put_back(path: str, journal: sqlite3.Connection, left: Iterable[str]) -> None:
    """Write a journal down anew whose file was removed or replaced while it was open.

    ``left`` are those of its files that are still there. A file that took its place stays; the
    journal is kept beside it then. Nobody may be writing. Raises sqlite3.Error and OSError.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    finish(path)
    fresh = schema.connect(path + ".making")
    try:
        journal.backup(fresh)
    finally:
        fresh.close()  # merges its log
    os.rename(path + ".making", path + ".fresh")
    _sync(path)
    for name in left:
        os.unlink(name)
    # An empty file that took its place holds nothing.
    if size(path):
        kept = f"{path}.replaced-{_stamp(time.time())}"
        os.rename(path + ".fresh", kept)
        log.error(
            "The journal %s was replaced while it was in use: what is there now is used, and what "
            "was in use is kept as %s. To go on with that: stop watchman, and put it back",
            path,
            kept,
        )
    else:
        os.rename(path + ".fresh", path)
        log.error(
            "The journal %s was removed while it was in use. It has been written anew, nothing is "
            "missing in it; let nothing clean up its directory",
            path,
        )
    _sync(path)


def _stamp(moment: float) -> str:
    return time.strftime("%Y%m%dT%H%M%S", time.localtime(moment))


def _exchange(path: str) -> str:
    """Set the old file aside, put the fresh one in its place; return where the old one is.

    Empty where there was nothing left of it.
    """
    aside = _free(f"{path}.damaged-{_stamp(os.stat(path + '.fresh').st_mtime)}")
    kept = False
    for suffix in SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
            kept = True
    _sync(path)
    os.rename(path + ".fresh", path)
    _sync(path)
    return aside if kept else ""


def _free(name: str) -> str:
    """Return a name that nothing has yet: what was set aside in the same second stays."""
    number, found = 1, name
    while os.path.lexists(found):
        number, found = number + 1, f"{name}-{number}"
    return found


def _sync(path: str) -> None:
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
