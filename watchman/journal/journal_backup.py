"""A copy of the journal and its archive in one file, made while the daemon runs.

It is a tar: one file is whole or not there (a rename), is copied away with one command, and takes
the place of the last one; ``tar --extract`` is all that a restore needs. The order that must hold:
**the journal first, then the archive.** What is sealed and cleared in between is in both, as after
a crash between these two (:mod:`watchman.journal.sealing`), and shown once. The other way round it
would be in neither.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

from watchman.errors import JournalError, WatchmanError
from watchman.journal import archive, soundness
from watchman.journal.journal_reader import open_reader

JOURNAL = "journal.db"
_DRAFT, _LOCK = "draft.tar", "lock"
"""In a directory beside the target; the lock is held as long as that is of use."""
_RANDOM = "[a-z0-9_]{8}"
"""How the names of tempfile's directories end."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATED = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class BackupContents(NamedTuple):
    """What is in a backup."""

    parts: int
    """Files of the archive."""
    size: int
    """Bytes of the tar."""


def back_up(state_dir: str, target: str) -> BackupContents:
    """Write journal and archive into the tar ``target`` (0600); what had the name stays till then.

    The paths in it are relative to STATE_DIR. Needs room for the journal twice in the directory of
    ``target``, where it removes what earlier backups to it have left that were killed. Raises
    JournalError where the journal is missing or damaged, WatchmanError where the copy cannot be
    written; ``target`` is as it was then.
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
        _remove_left(directory, name)
        with _scratch(directory, name) as scratch:
            draft = os.path.join(scratch, _DRAFT)
            copied = _write(state_dir, scratch, draft)
            os.replace(draft, target)
            archive.sync(directory)
    except OSError as error:
        raise WatchmanError(
            f"{target} cannot be written: {error.strerror}; check the free space and the "
            "permissions there, or name another file"
        ) from error
    return copied


@contextlib.contextmanager
def _scratch(directory: str, name: str) -> Iterator[str]:
    """Make a directory beside the target that no other backup removes meanwhile."""
    while True:
        with tempfile.TemporaryDirectory(prefix=f".{name}.", dir=directory) as scratch:
            path = os.path.join(scratch, _LOCK)
            try:
                lock = os.open(path, _CREATED, 0o600)
            except FileNotFoundError:
                continue  # another one has taken it for one that was left, before it was locked
            try:
                # Where locks cannot be had, nobody removes anything.
                if _lock(lock) is not False and os.path.exists(path):
                    yield scratch
                    return
            finally:
                os.close(lock)


def _lock(descriptor: int) -> bool | None:
    """Hold a scratch directory; False where another process does, None if there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _remove_left(directory: str, name: str) -> None:
    """Remove the scratch directories of backups that were killed; what is in doubt stays."""
    ours = re.compile(re.escape(f".{name}.") + _RANDOM)
    with contextlib.suppress(OSError):
        for left in filter(ours.fullmatch, os.listdir(directory)):
            with contextlib.suppress(OSError):
                _remove(os.path.join(directory, left), name)


def _remove(path: str, name: str) -> None:
    """Remove a scratch directory, unless it is in use or another's. Raises OSError."""
    copies = {JOURNAL + suffix for suffix in ("", "-journal", "-wal", "-shm")}
    # As older versions have called it, too.
    made = {name, _DRAFT, _LOCK, *copies}
    directory = os.open(path, _DIRECTORY)
    try:
        if os.fstat(directory).st_uid != os.geteuid() or set(os.listdir(directory)) - made:
            return
        lock = os.open(_LOCK, _CREATED, 0o600, dir_fd=directory)
        try:
            if not _lock(lock):
                return
            for one in os.listdir(directory):
                os.unlink(one, dir_fd=directory)
        finally:
            os.close(lock)
    finally:
        os.close(directory)
    os.rmdir(path)


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
