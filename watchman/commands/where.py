"""``where``: what became of a file, from its arrival to now, and what it waits for."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from watchman import timelimit
from watchman.commands import printing
from watchman.commands.common import absolute, as_json_option, common, load, load_own, warn
from watchman.commands.fitting import unbroken
from watchman.commands.history import WHY_NOTED
from watchman.commands.narrowing import task_id_of
from watchman.commands.present_words import FoundFile, now_json, now_words
from watchman.errors import WatchmanError
from watchman.model import MOST_BATCHED, Config, State
from watchman.mounts import MountTable
from watchman.router import Router
from watchman.text import counted, iso, moment, printable

if TYPE_CHECKING:
    from watchman.checks.asked import Asked
    from watchman.commands.timeline import DaemonNow, Event
    from watchman.journal.journal_reader import JournalReader
    from watchman.journal.record import Record

SHOWN = 5
"""Files of one name that are shown unless another number is asked for."""
_DELIVERIES = 20
"""Deliveries of one file that are shown, the newest."""
_LOOKED_AT = 200
"""Deliveries read at once, among which the files of one name are found."""
_DIRECTORIES = 20_000
"""Directories in which a name is looked for."""
_PARTIAL = 20
"""Files of one name that wait for their criteria."""
_ANSWER = 0.3
"""Seconds for which the daemon is waited for; after that what it wrote last counts."""
_WORK, _LOOK = 0.2, 1.0
"""Seconds of work, and by the clock, for which a name is looked for on the disk; or for further
files of that name behind many deliveries of one."""


@click.command(
    short_help="Tell what became of one file, and what it waits for.",
    help=(
        "Tell what became of a file: NAME alone is enough, a path before or after its move, a "
        "pattern or a task id.\n\nOf several files the newest are shown. What is on the disk is "
        "looked at, too."
    ),
)
@common
@as_json_option
@click.option(
    "--limit",
    type=click.IntRange(min=1, max=10_000),
    default=SHOWN,
    metavar="NUMBER",
    help=f"How many files at the most; default: {SHOWN}.",
)
@printing.paged
@click.argument("names", nargs=-1, required=True, metavar="NAME|PATH|TASK-ID...")
@click.pass_context
def where(
    ctx: click.Context,
    /,
    names: Sequence[str],
    limit: int,
    as_json: bool,
    no_pager: bool,
) -> None:
    from watchman.journal.journal_reader import open_reader

    config, missing, texts = _config(), False, []
    is_limited = ctx.get_parameter_source("limit") is not ParameterSource.DEFAULT
    with open_reader(load_own().state_dir) as journal:
        look = _Lookup(journal, config, limit)
        for name in names:
            files = look.files(name)
            missing |= not files
            if look.is_cut:
                warn(
                    f"{printable(name)}: older deliveries were not looked at, for lack of time; "
                    "'notify history' lists them"
                )
            if as_json:
                printing.show_json(map(look.as_json, files))
                if look.left_out and not is_limited:
                    what = counted(look.left_out, "more file is", "more files are")
                    warn(f"{what} {printable(name)}: --limit shows them")
            else:
                texts += list(look.as_text(name, files))
    if texts:
        printing.show(texts, no_pager=no_pager)
    for line in look.unreadable:
        warn(printable(line))
    if missing or look.unreadable:
        ctx.exit(1)


def _config() -> Config | None:
    try:
        return load()
    except WatchmanError as error:
        first, *_ = str(error).splitlines()
        warn(f"patterns and watches cannot be told: {first}")
        return None


class _Lookup:
    """Finds files by what a user knows of them."""

    def __init__(self, journal: JournalReader, config: Config | None, limit: int) -> None:
        self._journal = journal
        self._config = config
        self._limit = limit
        self._router = Router(() if config is None else config.patterns)
        self._now: DaemonNow | None = None
        self.unreadable: dict[str, None] = {}
        """A line for each part of the history that cannot be read."""
        self.left_out = 0
        """Files of the last name that are not shown, at least."""
        self._not_everywhere = False
        """Whether the time was too short for all directories in which the last name may be."""
        self.is_cut = False
        """Whether it was too short for all deliveries among which the last name's files may be."""

    def files(self, name: str) -> list[FoundFile]:
        """Return the files that are meant, the newest first; none where nothing is known."""
        self.is_cut = False
        records = self._by_id(name) or self._by_path(name)
        files: dict[str, list[Record]] = {}
        for record in records:
            files.setdefault(record.source, []).append(record)
        told = files.keys() | {record.final for record in records}
        elsewhere = self._without_delivery(name, is_found=bool(records))
        files |= {path: [] for path in elsewhere if path not in told}
        self.left_out = max(0, len(files) - self._limit)
        some = itertools.islice(files.items(), self._limit)
        cut = self.is_cut
        return [self._file(path, found or (self._of(path) if cut else [])) for path, found in some]

    def _of(self, path: str) -> list[Record]:
        """Return the deliveries of one file, the newest first."""
        return [one for one in self._ask(_LOOKED_AT, (path,)) if one.source == path]

    def _ask(self, limit: int, paths: tuple[str, ...] = (), **options: Any) -> list[Record]:
        from watchman.journal.answers import ask
        from watchman.journal.question import Question

        found = ask(self._journal, Question(paths, **options), limit)
        self.unreadable |= dict.fromkeys(found.unreadable)
        return found.records

    def _by_id(self, name: str) -> list[Record]:
        """Return all deliveries of the files whose task has an id, as far as they are shown."""
        task_id = task_id_of(name)
        if not task_id:
            return []
        found = self._ask(MOST_BATCHED, task_id=task_id)
        seqs = self._journal.under_way_as(task_id, MOST_BATCHED)
        found += self._ask(MOST_BATCHED, seqs=frozenset(seqs)) if seqs else []
        files = {one.source: [one] for one in found}
        for source in itertools.islice(files, self._limit):
            files[source] = self._of(source)
        return [record for records in files.values() for record in records]

    def _by_path(self, name: str) -> list[Record]:
        """Return deliveries of a path, or of a name in any directory."""
        from watchman.journal.question import by_name

        anywhere = () if os.path.isabs(name) else by_name(name)
        paths, effort = (absolute(name), *anywhere), timelimit.Effort(_WORK, _LOOK)
        page = self._ask(_LOOKED_AT, paths)
        records, sources = list(page), {one.source for one in page}
        # One that comes again and again hides no other.
        while len(page) == _LOOKED_AT and len(sources) <= self._limit:
            if effort.spent:
                self.is_cut = True
                break
            page = self._ask(_LOOKED_AT, paths, up_to=page[-1].seq - 1)
            records += page
            sources.update(one.source for one in page)
        return records

    def _without_delivery(self, name: str, *, is_found: bool) -> list[str]:
        """Return paths that are only known, or only on the disk.

        A mere name is that of a file here only where it ``is_found`` nowhere else.
        """
        found: list[str] = []
        self._not_everywhere = False
        if "/" not in name and not _is_wild(name):
            found += self._journal.with_name(name, _DIRECTORIES)
            partial = self._journal.partial_with_name(name, _PARTIAL)
            found += filter(_is_there, (one.path for one in partial))
            found += self._on_disk(name)
        path = absolute(name)
        if "/" in name or not (found or is_found):
            found += [path] if self._journal.noted(path) is not None or _is_there(path) else []
        return list(dict.fromkeys(found))

    def _on_disk(self, name: str) -> Iterator[str]:
        """Yield where a name is on the disk, in the watches' directories that are known."""
        watches = [] if self._config is None else [one.path for one in self._config.watches]
        known = self._journal.directories(_DIRECTORIES)
        tops = tuple(f"{path.rstrip('/')}/" for path in watches)
        effort, table = timelimit.Effort(_WORK, _LOOK), MountTable()
        for directory in (*watches, *(one for one in known if f"{one}/".startswith(tops))):
            if effort.spent:
                self._not_everywhere = True
                return
            path = os.path.join(directory, name)
            if _is_there(path, table):
                yield path

    def _file(self, path: str, records: list[Record]) -> FoundFile:
        from watchman.checks.present import present
        from watchman.journal import acts

        more, records = max(0, len(records) - _DELIVERIES), records[:_DELIVERIES]
        about = acts.about(self._journal.connection, [record.seq for record in records])
        final = records[0].final if records else path
        return FoundFile(
            path,
            records,
            about,
            self._journal.noted(path),
            present(self._config, self._journal, path),
            None if final == path else present(None, self._journal, final),
            more,
        )

    # What is told

    def _events(self, found: FoundFile, record: Record, later: Record | None) -> list[Event]:
        from watchman.commands.timeline import Way, timeline

        pattern = self._pattern_of(record)
        brokers = None if self._config is None else self._config.brokers
        acts = [act for act in found.acts if record.seq in {act.seq, act.other}]
        watch = found.now.match.watch if found.now.match else None
        way = Way(watch, pattern, brokers)
        upload = self._journal.uploads([record.seq]).get(record.seq)
        incomplete = self._journal.incomplete([record.seq]).get(record.seq, "")
        together = self._journal.memberships([record.seq]).get(record.seq)
        return timeline(record, acts, way, later, self._daemon(found), upload, incomplete, together)

    def _pattern_of(self, record: Record) -> str | None:
        """Return the pattern by which a file, or the main file of its set, has its task now."""
        for path in self._with_main_files(record.source):
            route = self._router.route(path)
            if route is not None and (route.broker, route.task) == (record.broker, record.task):
                return self._router.pattern(path)
        return None

    def _with_main_files(self, path: str) -> Iterator[str]:
        yield path
        if self._asked is not None:
            yield from self._asked.main_files(path)

    @functools.cached_property
    def _asked(self) -> Asked | None:
        """What is asked of files; None where nothing is."""
        if self._config is None or not self._config.has_criteria:
            return None
        from watchman.checks.asked import Asked

        return Asked(self._config)

    def _daemon(self, found: FoundFile) -> DaemonNow:
        """Return what is true of the daemon; it is asked once, and only where something waits."""
        from watchman import daemon, status
        from watchman.commands.timeline import DaemonNow
        from watchman.journal.held import active_holds
        from watchman.status.asking import ask

        waiting = any(one.state in {State.MOVING, State.READY} for one in found.records)
        if self._now is None and waiting:
            own = load_own()
            active = daemon.running(own) is not None
            snapshot = ask(own, _ANSWER if active else 0.0).snapshot
            if snapshot is not None and snapshot["run_ns"] != status.run_of(own.state_dir):
                snapshot = None  # the word of an earlier process
            kept = tuple(active_holds(self._journal.connection))
            self._now = DaemonNow(active, snapshot, kept)
        return self._now or DaemonNow(True, None)

    def _deliveries(self, found: FoundFile) -> Iterator[tuple[Record, list[Event]]]:
        """Yield the deliveries of a file with what happened to each, the newest first."""
        second = {act.other for act in found.acts if act.other is not None}
        later: Record | None = None
        for record in found.records:
            yield record, self._events(found, record, later)
            if record.seq not in second:
                later = record

    def as_text(self, name: str, files: Sequence[FoundFile]) -> Iterator[str]:
        """Yield what is to be printed of the files that a name means."""
        if not files:
            yield self._nowhere(name)
            return
        if len(files) > 1 or self.left_out:
            more = f"; {self.left_out:,} more: --limit shows them" if self.left_out else ""
            yield f"{len(files)} files are {printable(name)}, the newest first{more}"
        for found in files:
            yield unbroken(found.path)
            for _, events in self._deliveries(found):
                for event in events:
                    yield _line(event.at_ns, printing.coloured(event.what, event.state))
            if found.more:
                yield _line(None, "earlier deliveries: 'notify history PATH --all'")
            yield from (_line(None, words, "now") for words in now_words(found))

    def _nowhere(self, name: str) -> str:
        from watchman.checks.matching import match
        from watchman.checks.present import ignored_by
        from watchman.journal.answers import begins_ns

        begins = begins_ns(self._journal)
        words = (
            "nothing is recorded yet"
            if begins is None
            else f"the history begins at {moment(begins)}"
        )
        lines = [f"{printable(name)}", _line(None, f"not seen here; {words}")]
        if self._config is not None and "/" in name:
            reason = match(self._config, absolute(name)).reason
            if reason:
                lines.append(_line(None, printable(reason), "now"))
        elif self._config is not None:
            pattern = ignored_by(self._config, name)
            ignored = f"ignored by `{printable(pattern)}`"
            unknown = "its whole path tells whether a watch would see it"
            lines.append(_line(None, ignored if pattern else unknown))
        if self._not_everywhere:
            what = "not looked for in all directories, for lack of time: its whole path is found"
            lines.append(_line(None, what, "now"))
        return "\n".join(lines)

    def as_json(self, found: FoundFile) -> dict[str, Any]:
        """Return a file as docs/json.rst has it."""
        uploads = self._journal.uploads([record.seq for record in found.records])
        return {
            "path": found.path,
            "deliveries": [
                {
                    **printing.as_json(record, uploads.get(record.seq)),
                    "timeline": [
                        {"at": None if one.at_ns is None else iso(one.at_ns), "what": one.what}
                        for one in events
                    ],
                }
                for record, events in self._deliveries(found)
            ],
            "left_out": found.more,
            "noted": None if found.noted is None else WHY_NOTED[found.noted],
            "now": now_json(found),
        }


def _is_there(path: str, table: MountTable | None = None) -> bool:
    """Say whether anything is at a path; not where its file system does not answer."""
    try:
        return timelimit.within(path, lambda: os.path.lexists(path), table=table)
    except TimeoutError:
        return False


def _is_wild(name: str) -> bool:
    return any(letter in name for letter in "*?")


def _line(at_ns: int | None, what: str, word: str = "") -> str:
    """Return a line of a timeline: a time or a word of at most 19 letters, and what happened."""
    return f"  {word if at_ns is None else moment(at_ns):<19}  {what}"


COMMANDS = (where,)
