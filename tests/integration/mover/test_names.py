"""Suffixes, for any name."""

from __future__ import annotations

import os
import re

from hypothesis import given
from hypothesis import strategies as st

from watchman.mover.names import NAME_MAX, free_name, shortened, suffixed

names = (
    st.binary(min_size=1, max_size=255)
    .map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
    .filter(lambda raw: raw not in (b".", b".."))
    .map(os.fsdecode)
)
texts = (
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1)
    .filter(lambda name: name not in (".", ".."))
    .filter(lambda name: len(name.encode()) <= NAME_MAX)
)
MOMENT = 1_596_705_456_400


def test_the_documented_form() -> None:
    assert suffixed("events.csv", MOMENT) == "events@1596705456400.csv"
    assert suffixed("README", MOMENT) == "README@1596705456400"
    assert suffixed(".bashrc", MOMENT) == ".bashrc@1596705456400"
    assert suffixed("a.tar.gz", MOMENT) == "a.tar@1596705456400.gz"
    assert suffixed("in.d", MOMENT, tree=True) == "in.d@1596705456400"


@given(names | texts)
def test_a_suffixed_name_fits_and_differs(name: str) -> None:
    result = suffixed(name, MOMENT)
    raw = os.fsencode(result)
    assert len(raw) <= NAME_MAX
    assert b"/" not in raw
    assert f"@{MOMENT}" in result
    assert os.fsdecode(raw) == result
    assert result not in (name, ".", "..")


@given(texts)
def test_shortening_keeps_characters_whole(name: str) -> None:
    for size in (0, 1, 2, 3, 5, 8):
        cut = shortened(name, size)
        assert name.startswith(cut)
        assert len(cut.encode()) <= size


@given(texts.filter(lambda name: len(name.encode()) < 200))
def test_short_names_keep_stem_and_extension(name: str) -> None:
    stem, extension = os.path.splitext(name)
    if len(extension.encode()) <= 32:
        assert suffixed(name, MOMENT) == f"{stem}@{MOMENT}{extension}"


@given(texts, st.integers(0, 20))
def test_a_free_name_is_the_first_that_is_not_taken(name: str, number: int) -> None:
    taken = {suffixed(name, MOMENT + offset) for offset in range(number)}
    free = free_name(name, MOMENT, taken.__contains__)
    assert free == suffixed(name, MOMENT + number)
    assert re.search(r"@\d{13}", free)
