"""The router answers as a plain loop over fnmatch would, only faster."""

from __future__ import annotations

import fnmatch
import sys
from collections.abc import Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from watchman.config import DEFAULT_IGNORE
from watchman.model import Route
from watchman.router import Router


def route(task: object) -> Route:
    return Route("broker", str(task))


def router_of(*patterns: str) -> Router:
    return Router([(pattern, route(number)) for number, pattern in enumerate(patterns)])


def naive(patterns: Sequence[str], path: str) -> Route | None:
    for number, pattern in enumerate(patterns):
        if fnmatch.fnmatchcase(path, pattern):
            return route(number)
    return None


PIECES = st.sampled_from(
    [
        *("*", "**", "?", "[!x]", "[ab]", "[]]", "[!]]", "[a", "[", "]", "[a*b]", "/", "a", "b"),
        *("x", ".", "..", ".a", ".ab", "/up/", "ab/", "\n", "\udcff", "é", "-", "\\", "{", "("),
        *("+", "aab"),
    ]
)
PATTERN = st.lists(PIECES, max_size=7).map("".join)
PATH_PIECES = st.sampled_from(
    ["/", "a", "b", "x", ".", ".a", ".ab", "/up/", "ab", "\n", "\udcff", "é", "[", "]", "-", "*"]
)
PATH = st.lists(PATH_PIECES, max_size=9).map("".join)


@settings(max_examples=1500, deadline=None)
@given(st.lists(PATTERN, max_size=5), st.lists(PATH, min_size=1, max_size=6))
@example(["/up/user*x/b"], ["/up/userx/b", "/up/user/x/b"])
@example(["*/up/"], ["/up/b", "/up/"])
@example(["/up/*/e/*.a"], ["/up/e/b.a", "/up/x/e/b.a", "/up/e/e.a"])
def test_route_equals_the_naive_loop(patterns: list[str], paths: list[str]) -> None:
    router = router_of(*patterns)
    # Twice: the second answer comes from what was remembered.
    for path in paths + paths:
        assert router.route(path) == naive(patterns, path), path
        number = router.route(path)
        assert router.pattern(path) == (None if number is None else patterns[int(number.task)])


@settings(max_examples=150, deadline=None)
@given(st.lists(PATTERN, min_size=12, max_size=40), st.lists(PATH, min_size=1, max_size=6))
def test_many_patterns_equal_the_naive_loop(patterns: list[str], paths: list[str]) -> None:
    router = router_of(*patterns)
    for path in paths + paths:
        assert router.route(path) == naive(patterns, path), path


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_patterns_made_from_the_path_equal_the_naive_loop(data: st.DataObject) -> None:
    """Arbitrary patterns seldom match: here parts of a path are replaced by wildcards."""
    path = "/up/" + data.draw(st.text("ab./-\n", max_size=20))
    patterns = []
    for _ in range(data.draw(st.integers(1, 14))):
        cuts = sorted(data.draw(st.lists(st.integers(0, len(path)), min_size=2, max_size=6)))
        text = path
        for start, end in zip(cuts[-2::-2], cuts[::-2], strict=False):
            if start <= end:
                wild = "?" * (end - start) if data.draw(st.booleans()) else "*"
                text = text[:start] + wild + text[end:]
        patterns.append(text)
    assert naive(patterns, path) is not None
    other = data.draw(st.sampled_from([path, path + "b", path + ".a", path.replace("a", "b")]))
    router = router_of(*patterns)
    for asked in (path, other):
        assert router.route(asked) == naive(patterns, asked)


@settings(max_examples=500, deadline=None)
@given(st.lists(PATTERN, max_size=6), PATH)
def test_ignored_equals_the_naive_loop(patterns: list[str], path: str) -> None:
    router = Router([], ignore=patterns, dry_run=patterns)
    name = path.rpartition("/")[2]
    expected = any(
        fnmatch.fnmatchcase(path if "/" in pattern else name, pattern) for pattern in patterns
    )
    assert router.ignored(name, path) == expected
    assert router.is_dry_run(path) == any(fnmatch.fnmatchcase(path, p) for p in patterns)


def test_the_first_match_wins() -> None:
    router = router_of("/srv/ftp/*/events/*.csv", "/srv/ftp/*.csv", "*")
    assert router.pattern("/srv/ftp/u/events/a.csv") == "/srv/ftp/*/events/*.csv"
    assert router.pattern("/srv/ftp/events/a.csv") == "/srv/ftp/*.csv"
    assert router.pattern("/srv/ftp/u/events.csv") == "/srv/ftp/*.csv"
    assert router.pattern("/srv/ftp/u/events/a.CSV") == "*"


def test_a_star_matches_slashes_and_case_differs() -> None:
    router = router_of("/srv/ftp/*.csv")
    assert router.route("/srv/ftp/a/b/c.csv") == route(0)
    assert router.route("/srv/ftp/a.CSV") is None
    assert router.route("/srv/ftp2/a.csv") is None
    assert router.route("/srv/ftp/a.csv/") is None


def test_without_patterns_there_is_no_route() -> None:
    router = Router([])
    assert router.route("/srv/ftp/a.csv") is None
    assert router.pattern("/srv/ftp/a.csv") is None
    assert router.destination("/srv/ftp/a.csv") is None
    assert not router.ignored("a.csv", "/srv/ftp/a.csv")
    assert not router.is_dry_run("/srv/ftp/a.csv")


