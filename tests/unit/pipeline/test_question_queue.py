"""Files wait for their turn, each once; those of a function that hangs hold up no others."""

from __future__ import annotations

from typing import Any

from watchman.pipeline.question_queue import QuestionQueue


def taken(queue: QuestionQueue, *, refused: str = "") -> list[Any]:
    found: list[Any] = []

    def ask(key: Any) -> bool:
        if key[1].startswith(refused or "\0"):
            return False
        found.append(key[1])
        return True

    queue.ask(ask)
    return found


def key(name: str) -> Any:
    return "directory", name


def test_a_file_is_in_it_once_however_often_it_was_found() -> None:
    queue = QuestionQueue()
    for _ in range(1000):
        queue.put(key("a"), ())
        queue.put(key("b"), ())
    assert len(queue) == 2
    assert taken(queue) == ["a", "b"]
    assert taken(queue) == []


def test_what_has_no_room_stays_at_its_place_and_holds_up_no_other_function() -> None:
    queue = QuestionQueue()
    for name in ("slow1", "slow2"):
        queue.put(key(name), ("f",))
    queue.put(key("a"), ())
    assert taken(queue, refused="slow") == ["a"]
    assert taken(queue) == ["slow1", "slow2"]


def test_what_is_put_in_again_while_it_is_asked_comes_behind_the_others() -> None:
    queue = QuestionQueue()
    for name in "ab":
        queue.put(key(name), ())
    seen: list[Any] = []

    def ask(one: Any) -> bool:
        seen.append(one[1])
        if seen == ["a"]:
            queue.put(one, ())
        return True

    queue.ask(ask)
    assert seen == ["a", "b", "a"]


def test_what_is_dropped_takes_no_room() -> None:
    queue = QuestionQueue()
    queue.put(key("a"), ("f",))
    queue.drop(key("a"), ("f",))
    queue.drop(key("b"), ())
    assert len(queue) == 0
