"""Words about numbers of deliveries."""

from __future__ import annotations

import pytest

from watchman.commands import printing

HOW = "; --limit shows as many as you like, --all every one\n"


@pytest.mark.parametrize(
    ("shown", "left_out", "exact", "words"),
    [
        (100, 0, True, ""),
        (100, 1, True, "notify: 1 more than these 100 is left out"),
        (1, 1234, True, "notify: 1,234 more than this one are left out"),
        (100, 13_569, False, "notify: at least 13,569 more than these 100 are left out"),
        (100, 0, False, "notify: some more than these 100 are left out"),
    ],
)
def test_how_many_are_left_out(
    capsys: pytest.CaptureFixture[str], shown: int, left_out: int, exact: bool, words: str
) -> None:
    printing.say_left_out(shown, left_out, exact)
    assert capsys.readouterr().err == (words and words + HOW)
