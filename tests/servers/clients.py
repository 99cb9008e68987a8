"""Clients that upload a file, break off in the midst of it, and go on: one for each way to upload.

Those that speak FTP by themselves are in control of each byte. sftp, scp and rsync are held up by
what stands before the server, lftp is slowed down; then they are interrupted, killed, or cut off.
"""

from __future__ import annotations

import contextlib
import ftplib
import io
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Protocol

from tests.servers import require
from tests.servers.gate import Gate
from tests.servers.proftpd import PASSWORD, USER
from tests.servers.rsync import MODULE
from tests.servers.sftp import SFTP
from tests.waiting import wait_until

_SLOW = 400_000
"""Bytes that lftp sends in a second where it is to break off."""
_HARD = struct.pack("ii", 1, 0)


class End(Enum):
    """How an upload breaks off."""

    ABORT = "abort"
    """As a user stops it: ABOR in FTP, an interrupt for a program."""
    KILL = "kill"
    """The client is gone; its kernel closes what it had open."""
    RESET = "reset"
    """The connections are reset, as by a firewall."""


class Client(Protocol):
    """Uploads to one server, under names relative to its root."""

    def whole(self, name: str, content: bytes) -> None:
        """Upload all of it."""
        ...

    def broken(self, name: str, content: bytes, cut: int, end: End) -> None:
        """Upload some bytes, about ``cut``, and break off. It may get through all the same."""
        ...

    def resumed(self, name: str, content: bytes) -> None:
        """Go on with what is there, as far as the client can."""
        ...


def bytes_there(root: Path, name: str) -> int:
    """Return how many bytes there are of an upload, under whatever name; -1 for no file."""
    found = -1
    for path in root.iterdir():
        # pure-ftpd's have names of their own.
        if name in path.name or path.name.startswith(".pureftpd-upload."):
            with contextlib.suppress(FileNotFoundError):
                found = max(found, path.stat().st_size)
    return found


class FTPClient:
    """The protocol as it is, by :mod:`ftplib`; resumes by APPE, or uploads anew."""

    def __init__(
        self, connect: Callable[[], ftplib.FTP], root: Path, *, resumes: bool = True
    ) -> None:
        self._connect = connect
        self._root = root
        self._resumes = resumes

    def whole(self, name: str, content: bytes) -> None:
        """Upload all of it."""
        with contextlib.closing(self._connect()) as ftp:
            ftp.storbinary(f"STOR {name}", io.BytesIO(content))

    def broken(self, name: str, content: bytes, cut: int, end: End) -> None:
        """Upload exactly ``cut`` bytes, then break off."""
        ftp = self._connect()
        try:
            ftp.voidcmd("TYPE I")
            data = ftp.transfercmd(f"STOR {name}")
            data.sendall(content[:cut])
            wait_until(lambda: bytes_there(self._root, name) >= cut, 30, f"{cut} bytes of {name}")
            assert ftp.sock is not None
            if end is End.ABORT:
                self._abort(ftp, data)
            elif end is End.RESET:
                for one in (data, ftp.sock):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _HARD)
            data.close()
        finally:
            ftp.close()

    def resumed(self, name: str, content: bytes) -> None:
        """Append what is missing; again, where the server has not done with the first part."""
        wait_until(lambda: self._append(name, content), 20, f"the rest of {name}")

    def _append(self, name: str, content: bytes) -> bool:
        with contextlib.closing(self._connect()) as ftp:
            ftp.voidcmd("TYPE I")
            there = 0
            if self._resumes:
                with contextlib.suppress(ftplib.error_perm):
                    there = ftp.size(name) or 0
            command = f"{'APPE' if there else 'STOR'} {name}"
            try:
                ftp.storbinary(command, io.BytesIO(content[there:]))
            except ftplib.error_perm:
                return False
        return True

    @staticmethod
    def _abort(ftp: ftplib.FTP, data: socket.socket) -> None:
        """Send ABOR as RFC 959 has it, with telnet's Synch, and hear what the server says."""
        assert ftp.sock is not None
        ftp.sock.sendall(b"\xff\xf4\xff")
        ftp.sock.send(b"\xf2", socket.MSG_OOB)
        ftp.sock.sendall(b"ABOR\r\n")
        ftp.sock.settimeout(0.2)
        with contextlib.suppress(OSError, ftplib.Error, EOFError):
            ftp.getmultiline()  # vsftpd waits for the end of the data
        data.close()


