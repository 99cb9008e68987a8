"""A program: kills a mover at each step that changes anything, and restarts it.

``python -m tests.integration.mover.crashing SCENARIO INBOX-PARENT ROOT-PARENT`` prints one JSON
object: ``steps``, how many instants were tried, and ``problems``, what was wrong after a restart.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.integration.mover.rig import ROUTE, Heard, contents
from tests.waiting import wait_until
from watchman.file_access import version_of
from watchman.model import Delivery, Move, Route, State, Version
from watchman.mover import Mover, copy, copy_tree, syscalls

STEPS = (
    *("mkdir", "link", "unlink", "rename", "rmdir", "symlink"),
    *("fsync", "fdatasync", "copy_file_range", "sendfile", "utime", "fchmod"),
    *("fchown", "ftruncate", "setxattr"),
)
COMPARISONS = ((copy, "same_bytes"), (copy_tree, "same_bytes"))
"""They change nothing, and what they found is what the next steps rely on."""


class FileStore:
    """A store in a file of JSON lines: what was written survives SIGKILL."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, *record: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    def read(self) -> dict[int, Delivery]:
        rows: dict[int, Delivery] = {}
        for line in self.path.read_text().splitlines():
            what, *rest = json.loads(line)
            if what == "row":
                seq, task, source, final, version, kind = rest
                route = Route(*ROUTE[:2])
                rows[seq] = Delivery(
                    seq, task, source, final, Version(*version), 0, route, State.MOVING, kind
                )
            elif what == "redirect":
                rows[rest[0]] = rows[rest[0]]._replace(final=rest[1])
            elif what == "note":
                for seq, state, _ in rest[0]:
                    rows[seq] = rows[seq]._replace(state=State(state))
        return rows

    def all_moving(self) -> list[Delivery]:
        return [row for row in self.read().values() if row.state is State.MOVING]

    def page_moving(self, _move: Move, after: int, limit: int) -> list[Delivery]:
        return [row for row in self.all_moving() if row.seq > after][:limit]

    def moving(self, seq: int) -> Delivery | None:
        return next((row for row in self.all_moving() if row.seq == seq), None)

    def page_strays(self, _moves: Iterable[Move], _limit: int) -> list[Delivery]:
        return []

    def assign(self, seqs: Sequence[int], move: Move) -> None:
        raise AssertionError(f"{seqs} are of another entry than {move}")

    def last_seq(self) -> int:
        return max(self.read(), default=0)

    def redirect(self, seq: int, final: str) -> None:
        self.write("redirect", seq, final)

    def announced_later(self, _delivery: Delivery) -> bool:
        return False

    def shut_out(self, thread: threading.Thread) -> None:
        raise AssertionError(f"{thread} hangs")

    def unlearn(self, seqs: Sequence[int]) -> None:
        self.write("unlearn", *seqs)

    def unlearned(self) -> set[int]:
        records = (json.loads(line) for line in self.path.read_text().splitlines())
        return {seq for what, *seqs in records if what == "unlearn" for seq in seqs}

    def note(
        self, changes: Sequence[tuple[int, State, str]], moved: Sequence[Delivery] = ()
    ) -> None:
        self.write("note", [*changes, *((row.seq, row.once_moved, "") for row in moved)])


