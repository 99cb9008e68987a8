"""Sets: one task when a file and those that go with it are all complete, in whatever order."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.journals import counts, failures, retry
from tests.running import Remembering, await_noted, config_for, running
from tests.waiting import wait_until
from watchman import signals
from watchman.journal.failed_deliveries import Selection
from watchman.journal.journal_reader import open_reader
from watchman.model import (
    ACCEPTED,
    Answer,
    Config,
    Criteria,
    Criterion,
    Existing,
    Member,
    Message,
    Noted,
    Outcome,
    Route,
    State,
)
from watchman.pipeline import Pipeline, sets
from watchman.pipeline.first_runs import CLOCK_GRAIN_NS

ENDS = ("shp", "shx", "dbf", "prj")
MEMBERS = (Member("{stem}.shx"), Member("{stem}.dbf"), Member("{stem}.prj", optional=True))
TICKS = itertools.count()
DOWN = Outcome(Answer.AGAIN, "down")


class Looking(Remembering):
    """A publisher that looks whether each file is at its place when its task is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: list[str] = []

    def publish(self, batch: Sequence[Message]) -> list[Outcome]:
        if self.answer is ACCEPTED:
            files = [path for message in batch for path in message.files or (message.path,)]
            self.missing += [path for path in files if not os.path.isfile(path)]
        return super().publish(batch)

    @property
    def sets(self) -> list[Message]:
        return [message for message in self.messages if message.files]

    def of(self, main: Path) -> list[Message]:
        return [message for message in self.sets if message.path == str(main)]


def asking(root: Path, state: Path, more: Mapping[str, Any] = {}, **changes: Any) -> Config:
    """Shapefiles are sets; each of their files would have a task by a pattern behind."""
    asked = Criteria(**{"each": (), "members": MEMBERS, "set_after": 0.4, **more})
    patterns = ((f"{root}/*.shp", Route("b", "load")), (f"{root}/*", Route("b", "task")))
    return config_for(root, state, patterns=patterns, criteria=(asked, None), **changes)


@contextlib.contextmanager
def watching(
    config: Config, publisher: Looking | None = None, *, resumed: bool = False
) -> Iterator[tuple[Pipeline, Looking]]:
    publisher = publisher or Looking()
    with running(config, publisher, resumed=resumed) as (pipeline, _):
        yield pipeline, publisher


def parts(root: Path, stem: str, ends: Sequence[str] = ENDS) -> list[Path]:
    return [root / f"{stem}.{end}" for end in ends]


def write(*paths: Path, text: str = "1") -> None:
    for path in paths:
        path.write_text(text + path.name)


def await_seen(root: Path, sent: Looking, ticks: Any = TICKS) -> None:
    """Wait until all that was written before has been handled."""
    tick = root / f"tick-{next(ticks)}.txt"
    tick.touch()
    wait_until(lambda: str(tick) in sent.paths, 60, "what came before is handled")


def await_sets(sent: Looking, *mains: Path) -> None:
    """Wait for one task for each mention of a main file; no file is to have one of its own."""
    wanted = Counter(map(str, mains))
    wait_until(lambda: len(sent.sets) >= len(mains), 30, f"{len(mains)} sets")
    assert Counter(message.path for message in sent.sets) == wanted
    alone = [message.path for message in sent.messages if not message.files]
    assert [path for path in alone if not path.endswith(".txt")] == []
    assert sent.missing == []


def is_waiting(pipeline: Pipeline, path: Path, reason: str = "") -> bool:
    rows = pipeline.journal.partial.below(str(path.parent))
    return any(one.path == str(path) and reason in one.reason for one in rows)


def await_waiting(pipeline: Pipeline, path: Path, reason: str = "") -> None:
    wait_until(lambda: is_waiting(pipeline, path, reason), 60, f"{path} waits")


def is_known(pipeline: Pipeline, *paths: Path) -> bool:
    return len(pipeline.journal.known.versions(map(str, paths))) == len(paths)


