"""Destinations that are unmounted, mounted and replaced while watchman runs."""

from __future__ import annotations

import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.mover.rig import Rig
from tests.waiting import wait_until
from watchman.model import State
from watchman.mover import obstacles


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obstacles, "FIRST_DELAY", 0.05)
    monkeypatch.setattr(obstacles, "LONGEST_DELAY", 0.2)


class Mounts:
    """Mounts and unmounts; all that is left is unmounted at the end."""

    def __init__(self) -> None:
        self.points: list[Path] = []

    def tmpfs(self, point: Path) -> None:
        point.mkdir(exist_ok=True)
        self._run("mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(point))
        self.points.append(point)

    def bind(self, directory: Path, point: Path) -> None:
        point.mkdir(exist_ok=True)
        self._run("mount", "--bind", str(directory), str(point))
        self.points.append(point)

    def umount(self, point: Path) -> None:
        # A batch may just have it open.
        wait_until(
            lambda: (
                subprocess.run(["umount", point], capture_output=True, check=False).returncode == 0
            ),
            what=f"{point} to be unmounted",
        )
        self.points.remove(point)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr.decode().strip()}")


@pytest.fixture
def mounts() -> Iterator[Mounts]:
    found = Mounts()
    yield found
    for point in reversed(found.points):
        subprocess.run(["umount", str(point)], check=True)


@pytest.fixture(params=["daemon", "process"])
def near(request: pytest.FixtureRequest, tmp_path: Path, mounts: Mounts) -> Rig:
    """Source and destination on one tmpfs, ``disk``; with and without a rename process."""
    disk = tmp_path / "disk"
    mounts.tmpfs(disk)
    process = request.getfixturevalue("helping") if request.param == "process" else None
    inbox, root = disk / "in", disk / "out"
    inbox.mkdir()
    root.mkdir()
    return Rig(inbox, root, process)


def mounted_rig(tmp_path: Path, mounts: Mounts) -> Rig:
    """A rig whose destination is a file system of its own."""
    (tmp_path / "in").mkdir()
    mounts.tmpfs(tmp_path / "out")
    return Rig(tmp_path / "in", tmp_path / "out")


def test_a_destination_that_is_unmounted_is_not_filled_behind_its_mount_point(
    tmp_path: Path, mounts: Mounts
) -> None:
    rig = mounted_rig(tmp_path, mounts)
    root = rig.root
    first = rig.put("a/f")
    with rig.running():
        rig.wait(first, State.READY)
        mounts.umount(root)
        second = rig.put("a/g")
        rig.wake()
        wait_until(lambda: rig.status().reason, what="the unmounting to be noticed")
        assert "ESTALE" in rig.status().reason
        assert f"nothing is mounted at {root} any more" in rig.status().reason
        assert "restart watchman" in rig.status().reason
        assert rig.state(second) is State.MOVING
        assert os.listdir(root) == []
        # Another disk in its place is the operator's doing.
        mounts.tmpfs(root)
        rig.wait(second, State.READY)
        wait_until(lambda: not rig.status().reason, what="the end of it")
    assert rig.files() == {"a/g": b"content"}


def test_a_reload_does_not_forget_what_was_mounted(tmp_path: Path, mounts: Mounts) -> None:
    rig = mounted_rig(tmp_path, mounts)
    root = rig.root
    with rig.running():
        first = rig.put("f")
        rig.wake()
        rig.wait(first, State.READY)
    mounts.umount(root)
    rig.new_mover()
    seq = rig.put("g")
    with rig.running():
        wait_until(lambda: "ESTALE" in rig.status().reason, what="it to be noticed")
        assert os.listdir(root) == []
        assert rig.state(seq) is State.MOVING


def test_a_destination_is_remembered_before_anything_is_moved(
    tmp_path: Path, mounts: Mounts
) -> None:
    rig = mounted_rig(tmp_path, mounts)
    root = rig.root
    with rig.running():
        wait_until(rig.destination._mounts.points, what="the first look")
        mounts.umount(root)
        rig.put("f")
        rig.wake()
        wait_until(lambda: "ESTALE" in rig.status().reason, what="it to be noticed")
    assert os.listdir(root) == []