class Failpoints:
    """Counts an instant before and one after each step; SIGKILL at number ``at``."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def instant(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.instant()
            try:
                return function(*args, **kwargs)
            finally:
                self.instant()

        return wrapped

    def install(self, scenario: str, store: FileStore, inbox: Path) -> None:
        if "renamed" in scenario:
            os.fdatasync = renaming_once(os.fdatasync, inbox)
            os.fsync = renaming_once(os.fsync, inbox)
        for name in STEPS:
            setattr(os, name, self.around(getattr(os, name)))
        for module, name in COMPARISONS:
            setattr(module, name, self.around(getattr(module, name)))
        real_open = os.open

        def opening(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            if flags & os.O_CREAT and str(path).startswith(".watchman"):
                return int(self.around(real_open)(path, flags, *args, **kwargs))
            return real_open(path, flags, *args, **kwargs)

        os.open = opening
        call = syscalls._renameat2()
        renaming = None if "norename" in scenario else self.around(call) if call else None
        # By setattr, here and below: to a type checker these are no variables.
        setattr(syscalls, "_renameat2", lambda: renaming)  # noqa: B010 — see above
        if "nolink" in scenario:
            os.link = refuse
        setattr(store, "redirect", self.around(store.redirect))  # noqa: B010 — see above
        setattr(store, "unlearn", self.around(store.unlearn))  # noqa: B010 — see above
        setattr(store, "note", self.around(store.note))  # noqa: B010 — see above


def renaming_once(function: Callable[..., Any], inbox: Path) -> Callable[..., Any]:
    """The uploader renames the directory away and back while a file is being copied.

    After a restart this may be the other file, and the copy of the first be noted meanwhile.
    """
    rename, todo = os.rename, [True]

    def wrapped(*args: Any) -> Any:
        if todo and threading.current_thread().name == "mover-copy":
            todo.clear()
            rename(inbox / "a", inbox / "z")
            rename(inbox / "z", inbox / "a")
        return function(*args)

    return wrapped


def refuse(*_: Any, **__: Any) -> None:
    raise PermissionError(1, "no hard links here")


def record(
    store: FileStore, inbox: Path, root: Path, name: str, kind: str, task: int | None = None
) -> None:
    seq = len(store.read()) + 1 if store.path.exists() else 1
    version = version_of(os.lstat(inbox / name))
    store.write(
        "row", seq, f"task-{task or seq}", str(inbox / name), str(root / name), version, kind
    )


def prepare(scenario: str, inbox: Path, root: Path, store: FileStore) -> dict[str, bytes]:
    """Make files and rows; return what must be at the destination, by the name's beginning."""
    for top in (inbox, root):
        shutil.rmtree(top, ignore_errors=True)
        top.mkdir()
    store.path.unlink(missing_ok=True)
    if "tree" in scenario:
        (inbox / "t/sub").mkdir(parents=True)
        (inbox / "t/one").write_bytes(b"one")
        (inbox / "t/sub/two").write_bytes(b"two")
        (inbox / "t/sub/link").symlink_to("../one")
        names, kind = ["t"], "directories"
    else:
        (inbox / "a/b").mkdir(parents=True)
        (inbox / "a").chmod(0o2750)
        if "sparse" in scenario:
            with (inbox / "a/b/f.csv").open("wb") as file:
                file.seek(1 << 20)
                file.write(b"first")
                file.truncate(3 << 20)
        else:
            (inbox / "a/b/f.csv").write_bytes(b"first")
        (inbox / "g.csv").write_bytes(b"second")
        names, kind = ["a/b/f.csv", "g.csv"], "files"
    for name in names:
        record(store, inbox, root, name, kind)
    if "twice" in scenario:
        record(store, inbox, root, names[0], kind, task=1)
    wanted = contents(inbox)
    if "vanished" in scenario:
        # Killed in the middle of a copy; then the uploader took the file away.
        del wanted["g.csv"]
        (inbox / "g.csv").unlink()
        (root / ".watchman-task-2.tmp").write_bytes(b"sec")
        (root / ".watchman-task-2.mark.tmp").write_bytes(b"1\n")
    if "taken" in scenario:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            # The same size and mtime as the upload: only the records tell them apart.
            (root / name).write_bytes(b"FIRST" if "f.csv" in name else b"SECOND")
            shutil.copystat(inbox / name, root / name)
    return wanted


def run(scenario: str, inbox: Path, root: Path, store: FileStore, at: int) -> bool:
    """Run a mover in a child until all is moved or it is killed; say whether it was killed."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, status
            return True
        assert os.WEXITSTATUS(status) == 0, f"the mover failed in {scenario} at {at}"
        return False
    code = 1
    try:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        Failpoints(at).install(scenario, store, inbox)
        mover = Mover(
            store,
            [(str(inbox), str(root))],
            Heard(inbox),
            copies=3 if "twice" in scenario else 1,
        )
        mover.start()
        wait_until(lambda: mover.error or not store.all_moving(), 20, interval=0.001)
        mover.stop(5)
        code = 1 if mover.error else 0
    finally:
        os._exit(code)


def check(
    scenario: str, wanted: dict[str, bytes], inbox: Path, root: Path, store: FileStore
) -> list[str]:
    problems = []
    vanished = "g.csv" if "vanished" in scenario else ""
    found = contents(root)
    rest = dict(found)
    for row in store.read().values():
        if row.seq > 2 and row.state in (State.READY, State.VANISHED):
            continue  # the same identity once more: at most one of both is moved
        if row.state is not State.READY and Path(row.source).name != vanished:
            problems.append(f"{row.source} is {row.state.name}")
        name, final = os.path.relpath(row.source, inbox), os.path.relpath(row.final, root)
        for path, content in wanted.items():
            if path == name or path.startswith(name + "/"):
                there = final + path[len(name) :]
                if rest.pop(there, None) != content:
                    problems.append(f"{there} is not {content!r}")
    foreign = {b"FIRST", b"SECOND"}
    if any(content not in foreign for content in rest.values()):
        problems.append(f"too much at the destination: {rest}")
    left = contents(inbox)
    if left:
        problems.append(f"left at the source: {left}")
    unlearned = store.unlearned()
    if unlearned and "renamed" not in scenario:
        problems.append(f"not known any more, and no directory was away: {unlearned}")
    hidden = [str(p) for top in (inbox, root) for p in top.rglob(".watchman*")]
    return problems + hidden


def main(scenario: str, inbox: Path, root: Path) -> None:
    store = FileStore(root.parent / "store")
    problems: list[str] = []
    at, killed = 0, True
    while killed and len(problems) < 20:
        at += 1
        wanted = prepare(scenario, inbox, root, store)
        foreign = {name: c for name, c in contents(root).items() if ".watchman" not in name}
        killed = run(scenario, inbox, root, store, at)
        again = 0
        if killed and at % 3 == 0:
            again = 1 + at * 7 % 13
            run(scenario, inbox, root, store, again)
        run(scenario, inbox, root, store, 0)
        found = contents(root)
        faults = check(scenario, wanted, inbox, root, store)
        if any(found.get(name) != content for name, content in foreign.items()):
            faults.append("an existing file was overwritten")
        problems += [f"killed at {at}, {again}: {fault}" for fault in faults]
    print(json.dumps({"steps": at - 1, "problems": problems}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]) / "in", Path(sys.argv[3]) / "out")
