"""What every move does, on one file system and across two."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from tests.integration.mover.rig import ROUTE, Rig
from tests.waiting import wait_until
from watchman.model import Delivery, Move, State


def test_a_file_is_moved_to_the_same_place_below_the_root(any_rig: Rig) -> None:
    seq = any_rig.put("a/b/f.csv", b"rows")
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    assert any_rig.files() == {"a/b/f.csv": b"rows"}
    assert any_rig.left() == {}
    assert [(row.seq, row.final) for row in any_rig.heard.rows] == [
        (seq, str(any_rig.root / "a/b/f.csv"))
    ]


def test_a_delivery_without_a_route_ends_as_moved(any_rig: Rig) -> None:
    seq = any_rig.put("f", route=None)
    with any_rig.running():
        any_rig.wait(seq, State.MOVED)
    assert any_rig.files() == {"f": b"content"}


def test_the_log_names_source_and_destination_once(
    any_rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "watchman.notify")
    seq = any_rig.put("evil\nname\x1b[31m")
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    lines = [r.getMessage() for r in caplog.records if r.name == "watchman.notify"]
    name = "evil\\x0aname\\x1b[31m"
    assert lines == [f"Moving {any_rig.inbox}/{name} to {any_rig.root}/{name}"]


def test_a_taken_name_gets_a_suffix_and_is_not_touched(any_rig: Rig) -> None:
    (any_rig.root / "events.csv").write_bytes(b"old")
    seq = any_rig.put("events.csv", b"new")
    with any_rig.running():
        row = any_rig.wait(seq, State.READY)
    assert re.fullmatch(r"events@\d{13}\.csv", os.path.basename(row.final))
    assert any_rig.store.redirects == [(seq, row.final)]
    assert any_rig.files() == {"events.csv": b"old", os.path.basename(row.final): b"new"}
    assert any_rig.heard.rows[0].final == row.final


@pytest.mark.parametrize("obstacle", ["fifo", "directory", "dangling"])
def test_whatever_has_the_name_stays(any_rig: Rig, obstacle: str) -> None:
    path = any_rig.root / "f"
    if obstacle == "fifo":
        os.mkfifo(path)
    elif obstacle == "directory":
        path.mkdir()
    else:
        path.symlink_to("/nowhere/at/all")
    before = os.lstat(path)
    seq = any_rig.put("f")
    with any_rig.running():
        row = any_rig.wait(seq, State.READY)
    assert os.lstat(path).st_ino == before.st_ino
    assert Path(row.final).read_bytes() == b"content"
    assert row.final != str(path)


def test_two_deliveries_to_one_name_are_both_kept(any_rig: Rig) -> None:
    contents = [str(number).encode() for number in range(20)]
    seqs = []
    for number, content in enumerate(contents):
        any_rig.upload(f"{number}", content)
        seqs.append(any_rig.record(f"{number}", final=str(any_rig.root / "same.txt")))
    with any_rig.running():
        for seq in seqs:
            any_rig.wait(seq, State.READY)
    assert sorted(any_rig.files().values()) == sorted(contents)
    assert len({row.final for row in any_rig.store.rows.values()}) == 20


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe.csv", b"x" * 255, "ü".encode() * 127, b"-rf", b"a b\tc", b"\xe2\x80\xae.exe"],
)
def test_hard_names(any_rig: Rig, name: bytes) -> None:
    text = os.fsdecode(name)
    first = any_rig.put(text, b"1")
    with any_rig.running():
        any_rig.wait(first, State.READY)
        second = any_rig.put(text, b"2")
        any_rig.wake()
        row = any_rig.wait(second, State.READY)
    found = any_rig.files()
    assert found[text] == b"1"
    assert found[os.path.basename(row.final)] == b"2"
    assert len(found) == 2


def test_mode_and_times_are_kept(any_rig: Rig) -> None:
    path = any_rig.upload("d/f")
    path.chmod(0o640)
    path.parent.chmod(0o750)
    os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_001_987_654_321))
    seq = any_rig.record("d/f")
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    status = os.stat(any_rig.root / "d/f")
    assert status.st_mode & 0o7777 == 0o640
    assert status.st_mtime_ns == 1_600_000_001_987_654_321
    assert os.stat(any_rig.root / "d").st_mode & 0o7777 == 0o750


def test_the_owner_is_kept(any_rig: Rig) -> None:
    path = any_rig.upload("f")
    try:
        os.chown(path, 65534, 65534)
    except PermissionError:
        pytest.skip("only root gives files away")
    seq = any_rig.record("f")
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    status = os.stat(any_rig.root / "f")
    assert (status.st_uid, status.st_gid) == (65534, 65534)


def test_a_vanished_file_ends_its_delivery(any_rig: Rig) -> None:
    seq = any_rig.put("d/f")
    (any_rig.inbox / "d/f").unlink()
    (any_rig.inbox / "d").rmdir()
    with any_rig.running():
        any_rig.wait(seq, State.VANISHED)
    assert "gone" in any_rig.store.reasons[seq]
    assert any_rig.heard.rows == []


def test_a_file_being_written_is_left_alone_until_it_is_closed(any_rig: Rig) -> None:
    seq = any_rig.put("f")
    with (any_rig.inbox / "f").open("ab"):
        any_rig.mover.start()
        wait_until(lambda: any_rig.heard.paths, what="the change to be reported")
        assert any_rig.state(seq) is State.MOVING
        assert any_rig.files() == {}
    any_rig.wake()
    any_rig.wait(seq, State.READY)
    any_rig.mover.stop(5)
    assert any_rig.files() == {"f": b"content"}


def test_a_changed_file_waits_for_its_refreshed_row(any_rig: Rig) -> None:
    seq = any_rig.put("f")
    os.utime(any_rig.inbox / "f", ns=(1, 1))
    with any_rig.running():
        wait_until(lambda: str(any_rig.inbox / "f") in any_rig.heard.paths, what="the report")
        row = any_rig.row(seq)
        any_rig.store.add(row._replace(version=row.version._replace(mtime_ns=1)))
        any_rig.wake()
        any_rig.wait(seq, State.READY)


def test_a_newer_upload_replaces_the_older_delivery(any_rig: Rig) -> None:
    old = any_rig.put("f", b"old")
    any_rig.upload("f", b"newer")
    with any_rig.running():
        wait_until(lambda: any_rig.heard.paths, what="the report")
        new = any_rig.record("f")
        any_rig.wake()
        any_rig.wait(new, State.READY)
        any_rig.wait(old, State.VANISHED)
    assert any_rig.store.reasons[old] == "replaced by a newer upload"
    assert any_rig.files() == {"f": b"newer"}


def test_an_older_delivery_in_the_same_batch_is_replaced_at_once(any_rig: Rig) -> None:
    old = any_rig.put("f", b"old")
    any_rig.upload("f", b"newer")
    new = any_rig.record("f")
    with any_rig.running():
        any_rig.wait(new, State.READY)
        any_rig.wait(old, State.VANISHED)
    assert any_rig.store.reasons[old] == "replaced by a newer upload"
    assert [row.seq for row in any_rig.heard.rows] == [new]


def test_a_moved_file_is_not_moved_or_lost_when_its_note_was(any_rig: Rig) -> None:
    """The crash after the last step and before the note."""
    seq = any_rig.put("f")
    row = any_rig.row(seq)
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    any_rig.store.add(row)
    any_rig.new_mover()
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    assert any_rig.files() == {"f": b"content"}


def test_a_new_upload_under_the_name_of_a_moved_one(any_rig: Rig) -> None:
    """Crash before the note, and the uploader is back before the restart."""
    first = any_rig.put("f", b"one")
    row = any_rig.row(first)
    with any_rig.running():
        any_rig.wait(first, State.READY)
    any_rig.store.add(row)
    second = any_rig.put("f", b"second")
    any_rig.new_mover()
    with any_rig.running():
        any_rig.wait(first, State.READY)
        any_rig.wait(second, State.READY)
    assert any_rig.row(first).final == str(any_rig.root / "f")
    assert sorted(any_rig.files().values()) == [b"one", b"second"]


def test_a_delivery_that_no_moves_entry_covers_fails_visibly(rig: Rig, tmp_path: Path) -> None:
    rig.upload("f")
    seq = rig.record("f", final="/elsewhere/f")
    with rig.running():
        rig.wait(seq, State.FAILED)
    assert "MOVES" in rig.store.reasons[seq]
    assert rig.left() == {"f": b"content"}


def test_rows_of_an_entry_that_was_changed_go_with_the_one_that_leads_there(rig: Rig) -> None:
    seqs = [rig.put(f"a/{number}") for number in range(3)]
    rig.store.moves[seqs[0]] = Move("/before", str(rig.root))
    rig.store.moves[seqs[1]] = Move(str(rig.inbox / "a"), str(rig.root / "a"))
    del rig.store.moves[seqs[2]]  # an older watchman's
    with rig.running():
        for seq in seqs:
            rig.wait(seq, State.READY)
    assert rig.files() == {f"a/{number}": b"content" for number in range(3)}


def test_a_row_that_an_operator_brought_back_is_moved(rig: Rig) -> None:
    first, second = rig.put("a"), rig.put("b")
    failed = rig.row(first)
    rig.store.add(failed._replace(state=State.FAILED))
    with rig.running() as mover:
        rig.wait(second, State.READY)
        rig.store.add(failed)
        mover.rescan()
        rig.wait(first, State.READY)
    assert rig.files().keys() == {"a", "b"}


def test_ten_thousand_rows_do_not_stay_in_memory(rig: Rig) -> None:
    for number in range(3000):
        rig.put(f"{number % 7}/{number}", b"")
    with rig.running():
        for seq in list(rig.store.rows):
            rig.wait(seq, State.READY)
        wait_until(lambda: rig.status().waiting == 0, what="all to be done with")
    assert len(rig.files()) == 3000
    assert len(rig.heard.rows) == 3000


def test_rows_that_are_recorded_while_others_are_read_are_not_passed_over(rig: Rig) -> None:
    rows = [rig.row(rig.put(f"{number}.csv")) for number in range(3200)]
    later = rows[2400:]
    for row in later:
        del rig.store.rows[row.seq]
    read = rig.store.page_moving

    def page_moving(move: Move, after: int, limit: int) -> list[Delivery]:
        handed_out = len(rig.store.rows)
        if handed_out - limit < after < handed_out:
            for row in later[:200]:
                rig.store.add(row)
            del later[:200]
        return read(move, after, limit)

    def all_are_moved() -> bool:
        if len(rig.heard.rows) == len(rig.store.rows) and later:
            rig.store.add(later.pop(0))
        rig.wake()
        return len(rig.heard.rows) == len(rows)

    rig.store.page_moving = page_moving  # type: ignore[method-assign]  # — uploads go on
    with rig.running():
        wait_until(all_are_moved, 30, what="every file to be moved")


def test_an_idle_mover_reads_nothing(rig: Rig) -> None:
    seq = rig.put("f", route=ROUTE)
    with rig.running():
        rig.wait(seq, State.READY)
        wait_until(lambda: rig.status().waiting == 0, what="it to be idle")
        pages = len(rig.store.pages)
        with pytest.raises(AssertionError):
            wait_until(lambda: len(rig.store.pages) > pages + 1, timeout=0.5)
