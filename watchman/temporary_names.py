"""What servers and clients call a file while it is uploaded."""

from __future__ import annotations

FOR_ALL: tuple[str, ...] = (
    ".in.*.",  # ProFTPD's HiddenStores
    ".dst*",  # a directory that ProFTPD is about to rename
    ".pureftpd-upload.*",
    ".~tmp~",  # rsync --delay-updates: a directory
    ".*." + "[A-Za-z0-9]" * 6,  # rsync: .NAME.XXXXXX
)
"""Names of files and directories that are never looked at."""

FOR_FILES: tuple[str, ...] = (
    "*.part",
    "*.filepart",  # WinSCP
)
"""Names of files alone, in IGNORE's default or written there: a directory of such a name is one
like any other."""

DEFAULT_IGNORE = FOR_ALL + FOR_FILES
"""IGNORE, where the configuration does not set it."""
