"""What makes two arrivals the same: each cell of the table."""

from __future__ import annotations

import pytest

from watchman import mounts
from watchman.identity import Comparison, Doubt, Evidence, compare, doubt, is_same_content
from watchman.model import Version

SAME, TOUCHED, NEW = Comparison.SAME, Comparison.TOUCHED, Comparison.NEW
KNOWN = Version(device=1, inode=2, size=3, mtime_ns=4, changed_ns=5)
SEEN = {
    "all equal": KNOWN,
    "another device": KNOWN._replace(device=9),
    "ctime": KNOWN._replace(changed_ns=50),
    "mtime": KNOWN._replace(mtime_ns=40, changed_ns=50),
    "size": KNOWN._replace(size=30, mtime_ns=40, changed_ns=50),
    "inode": KNOWN._replace(inode=20, changed_ns=50),
}
TABLE = {
    Evidence.SCAN: (SAME, SAME, TOUCHED, NEW, NEW, NEW),
    Evidence.ATTRIB: (SAME, SAME, TOUCHED, TOUCHED, NEW, NEW),
    Evidence.CAME: (SAME, SAME, NEW, NEW, NEW, NEW),
    Evidence.WRITTEN: (SAME, SAME, NEW, NEW, NEW, NEW),
    Evidence.REPLACED: (NEW, NEW, NEW, NEW, NEW, NEW),
}
"""By what made us look; for each of SEEN in its order."""
CELLS = [
    (evidence, difference, verdict)
    for evidence, verdicts in TABLE.items()
    for difference, verdict in zip(SEEN, verdicts, strict=True)
]


def on(monkeypatch: pytest.MonkeyPatch, filesystem: str) -> None:
    """Have every device be of a type."""
    monkeypatch.setattr(mounts, "stability", lambda _: mounts.stability_of(filesystem))


@pytest.mark.parametrize(("evidence", "difference", "verdict"), CELLS)
@pytest.mark.parametrize("filesystem", ["ext4", "tmpfs", "nfs4", ""])
def test_where_numbers_last(
    monkeypatch: pytest.MonkeyPatch,
    filesystem: str,
    evidence: Evidence,
    difference: str,
    verdict: Comparison,
) -> None:
    on(monkeypatch, filesystem)
    assert compare(KNOWN, SEEN[difference], evidence) is verdict
    assert compare(None, SEEN[difference], evidence) is NEW


@pytest.mark.parametrize("filesystem", ["vfat", "exfat", "fuse.sshfs", "fuse", "cifs"])
def test_an_inode_number_means_nothing_where_each_mount_gives_another(
    monkeypatch: pytest.MonkeyPatch, filesystem: str
) -> None:
    on(monkeypatch, filesystem)
    for evidence in (Evidence.SCAN, Evidence.ATTRIB):
        assert compare(KNOWN, SEEN["inode"], evidence) is TOUCHED
        assert compare(KNOWN, SEEN["size"], evidence) is NEW
    assert compare(KNOWN, SEEN["mtime"], Evidence.SCAN) is NEW
    assert compare(KNOWN, SEEN["inode"], Evidence.CAME) is NEW
    assert is_same_content(KNOWN, SEEN["inode"])
    assert not is_same_content(KNOWN, SEEN["mtime"])


def test_an_event_is_believed_where_no_ctime_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """sshfs gives the mtime for a ctime: a second ``cp -p`` looks like the first."""
    on(monkeypatch, "fuse.sshfs")
    assert compare(KNOWN, KNOWN, Evidence.WRITTEN) is NEW
    # A directory that is renamed there and back still holds the same.
    assert compare(KNOWN, KNOWN, Evidence.CAME) is SAME
    assert doubt(KNOWN, KNOWN) is Doubt.SOME


def test_what_may_have_been_written_since(monkeypatch: pytest.MonkeyPatch) -> None:
    on(monkeypatch, "ext4")
    assert doubt(KNOWN, SEEN["ctime"]) is Doubt.GRAVE
    assert doubt(KNOWN, KNOWN) is Doubt.NONE
    # Recorded before ctimes were.
    assert doubt(KNOWN._replace(changed_ns=0), KNOWN) is Doubt.NONE


def test_a_device_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def table() -> dict[str, mounts.Mount]:
        asked.append(1)
        return {"/mnt": mounts.Mount(1, "vfat", 77)}

    monkeypatch.setattr(mounts, "_by_device", {})
    monkeypatch.setattr(mounts, "mounts", table)
    for _ in range(3):
        assert not mounts.stability(77).inodes_last
        assert mounts.stability(78).inodes_last
    assert len(asked) == 2
