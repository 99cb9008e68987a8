"""Patterns that are never reached: what is said of them is always true."""

from __future__ import annotations

import fnmatch
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watchman.config.shadows import Shadows

TEXTS = ["".join(letters) for size in range(5) for letters in itertools.product("ab/", repeat=size)]
PATTERNS = st.text(alphabet="ab/*?[]!", max_size=5)


@given(st.lists(PATTERNS, max_size=4))
def test_what_is_shadowed_never_matches_first(patterns: list[str]) -> None:
    shadows = Shadows()
    for pattern in patterns:
        above = shadows.above(pattern)
        if above is not None:
            mine = {text for text in TEXTS if fnmatch.fnmatchcase(text, pattern)}
            assert mine <= {text for text in TEXTS if fnmatch.fnmatchcase(text, above)}


@pytest.mark.parametrize(
    ("above", "below", "shadowed"),
    [
        ("/srv/*.csv", "/srv/a/*.csv", True),
        ("/srv/*", "/srv/ftp/[ab]?.nc", True),
        ("/srv/*.csv", "/srv/*", False),
        ("/srv/?.csv", "/srv/*.csv", False),
        ("/srv/?.csv", "/srv/a.csv", False),  # it is, and not worth knowing
        ("/srv/a.csv", "/srv/a.csv", True),
    ],
)
def test_what_is_found(above: str, below: str, shadowed: bool) -> None:
    shadows = Shadows()
    assert shadows.above(above) is None
    assert shadows.above(below) == (above if shadowed else None)
