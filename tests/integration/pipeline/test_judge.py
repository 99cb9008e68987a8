"""What is asked of the members of sets by themselves, and again when it was asked too early."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.integration.pipeline.test_sets import (
    await_seen,
    await_sets,
    await_waiting,
    is_waiting,
    watching,
    write,
)
from tests.journals import counts, failures
from tests.running import config_for
from tests.waiting import wait_until
from watchman import checks
from watchman.checks.asked import READ, Asked
from watchman.model import INCOMPLETE, Config, Criteria, Criterion, Member, Move, Route, State
from watchman.pipeline import Pipeline
from watchman.pipeline.judge import Judge, Said
from watchman.pipeline.waiting_file import WaitingFile
from watchman.verdicts.pool import Answered
from watchman.verdicts.verdict import CriterionCheck

WHOLE = gzip.compress(b"rain\n" * 500)
CUT = "it ends in the middle of what is compressed"
GZIP = Criteria((Criterion("format", "gzip"),))
DONE = Criteria((Criterion("marker", "{name}.done"),))
SHA256 = Criteria((Criterion("checksum", "{name}.sha256"),))


def asking(
    root: Path,
    state: Path,
    of_member: Criteria | None,
    more: Mapping[str, Any] = {},
    each: tuple[Criterion, ...] = (),
    **changes: Any,
) -> Config:
    """Sets of a ``.nc`` and a ``.gz``; the second has a pattern of its own, which asks this."""
    asked = Criteria(each, **{"members": (Member("{stem}.gz"),), "set_after": 0.2, **more})
    tasks = (("*.nc", "load"), ("*.gz", "task"), ("*", "task"))
    patterns = tuple((f"{root}/{pattern}", Route("b", task)) for pattern, task in tasks)
    criteria = (asked, of_member, None)
    return config_for(root, state, patterns=patterns, criteria=criteria, **changes)


@pytest.mark.parametrize("by", ["pattern", "watch"])
def test_a_set_waits_until_a_member_is_what_is_asked_of_it(
    root: Path, state: Path, by: str
) -> None:
    main, member = root / "a.nc", root / "a.gz"
    auto = Criteria((Criterion("format", "auto"),))
    around = {"criteria": auto} if by == "watch" else {}
    config = asking(root, state, GZIP if by == "pattern" else None, watch=around)
    with watching(config) as (pipeline, sent):
        member.write_bytes(WHOLE[:-5])
        write(main)
        await_waiting(pipeline, main, f"a.gz: {CUT}")
        member.write_bytes(WHOLE)
        await_sets(sent, main)
        assert sent.sets[0].files == (str(main), str(member))
        member.write_bytes(WHOLE[:-4])
        await_waiting(pipeline, main, f"a.gz: {CUT}")
        member.write_bytes(WHOLE)
        await_sets(sent, main, main)


def test_match_says_the_same(root: Path, state: Path) -> None:
    main, member, marker = root / "a.nc", root / "a.gz", root / "a.gz.done"
    config = asking(root, state, Criteria((*GZIP.each, *DONE.each)))
    of_member = ("whole gzip", "a.gz.done beside it")
    found = checks.match(config, str(main)).asked
    assert found == ("a.gz, which the task is about too", *(f"a.gz: {one}" for one in of_member))
    of = checks.match(config, str(member))
    assert (of.reason, of.asked) == ("it goes with a.nc", of_member)
    assert checks.match(config, str(marker)).asked == ()

    def told(path: Path) -> str:
        return Asked(config).told_now(str(path))

    assert told(main) == ""
    write(main)
    assert told(main) == "a.gz is missing"
    write(member)
    assert told(main) == "a.gz: a.gz.done is not there"
    assert told(member) == "a.gz.done is not there"
    write(marker)
    assert told(main) == READ


def test_what_the_pattern_of_a_set_asks_is_about_the_main_file(root: Path, state: Path) -> None:
    asked = Criteria(GZIP.each, members=(Member("{name}.txt"),), set_after=0.2)
    patterns = ((f"{root}/a.gz*", Route("b", "load")),)
    with watching(config_for(root, state, patterns=patterns, criteria=(asked,))) as (_, sent):
        (root / "a.gz").write_bytes(WHOLE)
        write(root / "a.gz.txt")
        await_sets(sent, root / "a.gz")


def test_a_member_whose_time_is_over_is_asked_about_again_with_the_next(
    root: Path, state: Path
) -> None:
    main, member = root / "a.nc", root / "a.gz"
    config = asking(root, state, GZIP, {"incomplete_after": 1.0})

    with watching(config) as (pipeline, sent):
        member.write_bytes(WHOLE[:-5])
        write(main)
        wait_until(lambda: failures(pipeline.journal), 60)
        (failed,) = failures(pipeline.journal)
        assert failed.reason == f"{INCOMPLETE}a.gz: {CUT}"
        write(main, text="2")
        await_waiting(pipeline, main, f"a.gz: {CUT}")
        assert not sent.sets


def test_what_stands_beside_a_member_goes_with_it_or_is_removed(
    root: Path, state: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for action in ("move", "remove"):
        moves = (Move(str(root), str(store)),)
        of_member = Criteria(DONE.each, marker_action=action)
        config = asking(root, state / action, of_member, moves=moves)
        with watching(config) as (pipeline, sent):
            write(root / f"{action}.nc", root / f"{action}.gz")
            await_waiting(pipeline, root / f"{action}.nc", f"{action}.gz: {action}.gz.done is not")
            write(root / f"{action}.gz.done")
            await_sets(sent, store / f"{action}.nc")
            wait_until(lambda: not list(root.iterdir()))
    assert [path.name for path in store.glob("*.done")] == ["move.gz.done"]


def test_a_member_of_a_set_that_was_sent_needs_no_marker_again(root: Path, state: Path) -> None:
    main, marker = root / "a.nc", root / "a.gz.done"
    config = asking(root, state, Criteria(DONE.each, marker_action="remove"))
    with watching(config) as (_, sent):
        write(main, root / "a.gz", marker)
        await_sets(sent, main)
        wait_until(lambda: not marker.exists())
        write(main, text="2")
        await_sets(sent, main, main)


@pytest.mark.parametrize("of", ["main file", "member"])
def test_what_comes_again_before_its_set_is_moved_goes_with_it_when_it_is_whole(
    root: Path, state: Path, tmp_path: Path, of: str
) -> None:
    store = tmp_path / "store"  # what is to be moved waits until it is there
    each, of_member = (GZIP.each, None) if of == "main file" else ((), GZIP)
    moves = (Move(str(root), str(store)),)
    with watching(asking(root, state, of_member, each=each, moves=moves)) as (pipeline, sent):
        again = root / ("a.nc" if of == "main file" else "a.gz")
        write(root / "a.nc", root / "a.gz")
        again.write_bytes(WHOLE)
        wait_until(lambda: pipeline.journal.known.versions([str(again)]), 60)
        for number in (3, 2):
            again.write_bytes(WHOLE[:-number])
            await_waiting(pipeline, again, CUT)
        again.write_bytes(WHOLE + gzip.compress(b"again"))
        wait_until(lambda: pipeline.journal.known.versions([str(again)]), 60)
        store.mkdir()
        await_sets(sent, store / "a.nc")
        assert (store / again.name).read_bytes().startswith(WHOLE + b"\x1f")


def test_a_member_that_waits_to_be_taken_over_by_a_set_that_ends_waits_for_the_next(
    root: Path, state: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    moves = (Move(str(root), str(store)),)
    with watching(asking(root, state, GZIP, moves=moves)) as (pipeline, sent):
        main, member = root / "a.nc", root / "a.gz"
        write(main)
        member.write_bytes(WHOLE)
        wait_until(lambda: pipeline.journal.known.versions([str(main)]), 60)
        member.write_bytes(WHOLE[:-2])
        await_waiting(pipeline, member, CUT)
        main.unlink()
        store.mkdir()
        wait_until(lambda: counts(pipeline.journal).get(("b", State.VANISHED), (0,))[0] == 1, 60)
        write(main)
        await_waiting(pipeline, main, f"a.gz: {CUT}")
        wait_until(lambda: not is_waiting(pipeline, member), 60)
        member.write_bytes(WHOLE)
        await_sets(sent, store / "a.nc")
        assert sent.sets[0].files == (str(store / "a.nc"), str(store / "a.gz"))
        wait_until(lambda: not counts(pipeline.journal).get(("b", State.MOVING), (0,))[0], 60)


def test_a_set_does_not_go_with_what_is_moved_for_a_broken_one(
    root: Path, state: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    config = asking(root, state, None, moves=(Move(str(root), str(store)),))
    with watching(config) as (pipeline, sent):
        main, member = root / "a.nc", root / "a.gz"
        write(main, member)
        wait_until(lambda: pipeline.journal.known.versions([str(main)]), 60)
        # As the mover has it, if the main file is gone before a large member is copied.
        main.unlink()
        pipeline.journal.note([(1, State.VANISHED, "gone")])
        write(main, text="2")
        await_waiting(pipeline, main, "a.gz is being moved")
        store.mkdir()
        await_waiting(pipeline, main, "a.gz is missing")
        write(member, text="2")
        await_sets(sent, store / "a.nc")
        assert Path(sent.sets[0].files[1]).read_text() == "2a.gz"
        assert [one.final for one in failures(pipeline.journal)] == [str(store / "a.gz")]


class Held:
    """A pool that has questions, and answers when it is told to."""

    def __init__(self, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        assert pipeline.parts.pool is not None
        self._ask = pipeline.parts.pool.ask
        self.answers: list[Callable[[], None]] = []
        self.is_holding = True
        monkeypatch.setattr(pipeline.parts.pool, "ask", self.ask)

    def ask(
        self,
        path: str,
        asked: Sequence[CriterionCheck],
        descriptors: Sequence[int],
        size: int,
        answered: Answered,
    ) -> bool:
        def hold(verdict: Any) -> None:
            self.answers.append(lambda: answered(verdict))

        return self._ask(path, asked, descriptors, size, hold if self.is_holding else answered)

    def let_go(self) -> None:
        self.is_holding = False
        for answer in self.answers:
            answer()


@pytest.mark.parametrize("of", ["main file", "member"])
def test_what_comes_while_a_file_is_read_has_it_read_again(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    """The sum that was uploaded with it was wrong, and is corrected before the verdict."""
    main, member = root / "a.nc", root / "a.gz"
    each, of_member = (SHA256.each, None) if of == "main file" else ((), SHA256)
    read = main if of == "main file" else member
    told = root / f"{read.name}.sha256"
    with watching(asking(root, state, of_member, each=each)) as (pipeline, sent):
        held = Held(pipeline, monkeypatch)
        told.write_text(f"{'0' * 64}  {read.name}\n")
        write(main, member)
        wait_until(lambda: held.answers, 60)
        told.write_text(f"{hashlib.sha256(read.read_bytes()).hexdigest()}  {read.name}\n")
        await_seen(root, sent)
        held.let_go()
        await_sets(sent, main)


def test_a_file_whose_directory_is_out_of_reach_for_a_moment_is_asked_about_again(
    root: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, descriptors = Judge.ask, [-2]

    def ask_of(judge: Judge, waiting: WaitingFile, directory: int) -> Said:
        return ask(judge, waiting, descriptors.pop() if descriptors else directory)

    monkeypatch.setattr(Judge, "ask", ask_of)
    with watching(asking(root, state, GZIP)) as (_, sent):
        (root / "a.gz").write_bytes(WHOLE)
        await_seen(root, sent)
        write(root / "a.nc")
        await_sets(sent, root / "a.nc")
    assert not descriptors
