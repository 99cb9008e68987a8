"""A vsftpd of a test's own: files under their final names, and every abort looks complete."""

from __future__ import annotations

import ftplib
import os
import pwd
from pathlib import Path
from types import TracebackType

from tests.servers import Process, free_port, require
from tests.servers.greeting import start

USER = "daemon"
"""A user that every system has, with a home that exists: vsftpd goes there first."""

CONFIGURATION = """\
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_world_readable_only=NO
anon_umask=022
anon_root={served}
ftp_username={user}
nopriv_user={user}
run_as_launching_user={unprivileged}
secure_chroot_dir={empty}
pasv_address=127.0.0.1
xferlog_enable=NO
seccomp_sandbox=NO
"""


class VSFTPD:
    """A running vsftpd for anonymous uploads; a context manager.

    Every directory above ``directory`` must let others pass, see
    :func:`tests.servers.proftpd.public_directory`.
    """

    def __init__(self, directory: Path) -> None:
        self._vsftpd = require("vsftpd")
        self.directory = directory
        self.port = free_port()
        self.process: Process | None = None

    @property
    def root(self) -> Path:
        """Where uploads go; the directory above is the session's, which must not be writable."""
        return self.directory / "served" / "root"

    def __enter__(self) -> VSFTPD:
        as_root = os.geteuid() == 0
        self.root.mkdir(parents=True)
        empty = self.directory / "empty"
        empty.mkdir(mode=0o555)
        user = pwd.getpwnam(USER) if as_root else pwd.getpwuid(os.getuid())
        os.chown(self.root, user.pw_uid, user.pw_gid)
        configuration = self.directory / "vsftpd.conf"
        configuration.write_text(
            CONFIGURATION.format(
                port=self.port,
                served=self.root.parent,
                empty=empty,
                user=user.pw_name,
                unprivileged="NO" if as_root else "YES",
            )
        )
        output = self.directory / "output"
        self.process = start([self._vsftpd, str(configuration)], output, self.port, b"220")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self.process is not None
        self.process.stop()

    def ftp(self) -> ftplib.FTP:
        """Return a logged-in client."""
        client = ftplib.FTP(timeout=10)
        client.connect("127.0.0.1", self.port)
        try:
            client.login()
            client.cwd(self.root.name)
        except ftplib.Error:
            client.close()
            raise
        return client
