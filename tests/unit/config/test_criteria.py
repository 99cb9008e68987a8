"""``complete``: what it takes, and each mistake in one line."""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import Site
from watchman.config.callables import _callables
from watchman.model import Criteria, Criterion, Route

BROKERS = "BROKERS = {'b': 'amqp://host//'}\n"
WATCHES = "WATCHES = [{'path': '$D/ftp', 'rec': True, 'auto_add': True}]\n"
LABEL = "PATTERNS['$D/ftp/*.gz']"
EXAMPLE = (
    "write 'complete': 'auto', 'gzip', {'marker': '{name}.done'} or {'checksum': '{name}.sha256'}"
)


def pattern(options: str, head: str = "") -> str:
    return (
        f"{head}\n{BROKERS}{WATCHES}PATTERNS = [('$D/ftp/*.gz', "
        f"{{'broker': 'b', 'task': 't', {options}}})]"
    )


def asked(site: Site, options: str, head: str = "") -> Criteria | None:
    (found,) = site.load(pattern(options, head)).criteria or (None,)
    return found


@pytest.mark.parametrize(
    ("value", "each"),
    [
        ("'auto'", [("format", "auto")]),
        ("'gzip:thorough'", [("format", "gzip:thorough")]),
        ("{'format': 'csv'}", [("format", "csv")]),
        (
            "['zip', {'checksum': 'SHA256SUMS'}]",
            [("format", "zip"), ("checksum", "SHA256SUMS")],
        ),
        (
            "{'marker': '{stem}.ok', 'size': '{name}.size'}",
            [("marker", "{stem}.ok"), ("size", "{name}.size")],
        ),
        ("{'size': 'x_{size}.gz'}", [("size", "x_{size}.gz")]),
    ],
)
def test_forms(site: Site, value: str, each: list[tuple[str, str]]) -> None:
    wanted = Criteria(tuple(Criterion(*one) for one in each))
    assert asked(site, f"'complete': {value}") == wanted


def test_nothing_is_asked_by_default(site: Site) -> None:
    config = site.load(pattern(""))
    assert config.criteria == ()
    assert not config.has_criteria
    assert asked(site, "'complete': None") is None


def test_what_becomes_of_an_incomplete_file(site: Site) -> None:
    found = asked(
        site,
        "'complete': 'auto', 'incomplete_after': 60, 'incomplete_task': 'broken',"
        "'kwargs': {'a': 1}, 'marker_action': 'remove'",
    )
    route = Route("b", "broken", (), {"a": 1})
    assert found == Criteria((Criterion("format", "auto"),), 60.0, route, "remove")


def test_a_quarantine_is_one_more_move(site: Site) -> None:
    text = pattern("'complete': 'auto'") + "\nQUARANTINE = '$D/store'"
    assert site.load(text).all_moves == ((str(site.ftp), str(site.store)),)
    assert site.load(pattern("") + "\nQUARANTINE = '$D/store'").all_moves == ()


def test_a_quarantine_is_no_second_way_to_the_same_place(site: Site) -> None:
    """It may be where MOVES leads as well, and a path may be watched twice; one thread moves."""
    processor = "class Mine(pyinotify.ProcessEvent): pass"
    watches = "WATCHES.append({'path': '$D/ftp', 'proc_fun': Mine})"
    text = pattern("'complete': 'auto'", f"import pyinotify\n{processor}\n")
    config = site.load(f"{text}\n{watches}\nQUARANTINE = '$D/store'")
    assert [watch.path for watch in config.watches] == [str(site.ftp)] * 2
    assert config.all_moves == ((str(site.ftp), str(site.store)),)
    config = site.load(f"{text}\nMOVES = {{'$D/ftp': '$D/store'}}\nQUARANTINE = '$D/store'")
    assert config.all_moves == ((str(site.ftp), str(site.store)),)


