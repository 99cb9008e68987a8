"""What is known beforehand of paths that a pattern matches."""

from __future__ import annotations

import fnmatch
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchman.journal.question import AskedPath

LETTERS = "ab[]!*?/-\udcff"


@given(st.text(LETTERS, max_size=8), st.text("ab[]!/-\udcff", max_size=6))
@example("[]]a", "]a")
@example("[!]]a", "ba")
@example("[a", "[a")
@example("[!]a", "[!]a")
@example("/a/b*[a]b/", "/a/bbab/")
@settings(max_examples=500, deadline=None)
def test_each_run_is_in_whatever_matches(pattern: str, path: str) -> None:
    asked = AskedPath(pattern)
    if asked.pattern is not None and fnmatch.fnmatchcase(path, pattern):
        parts = os.fsencode(path).split(b"/")
        assert all(any(run in part for part in parts) for run in asked.runs)
        assert os.fsencode(path).startswith(asked.prefix)
        assert asked.tail in {None, parts[-1]}


@pytest.mark.parametrize(
    ("pattern", "runs"),
    [
        ("*.csv", [b".csv"]),
        ("*[0-9].txt", [b".txt"]),
        ("/srv/ftp/*/x[!]a-z]yy*.csv", [b".csv", b"yy", b"x"]),
        ("*a*b[", [b"b[", b"a"]),
        ("*", []),
    ],
)
def test_runs(pattern: str, runs: list[bytes]) -> None:
    found = AskedPath(pattern).runs
    assert found == sorted(found, key=len, reverse=True)
    assert sorted(found) == sorted(runs)
