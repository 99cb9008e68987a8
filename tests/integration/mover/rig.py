"""A mover with a store in memory, and the files around it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import wait_until
from watchman.file_access import version_of
from watchman.model import Delivery, Move, Route, State, Version, Watch
from watchman.mover import DestinationStatus, Mover
from watchman.mover.destination import Destination
from watchman.mover.rename_process import RenameProcess

ROUTE = Route("broker", "tasks.handle")


class MemoryStore:
    """Rows in a dict; what the journal's table would hold."""

    def __init__(self) -> None:
        self.rows: dict[int, Delivery] = {}
        self.moves: dict[int, Move] = {}
        self.reasons: dict[int, str] = {}
        self.redirects: list[tuple[int, str]] = []
        self.pages: list[int] = []
        self.unlearned: list[int] = []
        self.most_returned = 0
        self.shut: list[threading.Thread] = []
        self._lock = threading.Lock()

    def add(self, row: Delivery) -> None:
        with self._lock:
            self.rows[row.seq] = row

    def page_moving(self, move: Move, after: int, limit: int) -> list[Delivery]:
        with self._lock:
            self.pages.append(after)
            return self._page(after, limit, lambda row: self.moves.get(row.seq) == move)

    def page_strays(self, moves: Iterable[Move], limit: int) -> list[Delivery]:
        current = set(moves)
        with self._lock:
            return self._page(0, limit, lambda row: self.moves.get(row.seq) not in current)

    def _page(
        self, after: int, limit: int, is_wanted: Callable[[Delivery], bool]
    ) -> list[Delivery]:
        rows = []
        for seq, row in self.rows.items():  # added in the order of seq
            if seq > after and row.state is State.MOVING and is_wanted(row):
                rows.append(row)
                if len(rows) == limit:
                    break
        return rows

    def moving(self, seq: int) -> Delivery | None:
        with self._lock:
            row = self.rows.get(seq)
        return row if row is not None and row.state is State.MOVING else None

    def assign(self, seqs: Sequence[int], move: Move) -> None:
        with self._lock:
            self.moves |= dict.fromkeys(seqs, move)

    def last_seq(self) -> int:
        return max(self.rows, default=0)

    def redirect(self, seq: int, final: str) -> None:
        with self._lock:
            self.redirects.append((seq, final))
            self.rows[seq] = self.rows[seq]._replace(final=final)

    def announced_later(self, delivery: Delivery) -> bool:
        with self._lock:
            newest = [row.seq for row in self.rows.values() if row.source == delivery.source]
        return max(newest) > delivery.seq

    def unlearn(self, seqs: Sequence[int]) -> None:
        with self._lock:
            self.unlearned += seqs

    def shut_out(self, thread: threading.Thread) -> None:
        self.shut.append(thread)

    def note(
        self, changes: Sequence[tuple[int, State, str]], moved: Sequence[Delivery] = ()
    ) -> None:
        with self._lock:
            for seq, state, reason in (*changes, *((row.seq, row.once_moved, "") for row in moved)):
                assert self.rows[seq].state is State.MOVING, "noted twice"
                self.rows[seq] = self.rows[seq]._replace(state=state)
                self.reasons[seq] = reason


class Heard:
    """A listener that keeps what it was told; ``inbox`` is the only watch."""

    def __init__(self, inbox: Path) -> None:
        self.watch = Watch(str(inbox))
        self.rows: list[Delivery] = []
        self.ends: list[tuple[Delivery, State]] = []
        self.paths: list[str] = []

    def watch_of(self, _path: str) -> Watch:
        return self.watch

    def moved(self, rows: list[Delivery]) -> None:
        self.rows += rows

    def ended(self, rows: list[tuple[Delivery, State]]) -> None:
        self.ends += rows

    def changed(self, paths: list[str]) -> None:
        self.paths += paths


class Rig:
    """``inbox`` is the watch and the MOVES source, ``root`` the destination root."""

    def __init__(self, inbox: Path, root: Path, process: RenameProcess | None = None) -> None:
        self.process = process
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        self.inbox = inbox
        self.root = root
        self.store = MemoryStore()
        self.heard = Heard(inbox)
        self.mover = self.new_mover()

    def new_mover(
        self,
        roots: Sequence[tuple[str, str]] | None = None,
        copies: int = 4,
    ) -> Mover:
        self.mover = Mover(
            self.store,
            roots or [(str(self.inbox), str(self.root))],
            self.heard,
            copies=copies,
            rename_process=self.process,
        )
        return self.mover

    def upload(self, name: str, content: bytes = b"content") -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def record(
        self,
        name: str,
        route: Route | None = ROUTE,
        kind: str = "files",
        *,
        final: str | None = None,
        root: Path | None = None,
    ) -> int:
        """Record what is at ``name`` now, as the pipeline would; return its seq."""
        version = version_of(os.lstat(self.inbox / name))
        return self.record_version(name, version, route, kind, final=final, root=root)

    def record_version(
        self,
        name: str,
        version: Version,
        route: Route | None = ROUTE,
        kind: str = "files",
        *,
        final: str | None = None,
        root: Path | None = None,
    ) -> int:
        source = self.inbox / name
        seq = len(self.store.rows) + 1
        path = final or str((root or self.root) / name)
        for move in self.mover.moves:
            if path.startswith(f"{move.root}/"):
                self.store.moves[seq] = move
        self.store.add(
            Delivery(
                seq,
                str(uuid.uuid4()),
                str(source),
                path,
                version,
                0,
                route,
                State.MOVING,
                kind,
            )
        )
        return seq

    def put(self, name: str, content: bytes = b"content", route: Route | None = ROUTE) -> int:
        self.upload(name, content)
        return self.record(name, route)

    def row(self, seq: int) -> Delivery:
        return self.store.rows[seq]

    def state(self, seq: int) -> State:
        return self.store.rows[seq].state

    def wake(self) -> None:
        for move in self.mover.moves:
            self.mover.wake(move)

    @property
    def destination(self) -> Destination:
        return next(iter(self.mover._destinations.values()))

    def status(self) -> DestinationStatus:
        return self.mover.status()[0]

    def wait(self, seq: int, state: State, timeout: float = 10.0) -> Delivery:
        def reached() -> bool:
            assert self.mover.error is None, self.mover.error
            return self.state(seq) is state

        wait_until(reached, timeout, what=f"delivery {seq} to be {state.name}")
        return self.row(seq)

    def wait_end(self, seq: int) -> None:
        wait_until(lambda: self.state(seq) is not State.MOVING, what=f"delivery {seq} to end")

    def files(self) -> dict[str, bytes]:
        """Everything below the destination root, hidden files too."""
        return contents(self.root)

    def left(self) -> dict[str, bytes]:
        return contents(self.inbox)

    @contextmanager
    def running(self) -> Iterator[Mover]:
        self.mover.start()
        try:
            yield self.mover
        finally:
            self.mover.stop(10.0)
            assert self.mover.error is None, self.mover.error


def contents(top: Path) -> dict[str, bytes]:
    found = {}
    for directory, _, names in os.walk(top):
        for name in names:
            path = Path(directory) / name
            with contextlib.suppress(FileNotFoundError):  # a mover's own may go meanwhile
                found[str(path.relative_to(top))] = (
                    path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                )
    return found