def test_every_order_gives_one_task_for_all_of_them(root: Path, state: Path) -> None:
    orders = list(itertools.permutations(ENDS))
    with watching(asking(root, state, {"set_after": 60.0})) as (pipeline, sent):
        for step in range(len(ENDS)):
            for number, order in enumerate(orders):
                write(root / f"r{number}.{order[step]}")
            await_seen(root, sent)
        mains = [root / f"r{number}.shp" for number in range(len(orders))]
        await_sets(sent, *mains)
        for main in mains:
            (message,) = sent.of(main)
            assert message.files == tuple(map(str, parts(root, main.stem)))
            assert message.route.task == "load"
        every = [path for main in mains for path in parts(root, main.stem)]
        assert is_known(pipeline, *every)
        wait_until(lambda: not pipeline.journal.partial.below(str(root)))
        pipeline.rescan()
        await_seen(root, sent)
        await_sets(sent, *mains)


def test_at_once_and_renamed_into_place(
    root: Path, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "watchman.notify")
    beside = tmp_path / "beside"
    beside.mkdir()
    config = asking(root, state, {"set_after": 60.0})
    with watching(config) as (_, sent):
        write(*parts(beside, "a"), *parts(beside, "b"))
        for path in parts(beside, "a"):
            path.rename(root / path.name)
        beside.rename(root / "sub")
        await_sets(sent, root / "a.shp", root / "sub" / "b.shp")
    said = [line for line in caplog.messages if line.startswith("Notified of ")]
    assert len(said) == len(set(said)) == 8


def test_an_optional_one_is_waited_for_and_gives_one_more_task_when_it_comes_late(
    root: Path, state: Path
) -> None:
    main = root / "a.shp"
    with watching(asking(root, state)) as (_, sent):
        write(*parts(root, "a", ENDS[:3]))
        await_sets(sent, main)
        assert sent.sets[0].files == tuple(map(str, parts(root, "a", ENDS[:3])))
        write(root / "a.prj")
        await_sets(sent, main, main)
        first, second = sent.sets
        assert second.files == tuple(map(str, parts(root, "a")))
        assert first.task_id != second.task_id


def test_a_member_without_the_suffix_of_its_main_file(root: Path, state: Path) -> None:
    """As ENVI has it: the data beside their header."""
    asked = Criteria((), members=(Member("{stem}"),))
    patterns = ((f"{root}/*.hdr", Route("b", "load")), (f"{root}/*.txt", Route("b", "task")))
    config = config_for(root, state, patterns=patterns, criteria=(asked, None))
    data, header = root / "scene.raw", root / "scene.raw.hdr"
    with watching(config) as (_, sent):
        write(data, header)
        wait_until(lambda: sent.sets, 30, "the set")
        assert [message.files for message in sent.sets] == [(str(header), str(data))]


def test_a_missing_one_is_said_and_waited_for(root: Path, state: Path) -> None:
    main = root / "a.shp"
    with watching(asking(root, state)) as (pipeline, sent):
        write(main)
        await_waiting(pipeline, main, "a.shx, a.dbf are missing")
        write(root / "a.dbf")
        await_waiting(pipeline, main, "a.shx is missing")
        await_noted(pipeline, "a.shx is missing")
        write(root / "a.shx")
        await_sets(sent, main)
        wait_until(lambda: not pipeline.parts.notes())


@pytest.mark.parametrize("resumed", [False, True], ids=["restart", "reload"])
def test_members_without_a_main_file_wait_quietly_across_a(
    root: Path, state: Path, resumed: bool
) -> None:
    main, sub = root / "a.shp", root / "sub"
    config = asking(root, state, {"set_after": 60.0})
    with watching(config) as (pipeline, sent):
        write(*parts(root, "a", ENDS[1:]))
        sub.mkdir()
        write(*parts(sub, "b", ENDS[1:]))
        await_seen(root, sent)
        assert not pipeline.journal.partial.below(str(root))
        assert not is_known(pipeline, root / "a.shx")
    write(sub / "b.shp")
    with watching(config, resumed=resumed) as (_, sent):
        await_sets(sent, sub / "b.shp")
        write(main)
        await_sets(sent, sub / "b.shp", main)


def test_members_whose_main_file_does_not_come_do_not_pile_up(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sets, "KEPT", 0.5)
    with watching(asking(root, state)) as (pipeline, sent):
        write(*parts(root, "a", ENDS[1:]), *parts(root, "b", ENDS[:2]))
        wait_until(lambda: is_known(pipeline, *parts(root, "a", ENDS[1:])), 60)
        # Those of one that waits are kept.
        await_waiting(pipeline, root / "b.shp")
        assert not is_known(pipeline, root / "b.shx")
        write(root / "a.shp", root / "b.dbf")
        await_sets(sent, root / "a.shp", root / "b.shp")
        assert len(sent.of(root / "a.shp")[0].files) == 4


