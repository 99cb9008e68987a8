"""What Prometheus reads: no two series of one name and the same labels, or it takes none."""

from __future__ import annotations

from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.integration.pipeline.test_status import NOW, WATCH, snapshot
from watchman.journal import measures
from watchman.metrics.exposition import as_text
from watchman.metrics.facts import Facts


def series(**changes: Any) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return what is written of a snapshot, by name and labels; each is there once."""
    facts = Facts(*(NOW, "active", NOW, snapshot(**changes), 0.0, measures.NONE, "", 0, None, None))
    families = text_string_to_metric_families(as_text(facts).decode())
    samples = [sample for family in families for sample in family.samples]
    found = {(one.name, frozenset(one.labels.items())): one.value for one in samples}
    assert len(found) == len(samples)
    return found


def directories(found: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> list[float]:
    return [value for (name, _), value in found.items() if "watched_directories" in name]


def test_a_path_that_is_watched_twice_is_one_series() -> None:
    """For files and by a processor of the user's, or by two of them."""
    processor = {**WATCH, "handler": "mine.Processor", "directories": 2}
    assert directories(series(watches=[WATCH, processor, processor])) == [7]
    assert directories(series(watches=[WATCH, {**WATCH, "method": "poll"}])) == [3, 3]


def test_so_are_names_that_are_shown_alike() -> None:
    r"""A line end is shown as ``\x0a``, which a name may have in it as it stands."""
    watches = [{**WATCH, "path": path} for path in ("/a\nb", r"/a\x0ab")]
    assert directories(series(watches=watches)) == [6]