def test_a_watch_asks_as_well(site: Site) -> None:
    config = site.load(
        BROKERS + "WATCHES = [{'path': '$D/ftp', 'complete': 'auto', 'incomplete_after': 9}]\n"
        "PATTERNS = [('$D/ftp/*', {'broker': 'b', 'task': 't'})]"
    )
    assert config.watches[0].criteria == Criteria((Criterion("format", "auto"),), 9.0)
    assert config.has_criteria


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("'complete': 'gzipp'", "'complete': unknown format 'gzipp'; write 'gzip'"),
        (
            "'complete': '{name}.done'",
            "'complete': unknown format '{name}.done'; "
            "write {'marker': '{name}.done'} if a file of that name must be there",
        ),
        ("'complete': 5", f"'complete': 5 is no condition; {EXAMPLE}, or a function"),
        ("'complete': []", f"'complete' is empty; {EXAMPLE}, or leave it out"),
        (
            "'complete': {'markr': '{name}.done'}",
            "'complete': unknown condition 'markr'; write 'marker'",
        ),
        (
            "'complete': {'marker': '../{name}'}",
            "'complete': 'marker': '../{name}' is no name of a file beside the other; "
            "write '{name}.done', say",
        ),
        (
            "'complete': {'marker': '{nme}.done'}",
            "'complete': 'marker': '{nme}.done' has other fields than '{name}', '{stem}'; "
            "write '{name}.done', say",
        ),
        (
            "'complete': {'marker': '{name}'}",
            "'complete': 'marker': '{name}' is the file itself; write '{name}.done', say",
        ),
    ],
)
def test_a_mistake_in_complete(site: Site, options: str, problem: str) -> None:
    assert site.problems(pattern(options)) == [f"{LABEL}: {problem}"]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            "'complete': 'auto', 'incomplete_after': 0",
            "'incomplete_after' is 0; write a number of seconds, 1 at the least",
        ),
        (
            "'complete': 'auto', 'marker_action': 'drop'",
            "'marker_action' is 'drop'; write one of 'move', 'remove', 'keep'",
        ),
        (
            "'complete': 'auto', 'incomplete_task': 5",
            "'incomplete_task' is 5; write the name of a Celery task",
        ),
        ("'incomplete_after': 5", f"'incomplete_after' stands without 'complete'; {EXAMPLE}"),
        ("'incomplete_task': 't'", f"'incomplete_task' stands without 'complete'; {EXAMPLE}"),
    ],
)
def test_a_mistake_beside_complete(site: Site, options: str, problem: str) -> None:
    assert site.problems(pattern(options)) == [f"{LABEL}: {problem}"]


def test_a_quarantine_in_a_watch_is_refused(site: Site) -> None:
    (problem,) = site.problems(pattern("'complete': 'auto'") + "\nQUARANTINE = '$D/ftp/q'")
    assert problem == (
        "QUARANTINE: $D/ftp/q lies in the watched directory $D/ftp; choose a place outside of it"
    )


def test_directories_have_no_criteria(site: Site) -> None:
    text = BROKERS + "WATCHES = [{'path': '$D/ftp', 'kind': 'directories', 'complete': 'auto'}]\n"
    (problem,) = site.problems(text + "PATTERNS = [('$D/ftp/*', {'broker': 'b', 'task': 't'})]")
    assert problem.startswith("WATCHES[0]: 'complete' is about files; leave it out")


def test_functions_of_patterns_that_differ_at_their_ends_are_told_apart(site: Site) -> None:
    """Messages show no more than the beginning of such a pattern."""
    above = f"$D/ftp/{'x' * 200}"
    entries = [
        f"('{above}/*.{end}', {{'broker': 'b', 'task': 't', 'complete': lambda *_: {number}}})"
        for number, end in enumerate(("csv", "nc"))
    ]
    config = site.load(f"{BROKERS}{WATCHES}PATTERNS = [{', '.join(entries)}]")
    asked = [criteria.each[0].argument for criteria in config.criteria if criteria is not None]
    found = _callables(str(site.root / "config.py"))
    assert [found[name]("x", None) for name in asked] == [0, 1]


def test_functions_are_found_again_by_another_process(site: Site) -> None:
    text = pattern("'complete': ['auto', whole]", "def whole(path, file):\n    return True")
    (criteria,) = site.load(text).criteria
    assert criteria is not None
    (name,) = (one.argument for one in criteria.each if one.kind == "callable")
    path = site.root / "config.py"
    assert _callables(str(path))[name]("x", None) is True
    later = "{'path': '$D/later/*', 'do_glob': True, 'complete': lambda *_: True}"
    (watch,) = site.load(f"{BROKERS}WATCHES = [{later}]\nPATTERNS = []").globs
    assert watch.criteria is not None
    assert [one.argument for one in watch.criteria.each] == [*_callables(str(path))]
    path.write_text("(")
    assert _callables(str(path)) == {}