def test_a_bind_mount_of_the_same_file_system(near: Rig, mounts: Mounts, tmp_path: Path) -> None:
    """The device is the same behind it, and a rename works there."""
    store = near.root / "store"
    store.mkdir()
    point = near.root / "point"
    mounts.bind(store, point)
    near.root = point
    near.new_mover()
    seqs = [near.put(f"f{number}") for number in range(60)]
    with near.running():
        for seq in seqs:
            near.wait(seq, State.READY)
        mounts.umount(point)
        later = [near.put(f"g{number}") for number in range(60)]
        near.wake()
        wait_until(lambda: "ESTALE" in near.status().reason, what="it to be noticed")
        assert os.listdir(point) == []
        assert all(near.state(seq) is State.MOVING for seq in later)
        mounts.bind(store, point)
        for seq in later:
            near.wait(seq, State.READY)
    assert len(near.files()) == 120


def test_a_mount_below_the_destination(near: Rig, mounts: Mounts) -> None:
    """Only what goes through it waits."""
    below = near.root / "below"
    mounts.tmpfs(below)
    first = [near.put(f"below/f{number}") for number in range(60)]
    with near.running():
        for seq in first:
            near.wait(seq, State.READY)
        mounts.umount(below)
        held = [near.put(f"below/g{number}") for number in range(60)]
        free = [near.put(f"other/g{number}") for number in range(60)]
        near.wake()
        for seq in free:
            near.wait(seq, State.READY)
        wait_until(lambda: near.status().troubles, what="it to be noticed")
        assert f"nothing is mounted at {below} any more" in near.status().troubles[0][1]
        assert near.status().stuck_since_ns is None
        assert os.listdir(below) == []
        mounts.tmpfs(below)
        for seq in held:
            near.wait(seq, State.READY)
    assert not near.left()


def test_a_destination_that_is_mounted_late(tmp_path: Path, mounts: Mounts) -> None:
    (tmp_path / "in").mkdir()
    root = tmp_path / "out"
    rig = Rig(tmp_path / "in", root)
    seq = rig.put("f")
    with rig.running():
        wait_until(lambda: "ENOENT" in rig.status().reason, what="it to be missed")
        mounts.tmpfs(root)
        rig.wait(seq, State.READY)
        assert rig.files() == {"f": b"content"}


def test_a_destination_that_is_renamed_and_made_anew(rig: Rig) -> None:
    """On the file system where it was: that is the operator's doing, and safe."""
    first = rig.put("f")
    with rig.running():
        rig.wait(first, State.READY)
        rig.root.rename(rig.root.with_name("full"))
        rig.root.mkdir()
        second = rig.put("g")
        rig.wake()
        rig.wait(second, State.READY)
    assert rig.files() == {"g": b"content"}


