"""What every move does, on one file system and across two."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from tests.mover.rig import ROUTE, Rig
from tests.waiting import wait_until
from watchman.model import Delivery, State


def test_a_file_is_moved_to_the_same_place_below_the_root(any_rig: Rig) -> None:
    seq = any_rig.put("a/b/f.csv", b"rows")
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    assert any_rig.files() == {"a/b/f.csv": b"rows"}
    assert any_rig.left() == {}
    assert [(row.seq, row.final, row.state) for row in any_rig.moved] == [
        (seq, str(any_rig.root / "a/b/f.csv"), State.READY)
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
    assert any_rig.ledger.redirects == [(seq, row.final)]
    assert any_rig.files() == {"events.csv": b"old", os.path.basename(row.final): b"new"}
    assert any_rig.moved[0].final == row.final


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
    assert len({row.final for row in any_rig.ledger.rows.values()}) == 20


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
        any_rig.mover.wake()
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
    assert "gone" in any_rig.ledger.reasons[seq]
    assert any_rig.moved == []


def test_a_file_being_written_is_left_alone_until_it_is_closed(any_rig: Rig) -> None:
    seq = any_rig.put("f")
    with (any_rig.inbox / "f").open("ab"):
        any_rig.mover.start()
        wait_until(lambda: any_rig.changed, what="the change to be reported")
        assert any_rig.state(seq) is State.MOVING
        assert any_rig.files() == {}
    any_rig.mover.wake()
    any_rig.wait(seq, State.READY)
    any_rig.mover.stop(5)
    assert any_rig.files() == {"f": b"content"}


def test_a_changed_file_waits_for_its_refreshed_row(any_rig: Rig) -> None:
    seq = any_rig.put("f")
    os.utime(any_rig.inbox / "f", ns=(1, 1))
    with any_rig.running():
        wait_until(lambda: str(any_rig.inbox / "f") in any_rig.changed, what="the report")
        row = any_rig.row(seq)
        any_rig.ledger.add(row._replace(version=row.version._replace(mtime_ns=1)))
        any_rig.mover.wake()
        any_rig.wait(seq, State.READY)


def test_a_newer_upload_replaces_the_older_delivery(any_rig: Rig) -> None:
    old = any_rig.put("f", b"old")
    any_rig.upload("f", b"newer")
    with any_rig.running():
        wait_until(lambda: any_rig.changed, what="the report")
        new = any_rig.record("f")
        any_rig.mover.wake()
        any_rig.wait(new, State.READY)
        any_rig.wait(old, State.VANISHED)
    assert any_rig.ledger.reasons[old] == "replaced by a newer upload"
    assert any_rig.files() == {"f": b"newer"}


def test_an_older_delivery_in_the_same_batch_is_replaced_at_once(any_rig: Rig) -> None:
    old = any_rig.put("f", b"old")
    any_rig.upload("f", b"newer")
    new = any_rig.record("f")
    with any_rig.running():
        any_rig.wait(new, State.READY)
        any_rig.wait(old, State.VANISHED)
    assert any_rig.ledger.reasons[old] == "replaced by a newer upload"
    assert [row.seq for row in any_rig.moved] == [new]


def test_a_moved_file_is_not_moved_or_lost_when_its_note_was(any_rig: Rig) -> None:
    """The crash after the last step and before the note."""
    seq = any_rig.put("f")
    row = any_rig.row(seq)
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    any_rig.ledger.add(row)
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
    any_rig.ledger.add(row)
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
    assert "MOVES" in rig.ledger.reasons[seq]
    assert rig.left() == {"f": b"content"}


def test_ten_thousand_rows_do_not_stay_in_memory(rig: Rig) -> None:
    for number in range(3000):
        rig.put(f"{number % 7}/{number}", b"")
    with rig.running():
        for seq in list(rig.ledger.rows):
            rig.wait(seq, State.READY)
        wait_until(lambda: rig.status().waiting == 0, what="all to leave the lane")
    assert len(rig.files()) == 3000
    assert len(rig.moved) == 3000


def test_rows_that_are_recorded_while_a_lane_is_full_are_not_passed_over(rig: Rig) -> None:
    """What a lane had no room for is read again, and behind it what was recorded since."""
    rows = [rig.row(rig.put(f"{number}.csv")) for number in range(3200)]
    later = rows[2400:]
    for row in later:
        del rig.ledger.rows[row.seq]
    read = rig.ledger.page_moving

    def page_moving(after: int, limit: int) -> list[Delivery]:
        handed_out = len(rig.ledger.rows)
        if handed_out - limit < after < handed_out:
            for row in later[:200]:
                rig.ledger.add(row)
            del later[:200]
        return read(after, limit)

    def all_are_moved() -> bool:
        if len(rig.moved) == len(rig.ledger.rows) and later:
            rig.ledger.add(later.pop(0))
        rig.mover.wake()
        return len(rig.moved) == len(rows)

    rig.ledger.page_moving = page_moving  # type: ignore[method-assign]  # — uploads go on
    with rig.running():
        wait_until(all_are_moved, 30, what="every file to be moved")


def test_an_idle_mover_reads_nothing(rig: Rig) -> None:
    seq = rig.put("f", route=ROUTE)
    with rig.running():
        rig.wait(seq, State.READY)
        wait_until(lambda: rig.status().waiting == 0, what="the lane to be idle")
        pages = len(rig.ledger.pages)
        with pytest.raises(AssertionError):
            wait_until(lambda: len(rig.ledger.pages) > pages + 1, timeout=0.5)