def test_an_incomplete_set_fails_once_and_is_sent_when_it_is_whole(root: Path, state: Path) -> None:
    main = root / "a.shp"
    config = asking(root, state, {"incomplete_after": 1.0})

    def failed(pipeline: Pipeline) -> int:
        return counts(pipeline.journal).get(("b", State.FAILED), (0,))[0]

    with watching(config) as (pipeline, sent):
        write(*parts(root, "a", ("shp", "dbf")))
        wait_until(lambda: failed(pipeline) == 1, 60)
        wait_until(lambda: is_known(pipeline, main, root / "a.dbf"))
    with watching(config) as (pipeline, sent):
        await_seen(root, sent)
        pipeline.rescan()
        await_seen(root, sent)
        assert failed(pipeline) == 1
        assert not is_waiting(pipeline, main)
        write(root / "a.shx")
        await_sets(sent, main)
        assert failed(pipeline) == 1
        retry(state, Selection(all=True))
        for sender in pipeline.parts.senders.values():
            sender.wake()
        await_sets(sent, main, main)
        assert sent.sets[1].files == (str(main),)  # as it is


def test_a_set_of_which_all_others_may_be_missing(root: Path, state: Path) -> None:
    asked = {"members": (Member("{stem}.prj", optional=True),)}
    with watching(asking(root, state, asked)) as (_, sent):
        write(root / "a.shp")
        await_sets(sent, root / "a.shp")
        assert sent.sets[0].files == (str(root / "a.shp"),)


def test_an_incomplete_set_goes_to_the_quarantine_together(
    root: Path, state: Path, tmp_path: Path
) -> None:
    quarantine = tmp_path / "quarantine"
    quarantine.mkdir()
    config = asking(
        root,
        state,
        {"incomplete_after": 1.0, "incomplete": Route("b", "broken")},
        quarantine=str(quarantine),
    )
    with watching(config) as (_, sent):
        write(*parts(root, "a", ("shp", "dbf")))
        wait_until(lambda: sent.messages, 60)
        wait_until((quarantine / "a.dbf").exists)
        (message,) = sent.messages
        assert (message.route.task, message.files) == ("broken", ())
        assert message.path == str(quarantine / "a.shp")
        assert message.headers["watchman_incomplete"] == "a.shx is missing"


def test_one_that_comes_again_gives_one_more_task_for_all(root: Path, state: Path) -> None:
    main = root / "a.shp"
    with watching(asking(root, state)) as (pipeline, sent):
        write(*parts(root, "a"))
        await_sets(sent, main)
        for number, path in enumerate(parts(root, "a"), 2):
            write(path, text=str(number))
            await_sets(sent, *[main] * number)
        assert len({message.task_id for message in sent.sets}) == 5
        assert {message.files for message in sent.sets} == {tuple(map(str, parts(root, "a")))}
        wait_until(lambda: is_known(pipeline, *parts(root, "a")))
        pipeline.rescan()
        await_seen(root, sent)
        await_sets(sent, *[main] * 5)


@pytest.mark.parametrize("order", [ENDS, ENDS[::-1], ("shx", "dbf")], ids=" ".join)
def test_several_that_come_again_give_one_task(
    root: Path, state: Path, order: Sequence[str]
) -> None:
    main = root / "a.shp"
    with watching(asking(root, state, {"set_after": 3.0})) as (_, sent):
        write(*parts(root, "a"))
        await_sets(sent, main)
        for path in parts(root, "a", order):
            write(path, text="2")
            await_seen(root, sent)
            assert len(sent.sets) == 1 or path.suffix[1:] == order[-1]
        await_sets(sent, main, main)
        for file in sent.sets[1].files:
            again = file[-3:] in order
            assert Path(file).read_text().startswith("2" if again else "1")


def test_one_that_came_again_while_nobody_watched(root: Path, state: Path) -> None:
    main = root / "a.shp"
    for existing in (Existing.NEW, Existing.ALL):
        config = asking(root, state, watch={"existing": existing})
        with watching(config) as (_, sent):
            write(*parts(root, "a"), text=existing.value)
            await_sets(sent, main)
        write(root / "a.dbf", text="again")
        with watching(config) as (_, sent):
            await_sets(sent, main)
            (message,) = sent.sets
            assert message.files == tuple(map(str, parts(root, "a")))


