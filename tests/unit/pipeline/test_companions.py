"""Which files stand beside others: told by names and patterns alone."""

from __future__ import annotations

import pytest

from watchman.model import Criteria, Criterion, Member, Route, Watch
from watchman.pipeline.companions import Companions, name_for
from watchman.router import Router

SHP = Criteria((), members=(Member("{stem}.shx"), Member("{stem}.dbf"), Member("{stem}.prj", True)))


def companions(
    *patterns: tuple[str, Criteria | None],
    watches: tuple[Watch, ...] = (),
    ignore: tuple[str, ...] = (),
) -> Companions:
    texts, criteria = [text for text, _ in patterns], [asked for _, asked in patterns]
    router = Router([(text, Route("b", "t")) for text in texts], (), ignore, (), criteria)
    return Companions(texts, criteria, watches, router)


@pytest.mark.parametrize(
    ("path", "main"),
    [
        ("/d/a.shx", ["/d/a.shp"]),
        ("/d/a.b.dbf", ["/d/a.b.shp"]),
        ("/d/ä\udcff.prj", ["/d/ä\udcff.shp"]),
        ("/d/a\nb.shx", ["/d/a\nb.shp"]),
        ("/d/a.shp", []),
        ("/d/.shx", []),
        ("/d/a.SHX", []),
        ("/d/a.shx.gz", []),
        ("/elsewhere/a.shx", []),
    ],
)
def test_members_and_their_main_files(path: str, main: list[str]) -> None:
    assert companions(("/d/*.shp", SHP)).main_files(path) == main


def test_a_pattern_behind_does_not_take_a_member_and_one_above_does() -> None:
    assert companions(("*.shp", SHP), ("*.dbf", None)).main_files("/a.dbf") == ["/a.shp"]
    assert companions(("*.dbf", None), ("*.shp", SHP)).main_files("/a.dbf") == []


def test_a_pattern_that_matches_its_own_members() -> None:
    found = companions(("*", Criteria((), members=(Member("{name}.aux"),))))
    assert found.main_files("/a.aux") == ["/a"]
    # What is a member has none itself.
    assert found.main_files("/a.aux.aux") == []


def test_sets_of_each_others_files_do_not_wait_for_one_another() -> None:
    """The first pattern's files are main files; else neither would ever give a task."""
    one = Criteria((), members=(Member("{stem}.b"),))
    other = Criteria((), members=(Member("{stem}.a"),))
    found = companions(("*.a", one), ("*.b", other))
    assert found.main_files("/x.b") == ["/x.a"]
    assert found.main_files("/x.a") == []


def test_a_member_without_the_suffix_of_its_main_file() -> None:
    """As ENVI has it: a.hdr tells of a. Its pattern's own files would be members of longer ones."""
    found = companions(("*.hdr", Criteria((), members=(Member("{stem}"),))), ("*", None))
    assert found.main_files("/d/a") == ["/d/a.hdr"]
    assert found.main_files("/d/a.hdr") == []


@pytest.mark.parametrize(
    "pattern", ["*.[gG][zZ]", "*.g?", "*.*", "/d/*.gz*", "*.[!a-fh]z", "/d/?.[g]z", "/d/*", "*"]
)
def test_what_stands_beside_files_of_several_suffixes(pattern: str) -> None:
    done, sums = Criterion("marker", "{stem}.done"), Criterion("checksum", "SUMS")
    found = companions((pattern, Criteria((done, sums))), ("*", None))
    assert found.tells_of_another("/d/a.done")
    assert found.tells_of_another("/d/SUMS")
    assert not found.tells_of_another("/d/a.gz")


def test_a_size_without_the_suffix_of_its_file() -> None:
    found = companions(("*.bin", Criteria((Criterion("size", "{stem}"),))), ("*", None))
    assert found.tells_of_another("/d/a")
    assert not found.tells_of_another("/d/a.bin")
    shared = companions(("*.csv", Criteria((Criterion("marker", "x.csv"),))))
    assert shared.tells_of_another("/d/x.csv")


