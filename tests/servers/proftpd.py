"""A ProFTPD of a test's own, in the three ways in which it makes files and directories.

Plain: files under their final names. ``hidden_stores``: ``.in.NAME.``, then a rename.
``group_owner``: directories as ``.dst…``, then a rename (only where root must chown them).
"""

from __future__ import annotations

import ftplib
import grp
import os
import pwd
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

from tests.servers import OneProcess, free_port, require
from tests.servers.greeting import start
from tests.servers.sftp import SFTP, make_key

USER, PASSWORD = "up", "secret"
NOBODY, NOGROUP = 65534, 65534
MODULES = Path("/usr/lib/proftpd")

CONFIGURATION = """\
{modules}
ServerName "test"
ServerType standalone
DefaultAddress 127.0.0.1
SocketBindTight on
Port {port}
UseIPv6 off
UseReverseDNS off
User {user}
Group {group}
PidFile {run}/proftpd.pid
ScoreboardFile {run}/scoreboard
<IfModule mod_delay.c>
  DelayEngine off
</IfModule>
SystemLog {run}/system.log
TransferLog {run}/xferlog
WtmpLog off
AuthOrder {auth}
AuthUserFile {directory}/passwd
AuthGroupFile {directory}/group
AuthPAM off
RequireValidShell off
MaxInstances 30
Umask 022
AllowOverwrite on
AllowStoreRestart on
HiddenStores {hidden_stores}
{more}
"""

SFTP_ENGINE = """\
SFTPEngine on
SFTPHostKey {directory}/host_key
SFTPAuthMethods publickey password
SFTPAuthorizedUserKeys file:{directory}/authorized_keys
SFTPLog {run}/sftp.log
"""


def public_directory() -> Path:
    """Return a new directory that the server's user can reach, unlike pytest's ``tmp_path``."""
    directory = Path(tempfile.mkdtemp(prefix="watchman-ftp-"))
    directory.chmod(0o755)
    return directory


class ProFTPD(OneProcess):
    """A running ProFTPD with one user; a context manager.

    ``directory`` holds all that it writes and becomes the property of its user; every directory
    above must let others pass: :func:`public_directory` makes one. ``group_owner`` names a group
    and needs root. ``port`` is chosen by the kernel unless given. ``more`` is added to its
    configuration; ``{run}`` in it is the directory of its logs.
    """

    def __init__(
        self,
        directory: Path,
        *,
        hidden_stores: bool = False,
        group_owner: str | None = None,
        sftp: bool = False,
        port: int | None = None,
        more: str = "",
    ) -> None:
        self._proftpd = require("proftpd")
        self._ftpasswd = require("ftpasswd")
        as_root = os.geteuid() == 0
        if group_owner and not as_root:
            raise ValueError("group_owner needs root: only root can give directories away")
        self.directory = directory
        self.hidden_stores = hidden_stores
        self.group_owner = group_owner
        self.with_sftp = sftp
        self.port = port or free_port()
        self._more = more
        self.uid = NOBODY if as_root else os.getuid()
        self.gid = NOGROUP if as_root else os.getgid()

    @property
    def root(self) -> Path:
        """The user's home: where uploads go."""
        return self.directory / "root"

    @property
    def run(self) -> Path:
        """The directory of its logs."""
        return self.directory / "run"

    def __enter__(self) -> ProFTPD:
        self._prepare()
        command = [self._proftpd, "-n", "-c", str(self.directory / "proftpd.conf")]
        greeting = b"SSH-2.0" if self.with_sftp else b"220"
        self.process = start(command, self.run / "output", self.port, greeting)
        return self

    def ftp(self, timeout: float = 10.0) -> ftplib.FTP:
        """Return a logged-in client. It is a context manager; ``abort()`` ends by the timeout."""
        client = ftplib.FTP(timeout=timeout)
        client.connect("127.0.0.1", self.port)
        client.login(USER, PASSWORD)
        return client

    def sftp(self) -> SFTP:
        """Return an OpenSSH client for a server that was made with ``sftp``."""
        return SFTP(self.port, USER, self.directory / "user_key")

    def _prepare(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self.run.mkdir(exist_ok=True)
        if self.with_sftp:
            make_key(self.directory / "host_key")
            make_key(self.directory / "user_key")
            public = ["ssh-keygen", "-e", "-f", str(self.directory / "user_key.pub")]
            keys = subprocess.run(public, check=True, capture_output=True).stdout
            (self.directory / "authorized_keys").write_bytes(keys)
        (self.directory / "proftpd.conf").write_text(self._configuration())
        self._make_accounts()
        self._give_away()

    def _configuration(self) -> str:
        more = self._more.format(run=self.run)
        # Compiled in, or modules of their own (Debian 13); mod_delay is not missed.
        wanted = [name for name in ("mod_xfer", "mod_ls") if (MODULES / f"{name}.so").exists()]
        if self.with_sftp:
            wanted.append("mod_sftp")
            more += SFTP_ENGINE.format(directory=self.directory, run=self.run)
        if self.group_owner:
            # Where root is given up, it renames all the same, but cannot chown before that.
            more += "RootRevoke off\n"
            more += f"<Directory />\nGroupOwner {self.group_owner}\n</Directory>\n"
        return CONFIGURATION.format(
            modules="\n".join([f"ModulePath {MODULES}", *(f"LoadModule {m}.c" for m in wanted)]),
            port=self.port,
            user=pwd.getpwuid(self.uid).pw_name,
            group=grp.getgrgid(self.gid).gr_name,
            run=self.run,
            directory=self.directory,
            # GroupOwner's group is the system's, which only mod_auth_unix knows.
            auth="mod_auth_file.c mod_auth_unix.c" if self.group_owner else "mod_auth_file.c",
            hidden_stores="on" if self.hidden_stores else "off",
            more=more,
        )

    def _make_accounts(self) -> None:
        ids = [f"--uid={self.uid}", f"--gid={self.gid}", f"--home={self.root}", "--shell=/bin/sh"]
        passwd = [f"--file={self.directory}/passwd", f"--name={USER}", *ids]
        self._account(["--passwd", "--stdin", *passwd])
        self._account(
            ["--group", f"--file={self.directory}/group", "--name=upg", f"--gid={self.gid}"]
        )

    def _account(self, arguments: list[str]) -> None:
        command = [self._ftpasswd, *arguments]
        subprocess.run(
            command, input=PASSWORD + "\n", text=True, check=True, capture_output=True, timeout=20
        )

    def _give_away(self) -> None:
        for name in ("passwd", "group"):
            (self.directory / name).chmod(0o600)
        if os.geteuid() != 0:
            return
        for above in self.directory.parents:
            assert above.stat().st_mode & 0o001, f"{above} lets nobody pass: see public_directory"
        os.chown(self.directory, self.uid, self.gid)
        for path in self.directory.rglob("*"):
            os.chown(path, self.uid, self.gid, follow_symlinks=False)
        if self.with_sftp:
            # The host's key is read by root, the user's by whoever runs the tests.
            for name in ("host_key", "user_key"):
                os.chown(self.directory / name, 0, 0)


def remove(directory: Path) -> None:
    """Remove what :func:`public_directory` made."""
    with suppress(FileNotFoundError):
        rmtree(directory)
