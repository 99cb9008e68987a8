"""A source that is started with a prescan, in a process without threads: run by ``test_prescan``.

Prints what it watches and what the kernel does, as JSON. ``deed`` is what happens meanwhile:
``nothing``; ``kill`` or ``stop`` its process, when something is assigned; ``churn:SEED``, the
tree changes at each turn; ``threads``, there is another thread at the start; ``reaped``,
the kernel waits for children.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import threading
from pathlib import Path

from tests.listeners import UnwatchedHeard
from watchman.model import Watch
from watchman.router import Router
from watchman.sources import prescan
from watchman.sources.at_start import Starts
from watchman.sources.source import Source
from watchman.sources.tree import Reason


def churn(root: Path, chance: random.Random, turn: int) -> None:
    """Change the tree somewhere: make, rename, move or remove a directory."""
    directories = [path for path, _, _ in os.walk(root)]
    one, other = (Path(chance.choice(directories)) for _ in range(2))
    new = other / f"new{turn}"
    what = chance.randrange(4)
    if what == 0:
        (new / "inside").mkdir(parents=True)
    elif one != root and what == 1:
        shutil.rmtree(one)
    elif one != root and what == 2:
        one.rename(one.with_name(f"renamed{turn}"))
    elif one != root and not other.is_relative_to(one):
        one.rename(new)


def kernels_inodes(descriptor: int) -> dict[int, int]:
    """Return the inode of each watch, as the kernel tells them (proc(5), fdinfo)."""
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    found = re.findall(r"^inotify wd:(\w+) ino:(\w+) ", text, re.MULTILINE)
    return {int(wd, 16): int(inode, 16) for wd, inode in found}


class Known:
    """A journal that knows of one directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def knows(self, directory: str) -> bool:
        return directory == self.directory


def main(root: str, deed: str, known: str) -> None:
    """Walk, let things happen, and print."""
    if deed == "reaped":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as some programs start others
    if deed == "threads":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    if deed == "stop":
        prescan._PATIENCE = 0.2
    watch = Watch(root, rec=True, auto_add=True)
    source = Source([watch], Router([], ignore=[".ignored*"]), UnwatchedHeard(), Starts())
    source.start_prescan(Known(known))
    ahead = source._walker.prescan
    sent = ahead is not None
    source.start(lambda _: Reason.START)
    chance = random.Random(deed)
    entries: set[str] = set()
    visited: list[str] = []
    turns = 0
    while turns < 100 or source.scanning:
        turns += 1
        for listing in source.listings():
            visited.append(listing.path)
            entries |= {f"{listing.path}/{entry.name}" for entry in listing.entries}
            if ahead is not None and ahead.busy:
                helper = ahead._process._helper
                if deed in {"kill", "stop"}:
                    os.kill(helper._pid, getattr(signal, f"SIG{deed.upper()}"))
                elif deed == "nothing":
                    helper.answered(30)  # however slow it is, the walk is not faster
            if deed.startswith("churn") and turns < 100:
                churn(Path(root), chance, turns)
                break
        source.wait(0)
    # The last events of a churn may ask for another walk.
    while source.parsed < source.mark() or source.scanning:
        source.wait(0.1)
        list(source.listings())
    nodes = {wd: node.path for wd, node in source._watch_table.nodes.items()}
    print(
        json.dumps(
            {
                "sent": sent,
                "visited": visited,
                "entries": sorted(entries),
                "watched": {path: wd for wd, path in nodes.items()},
                "paths": len(nodes),
                "inodes": kernels_inodes(source._instance.descriptor),
                "children": len(children()),
            }
        )
    )
    source.close()


def children() -> list[str]:
    """Return the processes that we are the parent of, zombies included."""
    pid = os.getpid()
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


if __name__ == "__main__":
    main(*sys.argv[1:])