def test_a_field_in_a_name_stands_for_nothing() -> None:
    assert name_for("{name}.done", "a{stem}.csv") == "a{stem}.csv.done"
    assert name_for("{stem}.{name}.done", "{name}.csv") == "{name}.{name}.csv.done"


def test_a_pattern_that_tells_the_whole_name_tells_its_suffix() -> None:
    done = Criteria((Criterion("marker", "{stem}.done"),))
    found = companions(("/d/*/grid.shp", SHP), ("/d/*/a.csv", done), ("*", None))
    assert found.main_files("/d/x/grid.dbf") == ["/d/x/grid.shp"]
    assert found.tells_of_another("/d/x/a.done")


def test_a_member_of_two_sets() -> None:
    tab = Criteria((), members=(Member("{stem}.dbf"),))
    found = companions(("*.shp", SHP), ("*.tab", tab))
    assert found.main_files("/a.dbf") == ["/a.shp", "/a.tab"]


def test_a_main_file_that_another_pattern_takes_first_or_that_is_ignored() -> None:
    assert companions(("/d/x*", None), ("*.shp", SHP)).main_files("/d/x.dbf") == []
    assert companions(("/d/x.shp", None), ("*.shp", SHP)).main_files("/d/x.dbf") == []
    assert companions(("*.shp", SHP), ignore=("x*",)).main_files("/d/x.dbf") == []


def test_a_watch_asks_of_main_files_what_their_pattern_does_not() -> None:
    auto, done = Criterion("format", "auto"), Criterion("marker", "{name}.done")
    around = Watch("/d", criteria=Criteria((auto, done), marker_action="keep"))
    found = companions(("*.shp", SHP), watches=(around,))
    asked = found.criteria("/d/a.shp")
    assert asked is not None
    assert (asked.each, asked.members, asked.marker_action) == ((auto, done), SHP.members, "keep")
    assert found.criteria("/e/a.shp") == SHP
    assert found.tells_of_another("/d/a.shp.done")
    assert found.main_files("/d/a.shx") == ["/d/a.shp"]


def test_what_is_asked_of_a_member_by_itself() -> None:
    auto, done = Criterion("format", "auto"), Criterion("marker", "{name}.done")
    around = Watch("/d", criteria=Criteria((auto,)))
    other = Criteria((done,), members=(Member("{name}.aux"),))
    found = companions(("*.shp", SHP), ("*.dbf", other), watches=(around,))
    assert found.criteria_of_member("/d/a.dbf", "/d/a.shp") == Criteria((done,))
    assert found.criteria_of_member("/d/a.shx", "/d/a.shp") == Criteria((auto,))
    assert found.criteria_of_member("/e/a.shx", "/e/a.shp") is None
    same = Criteria((done,), members=(Member("{name}.aux"),))
    assert companions(("*", same)).criteria_of_member("/d/a.aux", "/d/a") is None
    of_both = companions(("*", Criteria((), members=same.members)), watches=(around,))
    assert of_both.criteria_of_member("/d/a.aux", "/d/a") == Criteria((auto,))


def test_what_a_watch_asks_that_comes_and_goes() -> None:
    done, size = Criterion("marker", "{name}.done"), Criterion("size", "{name}.size")
    outer, inner = (
        Watch("/d", criteria=Criteria((done,))),
        Watch("/d/e", criteria=Criteria((size,))),
    )
    found = companions(("*.shp", SHP))
    for _ in range(2):
        found.ask_for([inner, outer])
        assert found.tells_of_another("/d/a.done")
        assert found.tells_of_another("/d/e/a.size")
        assert not found.tells_of_another("/d/e/a.done")
        asked = found.criteria("/d/e/a.shp")
        assert asked is not None
        assert (asked.each, asked.members) == ((size,), SHP.members)
        found.ask_for([outer])
        asked = found.criteria("/d/e/a.shp")
        assert asked is not None
        assert asked.each == (done,)
        found.ask_for([])
        assert found.criteria("/d/e/a.shp") == SHP
        assert not found.tells_of_another("/d/a.done")