def test_a_destination_that_is_a_symlink_to_another_mount_by_now(
    tmp_path: Path, mounts: Mounts
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("old", "new"):
        mounts.tmpfs(tmp_path / name)
    root = tmp_path / "out"
    root.symlink_to("old")
    rig = Rig(tmp_path / "in", root)
    with rig.running():
        first = rig.put("f")
        rig.wake()
        rig.wait(first, State.READY)
        root.unlink()
        root.symlink_to("new")
        second = rig.put("g")
        rig.wake()
        rig.wait(second, State.READY)
        mounts.umount(tmp_path / "old")
        third = rig.put("h")
        rig.wake()
        rig.wait(third, State.READY)
        assert sorted(os.listdir(tmp_path / "new")) == ["g", "h"]
        mounts.umount(tmp_path / "new")
        rig.put("i")
        rig.wake()
        wait_until(lambda: "ESTALE" in rig.status().reason, what="it to be noticed")
        assert os.listdir(tmp_path / "new") == []


@pytest.fixture
def open_to_all() -> Iterator[tuple[Path, Path]]:
    """Directories on two file systems that any user can reach."""
    found = []
    for above in ("/dev/shm", "/tmp"):
        path = Path(tempfile.mkdtemp(prefix=f"watchman-{uuid.uuid4().hex[:6]}-", dir=above))
        path.chmod(0o755)
        found.append(path)
    yield found[0], found[1]
    for path in found:
        subprocess.run(["rm", "-r", str(path)], check=True)


def as_nobody(inbox: Path, root: Path, names: list[str], wait_for: set[str]) -> dict[str, str]:
    """Move files in a process of another user; return the states by name, and the troubles."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(read)
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            rig = Rig(inbox, root)
            seqs = {name: rig.record(name) for name in names}
            with rig.running():
                for name in wait_for:
                    rig.wait(seqs[name], State.READY)
                if wait_for != set(names):
                    wait_until(lambda: rig.status().troubles)
                told = [f"{name}={rig.state(seq).name}" for name, seq in seqs.items()]
                told += [f"!{reason}" for _, reason in rig.status().troubles]
            os.write(write, "\n".join(told).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as answer:
        told = answer.read().splitlines()
    _, status = os.waitpid(child, 0)
    assert status == 0
    found = dict(line.split("=") for line in told if not line.startswith("!"))
    found["troubles"] = "\n".join(line for line in told if line.startswith("!"))
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="gives files to other users")
@pytest.mark.parametrize("far", [True, False])
@pytest.mark.parametrize("obstacle", ["unreadable", "sticky"])
def test_a_file_of_another_owner_holds_up_only_itself(
    open_to_all: tuple[Path, Path], obstacle: str, far: bool
) -> None:
    inbox = open_to_all[0] / "in"
    root = (open_to_all[1] if far else open_to_all[0]) / "out"
    for top in (inbox, root):
        top.mkdir()
        os.chown(top, 65534, 65534)
    (inbox / "d").mkdir()
    names = [f"d/{number}" for number in range(20)]
    for name in [*names, "d/bad"]:
        (inbox / name).write_bytes(b"content")
        os.chown(inbox / name, 65534, 65534)
    os.chown(inbox / "d/bad", 1, 1)
    if obstacle == "unreadable":
        (inbox / "d/bad").chmod(0o600)
        (inbox / "d").chmod(0o777)
    else:
        (inbox / "d").chmod(0o1777)
    moves_anyway = obstacle == "unreadable" and not far
    wanted = {*names, "d/bad"} if moves_anyway else set(names)
    found = as_nobody(inbox, root, [*names, "d/bad"], wanted)
    assert all(found[name] == "READY" for name in names)
    left = {path.name for path in (root / "d").iterdir()}
    if moves_anyway:
        assert found["d/bad"] == "READY"
        assert left == {"bad", *(name[2:] for name in names)}
    else:
        assert found["d/bad"] == "MOVING"
        assert "d/bad" in found["troubles"]
        assert (inbox / "d/bad").exists()
        assert left == {name[2:] for name in names}, "a copy that no task is for"


@pytest.mark.skipif(os.getuid() != 0, reason="gives directories to other users")
def test_directories_are_made_like_their_sources(any_rig: Rig) -> None:
    made = {"a": (0o2770, 1001, 1002), "a/b": (0o755, 1003, 1004), "a/b/c": (0o3771, 0, 1005)}
    any_rig.upload("a/b/c/f")
    for name, (mode, uid, gid) in made.items():
        os.chown(any_rig.inbox / name, uid, gid)
        (any_rig.inbox / name).chmod(mode)
    before = os.umask(0o077)
    try:
        seqs = [any_rig.record("a/b/c/f")]
        with any_rig.running():
            any_rig.wait(seqs[0], State.READY)
    finally:
        os.umask(before)
    for name, wanted in made.items():
        status = os.stat(any_rig.root / name)
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == wanted, name


def test_a_directory_that_is_there_keeps_its_mode(any_rig: Rig) -> None:
    any_rig.upload("a/f")
    (any_rig.inbox / "a").chmod(0o700)
    (any_rig.root / "a").mkdir()
    (any_rig.root / "a").chmod(0o2755)
    seq = any_rig.record("a/f")
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    assert os.stat(any_rig.root / "a").st_mode & 0o7777 == 0o2755


def test_a_directory_that_we_could_not_enter_ourselves(any_rig: Rig) -> None:
    any_rig.upload("a/f")
    (any_rig.inbox / "a").chmod(0o070)
    seq = any_rig.record("a/f")
    with any_rig.running():
        any_rig.wait(seq, State.READY)
    assert os.stat(any_rig.root / "a").st_mode & 0o777 == 0o770
