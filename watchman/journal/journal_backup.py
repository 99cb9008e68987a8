"""A copy of the journal and its archive in one file, made while the daemon runs.

It is a tar: one file is whole or not there (a rename), is copied away with one command, and takes
the place of the last one; ``tar --extract`` is all that a restore needs. The order that must hold:
**the journal first, then the archive.** What is sealed and cleared in between is in both, as after
a crash between these two (:mod:`watchman.journal.sealing`), and shown once. The other way round it
would be in neither.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tarfile
import tempfile
from typing import NamedTuple

from watchman.errors import JournalError, WatchmanError
from watchman.journal import archive, soundness
from watchman.journal.journal_reader import open_reader

JOURNAL = "journal.db"


class BackupContents(NamedTuple):
    """What is in a backup."""

    parts: int
    """Files of the archive."""
    size: int
    """Bytes of the tar."""


def back_up(state_dir: str, target: str) -> BackupContents:
    """Write journal and archive into the tar ``target`` (0600); what had the name stays till then.

    The paths in it are relative to STATE_DIR. Needs room for the journal twice in the directory of
    ``target``. Raises JournalError where the journal is missing or damaged, WatchmanError where
    the copy cannot be written; ``target`` is as it was then.
    """
    target = os.path.abspath(target)
    directory, name = os.path.split(target)
    if not os.path.lexists(os.path.join(state_dir, JOURNAL)):
        raise JournalError(f"there is no journal in {state_dir}: nothing to back up")
    own = os.path.realpath(state_dir)
    if f"{os.path.realpath(directory)}/".startswith(f"{own.rstrip('/')}/"):
        raise WatchmanError(
            f"{target} lies in STATE_DIR, among what it is to be a copy of; name a file elsewhere"
        )
    try:
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=directory) as scratch:
            draft = os.path.join(scratch, f"{JOURNAL}.tar")  # the copy beside it is JOURNAL
            copied = _write(state_dir, scratch, draft)
            os.replace(draft, target)
            archive.sync(directory)
    except OSError as error:
        raise WatchmanError(
            f"{target} cannot be written: {error.strerror}; check the free space and the "
            "permissions there, or name another file"
        ) from error
    return copied


def _write(state_dir: str, scratch: str, draft: str) -> BackupContents:
    copy = os.path.join(scratch, JOURNAL)
    _copy_journal(state_dir, copy)
    parts = 0
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, copy, JOURNAL, like=os.path.join(state_dir, JOURNAL))
            for part in archive.files(state_dir):
                with contextlib.suppress(FileNotFoundError):  # too old, and removed just now
                    _add(tar, part.path, f"{archive.DIRECTORY}/{os.path.basename(part.path)}")
                    parts += 1
        file.flush()
        os.fsync(file.fileno())
        return BackupContents(parts, os.fstat(file.fileno()).st_size)


def _copy_journal(state_dir: str, copy: str) -> None:
    """Copy the journal as it is at one moment. Raises JournalError, WatchmanError."""
    with open_reader(state_dir) as journal, contextlib.closing(sqlite3.connect(copy)) as target:
        try:
            # All of it in one step: a reader in WAL mode holds up nobody, while a copy in several
            # steps would begin anew with each write of the daemon.
            journal.connection.backup(target)
        except sqlite3.Error as error:
            if soundness.is_damage(error):
                raise
            raise WatchmanError(
                f"the journal cannot be copied to {os.path.dirname(copy)}: {error}; check the "
                "free space there"
            ) from error
        soundness.check(target)


def _add(tar: tarfile.TarFile, path: str, name: str, like: str = "") -> None:
    """Add a file, with the owner of the one it is a copy of. Raises OSError."""
    with open(path, "rb") as file:
        info = tar.gettarinfo(arcname=name, fileobj=file)
        if like:
            owner = tar.gettarinfo(like)
            info.uid, info.gid = owner.uid, owner.gid
            info.uname, info.gname = owner.uname, owner.gname
        info.mode = 0o600
        tar.addfile(info, file)