def test_an_upload_of_the_same_size_and_time_is_another_set(root: Path, state: Path) -> None:
    """A scan alone would take it for what was sent: it is forgotten before it waits."""
    main, member = root / "a.shp", root / "a.dbf"
    config = asking(root, state, {"set_after": 60.0})
    with watching(config) as (pipeline, sent):
        write(*parts(root, "a"))
        await_sets(sent, main)
        times = member.stat()
        with member.open("r+b") as stream:
            stream.write(b"2")
            os.utime(stream.fileno(), ns=(times.st_atime_ns, times.st_mtime_ns))
        wait_until(lambda: not is_known(pipeline, member), 60)
    with watching(asking(root, state)) as (_, sent):
        await_sets(sent, main)


def test_one_that_is_written_or_touched_meanwhile(root: Path, state: Path) -> None:
    main, member = root / "a.shp", root / "a.dbf"
    with watching(asking(root, state, {"set_after": 1.0})) as (pipeline, sent):
        write(*parts(root, "a", ENDS[:3]))
        with member.open("a"):
            await_waiting(pipeline, main, "a.dbf is being written")
            write(root / "a.prj")
            await_seen(root, sent)
            assert not sent.sets
        await_sets(sent, main)
        member.chmod(0o640)
        os.utime(main)
        await_seen(root, sent)
        write(*parts(root, "b", ENDS[:2]))
        await_seen(root, sent)
        (root / "b.shx").chmod(0o640)
        os.utime(root / "b.shp")
        write(*parts(root, "b", ENDS[2:]))
        await_sets(sent, main, root / "b.shp")


def test_removed_and_renamed_while_it_waits(root: Path, state: Path) -> None:
    main, other = root / "a.shp", root / "b.shp"
    with watching(asking(root, state)) as (pipeline, sent):
        write(*parts(root, "a", ENDS[:2]))
        await_waiting(pipeline, main, "a.dbf is missing")
        (root / "a.shx").unlink()
        await_waiting(pipeline, main, "a.shx, a.dbf are missing")
        main.rename(other)
        await_waiting(pipeline, other)
        wait_until(lambda: not is_waiting(pipeline, main))
        write(*parts(root, "b", ENDS[1:]))
        await_sets(sent, other)


def test_what_is_asked_of_the_main_file_holds_too(root: Path, state: Path) -> None:
    main, whole = root / "a.shp", gzip.compress(b"rain\n" * 500)
    each = Criterion("format", "gzip"), Criterion("marker", "{name}.done")
    with watching(asking(root, state, {"each": each})) as (pipeline, sent):
        write(*parts(root, "a", ENDS[1:]))
        main.write_bytes(whole[:-5])
        await_waiting(pipeline, main, "a.shp.done is not there")
        (root / "a.shp.done").touch()
        await_waiting(pipeline, main, "ends in the middle")
        with main.open("ab") as stream:
            stream.write(whole[-5:])
        (root / "a.shp.done").touch()
        await_sets(sent, main)
        assert len(sent.sets[0].files) == len(ENDS)


@pytest.mark.parametrize("far", [False, True], ids=["renamed", "copied"])
def test_all_are_moved_before_the_task_is_sent(
    root: Path, state: Path, tmp_path: Path, other_device: Path, far: bool
) -> None:
    store = other_device if far else tmp_path / "store"
    store.mkdir(exist_ok=True)
    config = asking(root, state, moves=((str(root), str(store)),))
    with watching(config) as (pipeline, sent):
        for number, order in enumerate(itertools.permutations(ENDS)):
            write(*parts(root, f"{number}", order))
        mains = [store / f"{number}.shp" for number in range(24)]
        await_sets(sent, *mains)
        for main in mains:
            assert sent.of(main)[0].files == tuple(map(str, parts(store, main.stem)))
        assert list(root.iterdir()) == []
        # Once more: all have the same number there, by which they go together.
        write(*parts(root, "0"))
        wait_until(lambda: len(sent.sets) == 25, 60)
        assert len({Path(path).stem for path in sent.sets[-1].files}) == 1
        assert Path(sent.sets[-1].path).stem.startswith("0@")
        # The main file has been moved away: a member waits for the next.
        write(root / "1.dbf")
        tick = root / "tick.txt"
        tick.touch()
        wait_until(lambda: str(store / "tick.txt") in sent.paths, 60)
        assert (root / "1.dbf").exists()
        assert not is_known(pipeline, root / "1.dbf")
        write(*parts(root, "1", ("shp", "shx", "prj")))
        wait_until(lambda: len(sent.sets) == 26, 60)
        assert sent.missing == []


