"""A file of a set comes again before it is moved: the set that is on its way is about that one."""

from __future__ import annotations

from watchman.journal import Journal, NewDelivery
from watchman.model import Delivery, Route, State, Version

SECOND = Version(1, 7, 30, 40, 50)


def record(journal: Journal, of: str) -> list[Delivery]:
    """Record two files that are to be moved, and return their deliveries."""
    for number in (1, 2):
        version, path = Version(1, number, 3, 4), f"/up/{number}"
        final, route = f"/store/{number}", Route("b", "task")
        journal.record([NewDelivery(f"id {number}", path, final, version, 5, route, set_id=of)])
    found = [journal.moving(seq) for seq in (1, 2)]
    return [row for row in found if row is not None]


def test_it_is_about_the_newer_version_and_has_its_id_as_before(journal: Journal) -> None:
    first, second = record(journal, "set")
    assert journal.take_over(second, SECOND, "sha256:1")
    taken = journal.moving(second.seq)
    assert taken == second._replace(version=SECOND, told="sha256:1")
    assert journal.moving(first.seq) == first
    assert journal.known.versions(["/up/1", "/up/2"]) == {"/up/1": first.version, "/up/2": SECOND}


def test_it_is_known_again_where_it_was_forgotten(journal: Journal) -> None:
    first, _ = record(journal, "set")
    journal.known.forget([first.source])
    assert journal.take_over(first, SECOND)
    assert journal.known.lookup("/up", ["1"])["1"] == (SECOND, first.seq)


def test_only_what_has_yet_to_be_moved_of_a_set_that_is_whole(journal: Journal) -> None:
    first, second = record(journal, "set")
    journal.note((), [first])
    assert not journal.take_over(first, SECOND)
    assert "/up/1" not in journal.known.versions(["/up/1"])
    journal.note([(first.seq, State.VANISHED, "gone")])
    assert not journal.take_over(second, SECOND)


def test_what_is_in_no_set_is_another_delivery(journal: Journal) -> None:
    first, _ = record(journal, "")
    assert not journal.take_over(first, SECOND)
    assert journal.moving(first.seq) == first