@pytest.mark.parametrize(
    ("path", "destination"),
    [
        ("/srv/ftp/u/lizard/events.csv", "/isilon/foo/u/lizard/events.csv"),
        ("/srv/ftp/a.csv", "/isilon/foo/a.csv"),
        ("/srv/ftp/special/a.csv", "/other/a.csv"),
        ("/srv/ftp/special2/a.csv", "/isilon/foo/special2/a.csv"),
        ("/srv/ftp/special", "/isilon/foo/special"),
        ("/srv/ftp2/a.csv", None),
        ("/srv/ftp", None),
        ("/srv/ftp/a\n\udcff", "/isilon/foo/a\n\udcff"),
    ],
)
def test_the_longest_source_wins_by_component(path: str, destination: str | None) -> None:
    moves = [("/srv/ftp", "/isilon/foo"), ("/srv/ftp/special", "/other")]
    for order in (moves, moves[::-1]):
        router = Router([], order)
        assert router.destination(path) == destination
        assert router.destination(path) == destination


def test_moves_from_and_to_the_root_directory() -> None:
    assert Router([], [("/", "/store")]).destination("/a/b") == "/store/a/b"
    assert Router([], [("/srv", "/")]).destination("/srv/a/b") == "/a/b"


@pytest.mark.parametrize(
    "name",
    [
        *(".in.data.csv.", ".dst3fa9xyz", ".pureftpd-upload.5f", ".~tmp~", ".data.csv.Ab3dEf"),
        *("big.nc.part", "big.nc.filepart", "big.nc.PART", "a.Part", "a.filePart"),
        *("a.csv.1f2e3d4c.partial", "a.tmp", "A.TMP", "a.nc.crdownload", "a.opdownload"),
        *(".sftpgo-upload.cq1v.a.csv", ".syncthing.a.csv.tmp", "~syncthing~a.csv.tmp"),
        *("a.csv.ocTransferId643653835.part", ".a.csv.~5f3a", ".in.data.csv"),
        *("a.part.minio", "a_.gstmp", ".azDownload-1f-a.csv", ".mutagen-temporary-a", "a.!qB"),
    ],
)
def test_ignored_by_default(name: str) -> None:
    assert Router([], ignore=DEFAULT_IGNORE).ignored(name)


@pytest.mark.parametrize(
    "name",
    [
        *("data.csv", ".bashrc", "part", "tmp", "a.part1", "a.tmpl", "a.partial.csv", "a~"),
        *(".data.csv.Ab3dE", "x.in.a.", "", "a.tmp.csv", "sftpgo-upload.a", "a.download"),
    ],
)
def test_not_ignored_by_default(name: str) -> None:
    assert not Router([], ignore=DEFAULT_IGNORE).ignored(name)


@pytest.mark.parametrize(
    ("name", "ignored"),
    [("a.tmp", False), ("a.part", False), (".in.a", False), (".dst1f", True), (".~tmp~", True)],
)
def test_what_is_for_files_alone_ignores_no_directory(name: str, ignored: bool) -> None:
    """Also where a configuration repeats the default, as the example does."""
    router = Router([], ignore=[*DEFAULT_IGNORE, "*.bak"])
    assert router.ignored(name, directory=True) is ignored
    assert router.ignored(name)
    assert router.ignored("a.bak", directory=True)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("İ*", "İstanbul.csv"), ("*ΑΣ", "ΟΔΑΣ"), ("*.ΣΑΣ", "α.ΣΑΣ"), ("ẞ*.csv", "ẞ1.csv")],
)
def test_letters_whose_lower_case_is_another_matter(pattern: str, name: str) -> None:
    router = Router([], ignore=[*DEFAULT_IGNORE, pattern])
    assert router.ignored(name)
    assert not router.ignored(f"x{name}x")


def test_an_ignore_pattern_with_a_slash_is_for_the_whole_path() -> None:
    router = Router([], ignore=["/srv/*/tmp/*"])
    assert router.ignored("a", "/srv/u/tmp/a")
    assert not router.ignored("a", "/srv/u/a")
    assert not router.ignored("a")


def test_what_is_remembered_is_bounded() -> None:
    router = Router([("/up/*/a*.csv", route(0))], [("/up", "/store")])
    for number in range(10_000):
        path = f"/up/{number}/a.csv"
        assert router.route(path) == route(0)
        assert router.destination(path) == f"/store/{number}/a.csv"
    assert len(router._plans) <= 4096
    assert len(router._targets) <= 4096
    assert len(router._lookups) <= 4096


@pytest.mark.parametrize(
    "patterns",
    [
        ["/up/*.nc", "/up/*.csv"],
        [f"/up/*/never-{n:03}-*.csv" for n in range(199)] + ["/up/*.csv"],
        [f"/up/user{n:03}/*.csv" for n in range(200)],
        [f"/up/*.e{n:03}" for n in range(199)] + ["/up/*.csv"],
    ],
    ids=["two", "only the last", "a directory each", "an extension each"],
)
def test_the_work_for_each_file_does_not_grow_with_the_patterns(patterns: list[str]) -> None:
    router = Router(
        [(pattern, route(pattern)) for pattern in patterns], [("/up", "/store")], DEFAULT_IGNORE
    )
    files = [f"/up/user{n % 100:03}/data-{n:06}.csv" for n in range(2000)]
    calls = 0

    def ask(path: str) -> None:
        router.ignored(path.rpartition("/")[2], path)
        assert router.route(path) is not None
        router.destination(path)

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    for path in files[:1000]:  # each directory is met once, and remembered
        ask(path)
    sys.setprofile(count)
    for path in files[1000:]:
        ask(path)
    sys.setprofile(None)
    assert calls < 20 * 1000
