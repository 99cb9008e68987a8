"""Moving files to their destinations: the only part of watchman that renames user files.

A delivery in state MOVING is at its source, at its final path, or half-copied beside it. Within
one file system the way is

==========================================  ====================================================
a crash after                               what the next run finds, and does
==========================================  ====================================================
the row was recorded                        source as recorded: rename it
a redirect was recorded                     the same, to the new name; the taken one is untouched
the rename (or link + unlink)               source gone, the recorded inode, size and mtime at the
                                            final path: fsync, note
the link of link + unlink (NFS)             one inode under both names: unlink the source, note
the fsync of the directories                the same as after the rename
the note                                    nothing: the row is READY, MOVED, VANISHED or FAILED
==========================================  ====================================================

The way to another file system, and its table, is in :mod:`watchman.mover.transfer`. What stands in
the way of one file, of a directory, or of all is told apart in :mod:`watchman.mover.obstacles`.

The modules, in the order in which to read them: ``mover`` has a ``destination`` for each MOVES
entry, with a thread of its own; ``move_batch`` is what a round of that has done until it is noted,
``deferred`` what cannot be moved now, ``obstacles`` why not. An attempt is a ``rename`` (under a
``lease``) or a ``transfer`` (``copy``, ``copy_tree``, ``copy_pool``, ``copy_marker``); ``recovery``
finds out how far an earlier one got, and ``open_directories`` has the way there.

Two are apart on purpose. In ``move_batch`` it is the order of fsyncs, removals and the note that
must be right, in ``destination`` what is tried when; and ``claims`` outlives the movers, as whose a
file is must be known for the process.
"""

from watchman.mover.destination_status import DestinationStatus, RunningCopy
from watchman.mover.mover import Mover
from watchman.mover.names import OWN

__all__ = ["OWN", "DestinationStatus", "Mover", "RunningCopy"]
