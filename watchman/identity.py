"""What makes two arrivals at a path the same? Pure: what was seen, and how, is passed in.

==================  =========  ===========  ============  ===============  ============
what made us look   nothing    all equal    only the      mtime too, with  inode or size
                    known                   ctime differs the same size
==================  =========  ===========  ============  ===============  ============
a scan              new        same         touched       new              new
an attribute event  new        same         touched       touched          new
came with its       new        same         new           new              new
directory
written or moved    new        same         new           new              new
the name had gone   new        new          new           new              new
==================  =========  ===========  ============  ===============  ============

An event that proves a write, a rename or a link is evidence: then the ctime, which no uploader can
set, tells two uploads of one size and mtime apart. That a file was only opened for writing changes
no ctime, nor does the rename of a directory above it. A scan has no evidence: modes, owners and
links change a ctime too, and a ``chmod -R`` while nobody watched must not announce everything
again. An attribute event says that nothing was written, as a write would have its own.

Where a file system numbers its inodes anew with each mount, size and mtime alone are compared
after a scan; where its ctime proves nothing either (FUSE, CIFS), an event at the name is believed.
"""

from __future__ import annotations

import enum

from watchman import mounts
from watchman.model import Version


class Evidence(enum.IntEnum):
    """What made us look at a path: the higher, the more is proven."""

    SCAN = 0
    """Nothing happened that we know of."""
    ATTRIB = 1
    """Times, mode, owner or links changed, and nothing was written."""
    CAME = 2
    """A directory that was made, moved or renamed a moment ago holds it."""
    WRITTEN = 3
    """It was closed after writing, or it was renamed or linked to this name."""
    REPLACED = 4
    """The same, and what had the name before was removed or renamed."""


class Comparison(enum.Enum):
    """What a version that was seen is to the one that is known at its path."""

    SAME = "same"
    TOUCHED = "touched"
    """The content that was announced, with another ctime or mtime, to be remembered."""
    NEW = "new"


def compare(known: Version | None, seen: Version, evidence: Evidence) -> Comparison:
    """Say what ``seen`` is to what is ``known`` of its path, by the table above."""
    if known is None or evidence is Evidence.REPLACED:
        return Comparison.NEW
    if known[1:] == seen[1:]:
        untold = evidence is Evidence.WRITTEN and not mounts.stability(seen.device).ctime_tells
        return Comparison.NEW if untold else Comparison.SAME
    if evidence > Evidence.ATTRIB:
        return Comparison.NEW
    if is_same_content(known, seen):
        # A ctime of 0 was recorded before ctimes were: only an event can tell more.
        return Comparison.TOUCHED
    same_file = (known.inode, known.size) == (seen.inode, seen.size)
    return Comparison.TOUCHED if same_file and evidence is Evidence.ATTRIB else Comparison.NEW


def is_same_content(recorded: Version, found: Version) -> bool:
    """Compare inode, size and mtime; size and mtime where inode numbers do not last."""
    if recorded.same_content(found):
        return True
    return recorded[2:4] == found[2:4] and not mounts.stability(found.device).inodes_last


class Doubt(enum.Enum):
    """Whether a file with the recorded size and mtime was written since it was recorded."""

    NONE = "none"
    """It was not."""
    SOME = "some"
    """It was if a newer arrival at its path is recorded."""
    GRAVE = "grave"
    """The same; if none is, an event that is still unread may prove one: to be looked at again."""


def doubt(recorded: Version, found: Version) -> Doubt:
    """Say whether ``found``, which has the same content, may have been written since."""
    if not mounts.stability(found.device).ctime_tells:
        return Doubt.SOME
    # 0: recorded before ctimes were, or a directory.
    return Doubt.GRAVE if recorded.changed_ns not in (0, found.changed_ns) else Doubt.NONE


def is_same(one: Version, other: Version) -> bool:
    """Say whether two looks have seen the same; where ctimes tell nothing, size and mtime do."""
    if one[1:] == other[1:]:
        return True
    return is_same_content(one, other) and not mounts.stability(other.device).ctime_tells
