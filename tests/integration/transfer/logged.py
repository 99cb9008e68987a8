"""Servers that log transfers, in every format that watchman reads, and ends of uploads."""

from __future__ import annotations

import ftplib
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.servers import Process, ended
from tests.servers.proftpd import ProFTPD
from tests.servers.pureftpd import PureFTPd
from tests.servers.vsftpd import OWN_LOG, VSFTPD, XFERLOG
from tests.waiting import wait_until
from watchman.config.problems import Problems
from watchman.config.transferlogs import transfer_logs
from watchman.model import TransferLog

IGNORE = (".in.*.", ".pureftpd-upload.*")
LOG_FORMAT = "%h %u %{iso8601} %{protocol} %m %s %{transfer-status} %b %{file-size} %T %f"
EXTENDED = 'LogFormat uploads "' + LOG_FORMAT.replace("{", "{{").replace("}", "}}") + '"\n'
EXTENDED += "ExtendedLog {run}/extended ALL uploads\n"
WAIT = 5.0
"""Seconds that a task waits for its line: on a busy machine the server takes its time."""


def entry(path: Path, **settings: Any) -> TransferLog:
    problems = Problems()
    (made,) = transfer_logs([{"path": str(path), "wait": WAIT, **settings}], "/", problems)
    assert problems.problems == []
    return made


class Logged(NamedTuple):
    """A running server, and its log."""

    connect: Callable[[], ftplib.FTP]
    root: Path
    log: TransferLog
    user: str
    process: Process


def process_of(server: ProFTPD | VSFTPD | PureFTPd) -> Process:
    assert server.process is not None
    return server.process


def proftpd(place: Path, stack: ExitStack, *, hidden: bool = False) -> Logged:
    server = stack.enter_context(ProFTPD(place, hidden_stores=hidden))
    return Logged(server.ftp, server.root, entry(server.run / "xferlog"), "up", process_of(server))


def proftpd_extended(place: Path, stack: ExitStack, *, hidden: bool = False) -> Logged:
    server = stack.enter_context(ProFTPD(place, hidden_stores=hidden, more=EXTENDED))
    log = entry(server.run / "extended", format="extended", log_format=LOG_FORMAT)
    return Logged(server.ftp, server.root, log, "up", process_of(server))


def vsftpd(place: Path, stack: ExitStack, *, own: bool = False) -> Logged:
    server = stack.enter_context(VSFTPD(place, log=OWN_LOG if own else XFERLOG))
    prefixes = {"/": str(server.root.parent)}
    form = "vsftpd" if own else "xferlog"
    log = entry(server.log, format=form, prefixes=prefixes)
    return Logged(
        server.ftp, server.root, log, "daemon" if own else "<no_password>", process_of(server)
    )


def pureftpd(place: Path, stack: ExitStack, *, form: str, rename: bool = False) -> Logged:
    server = stack.enter_context(PureFTPd(place, rename=rename, log=form))
    return Logged(server.ftp, server.root, entry(server.log, format=form), "up", process_of(server))


SERVERS: dict[str, Callable[[Path, ExitStack], Logged]] = {
    "ProFTPD, xferlog": proftpd,
    "ProFTPD with HiddenStores, xferlog": partial(proftpd, hidden=True),
    "ProFTPD, extended": proftpd_extended,
    "ProFTPD with HiddenStores, extended": partial(proftpd_extended, hidden=True),
    "vsftpd, xferlog": vsftpd,
    "vsftpd, vsftpd": partial(vsftpd, own=True),
    "pure-ftpd, xferlog": partial(pureftpd, form="xferlog"),
    "pure-ftpd, clf": partial(pureftpd, form="clf"),
    "pure-ftpd, stats": partial(pureftpd, form="stats"),
    "pure-ftpd, w3c": partial(pureftpd, form="w3c"),
    "pure-ftpd -0, xferlog": partial(pureftpd, form="xferlog", rename=True),
}
"""Every server, and the format of its log, as docs/transfer-logs.rst calls them."""


def session_ends(server: Logged, begin: Callable[[], None]) -> None:
    """Do something in sessions of a server, and wait until the last of their processes is gone."""
    parent = psutil.Process(server.process.popen.pid)
    before = {child.pid for child in parent.children(recursive=True)}
    begin()

    def gone() -> bool:
        children = parent.children(recursive=True)
        return all(child.pid in before or ended(child) for child in children)

    wait_until(gone, 20, "the sessions end")


def complete(server: Logged, path: Path, data: bytes) -> None:
    """Upload all."""
    with upload(server, f"STOR {path.name}", data) as (client, connection):
        connection.close()
        client.voidresp()


def aborted(server: Logged, path: Path, data: bytes) -> None:
    """Upload a part and send ABOR, as RFC 959 has it."""
    with upload(server, f"STOR {path.name}", data) as (client, connection):
        _wait_for(path, len(data))
        assert client.sock is not None
        client.sock.sendall(b"\xff\xf4\xff")
        client.sock.send(b"\xf2", socket.MSG_OOB)
        client.sock.sendall(b"ABOR\r\n")
        client.sock.settimeout(1)
        with suppress(TimeoutError):  # vsftpd waits for the end of the data
            client.getmultiline()
        connection.close()


def killed(server: Logged, path: Path, data: bytes) -> None:
    """Upload a part; then the client is gone, and its kernel closes what it had open."""
    with upload(server, f"STOR {path.name}", data) as (client, connection):
        _wait_for(path, len(data))
        connection.close()
        client.close()


def reset(server: Logged, path: Path, data: bytes) -> None:
    """Upload a part; then both connections are reset."""
    with upload(server, f"STOR {path.name}", data) as (client, connection):
        _wait_for(path, len(data))
        assert client.sock is not None
        for one in (connection, client.sock):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        client.close()


def resumed(server: Logged, path: Path, data: bytes) -> None:
    """Upload a part, lose the connection, and upload the rest behind it."""
    session_ends(server, lambda: reset(server, path, data[: len(data) // 3]))
    there = path.stat().st_size if path.exists() else 0
    with upload(server, f"STOR {path.name}", data[there:], rest=there) as (client, connection):
        connection.close()
        client.voidresp()


def appended(server: Logged, path: Path, data: bytes) -> None:
    """Upload a part, then append the rest."""
    complete(server, path, data[: len(data) // 3])
    with upload(server, f"APPE {path.name}", data[len(data) // 3 :]) as (client, connection):
        connection.close()
        client.voidresp()


@contextmanager
def upload(
    server: Logged, command: str, data: bytes, rest: int | None = None
) -> Iterator[tuple[ftplib.FTP, socket.socket]]:
    """Begin an upload and send all data; the block ends it in some way."""
    client = server.connect()
    try:
        client.voidcmd("TYPE I")
        connection = client.transfercmd(command, rest or None)
        connection.sendall(data)
        yield client, connection
    finally:
        client.close()


def _wait_for(path: Path, size: int) -> None:
    """Wait until a file has so many bytes, under whatever name a server writes it."""

    def there() -> bool:
        for one in path.parent.iterdir():
            with suppress(FileNotFoundError):
                # pure-ftpd's have names of their own, and are younger than all others.
                its = path.stem in one.name or one.name.startswith(".pureftpd-upload.")
                if its and one.stat().st_size == size:
                    return True
        return False

    wait_until(there, 20, f"{size} bytes of {path.name}")
