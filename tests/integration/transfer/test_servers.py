"""The same 200 files through every server and client: one task each, and identical where it says.

The files are moved to their destinations, and the paths that the tasks get are what is read.
"""

from __future__ import annotations

import ftplib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.sources.uploads import arrive
from tests.running import config_for, running, troubles
from tests.servers import require
from tests.servers.proftpd import PASSWORD, USER, ProFTPD, public_directory, remove
from tests.servers.pureftpd import PureFTPd
from tests.servers.rsync import MODULE, RsyncDaemon
from tests.servers.sftp import SFTP, OpenSSH
from tests.servers.vsftpd import VSFTPD

COUNT, DIRECTORIES = 200, 5
IGNORE = (".in.*.", ".dst*", ".pureftpd-upload.*", ".~tmp~", ".*.??????", "*.part", "*.filepart")

Files = dict[str, bytes]
"""Contents by path below the root."""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the files to upload: empty, small, and of more than one packet."""
    random.seed(7)
    directory = tmp_path_factory.mktemp("local")
    for n in range(COUNT):
        path = directory / f"d{n % DIRECTORIES}" / f"file {n}.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(random.randbytes((0, 10, 3000, 100_000)[n % 4]))
        os.utime(path, (1_000_000_000 + n, 1_000_000_000 + n))
    return directory


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that a server's user can reach."""
    directory = public_directory()
    yield directory
    remove(directory)


def relative(local: Path) -> list[str]:
    return sorted(str(path.relative_to(local)) for path in local.rglob("*.csv"))


def over_ftp(connect: Callable[[], ftplib.FTP], local: Path) -> None:
    """Upload with a few clients at a time, each of which makes its own directories."""

    def upload(directory: str) -> None:
        with connect() as ftp:
            ftp.mkd(directory)
            for path in sorted((local / directory).iterdir()):
                with path.open("rb") as file:
                    ftp.storbinary(f"STOR {directory}/{path.name}", file)

    with ThreadPoolExecutor(DIRECTORIES) as pool:
        list(pool.map(upload, sorted(os.listdir(local))))


def over_sftp(client: SFTP, local: Path) -> None:
    """Upload under other names, then rename in both of SFTP's ways."""
    commands = [f"mkdir {name}" for name in sorted(os.listdir(local))]
    for number, path in enumerate(relative(local)):
        rename = ("rename", "rename -l")[number % 2]
        commands.append(f'put -p "{local}/{path}" "{path}.part"')
        commands.append(f'{rename} "{path}.part" "{path}"')
    client.batch(*commands, timeout=60)


def run(*argv: str) -> None:
    done = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.fixture
def check(local: Path, place: Path, tmp_path: Path) -> Callable[[Path, Callable[[], None]], None]:
    """Upload to a server's root while it is watched; compare what arrives."""

    def checked(root: Path, upload: Callable[[], None]) -> None:
        storage = place / "storage"
        storage.mkdir()
        moves = ((str(root), str(storage)),)
        config = config_for(root, tmp_path / "state", moves=moves, ignore=IGNORE)
        with running(config) as (pipeline, sent):
            upload()
            names = relative(local)
            assert len(names) == COUNT
            arrive(sent, [storage / name for name in names], timeout=30)
            for name in names:
                assert (storage / name).read_bytes() == (local / name).read_bytes(), name
            assert not [path for path in root.rglob("*") if path.is_file()]
            assert not troubles(pipeline)

    return checked


Check = Callable[[Path, Callable[[], None]], None]


@pytest.mark.parametrize("hidden", [False, True], ids=["plain", "HiddenStores"])
def test_proftpd(place: Path, local: Path, check: Check, hidden: bool) -> None:
    with ProFTPD(place, hidden_stores=hidden) as server:
        check(server.root, lambda: over_ftp(server.ftp, local))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories away")
def test_proftpd_with_directories_that_are_renamed(place: Path, local: Path, check: Check) -> None:
    with ProFTPD(place, hidden_stores=True, group_owner="daemon") as server:
        check(server.root, lambda: over_ftp(server.ftp, local))


def test_proftpd_speaking_sftp(place: Path, local: Path, check: Check) -> None:
    with ProFTPD(place, sftp=True) as server:
        check(server.root, lambda: over_sftp(server.sftp(), local))


def test_vsftpd(place: Path, local: Path, check: Check) -> None:
    with VSFTPD(place) as server:
        check(server.root, lambda: over_ftp(server.ftp, local))


@pytest.mark.parametrize("rename", [False, True], ids=["plain", "renamed"])
def test_pureftpd(place: Path, local: Path, check: Check, rename: bool) -> None:
    with PureFTPd(place, rename=rename) as server:
        check(server.root, lambda: over_ftp(server.ftp, local))


def test_openssh(place: Path, local: Path, check: Check) -> None:
    with OpenSSH(place) as server:
        check(server.root, lambda: over_sftp(server.sftp(), local))


def test_rsync(place: Path, local: Path, check: Check) -> None:
    with RsyncDaemon(place) as server:
        to = f"rsync://127.0.0.1:{server.port}/{MODULE}/"
        check(server.root, lambda: run(require("rsync"), "--archive", f"{local}/", to))


def test_lftp_mirror(place: Path, local: Path, check: Check) -> None:
    lftp = require("lftp")
    with ProFTPD(place) as server:
        settings = "set net:max-retries 2; set net:timeout 10; set ftp:passive-mode yes"
        login = f"open -u {USER},{PASSWORD} -p {server.port} 127.0.0.1"
        mirror = f"mirror --reverse --parallel=4 {local} ."
        check(server.root, lambda: run(lftp, "-c", f"{settings}; {login}; {mirror}"))
