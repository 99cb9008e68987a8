"""Files wait for their turn, each once; those of a function that hangs hold up no others."""

from __future__ import annotations

from typing import Any

from watchman.pipeline.question_queue import QuestionQueue
from watchman.verdicts.pool import LARGE_FILES, PLAIN, Lane

SLOW = Lane(("slow",))


def taken(queue: QuestionQueue, *, refused: str = "", full: Lane = SLOW) -> list[Any]:
    found: list[Any] = []

    def ask(key: Any) -> Lane | None:
        if key[1].startswith(refused or "\0"):
            return full
        found.append(key[1])
        return None

    queue.ask(ask, 100)
    return found


def key(name: str) -> Any:
    return "directory", name


def test_a_file_is_in_it_once_however_often_it_was_found() -> None:
    queue = QuestionQueue()
    for _ in range(1000):
        queue.put(key("a"), PLAIN)
        queue.put(key("b"), PLAIN)
    assert len(queue) == 2
    assert taken(queue) == ["a", "b"]
    assert taken(queue) == []


def test_what_has_no_room_stays_at_its_place_and_holds_up_no_other_function() -> None:
    queue = QuestionQueue()
    for name in ("slow1", "slow2"):
        queue.put(key(name), SLOW)
    queue.put(key("a"), PLAIN)
    assert taken(queue, refused="slow") == ["a"]
    assert taken(queue) == ["slow1", "slow2"]


def test_what_turns_out_to_be_of_a_full_lane_holds_up_none_of_its_own() -> None:
    queue = QuestionQueue()
    for name in ("large1", "a", "large2", "b"):
        queue.put(key(name), PLAIN)
    assert taken(queue, refused="large", full=LARGE_FILES) == ["a", "b"]
    assert taken(queue, refused="large", full=LARGE_FILES) == []
    assert taken(queue) == ["large1", "large2"]


def test_what_is_put_in_again_while_it_is_asked_comes_behind_the_others() -> None:
    queue = QuestionQueue()
    for name in "ab":
        queue.put(key(name), PLAIN)
    seen: list[Any] = []

    def ask(one: Any) -> None:
        seen.append(one[1])
        if seen == ["a"]:
            queue.put(one, PLAIN)

    assert not queue.ask(ask, 100)
    assert seen == ["a", "b", "a"]


def test_only_so_many_of_each_lane_are_asked_about_at_a_time() -> None:
    queue = QuestionQueue()
    for lane in (PLAIN, SLOW):
        for number in range(5):
            queue.put(key(f"{number} of {lane.functions}"), lane)
    asked: list[Any] = []
    assert queue.ask(asked.append, 3)
    assert len(asked) == 6
    assert not queue.ask(asked.append, 3)
    assert len({*asked}) == len(asked) == 10


def test_where_there_is_no_room_for_what_is_left_there_is_no_more_to_ask() -> None:
    queue = QuestionQueue()
    for name in "abc":
        queue.put(key(name), PLAIN)
    assert not queue.ask(lambda _: PLAIN, 2)
    assert len(queue) == 3


def test_what_is_dropped_takes_no_room() -> None:
    queue = QuestionQueue()
    queue.put(key("a"), SLOW)
    queue.drop(key("a"), SLOW)
    queue.drop(key("b"), PLAIN)
    assert len(queue) == 0
