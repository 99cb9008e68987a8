"""What nobody looks at by default (IGNORE): the names of uploads that are not over."""

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
    "*.part",  # Firefox, Nextcloud, ownCloud
    "*.partial",  # rclone, Internet Explorer
    "*.filepart",  # WinSCP
    "*.tmp",  # by custom
    ".in.*",  # lftp with xfer:use-temp-file
    ".sftpgo-upload.*",
    ".syncthing.*.tmp",
    "~syncthing~*.tmp",  # the same, of Windows
    ".*.~[0-9a-f]*",  # Nextcloud's client
    ".mutagen-temporary-*",
    ".azdownload-*",  # AzCopy
    "*.part.minio",
    "*_.gstmp",  # gsutil
    "*.crdownload",  # Chrome and Edge
    "*.opdownload",  # Opera
    "*.!qb",  # qBittorrent
    "*.!ut",  # uTorrent
)
"""Names of files alone, in IGNORE's default or written there; upper and lower case do not matter.

A directory of such a name is one like any other: what is uploaded into it is seen, and in a watch
for whole directories it is unfinished, which is said.
"""

DEFAULT_IGNORE = FOR_ALL + FOR_FILES
"""IGNORE, where the configuration does not set it."""
