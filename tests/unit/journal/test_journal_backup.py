"""What a backup has: the journal and its archive, whatever is sealed meanwhile."""

from __future__ import annotations

import os
import signal
import tarfile
from pathlib import Path

import pytest

from tests.unit.journal.test_archive import YES, deliver, in_journal, records, seal
from tests.waiting import wait_until
from watchman.errors import WatchmanError
from watchman.journal import Archive, Journal, archive, journal_backup
from watchman.journal.journal_backup import back_up


def unpacked(file: Path) -> Path:
    made = file.with_suffix("")
    made.mkdir()
    with tarfile.open(file) as tar:
        for one in tar:
            source = tar.extractfile(one)
            assert source is not None
            (made / one.name).parent.mkdir(exist_ok=True)
            (made / one.name).write_bytes(source.read())
    return made


def clear(journal: Journal) -> None:
    """Have what is sealed leave the journal."""
    work = Archive(journal)

    def is_done() -> bool:
        work.step(float("inf"), idle=YES)
        return not work.active

    wait_until(is_done, what="it has left")
    work.close()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    made = tmp_path / "state"
    made.mkdir()
    return made


def test_history_that_left_the_journal_comes_along(state: Path, tmp_path: Path) -> None:
    journal = Journal(str(state))
    deliver(journal, 1, 100)
    assert seal(state).startswith("sealed ")
    clear(journal)
    assert len(in_journal(state)) < 100
    before = records(state)
    assert back_up(str(state), str(tmp_path / "b.tar")).parts == 1
    journal.close()
    [part] = archive.files(str(state))
    owner = (state / "journal.db").stat()
    with tarfile.open(tmp_path / "b.tar") as tar:
        assert tar.getnames() == ["journal.db", f"history/{os.path.basename(part.path)}"]
        assert {(one.uid, one.gid, one.mode) for one in tar} == {
            (owner.st_uid, owner.st_gid, 0o600)
        }
    made = unpacked(tmp_path / "b.tar")
    assert records(made) == before
    # A daemon that starts with it goes on from there: no number is given out twice.
    again = Journal(str(made))
    deliver(again, 101, 1)
    again.close()
    assert next(iter(records(made))).seq == before[0].seq + 1


def test_what_is_sealed_meanwhile_is_there_once(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(str(state))
    deliver(journal, 1, 100)
    before = records(state)
    copy = journal_backup._copy_journal

    def copied_and_sealed(state_dir: str, target: str) -> None:
        copy(state_dir, target)
        assert seal(state).startswith("sealed ")
        clear(journal)

    monkeypatch.setattr(journal_backup, "_copy_journal", copied_and_sealed)
    assert back_up(str(state), str(tmp_path / "b.tar")).parts == 1
    journal.close()
    assert records(unpacked(tmp_path / "b.tar")) == before


def test_no_file_of_the_journal_is_replaced_by_its_backup(state: Path, tmp_path: Path) -> None:
    journal = Journal(str(state))
    deliver(journal, 1, 3)
    (tmp_path / "link").symlink_to(state)
    for target in (state / "journal.db-wal", tmp_path / "link/journal.db", state / "b.tar"):
        with pytest.raises(WatchmanError, match="lies in STATE_DIR"):
            back_up(str(state), str(target))
    assert len(in_journal(state)) == 3
    journal.close()


def killed(state: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a backup be killed while it writes."""
    pid = os.fork()
    if not pid:
        try:
            monkeypatch.setattr(archive, "files", lambda _: os.kill(os.getpid(), signal.SIGKILL))
            back_up(str(state), str(target))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_what_a_killed_one_has_left_is_removed_by_the_next(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(str(state)).close()
    other, there = tmp_path / "b.tar.gz", tmp_path / ".b.tar.original"
    there.mkdir()
    (there / "precious").touch()
    killed(state, tmp_path / "b.tar", monkeypatch)
    killed(state, other, monkeypatch)
    # As an older version has left it, and one that was killed in its first moment.
    (tmp_path / ".b.tar.abcd_123").mkdir()
    (tmp_path / ".b.tar.abcd_123/b.tar").touch()
    (tmp_path / ".b.tar.00000000").mkdir()
    back_up(str(state), str(tmp_path / "b.tar"))
    left = {path.name for path in tmp_path.iterdir()} - {"state", "b.tar", there.name}
    assert len(left) == 1
    assert left.pop().startswith(".b.tar.gz.")
    assert (there / "precious").exists()


def test_one_that_is_at_work_is_left_alone(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Journal(str(state)).close()
    target = str(tmp_path / "b.tar")
    files = archive.files

    def meanwhile(state_dir: str) -> object:
        monkeypatch.setattr(archive, "files", files)
        back_up(state_dir, target)
        return files(state_dir)

    monkeypatch.setattr(archive, "files", meanwhile)
    assert back_up(str(state), target).parts == 0
    assert {path.name for path in tmp_path.iterdir()} == {"state", "b.tar"}


@pytest.mark.parametrize("name", ["journal.db", "lock"])
def test_any_name_will_do(state: Path, tmp_path: Path, name: str) -> None:
    Journal(str(state)).close()
    back_up(str(state), str(tmp_path / name))
    assert tarfile.is_tarfile(tmp_path / name)
