"""What is in the way of watchman's own files: settings that name one, places that hold some.

Whoever may upload must not be able to make such a file, nor may one be taken for an upload.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from watchman import mounts
from watchman.config.celerysettings import FILE as CELERY_FILE
from watchman.config.config_file import importable
from watchman.config.overlap import covers
from watchman.config.problems import Problems, show
from watchman.model import Watch

# What is kept in STATE_DIR.
_JOURNAL = "journal.db"
"""With ``journal.db-wal`` and others that begin so."""
_FILES = ("heartbeat", "lock", "socket", "status.json")
_DIRECTORIES = ("broker", "history")


def check(found: Mapping[str, Any], watched: Sequence[Watch], problems: Problems) -> None:
    """Note what is wrong in the fields of a Config; ``watched`` have no processors."""
    _check_files(found, problems)
    places = list(_places(found))
    roots = [(f"MOVES[{show(source)}]", root) for source, root in found["moves"]]
    if found["quarantine"]:
        roots.append(("QUARANTINE", found["quarantine"]))
    for label, root in roots:
        held = next((place for place in places if _holds(root, place[1])), None)
        if held is not None:
            problems.add(
                label,
                f"{root} holds {held[1]}, {held[0]}, where an upload would become a file of "
                "watchman's own",
                "choose another directory",
            )
    for watch in watched:
        if not watch.pattern and covers(watch, os.path.dirname(found["path"])):
            problems.add(
                "WATCHES",
                f"the configuration {found['path']} lies in the watched directory {watch.path}, "
                "and would be taken for an upload",
                "put it outside of it",
            )


def _check_files(found: Mapping[str, Any], problems: Problems) -> None:
    """Note settings that name a file which something else of watchman's is written to."""
    beside = os.path.dirname(found["path"])
    configuration = (found["path"], os.path.join(beside, CELERY_FILE))
    output = [os.path.join(found["log_dir"], name) for name in ("watchman.out", "watchman.err")]
    output += [found.get("out_file", ""), found.get("err_file", "")]
    for setting, field in (
        ("PID_FILE", "pid_file"),
        ("INOTIFIER_DAEMON_STDOUT", "out_file"),
        ("INOTIFIER_DAEMON_STDERR", "err_file"),
    ):
        path = found.get(field, "")
        if path in configuration:
            whose = "the configuration"
        elif found["state_dir"] and _is_in_use(path, found["state_dir"]):
            whose = "a file of watchman's own in STATE_DIR"
        elif path and field == "pid_file" and path in output:
            whose = "where the daemon's output goes"
        else:
            continue
        problems.add(setting, f"{path} is {whose}", "choose another file")


def _is_in_use(path: str, state_dir: str) -> bool:
    """Say whether a path in STATE_DIR is that of something which is kept there."""
    if not mounts.leads_to(state_dir, path):
        return False
    name = path[len(state_dir.rstrip("/")) + 1 :].partition("/")[0]
    return name.startswith(_JOURNAL) or name in _FILES or name in _DIRECTORIES


def _places(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the directories in which nobody else may make anything: what they are, and the path."""
    state = found["state_dir"]
    if state:
        yield "STATE_DIR", state
        for name in _DIRECTORIES:
            yield "a directory of watchman's own in STATE_DIR", os.path.join(state, name)
    for directory in importable(os.path.dirname(found["path"])):
        yield "from which the configuration is read", directory


def _holds(root: str, place: str) -> bool:
    return mounts.leads_to(mounts.real_path(root), mounts.real_path(place))
