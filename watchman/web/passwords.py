"""A file of names and passwords, as Apache's htpasswd writes them."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import secrets
import threading
from typing import TYPE_CHECKING

from watchman.errors import WatchmanError
from watchman.text import printable

if TYPE_CHECKING:
    from passlib.context import CryptContext

log = logging.getLogger("watchman.web")

FORMS = ("bcrypt", "apr_md5_crypt", "sha512_crypt", "sha256_crypt", "ldap_sha1")
"""What libpass calls ``htpasswd -B``, ``-m``, ``-5``, ``-2`` and ``-s``."""
BUSY = 2.0
"""Seconds after which who asks is sent away while others' passwords are looked at."""
_KEPT = 100
"""Passwords that need not be looked at again: bcrypt takes a twentieth of a second for each."""


class BusyWithPasswords(Exception):  # noqa: N818 — a state, not a mistake
    """So many passwords are being looked at that this one has to wait."""


class PasswordFile:
    """Who may ask. The file is read again when it has changed.

    Raises WatchmanError where it cannot be used at the start. Later nobody is let in then, and the
    log says why.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._stamp: tuple[int, ...] = ()
        self._hashes: dict[str, str] = {}
        self._context = _context()
        # Looking at one takes long on purpose: one at a time, whoever knocks.
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(32)
        self._accepted: dict[tuple[str, bytes], str] = {}
        self._load()

    def accepts(self, name: str, password: str) -> bool:
        """Whether this is the password of that name. Raises BusyWithPasswords."""
        mark = hmac.digest(self._key, password.encode("utf-8", "surrogatepass"), hashlib.sha256)
        self._load_again()
        known = self._hashes.get(name)
        if known is not None and self._accepted.get((name, mark)) == known:
            return True
        if not self._lock.acquire(timeout=BUSY):
            raise BusyWithPasswords
        try:
            return self._verify(name, password, mark)
        finally:
            self._lock.release()

    def _verify(self, name: str, password: str, mark: bytes) -> bool:
        known = self._hashes.get(name)
        if known is None:
            self._context.dummy_verify()  # as long as for a name that there is
            return False
        try:
            right = bool(self._context.verify(password, known))
        except (ValueError, TypeError):  # too long, or with a NUL: it is nobody's
            return False
        if right:
            if len(self._accepted) >= _KEPT:
                self._accepted.clear()
            self._accepted[name, mark] = known
        return right

    def _load_again(self) -> None:
        try:
            if _stamp(self.path) == self._stamp:
                return
            self._load()
        except (OSError, WatchmanError) as error:
            if self._hashes:
                log.error("Nobody is let in: %s", error)
            self._stamp, self._hashes = (), {}  # read it again, even if it comes back as it was

    def _load(self) -> None:
        try:
            stamp = _stamp(self.path)
            with open(self.path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
            raise WatchmanError(
                f"--auth: {printable(self.path)} cannot be read: {why}; make it with 'htpasswd -B "
                "-c FILE NAME'"
            ) from error
        found = dict(filter(None, (self._pair(n, line) for n, line in enumerate(lines, 1))))
        if not found:
            raise WatchmanError(
                f"--auth: {printable(self.path)} names nobody: add somebody with 'htpasswd -B "
                "FILE NAME'"
            )
        self._stamp, self._hashes = stamp, found

    def _pair(self, number: int, line: str) -> tuple[str, str] | None:
        if not line.strip() or line.startswith("#"):
            return None
        name, mark, known = line.partition(":")
        # Never the password itself, which Apache would take on some systems.
        if not mark or not name or self._context.identify(known) is None:
            raise WatchmanError(
                f"--auth: {printable(self.path)}, line {number}: no name with a password in a form "
                "that is taken (bcrypt, apr1, SHA-512 or SHA-256 crypt, {SHA}); make it with "
                "'htpasswd -B FILE NAME'"
            )
        return name, known


def _context() -> CryptContext:
    from passlib.context import CryptContext

    return CryptContext(list(FORMS))


def _stamp(path: str) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
