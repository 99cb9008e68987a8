"""A companion is removed for what it is, not for its name: its uploader may write the next one."""

from __future__ import annotations

import logging
import os
import uuid

from watchman import limits
from watchman.file_access import GONE_ERRNOS, look, version_of
from watchman.mover.names import temporary_name
from watchman.mover.syscalls import rename_noreplace
from watchman.pipeline.file_check import Companion
from watchman.sources.tree import Node
from watchman.text import printable

log = logging.getLogger("watchman.notify")


def remove(node: Node, companion: Companion) -> None:
    """Remove a companion whose file is recorded, unless it is another one by now."""
    try:
        directory = node.open()
        try:
            seen = look(companion.name, directory)
            if seen.is_unseen:
                raise OSError(seen.error, os.strerror(seen.error))
            if seen.version == companion.version:
                _remove(companion, directory)
        finally:
            os.close(directory)
    except OSError as error:
        if error.errno in GONE_ERRNOS:
            return
        why = f"{error.strerror}; give watchman's user write permission there"
        path = printable(node.join(companion.name))
        log.warning("%s cannot be removed: %s", path, limits.explain(error) or why)


def _remove(companion: Companion, directory: int) -> None:
    # Under a name of ours nobody puts another in its place between a look and the removal.
    aside = temporary_name(f"companion-{uuid.uuid4()}")
    os.rename(companion.name, aside, src_dir_fd=directory, dst_dir_fd=directory)
    status = os.stat(aside, dir_fd=directory, follow_symlinks=False)
    # Its ctime is that of the renaming.
    if not version_of(status).same_content(companion.version):
        try:
            rename_noreplace(aside, directory, companion.name, directory)
        except FileExistsError:
            pass  # a third one is there: what was in between is no use to anybody
        else:
            return
    os.unlink(aside, dir_fd=directory)
