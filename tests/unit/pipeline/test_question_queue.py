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

    queue.ask(ask)
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

    queue.ask(ask)
    assert seen == ["a", "b", "a"]


def test_what_is_dropped_takes_no_room() -> None:
    queue = QuestionQueue()
    queue.put(key("a"), SLOW)
    queue.drop(key("a"), SLOW)
    queue.drop(key("b"), PLAIN)
    assert len(queue) == 0