class ProgramClient:
    """A program, started for each upload to a server's ``port``.

    Subclasses say how it is called.
    """

    def __init__(self, root: Path, port: int) -> None:
        self._root = root
        self._port = port
        self._local = tempfile.TemporaryDirectory(prefix="watchman-up-")

    def command(self, local: Path, name: str, port: int, *, resume: bool) -> list[str]:
        """Return the program and its arguments."""
        raise NotImplementedError

    def whole(self, name: str, content: bytes) -> None:
        """Upload all of it."""
        self._run(name, content, self._port, resume=False)

    def resumed(self, name: str, content: bytes) -> None:
        """Go on, if the program can."""
        self._run(name, content, self._port, resume=True)

    def broken(self, name: str, content: bytes, cut: int, end: End) -> None:
        """Break off when the server was sent about ``cut`` bytes of it."""
        raise NotImplementedError

    def _run(self, name: str, content: bytes, port: int, *, resume: bool) -> None:
        with self._file(name, content) as local:
            done = subprocess.run(
                self.command(local, name, port, resume=resume),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
                check=False,
            )
        assert done.returncode == 0, done.stdout[-2000:]

    @contextlib.contextmanager
    def _file(self, name: str, content: bytes) -> Iterator[Path]:
        local = Path(self._local.name) / name
        local.write_bytes(content)
        yield local
        local.unlink()

    @contextlib.contextmanager
    def _started(self, argv: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        # Tests that run in the background of a shell ignore SIGINT, and programs inherit that.
        client = subprocess.Popen(
            ["env", "--default-signal=INT", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            yield client
        finally:
            client.kill()
            client.communicate()

    def close(self) -> None:
        """Remove the local files."""
        self._local.cleanup()


class GatedClient(ProgramClient):
    """A program with one connection, that is held up where it is to break off."""

    def __init__(self, root: Path, port: int) -> None:
        super().__init__(root, port)
        self._measuring = threading.Lock()
        self._before = 0
        """Bytes that it sends before those of the file, found by a first upload."""

    def broken(self, name: str, content: bytes, cut: int, end: End) -> None:
        """Break off when the server was sent about ``cut`` bytes of it."""
        with self._measuring:
            self._before = self._before or self._measure()
        with (
            self._file(name, content) as local,
            Gate(self._port, self._before + cut) as gate,
            self._started(self.command(local, name, gate.port, resume=False)) as client,
        ):
            wait_until(lambda: gate.held or client.poll() is not None, 60, name, 0.002)
            if end is End.RESET:
                gate.end(reset=True)
            elif end is End.ABORT:
                client.send_signal(signal.SIGINT)
                try:
                    client.communicate(timeout=1)
                except subprocess.TimeoutExpired:
                    gate.release()  # it waits for the server's word
            else:
                client.kill()
                gate.end()
            client.communicate(timeout=60)

    def _measure(self) -> int:
        content = b"x" * 1000
        with Gate(self._port) as gate:
            self._run(".measured.part", content, gate.port, resume=False)
            return gate.passed - len(content)


class LFTP(ProgramClient):
    """lftp; ``put -c`` goes on with what is there. Resets of its data connections are not made."""

    def __init__(self, root: Path, port: int, *, temporary: bool = False) -> None:
        super().__init__(root, port)
        self._lftp = require("lftp")
        self._settings = ["net:max-retries 1", "net:timeout 10", "net:persist-retries 0"]
        self._settings += ["ftp:passive-mode yes", "ftp:prefer-epsv no", "ftp:sync-mode on"]
        self._settings += ["xfer:use-temp-file yes"] if temporary else []

    def command(self, local: Path, name: str, port: int, *, resume: bool) -> list[str]:
        """Return one session, without retries of its own."""
        script = "".join(f"set {one}; " for one in self._settings)
        script += f"open -u {USER},{PASSWORD} -p {port} 127.0.0.1; "
        return [self._lftp, "--norc", "-c", f"{script}put {'-c ' * resume}{local} -o {name}"]

    def broken(self, name: str, content: bytes, cut: int, end: End) -> None:
        """Send slowly, and break off when the server has ``cut`` bytes."""
        with self._file(name, content) as local:
            *argv, script = self.command(local, name, self._port, resume=False)
            slow = f"set net:limit-rate 0:{_SLOW}; set net:limit-max {_SLOW // 10}; "
            with self._started([*argv, f"{slow}set net:socket-buffer 4096; {script}"]) as client:
                wait_until(
                    lambda: client.poll() is not None or bytes_there(self._root, name) >= cut,
                    60,
                    f"{cut} bytes of {name}",
                    0.002,
                )
                client.send_signal(signal.SIGINT if end is End.ABORT else signal.SIGKILL)
                client.communicate(timeout=60)


class SSHClient(GatedClient):
    """OpenSSH's sftp or scp; ``legacy`` is scp's own protocol. Only sftp can go on."""

    def __init__(self, root: Path, account: SFTP, program: str, *, legacy: bool = False) -> None:
        super().__init__(root, account.port)
        self._program = require(program)
        self._account = account
        self._legacy = legacy

    def command(self, local: Path, name: str, port: int, *, resume: bool) -> list[str]:
        """Return one session, for one file."""
        argv = [self._program, "-q", "-P", str(port), *self._account.options]
        if self._program.endswith("scp"):
            # Its own protocol has paths as a shell would read them, from the home on.
            to = f"{self._root}/{name}" if self._legacy else name
            argv += ["-O"] if self._legacy else []
            return [*argv, str(local), f"{self._account.user}@127.0.0.1:{to}"]
        batch = local.with_suffix(".batch")
        batch.write_text(f"{'reput' if resume else 'put'} {local} {name}\n")
        # Small pieces, or a small file would come as one.
        return [*argv, "-B", "1024", "-b", str(batch), f"{self._account.user}@127.0.0.1"]


class Rsync(GatedClient):
    """rsync to a daemon, with options such as ``--partial`` and ``--inplace``."""

    def __init__(self, root: Path, port: int, *options: str) -> None:
        super().__init__(root, port)
        self._rsync = require("rsync")
        self._options = options

    def command(self, local: Path, name: str, port: int, *, resume: bool) -> list[str]:
        """Return the program; it always goes on, if there is something of the file."""
        argv = [self._rsync, "--times", "--ignore-times", *self._options]
        return [*argv, str(local), f"rsync://127.0.0.1:{port}/{MODULE}/{name}"]
