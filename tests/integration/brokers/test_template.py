"""Templates: values between the pieces, and nothing of a stand-in left over."""

from __future__ import annotations

from typing import Any

import pytest

from watchman.brokers.capture import PATH, SIZE, TASK_ID, CapturedMessage, Target
from watchman.brokers.template import Template, Unsuitable, split_body


def filled(template: Template[Any], values: tuple[Any, ...]) -> Any:
    return values[0][:0].join(template.in_order((*values, *template.fixed)))


def test_each_value_stands_where_its_stand_in_stood() -> None:
    names = f'"{TASK_ID}"', f'"{SIZE}"'
    text = f'{{"id": {names[0]}, "size": {names[1]}, "root": {names[0]}}}'
    assert filled(Template(text, names), ('"a"', "7")) == '{"id": "a", "size": 7, "root": "a"}'
    raw = tuple(name.encode() for name in names)
    assert filled(Template(text.encode(), raw), (b"a", b"7")) == b'{"id": a, "size": 7, "root": a}'


@pytest.mark.parametrize("text", ["", "all the same"])
def test_one_without_a_stand_in_is_the_same_for_all(text: str) -> None:
    assert filled(Template(text, [f'"{SIZE}"']), ("7",)) == text
    assert filled(Template(text.encode(), [SIZE.encode()]), (b"7",)) == text.encode()


@pytest.mark.parametrize("name", [TASK_ID, PATH, SIZE], ids=["task id", "path", "size"])
def test_what_has_a_stand_in_where_nothing_is_filled_in_is_no_template(name: str) -> None:
    """A serializer or an option may have put it into other words."""
    for text in (f'"prefix-{name}"', f"{name}"):
        with pytest.raises(Unsuitable):
            Template(text, [f'"{name}"'])
        with pytest.raises(Unsuitable):
            Template(text.encode(), [f'"{name}"'.encode()])


@pytest.mark.parametrize(
    "body",
    ["[[], {}]", f'[["{PATH}", "{PATH}"], {{}}]', f'[["{PATH}", "{TASK_ID}"], {{}}]'],
    ids=["no path", "two paths", "a task id"],
)
def test_a_body_has_the_path_once_and_no_task_id(body: str) -> None:
    target = Target("", "q", None, (), ("", "q"))
    with pytest.raises(Unsuitable):
        split_body(CapturedMessage(target, body, "application/json", "utf-8", {}, {}))
