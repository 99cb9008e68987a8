"""``batch``: what it takes, and each mistake in one line."""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import Site
from watchman.checks.matching import match
from watchman.config import effective
from watchman.model import Batch

LABEL = "PATTERNS['$D/ftp/*.csv']"


def pattern(options: str) -> str:
    return (
        "BROKERS = {'b': 'amqp://host//'}\n"
        "WATCHES = [{'path': '$D/ftp', 'rec': True, 'auto_add': True}]\n"
        f"PATTERNS = [('$D/ftp/*.csv', {{'broker': 'b', 'task': 't', {options}}})]"
    )


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("{'size': 100, 'seconds': 5}", Batch(100, 5.0)),
        ("{'size': 1, 'seconds': 0.1, 'by': None}", Batch(1, 0.1)),
        (
            "{'size': 1000, 'seconds': 3600, 'by': 'directory'}",
            Batch(1000, 3600.0, by_directory=True),
        ),
        ("None", None),
    ],
)
def test_forms(site: Site, value: str, wanted: Batch | None) -> None:
    config = site.load(pattern(f"'batch': {value}"))
    ((_, route),) = config.patterns
    assert route.batch == wanted
    ((_, shown),) = effective.settings(config)["PATTERNS"]
    assert site.load(pattern(f"'batch': {shown.get('batch')}")).patterns == config.patterns


@pytest.mark.parametrize(
    ("options", "mistakes"),
    [
        ("'batch': 100", [": 'batch' is 100; write 'batch': {'size': 100, 'seconds': 5}"]),
        (
            "'batch': {'size': 0, 'seconds': 0.01, 'by': 'hour', 'secnds': 1}",
            [
                ": 'batch': unknown key 'secnds'; write 'seconds'",
                ": 'batch': 'size' is 0; write 1 to 1000 files",
                ": 'batch': 'seconds' is 0.01; write 0.1 to 3600 seconds",
                ": 'batch': 'by' is 'hour'; write 'directory', or leave it out",
            ],
        ),
        (
            "'batch': {'size': True}",
            [
                ": 'batch': 'size' is True; write 1 to 1000 files",
                ": 'batch': 'seconds' is None; write 0.1 to 3600 seconds",
            ],
        ),
        (
            "'batch': {'size': 5, 'seconds': 5}, 'kwargs': {'files': []}",
            [
                ": 'files' in 'kwargs' is where the task gets the files of its batch; "
                "give yours another name"
            ],
        ),
    ],
)
def test_mistakes(site: Site, options: str, mistakes: list[str]) -> None:
    assert site.problems(pattern(options)) == [f"{LABEL}{mistake}" for mistake in mistakes]


def test_an_incomplete_file_has_a_task_of_its_own(site: Site) -> None:
    options = "'batch': {'size': 5, 'seconds': 5}, 'complete': 'csv', 'incomplete_task': 'half'"
    (criteria,) = site.load(pattern(options)).criteria
    assert criteria is not None
    assert criteria.incomplete is not None
    assert criteria.incomplete.batch is None


def test_match_tells_of_it(site: Site) -> None:
    config = site.load(pattern("'batch': {'size': 5, 'seconds': 0.5, 'by': 'directory'}"))
    found = match(config, f"{site.ftp}/a.csv")
    words = "  batch:    up to 5 files of its directory, sent after 0.5 s at the latest"
    assert words in found.text().splitlines()
