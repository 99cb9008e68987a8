"""``with``: what it takes, each mistake in one line, and what a pattern above means for it."""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import Site
from tests.unit.config.test_criteria import BROKERS, WATCHES
from watchman.config.effective import settings
from watchman.model import Criteria, Criterion, Member, Route

LABEL = "PATTERNS['$D/ftp/*.shp']"
EXAMPLE = "write 'with': ['{stem}.shx', '{stem}.prj?']"
NAME = "write '{stem}.shx', or '{stem}.prj?' for one that may be missing"


def pattern(options: str, text: str = "$D/ftp/*.shp", above: str = "") -> str:
    entry = f"('{text}', {{'broker': 'b', 'task': 't', {options}}})"
    return f"{BROKERS}{WATCHES}PATTERNS = [{above}{entry}]"


def asked(site: Site, options: str, text: str = "$D/ftp/*.shp") -> Criteria | None:
    (found,) = site.load(pattern(options, text)).criteria
    return found


def test_members_and_for_how_long_they_are_waited_for(site: Site) -> None:
    members = Member("{stem}.shx"), Member("{stem}.prj", optional=True)
    options = "'with': ['{stem}.shx', '{stem}.prj?']"
    assert asked(site, options) == Criteria((), members=members, set_after=5.0)
    assert asked(site, f"{options}, 'set_after': 0") == Criteria((), members=members, set_after=0.0)


def test_together_with_what_complete_asks(site: Site) -> None:
    found = asked(
        site,
        "'with': ('{name}.xml',), 'complete': 'auto', 'incomplete_after': 60,"
        "'incomplete_task': 'broken'",
        "$D/ftp/*",
    )
    criterion, member = Criterion("format", "auto"), Member("{name}.xml")
    assert found == Criteria((criterion,), 60.0, Route("b", "broken"), members=(member,))


def test_what_becomes_of_an_incomplete_set_needs_no_complete(site: Site) -> None:
    found = asked(site, "'with': ['{stem}.shx'], 'incomplete_after': 60")
    assert found == Criteria((), 60.0, members=(Member("{stem}.shx"),))


def test_config_prints_what_can_be_written(site: Site) -> None:
    options = "'with': ['{stem}.shx', '{stem}.prj?'], 'set_after': 9"
    (entry,) = settings(site.load(pattern(options)))["PATTERNS"]
    assert entry[1]["with"] == ["{stem}.shx", "{stem}.prj?"]
    assert entry[1]["set_after"] == 9.0
    assert "complete" not in entry[1]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ("'with': '{stem}.shx'", f"'with' is '{{stem}}.shx'; {EXAMPLE}"),
        ("'with': []", f"'with' is []; {EXAMPLE}"),
        ("'with': {'{stem}.shx': 1}", f"'with' is {{'{{stem}}.shx': 1}}; {EXAMPLE}"),
        ("'with': [5]", f"'with': 5 is no name of a file beside the other; {NAME}"),
        ("'with': ['?']", f"'with': '?' is no name of a file beside the other; {NAME}"),
        (
            "'with': ['../{stem}.shx']",
            f"'with': '../{{stem}}.shx' is no name of a file beside the other; {NAME}",
        ),
        ("'with': ['README']", f"'with': 'README' has not '{{name}}' or '{{stem}}'; {NAME}"),
        (
            "'with': ['{stem}.{size}']",
            f"'with': '{{stem}}.{{size}}' has another field than '{{name}}' and '{{stem}}'; {NAME}",
        ),
        (
            "'with': ['{name}?']",
            f"'with': '{{name}}?' is the file itself; {NAME}",
        ),
        ("'with': ['{stem}.shp']", f"'with': '{{stem}}.shp' is the file itself; {NAME}"),
        (
            "'with': ['{stem}.shx', '{stem}.shx?']",
            "'with': '{stem}.shx?' stands there twice; remove one of the two",
        ),
        (
            "'complete': {'checksum': '{name}.md5'}, 'with': ['{name}.md5']",
            "'with': '{name}.md5' is asked for by 'complete' as well; remove one of the two",
        ),
        ("'set_after': 5", f"'set_after' stands without 'with'; {EXAMPLE}"),
        (
            "'with': ['{stem}.shx'], 'set_after': -1",
            "'set_after' is -1; write a number of seconds",
        ),
        (
            "'with': ['{stem}.shx'], 'kwargs': {'files': 1}",
            "'files' in 'kwargs' is where the task gets the files of its set; give yours another "
            "name",
        ),
        ("'wit': ['{stem}.shx']", "unknown key 'wit'; write 'with'"),
    ],
)
def test_a_mistake(site: Site, options: str, problem: str) -> None:
    assert site.problems(pattern(options)) == [f"{LABEL}: {problem}"]


@pytest.mark.parametrize("text", ["$D/ftp/grid.shp", "$D/ftp/*/grid.shp", "$D/ftp/x.d/*.shp"])
def test_a_name_without_its_suffix_is_told_by_a_pattern_of_the_whole_name(
    site: Site, text: str
) -> None:
    assert asked(site, "'with': ['{stem}.shx']", text) is not None


NO_SUFFIX = [
    *("$D/ftp/*", "$D/ftp/*.[sS]hp", "$D/ftp/*.d/roads*"),
    *("$D/ftp/x.d/roads", "$D/ftp/*.d/roads", "$D/ftp/*/.shp"),
]


@pytest.mark.parametrize("text", NO_SUFFIX)
def test_the_suffix_has_to_be_known_where_only_the_stem_is_told(site: Site, text: str) -> None:
    (problem,) = site.problems(pattern("'with': ['{stem}.shx']", text))
    assert problem == (
        f"PATTERNS['{text}']: 'with': '{{stem}}.shx' tells the name without its suffix, and the "
        "pattern does not tell that; have it end in a suffix, such as '*.shp', or write '{name}'"
    )
    assert site.load(pattern("'with': ['{name}.aux']", text)).criteria


def test_a_watch_has_no_sets(site: Site) -> None:
    text = BROKERS + "WATCHES = [{'path': '$D/ftp', 'with': ['{name}.aux']}]\n"
    (problem,) = site.problems(text + "PATTERNS = [('$D/ftp/*', {'broker': 'b', 'task': 't'})]")
    assert problem.startswith("WATCHES[0]: unknown key 'with'")


@pytest.mark.parametrize(
    ("member", "warned"),
    [("{stem}.dbf", True), ("{name}.dbf", True), ("{stem}.shx", False), ("x{stem}.dbf", False)],
)
def test_a_pattern_above_that_takes_a_file_of_the_set(
    site: Site, member: str, warned: bool
) -> None:
    above = "('$D/ftp/*.dbf', {'broker': 'b', 'task': 't'}), "
    config = site.load(pattern(f"'with': ['{member}']", above=above))
    wanted = (
        f"{LABEL}: 'with': '{member}' is matched by '$D/ftp/*.dbf' above it, and gives a task of "
        "its own; write that one below it"
    )
    found = [line.replace(str(site.root), "$D") for line in config.warnings]
    assert found == ([wanted] if warned else [])
