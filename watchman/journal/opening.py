"""Opening the journal to write: made where there was none, begun anew where it is damaged.

Nobody else in this process has the file open meanwhile, since its bytes are looked at. A process
that closes any descriptor of a file loses its record locks on it, SQLite's too; SQLite counts them
as held, and so does a child that was forked meanwhile. The next command that closes the journal
would then remove the log under the daemon.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from watchman.errors import JournalError
from watchman.journal import repair, rescue, schema, soundness


def open_sound(path: str, give_up: Callable[[], bool]) -> sqlite3.Connection:
    """Return the writing connection to a sound file.

    Nobody else in this process may have the file open. Raises sqlite3.Error and OSError where it
    cannot be opened, JournalError where it is a newer watchman's.
    """
    repair.finish(path)
    try:
        with soundness.understanding("what it says of itself"):
            writer = _checked(path, give_up)
    except sqlite3.DatabaseError as error:
        if not soundness.is_damage(error):
            raise
        repair.replace(path, error)
        writer = _prepared(path, give_up)
    try:
        rescue.forget_moved(path)
        soundness.clear(path)
        # Who has to wait longer for another process is told so, and can still be stopped.
        writer.execute("PRAGMA busy_timeout = 2000")
    except BaseException:
        writer.close()
        raise
    return writer


def _checked(path: str, give_up: Callable[[], bool]) -> sqlite3.Connection:
    """Return a connection to the file as it is. Raises sqlite3.DatabaseError for damage."""
    # First: SQLite itself would make an empty file, and remove the log beside it.
    soundness.check_presence(path)
    soundness.check_header(path)
    log = soundness.Log(path)
    # The kernel's crash, not ours, damages files: but both leave the log behind, and a
    # check takes half a second for 300 MB.
    suspect = soundness.is_suspect(path)
    writer = _prepared(path, give_up, doubtful=suspect or not soundness.was_closed(path))
    try:
        log.check(writer)
        if suspect:
            soundness.check_met(path)
            rescue.check_rows(writer)
    except BaseException:
        _close(path, writer)
        raise
    return writer


def _prepared(
    path: str, give_up: Callable[[], bool], *, doubtful: bool = False
) -> sqlite3.Connection:
    """Return a connection to a file that has the tables of this version."""
    writer = schema.connect(path)
    try:
        if doubtful:
            soundness.check(writer)
        _prepare(path, writer, give_up)
    except BaseException:
        _close(path, writer)
        raise
    return writer


def _prepare(path: str, writer: sqlite3.Connection, give_up: Callable[[], bool]) -> None:
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    if version == 0:
        soundness.check_blank(path, writer)
        schema.create(writer)
        return
    soundness.check_version(version)
    if version > schema.SCHEMA_VERSION:
        raise JournalError(
            f"the journal {path} has schema {version}, this watchman knows "
            f"{schema.SCHEMA_VERSION}; run the version of watchman that wrote it"
        )
    if version < schema.SCHEMA_VERSION:
        from watchman.journal.migration import migrate

        migrate(path, writer, version, give_up)
    soundness.check_tables(writer)


def _close(path: str, writer: sqlite3.Connection) -> None:
    """Close what is not sound; its log may be the part that is."""
    with soundness.unmerged(path):
        writer.close()
