"""Every way to upload that is tested: a running server, and a client for it, by name."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.servers.clients import LFTP, Client, FTPClient, ProgramClient, Rsync, SSHClient
from tests.servers.proftpd import ProFTPD
from tests.servers.pureftpd import PureFTPd
from tests.servers.rsync import RsyncDaemon
from tests.servers.sftp import OpenSSH
from tests.servers.vsftpd import VSFTPD, XFERLOG


class Way(NamedTuple):
    """A server with somebody who uploads."""

    root: Path
    """Where uploads go."""
    client: Client
    log: Path | None = None
    """Its transfer log, as xferlog(5) has it, where it has one."""
    prefix: str = ""
    """Where paths in the log begin, where that is not the root directory."""


def _kept(client: ProgramClient, stack: ExitStack) -> Client:
    stack.callback(client.close)
    return client


def _proftpd(place: Path, stack: ExitStack, *, hidden: bool = False) -> Way:
    server = stack.enter_context(ProFTPD(place, hidden_stores=hidden))
    client = FTPClient(server.ftp, server.root, resumes=not hidden)
    return Way(server.root, client, server.run / "xferlog")


def _vsftpd(place: Path, stack: ExitStack, *, removes: bool = False) -> Way:
    more = "\ndelete_failed_uploads=YES" if removes else ""
    server = stack.enter_context(VSFTPD(place, log=XFERLOG + more))
    client = FTPClient(server.ftp, server.root)
    return Way(server.root, client, server.log, str(server.root.parent))


def _pureftpd(place: Path, stack: ExitStack, *, rename: bool = False) -> Way:
    server = stack.enter_context(PureFTPd(place, rename=rename, log="xferlog"))
    # With -0 what is appended takes the place of the file.
    client = FTPClient(server.ftp, server.root, resumes=not rename)
    return Way(server.root, client, server.log)


def _mod_sftp(place: Path, stack: ExitStack) -> Way:
    server = stack.enter_context(ProFTPD(place, sftp=True))
    client = SSHClient(server.root, server.sftp(), "sftp")
    return Way(server.root, _kept(client, stack), server.run / "xferlog")


def _lftp(place: Path, stack: ExitStack, *, temporary: bool = False) -> Way:
    server = stack.enter_context(ProFTPD(place))
    client = LFTP(server.root, server.port, temporary=temporary)
    return Way(server.root, _kept(client, stack), server.run / "xferlog")


def _openssh(place: Path, stack: ExitStack, *, program: str, legacy: bool = False) -> Way:
    server = stack.enter_context(OpenSSH(place, commands=legacy))
    client = SSHClient(server.root, server.sftp(), program, legacy=legacy)
    return Way(server.root, _kept(client, stack))


def _rsync(place: Path, stack: ExitStack, *options: str) -> Way:
    server = stack.enter_context(RsyncDaemon(place))
    return Way(server.root, _kept(Rsync(server.root, server.port, *options), stack))


def _with(options: str) -> Callable[[Path, ExitStack], Way]:
    return lambda place, stack: _rsync(place, stack, *options.split())


WAYS: dict[str, Callable[[Path, ExitStack], Way]] = {
    "ProFTPD": _proftpd,
    "ProFTPD, HiddenStores": partial(_proftpd, hidden=True),
    "ProFTPD, lftp": _lftp,
    "ProFTPD, lftp, use-temp-file": partial(_lftp, temporary=True),
    "ProFTPD, mod_sftp": _mod_sftp,
    "vsftpd": _vsftpd,
    "vsftpd, delete_failed_uploads": partial(_vsftpd, removes=True),
    "pure-ftpd": _pureftpd,
    "pure-ftpd -0": partial(_pureftpd, rename=True),
    "OpenSSH, sftp": partial(_openssh, program="sftp"),
    "OpenSSH, scp": partial(_openssh, program="scp"),
    "OpenSSH, scp -O": partial(_openssh, program="scp", legacy=True),
    "rsync": _with(""),
    "rsync --partial": _with("--partial"),
    "rsync --inplace": _with("--inplace"),
}
"""By the names that the table in docs/servers.rst has."""
