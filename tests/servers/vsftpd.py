"""A vsftpd of a test's own: files under their final names, and every abort looks complete."""

from __future__ import annotations

import ftplib
import os
import pwd
from pathlib import Path

from tests.servers import OneProcess, free_port, require
from tests.servers.greeting import start

USER = "daemon"
"""A user that every system has, with a home that exists: vsftpd goes there first."""

NO_LOG = "xferlog_enable=NO"
XFERLOG = "xferlog_enable=YES\nxferlog_std_format=YES\nxferlog_file={log}"
OWN_LOG = "xferlog_enable=YES\nxferlog_std_format=NO\nvsftpd_log_file={log}"
"""What it logs of transfers: nothing, in the format of wu-ftpd, in its own."""

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
{log}
seccomp_sandbox=NO
"""


class VSFTPD(OneProcess):
    """A running vsftpd for anonymous uploads; a context manager.

    Every directory above ``directory`` must let others pass, see
    :func:`tests.servers.proftpd.public_directory`. ``log`` is :data:`XFERLOG` or
    :data:`OWN_LOG`, where transfers are to be logged.
    """

    def __init__(self, directory: Path, *, log: str = NO_LOG) -> None:
        self._vsftpd = require("vsftpd")
        self.directory = directory
        self._log = log
        self.port = free_port()

    @property
    def log(self) -> Path:
        """Its log of transfers."""
        return self.directory / "transfers.log"

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
                log=self._log.format(log=self.log),
                user=user.pw_name,
                unprivileged="NO" if as_root else "YES",
            )
        )
        output = self.directory / "output"
        self.process = start([self._vsftpd, str(configuration)], output, self.port, b"220")
        return self

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
