"""What is known beforehand of paths that a pattern matches."""

from __future__ import annotations

import fnmatch
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchman.journal.question import AskedPath, extension

LETTERS = "ab[]!*?/-.\udcff"


@given(st.text(LETTERS, max_size=8), st.text("ab[]!/-.\udcff", max_size=6))
@example("[]]a", "]a")
@example("[!]]a", "ba")
@example("[a", "[a")
@example("[!]a", "[!]a")
@example("/a/b*[a]b/", "/a/bbab/")
@example("*[.]a.b", ".a.b")
@example("*[.]b", "a.b")
@example("*/.", "a/.")
@settings(max_examples=500, deadline=None)
def test_each_run_is_in_whatever_matches(pattern: str, path: str) -> None:
    asked = AskedPath(pattern)
    if asked.pattern is not None and fnmatch.fnmatchcase(path, pattern):
        parts = os.fsencode(path).split(b"/")
        assert all(any(run in part for part in parts) for run in asked.runs)
        assert os.fsencode(path).startswith(asked.prefix)
        assert asked.tail in {None, parts[-1]}
        assert asked.extension in {None, extension(parts[-1])}


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


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.csv", b"csv"), ("*[0-9].tar.gz", b"gz"), ("/a/*/b.c", b"c"), ("*.", b""),
        ("*csv", None), ("*.c?v", None), ("*[.]csv", None), ("*.csv*", None), ("/a.b/*/c", None),
        ("/a/b.csv", None),
    ],
)  # fmt: skip
def test_the_extension_of_all_that_match(pattern: str, found: bytes | None) -> None:
    assert AskedPath(pattern).extension == found
