"""Which file a line is about: paths inside chroots, homes of virtual users, replaced characters."""

from __future__ import annotations

import os
from collections.abc import Mapping

from watchman.transfer_logs.line import LogLine

USER = "{user}"
"""Stands for the name of the user in the directory that a prefix leads to."""

# xferlog(5) replaces blanks and control characters by "_", vsftpd by "?" what it does not print.
_FOLDED = bytes(
    byte if 0x20 < byte < 0x7F and byte != ord("?") else ord("_") for byte in range(256)
)


def fold(path: bytes) -> bytes:
    """Return a path as it is compared: with ``_`` for all that some server replaces."""
    return path.translate(_FOLDED)


class Prefixes:
    """Where the paths of a log lead: ``{'/': '/srv/ftp/{user}'}``; the longest prefix wins.

    Without any, paths are taken as they are.
    """

    def __init__(self, prefixes: Mapping[str, str]) -> None:
        ordered = sorted(prefixes.items(), key=lambda pair: -len(pair[0]))
        self._prefixes = [(_directory(given), real) for given, real in ordered]

    def path(self, line: LogLine) -> bytes | None:
        """Return where the file of a line is; None where it is in none of the directories."""
        path = os.path.normpath(line.path)
        if not path.startswith(b"/"):
            return None
        path = b"/" + path.lstrip(b"/")
        if not self._prefixes:
            return path
        for given, real in self._prefixes:
            if path.startswith(given):
                if USER in real and not _is_name(line.user):
                    return None
                return _directory(real.replace(USER, line.user)) + path[len(given) :]
        return None

    def may_lead_to(self, path: str) -> bool:
        """Say whether the log may tell of a file at a path."""
        if not self._prefixes:
            return True
        # What stands before a name may be its beginning: /srv/ftp/up-{user}.
        ends = (real.partition(USER) for _, real in self._prefixes)
        return path.startswith(
            tuple(one if user else f"{one.rstrip('/')}/" for one, user, _ in ends)
        )


def _directory(path: str) -> bytes:
    return os.fsencode(path).rstrip(b"/") + b"/"


def _is_name(user: str) -> bool:
    """Say whether it can be the name of a directory: an anonymous user chooses it."""
    return bool(user) and user not in {".", ".."} and not {"/", "\0"}.intersection(user)