def test_what_is_no_file_and_what_is_in_two_sets_harms_nothing(
    root: Path, state: Path, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    kinds: dict[str, Callable[[Path], None]] = {
        "link": lambda path: path.symlink_to(secret),
        "fifo": os.mkfifo,
        "directory": lambda path: path.mkdir(),
    }
    with watching(asking(root, state)) as (pipeline, sent):
        for stem, make in kinds.items():
            make(root / f"{stem}.shx")
            make(root / f"{stem}.prj")
            write(*parts(root, stem, ("shp", "dbf")))
            await_waiting(pipeline, root / f"{stem}.shp", f"{stem}.shx is missing")
        for stem in kinds:
            if (root / f"{stem}.shx").is_dir():
                (root / f"{stem}.shx").rmdir()
            else:
                (root / f"{stem}.shx").unlink()
            write(root / f"{stem}.shx")
        await_sets(sent, *(root / f"{stem}.shp" for stem in kinds))
        assert {len(message.files) for message in sent.sets} == {3}


def test_what_ignore_leaves_out_is_said_to_be_missing_for_that(
    root: Path, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "watchman.notify")
    config = asking(root, state, ignore=("*.dbf", "*.prj"))
    with watching(config) as (pipeline, sent):
        write(*parts(root, "a"))
        await_waiting(pipeline, root / "a.shp", "a.dbf is left out by IGNORE")
        assert not is_waiting(pipeline, root / "a.shp", "a.prj")
        assert not sent.sets
    assert [line for line in caplog.messages if line.startswith("Notified of ")] == []


def test_a_file_of_two_sets_goes_with_both(root: Path, state: Path) -> None:
    patterns = ((f"{root}/*.shp", Route("b", "one")), (f"{root}/*.tab", Route("b", "other")))
    dbf = Criteria((), members=(Member("{stem}.dbf"),), set_after=0.4)
    config = config_for(root, state, patterns=patterns, criteria=(dbf, dbf))
    with watching(config) as (_, sent):
        write(*parts(root, "a", ("shp", "tab", "dbf")))
        await_sets(sent, root / "a.shp", root / "a.tab")
        write(root / "a.dbf", text="2")
        await_sets(sent, *[root / "a.shp", root / "a.tab"] * 2)
        assert len({message.task_id for message in sent.sets}) == 4


def test_one_that_comes_again_before_the_task_is_sent(root: Path, state: Path) -> None:
    main, member = root / "a.shp", root / "a.dbf"
    publisher = Looking()
    publisher.answer = DOWN
    with watching(asking(root, state), publisher) as (pipeline, sent):
        write(*parts(root, "a"))
        wait_until(lambda: is_known(pipeline, main), 60)
        write(member, text="2")
        wait_until(lambda: counts(pipeline.journal).get(("b", State.VANISHED), (0,))[0] == 4, 60)
        wait_until(lambda: is_known(pipeline, main, member), 60)
        publisher.answer = ACCEPTED
        await_sets(sent, main)
        wait_until(lambda: counts(pipeline.journal).get(("b", State.SENT), (0,))[0] == 4, 60)


@pytest.mark.parametrize("far", [False, True], ids=["renamed", "copied"])
@pytest.mark.parametrize("end", ENDS)
def test_one_that_comes_again_before_it_can_be_moved(
    root: Path, state: Path, tmp_path: Path, other_device: Path, end: str, far: bool
) -> None:
    """The set that is on its way takes it over: none of its files is left behind."""
    store = (other_device if far else tmp_path) / "store"
    criterion = Criterion("marker", "{name}.done")
    asked = (criterion,) if end == "shp" and far else ()
    config = asking(root, state, {"each": asked}, moves=((str(root), str(store)),))
    again, done = root / f"a.{end}", root / "a.shp.done"
    with watching(config) as (pipeline, sent):
        write(*parts(root, "a"), *[done] * len(asked))
        wait_until(lambda: is_known(pipeline, *parts(root, "a")), 60)
        before = pipeline.journal.known.versions([str(again)])
        write(again, text="2")
        write(*[done] * len(asked))
        wait_until(
            lambda: (
                is_known(pipeline, again)
                and pipeline.journal.known.versions([str(again)]) != before
            ),
            60,
        )
        store.mkdir()
        await_sets(sent, store / "a.shp")
        assert sent.sets[0].files == tuple(map(str, parts(store, "a")))
        assert (store / again.name).read_text() == f"2{again.name}"
        assert [path for path in root.iterdir() if path != done] == []
        wait_until(lambda: counts(pipeline.journal).get(("b", State.SENT), (0,))[0] == 4, 60)
        states = {state for (_, state), row in counts(pipeline.journal).items() if row[0]}
        assert not states & {State.VANISHED, State.FAILED}


def test_one_that_vanishes_before_it_can_be_moved(
    root: Path, state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    told: list[str] = []

    def hear(_: object, path: str, **_more: object) -> None:
        told.append(path)

    config = asking(root, state, moves=((str(root), str(store)),))
    with signals.failed.connected_to(hear), watching(config) as (pipeline, sent):
        write(*parts(root, "a"))
        wait_until(lambda: is_known(pipeline, *parts(root, "a")), 60)
        (root / "a.dbf").unlink()
        store.mkdir()
        wait_until(lambda: len(failures(pipeline.journal)) == 3, 60)
        assert not sent.sets
        write(*parts(root, "a"))
        wait_until(lambda: len(sent.sets) == 1, 60)
        assert sorted(told) == [str(store / f"a.{end}") for end in ("prj", "shp", "shx")]
        retry(state, Selection(all=True), lambda _: True)
        pipeline.parts.senders["b"].wake()
        wait_until(lambda: len(sent.sets) == 2, 60)
        assert sent.sets[1].files == tuple(str(store / f"a.{end}") for end in ("shp", "shx", "prj"))
        assert sent.missing == []
    (said,) = [line for line in caplog.messages if line.startswith("Not sent: ")]
    assert said == (
        f"Not sent: {store}/a.shp (and 2 more): a part of its set, a.dbf: gone before it could be "
        "moved; run 'notify retry' to have the set sent without that, or drop it with "
        "'notify discard'"
    )


def test_one_that_vanishes_before_the_task_is_sent(root: Path, state: Path) -> None:
    main, member = root / "a.shp", root / "a.dbf"
    publisher = Looking()
    publisher.answer = DOWN
    with watching(asking(root, state), publisher) as (pipeline, sent):
        write(*parts(root, "a"))
        wait_until(lambda: is_known(pipeline, main), 60)
        member.unlink()
        publisher.answer = ACCEPTED
        await_waiting(pipeline, main, "a.dbf is missing")
        assert not sent.sets
        write(member)
        await_sets(sent, main)


def test_one_that_vanishes_where_it_was_moved_before_the_task_is_sent(
    root: Path, state: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    publisher = Looking()
    publisher.answer = DOWN
    config = asking(root, state, moves=((str(root), str(store)),))
    with watching(config, publisher) as (pipeline, sent):
        write(*parts(root, "a"))
        wait_until(lambda: counts(pipeline.journal).get(("b", State.READY), (0,))[0] == 4, 60)
        (store / "a.dbf").unlink()
        publisher.answer = ACCEPTED
        wait_until(lambda: len(failures(pipeline.journal)) == 3, 60)
        reasons = {one.reason for one in failures(pipeline.journal)}
        assert reasons == {"a part of its set, a.dbf: the file is gone"}
        assert not sent.messages


def test_what_was_there_before_the_first_run_and_what_is_only_told(root: Path, state: Path) -> None:
    write(*parts(root, "old"))
    newest = max(path.stat().st_ctime_ns for path in parts(root, "old"))
    wait_until(lambda: time.time_ns() > newest + 2 * CLOCK_GRAIN_NS)
    config = asking(root, state, dry_run=(f"{root}/dry*",))
    with watching(config) as (pipeline, sent):
        write(*parts(root, "dry"))
        await_seen(root, sent)
        wait_until(lambda: is_known(pipeline, *parts(root, "dry")), 60)
        assert not sent.sets
        write(root / "old.dbf", text="2")
        await_sets(sent, root / "old.shp")


def test_members_of_an_incomplete_set_say_why_they_are_known(root: Path, state: Path) -> None:
    with watching(asking(root, state, {"incomplete_after": 1.0})) as (pipeline, _):
        write(*parts(root, "a", ("shp", "dbf")))
        wait_until(lambda: is_known(pipeline, root / "a.dbf"), 60)
    with open_reader(str(state)) as journal:
        assert journal.noted(str(root / "a.dbf")) is Noted.MEMBER
