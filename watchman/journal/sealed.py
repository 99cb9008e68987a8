"""Asking a segment of the archive (:mod:`watchman.journal.segment`), through its own indexes.

Each thing that is asked for gives a bounded list of candidates, or says that it has too many to be
of use. What is in all lists is looked at; where there is none, the rows are walked from the newest
on. Too many are more than a sixteenth of the rows, so that a walk meets enough of them. Most
segments are left after three reads, since ``kinds`` and ``extensions`` tell what is in them.

A hash of a name answers for paths as well: its rows are held against directory and name. A pattern
is narrowed by the directories that it begins with, by the hash of its last component where nothing
is wild in that, and by what stands for itself between its wild parts: each piece is in the
directory, of which few are looked at, or in the name.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple
from urllib.parse import quote

from watchman.journal import archive, segment, soundness
from watchman.journal.question import LARGEST, SMALLEST, AskedPath, Question, behind, split
from watchman.journal.record import Record
from watchman.journal.time_limit import FOREVER, TimeLimit
from watchman.model import State, Version

_COLUMNS = """seq, kind, folder, name, task_id, arrived, noted, size, mtime, final_folder,
    final_name, reason"""
_TOGETHER = 200
"""Rows fetched by one statement, SQLite takes 999 parameters in old versions."""
_BLOCKS = 8
"""Blocks that are gone through by one statement at the most."""
_FEW = 200
"""Candidates that are never too many."""
_MOST_FOLDERS = 300
"""Directories that are named in one statement."""
_KEPT = 10_000
"""Directories kept in memory."""
_TEXTS = (str, type(None))


class DeliveryKind(NamedTuple):
    """What many rows have in common, and how many there are."""

    id: int
    state: State
    broker: str | None
    task: str | None
    unit: str
    discarded: bool
    rows: int
    first_arrived_ns: int
    last_arrived_ns: int
    last_noted_ns: int

    def may_be(self, question: Question) -> bool:
        """Whether deliveries of this kind can be meant."""
        return (
            question.may_be_in(self.state)
            and question.discarded in {None, self.discarded}
            and question.broker in {None, self.broker}
            and question.task in {None, self.task}
            and question.since_ns <= self.last_arrived_ns
            and self.first_arrived_ns <= question.until_ns
        )


class Condition:
    """A part of a WHERE clause, with its parameters."""

    def __init__(self, text: str, *parameters: object) -> None:
        self.text = text
        self.parameters = parameters

    @classmethod
    def any(cls, parts: Sequence[Condition]) -> Condition:
        """Return what holds where one of these does."""
        return cls._joined(" OR ", parts) if parts else cls("0")

    @classmethod
    def all(cls, parts: Sequence[Condition]) -> Condition:
        """Return what holds where all of these do."""
        return cls._joined(" AND ", parts) if parts else cls("1")

    @classmethod
    def _joined(cls, word: str, parts: Sequence[Condition]) -> Condition:
        text = word.join(part.text for part in parts)
        return cls(f"({text})", *(value for part in parts for value in part.parameters))


_Range = tuple[int, int]
"""Numbers of directories, the second one not included."""


class Segment:
    """One file, opened for reading. Nobody ever writes to it, so no lock is taken.

    Every method raises sqlite3.Error where it is damaged. Raises that and OSError.
    """

    def __init__(self, path: str, limit: TimeLimit = FOREVER) -> None:
        os.stat(path)  # SQLite has one word for all that keeps it from opening a file
        self._connection = sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?mode=ro&immutable=1", uri=True, isolation_level=None
        )
        self._paths: dict[int, bytes] = {}
        self._limit = limit
        limit.hold(self._connection)
        try:
            with soundness.understanding("what it says of itself"):
                self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version != segment.FORMAT:
            raise soundness.Unsound(f"it has format {version}, not {segment.FORMAT}")
        row = self._connection.execute("SELECT * FROM whole").fetchone()
        self.rows, self._folders, self._base, self.last_noted_ns = map(_whole, row)
        self.kinds = list(map(_kind, self._connection.execute("SELECT * FROM kinds")))
        self._kind_of = {kind.id: kind for kind in self.kinds}
        self._connection.execute("PRAGMA cache_size = -500")  # there may be many open at once
        self._most = max(_FEW, self.rows // segment.RARE)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def find(
        self, question: Question, give_up: Callable[[], bool] = lambda: False
    ) -> Iterator[Record]:
        """Return the deliveries that are meant, the newest first, read as they are taken.

        ``give_up()`` is asked now and then: whether to end before that.
        """
        kinds = [kind for kind in self.kinds if kind.may_be(question)]
        if not kinds:
            return
        where = Condition.all(self._conditions(question, kinds))
        for part in self._parts(question, self._candidates(question, kinds)):
            self._limit.check()
            if give_up():
                return
            for row in self._select(Condition.all([part, where])):
                with soundness.understanding("a delivery"):
                    paths = self._paths_of(row)
                    meant = not question.has_patterns or question.means_path(*paths)
                    record = self._record(row, *paths) if meant else None
                if record is not None:
                    yield record

    def _select(self, where: Condition) -> list[tuple[object, ...]]:
        query = f"SELECT {_COLUMNS} FROM deliveries WHERE {where.text} ORDER BY seq DESC"  # noqa: S608 — ours
        return self._connection.execute(query, where.parameters).fetchall()

    def having(self, seqs: Collection[int]) -> Mapping[int, tuple[int, int]]:
        """Return of those of the seqs that are in it (state, noted_ns)."""
        found: dict[int, tuple[int, int]] = {}
        wanted = sorted(seqs)
        for at in range(0, len(wanted), _TOGETHER):
            for row in self._select(_among(wanted[at : at + _TOGETHER])):
                seq, kind, _, _, _, arrived, noted, *_ = row
                with soundness.understanding("a delivery"):
                    noted_ns = segment.wrapped(_whole(noted) + _whole(arrived) + self._base)
                    found[_whole(seq)] = int(self._kind_of[_whole(kind)].state), noted_ns
        return found

    def holding(self, seqs: Collection[int]) -> set[int]:
        """Return those of the seqs that are in it."""
        found: set[int] = set()
        wanted = sorted(seqs)
        for at in range(0, len(wanted), _TOGETHER):
            part = _among(wanted[at : at + _TOGETHER])
            query = f"SELECT seq FROM deliveries WHERE {part.text}"  # noqa: S608 — question marks
            found.update(seq for (seq,) in self._connection.execute(query, part.parameters))
        return found

    def sent_as(self, task_ids: Collection[str]) -> Iterator[Record]:
        """Return the deliveries that tasks with these ids have announced."""
        wanted = {segment.packed(task_id) for task_id in task_ids}
        hashes = sorted(
            {segment.hashed(one if isinstance(one, bytes) else one.encode()) for one in wanted}
        )
        for at in range(0, len(hashes), _TOGETHER):
            part = hashes[at : at + _TOGETHER]
            marks = ",".join("?" * len(part))
            where = f"seq IN (SELECT seq FROM by_id WHERE hash IN ({marks}))"  # noqa: S608 — marks
            for row in self._select(Condition(where, *part)):
                with soundness.understanding("a delivery"):
                    kind, task_id = self._kind_of[_whole(row[1])], row[4]
                    meant = kind.state is State.SENT and task_id in wanted
                    record = self._record(row, *self._paths_of(row)) if meant else None
                if record is not None:
                    yield record

    def _paths_of(self, row: Sequence[object]) -> tuple[bytes, bytes | None]:
        """Return source and final path, None where that is the same."""
        _, _, folder, name, *_, final_folder, final_name, _ = row
        source = self._path(_whole(folder)) + _bytes(name)
        if final_folder is None:
            return source, None
        last = name if final_name is None else final_name
        return source, self._path(_whole(final_folder)) + _bytes(last)

    def _record(self, row: Sequence[object], source: bytes, final: bytes | None) -> Record:
        seq, kind_id, _, _, task_id, arrived, noted, size, mtime, _, _, reason = row
        kind, arrived_ns = self._kind_of[_whole(kind_id)], _whole(arrived) + self._base
        path = os.fsdecode(source)
        return Record(
            _whole(seq),
            str(uuid.UUID(bytes=task_id)) if isinstance(task_id, bytes) else str(task_id),
            path,
            path if final is None else os.fsdecode(final),
            Version(0, 0, _whole(size), segment.wrapped(_whole(mtime) + arrived_ns)),
            arrived_ns,
            kind.broker,
            kind.task,
            kind.unit,
            kind.state,
            segment.wrapped(_whole(noted) + arrived_ns),
            str(reason) if reason else "",
        )

    def _path(self, number: int) -> bytes:
        path = self._paths.get(number)
        if path is None:
            row = self._connection.execute("SELECT path FROM folders WHERE id = ?", (number,))
            with soundness.understanding("a directory"):
                path = _bytes(row.fetchone()[0])
            if len(self._paths) >= _KEPT:
                self._paths.clear()
            self._paths[number] = path
        return path

    # What SQL can tell

    def _conditions(self, question: Question, kinds: Sequence[DeliveryKind]) -> list[Condition]:
        found = []
        if len(kinds) < len(self.kinds):
            found.append(Condition(f"kind IN ({','.join(str(kind.id) for kind in kinds)})"))
        if question.has_time:
            found.append(Condition("arrived BETWEEN ? AND ?", *self._times(question)))
        if question.task_id is not None:
            found.append(Condition("task_id = ?", segment.packed(question.task_id)))
        if question.reason is not None:
            found.append(Condition("instr(lower(reason), ?)", question.reason_part))
        if question.up_to != LARGEST:
            found.append(Condition("seq <= ?", question.up_to))
        if question.asked_directory:
            found.append(Condition.any(self._at(question.asked_directory)))
        if question.asked_paths:
            found.append(Condition.any([c for p in question.asked_paths for c in self._at(p)]))
        return found

    def _times(self, question: Question) -> tuple[int, int]:
        """Return the limits of the time as it is stored."""
        since, until = question.since_ns - self._base, question.until_ns - self._base
        return max(min(since, LARGEST), SMALLEST), max(min(until, LARGEST), SMALLEST)

    def _at(self, asked: AskedPath) -> list[Condition]:
        """Return what holds for a file at that path, in it, or where its pattern may match."""
        name = asked.name
        found = [_within(self._below(asked.below))]
        number = self._number(asked.directory)
        if number is not None:
            found += [
                Condition("(folder = ? AND name = ?)", number, name),
                Condition("(final_folder = ? AND coalesce(final_name, name) = ?)", number, name),
            ]
        if asked.pattern and self._may_match(asked):
            parts = []
            ranges = self._before_wild(asked)
            if (0, self._folders) not in ranges:
                parts.append(Condition.any([_within(one) for one in ranges]))
            if asked.tail is not None:
                parts.append(Condition("(name = ? OR final_name = ?)", asked.tail, asked.tail))
            for run in asked.runs:
                parts += self._with_run(run)
            found.append(Condition.all(parts))
        return found

    @cached_property
    def _extensions(self) -> frozenset[bytes] | None:
        """All that names in it have; None where that is not told, as in files of older versions."""
        query = "SELECT count(*) FROM sqlite_master WHERE name = 'extensions'"
        if not self._connection.execute(query).fetchone()[0]:
            return None
        found = {one for (one,) in self._connection.execute("SELECT extension FROM extensions")}
        return None if None in found else frozenset(found)

    def _may_match(self, asked: AskedPath) -> bool:
        """Whether any name in it can have the extension that a pattern tells."""
        if asked.extension is None or self._extensions is None:
            return True
        return asked.extension in self._extensions

    def _with_run(self, run: bytes) -> list[Condition]:
        query = "SELECT id FROM folders WHERE instr(path, ?) LIMIT ?"
        rows = self._connection.execute(query, (run, _MOST_FOLDERS + 1)).fetchall()
        if len(rows) > _MOST_FOLDERS:
            return []
        numbers = ",".join(str(number) for (number,) in rows)
        # Most have no name of their own at the destination, and its text would cost the most.
        named = "instr(name, ?) OR (final_name IS NOT NULL AND instr(final_name, ?))"
        parts = [Condition(named, run, run)]
        if rows:
            parts.append(Condition(f"folder IN ({numbers}) OR final_folder IN ({numbers})"))
        return [Condition.any(parts)]

    def _before_wild(self, asked: AskedPath) -> list[_Range]:
        """Return the directories of all paths that begin as those that a pattern matches."""
        found = [self._below(asked.prefix)]
        number = self._number(split(asked.prefix)[0])
        return found if number is None else [*found, (number, number + 1)]

    def _below(self, prefix: bytes) -> _Range:
        """Return the directories whose paths begin like this; with a slash, the one itself too."""
        end = behind(prefix)
        return self._position(prefix), self._folders if end is None else self._position(end)

    def _number(self, directory: bytes) -> int | None:
        number = self._position(directory)
        return number if number < self._folders and self._path(number) == directory else None

    def _position(self, path: bytes) -> int:
        """Return the number of the first directory whose path is not before this one."""
        low, high = 0, self._folders
        while low < high:
            middle = (low + high) // 2
            if self._path(middle) < path:
                low = middle + 1
            else:
                high = middle
        return low

    # Where to look

    def _parts(self, question: Question, candidates: set[int] | None) -> Iterator[Condition]:
        """Return what is to be looked at, the newest first, as conditions on the seq."""
        cursor = self._connection.execute(
            "SELECT first, last FROM blocks WHERE earliest <= ? AND latest >= ? AND first <= ? "
            "ORDER BY first DESC",
            (*self._times(question)[::-1], question.up_to),
        )
        blocks: Iterable[tuple[int, int]] = cursor
        if candidates is not None:
            # A short time may hold fewer still.
            few = len(candidates) // segment.BLOCK if question.has_time else 0
            short = cursor.fetchmany(few + 1) if few else []
            if not few or len(short) > few:
                seqs = sorted((n for n in candidates if n <= question.up_to), reverse=True)
                for at in range(0, len(seqs), _TOGETHER):
                    yield _among(seqs[at : at + _TOGETHER])
                return
            blocks = short
        # The first answer soon, and no query for each few rows where there is none.
        left, together = iter(blocks), 1
        while some := list(itertools.islice(left, together)):
            yield Condition("seq BETWEEN ? AND ?", some[-1][0], some[0][1])
            together = min(2 * together, _BLOCKS)

    def _candidates(self, question: Question, kinds: Sequence[DeliveryKind]) -> set[int] | None:
        """Return seqs among which all are that are meant; None where they are too many to tell."""
        found: list[set[int]] = [] if question.seqs is None else [set(question.seqs)]
        if question.task_id is not None:
            task_id = segment.packed(question.task_id)
            value = task_id if isinstance(task_id, bytes) else task_id.encode()
            found += self._listed("by_id", "hash = ?", segment.hashed(value))
        rare = all(kind.id > 0 for kind in kinds)
        if rare and sum(kind.rows for kind in kinds) <= self._most:
            numbers = ",".join(str(kind.id) for kind in kinds)
            found += self._listed("by_kind", f"kind IN ({numbers})")
        # Very few candidates are looked at, rather than looked for once more.
        if question.asked_paths and not any(len(seqs) <= _FEW for seqs in found):
            found += self._listed_at(question.asked_paths)
        if question.asked_directory and not any(len(seqs) <= _FEW for seqs in found):
            found += self._listed_at([question.asked_directory])
        return set.intersection(*found) if found else None

    def _listed_at(self, asked_paths: Sequence[AskedPath]) -> list[set[int]]:
        union: set[int] = set()
        for asked in asked_paths:
            number = self._number(asked.directory)
            ways = [self._in_folders(self._below(asked.below))]
            if number is not None:
                named = self._listed("by_name", "hash = ?", segment.hashed(asked.name))
                ways.append(named or self._in_folders((number, number + 1)))
            if asked.pattern and self._may_match(asked):
                ways += self._ways_of_pattern(asked)
            if not all(ways) or len(union) > self._most:
                return []
            union.update(*(seqs for (seqs,) in ways))
        return [union]

    def _ways_of_pattern(self, asked: AskedPath) -> list[list[set[int]]]:
        if asked.tail is not None:
            named = self._listed("by_name", "hash = ?", segment.hashed(asked.tail))
            if named:
                return [named]
        return [self._in_folders(one) for one in self._before_wild(asked)]

    def _in_folders(self, numbers: _Range) -> list[set[int]]:
        return self._listed("by_folder", "folder >= ? AND folder < ?", *numbers)

    def _listed(self, index: str, where: str, *parameters: object) -> list[set[int]]:
        """Return one set of seqs out of an index; none where they are too many to be of use."""
        query = f"SELECT seq FROM {index} WHERE {where} LIMIT ?"  # noqa: S608 — our own words
        rows = self._connection.execute(query, (*parameters, self._most + 1)).fetchall()
        with soundness.understanding("an index"):
            return [] if len(rows) > self._most else [{_whole(seq) for (seq,) in rows}]


def segments(state_dir: str) -> Iterator[tuple[archive.SegmentFile, Segment]]:
    """Yield what can be read of the archive, a file at a time, the newest first."""
    with contextlib.suppress(OSError):
        for file in archive.files(state_dir):
            try:
                one = Segment(file.path)
            except (OSError, sqlite3.Error):
                continue
            with contextlib.closing(one):
                yield file, one


def _within(numbers: _Range) -> Condition:
    first, end = numbers
    if first >= end:
        return Condition("0")
    text = "(folder BETWEEN ? AND ? OR final_folder BETWEEN ? AND ?)"
    return Condition(text, first, end - 1, first, end - 1)


def _among(seqs: Sequence[int]) -> Condition:
    return Condition(f"seq IN ({','.join('?' * len(seqs))})", *seqs)


def _whole(value: object) -> int:
    """Return a number out of a row: what a damaged file holds may be of any type."""
    if not isinstance(value, int):
        raise TypeError(f"{value!r} for a number")
    return value


def _kind(row: Sequence[object]) -> DeliveryKind:
    number, state, broker, task, unit, discarded, *counts = row
    if not isinstance(broker, _TEXTS) or not isinstance(task, _TEXTS) or not isinstance(unit, str):
        raise TypeError(f"{(broker, task, unit)!r} for texts")
    in_state = State(_whole(state))
    numbers = map(_whole, counts)
    return DeliveryKind(_whole(number), in_state, broker, task, unit, bool(discarded), *numbers)


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{value!r} for bytes")
    return value
