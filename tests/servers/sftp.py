"""OpenSSH: an SFTP client for any server, and a server of a test's own."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.servers import OneProcess, free_port, require
from tests.servers.greeting import start


def make_key(path: Path) -> None:
    """Make a key pair in the one form that OpenSSH and mod_sftp both read."""
    require("ssh-keygen")
    kind = ["-m", "PEM", "-t", "ecdsa", "-b", "256"]
    command = ["ssh-keygen", "-q", "-N", "", *kind, "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)


class SFTP(NamedTuple):
    """OpenSSH's ``sftp``, one connection for each batch."""

    port: int
    user: str
    key: Path

    @property
    def options(self) -> list[str]:
        """What sftp and scp are told so that they ask nobody."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        options += ["IdentitiesOnly=yes", f"IdentityFile={self.key}"]
        return [argument for option in options for argument in ("-o", option)]

    def batch(self, *commands: str, timeout: float = 30.0) -> str:
        """Run sftp(1) commands; return what it printed. Fails at the first that fails.

        ``rename`` is posix-rename where the server has it; ``rename -l`` is SFTP's standard one,
        link and unlink.
        """
        require("sftp")
        target = f"{self.user}@127.0.0.1"
        done = subprocess.run(
            ["sftp", "-q", "-b", "-", "-P", str(self.port), *self.options, target],
            input="\n".join(commands) + "\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


class OpenSSH(OneProcess):
    """A running sshd that speaks SFTP, as whoever runs the tests; a context manager.

    Relative paths in a batch are below ``root``. With ``commands`` it runs what it is asked to, as
    scp's own protocol needs.
    """

    def __init__(self, directory: Path, port: int | None = None, *, commands: bool = False) -> None:
        # Absolute, as sshd insists: it starts itself again for every connection.
        self._sshd = require("sshd")
        self.directory = directory
        self.port = port or free_port()
        self._commands = commands

    @property
    def root(self) -> Path:
        """Where a session begins: where uploads go."""
        return self.directory / "root"

    def sftp(self) -> SFTP:
        """Return a client for it."""
        return SFTP(self.port, pwd.getpwuid(os.getuid()).pw_name, self.directory / "user_key")

    def __enter__(self) -> OpenSSH:
        self.root.mkdir(parents=True, exist_ok=True)
        make_key(self.directory / "host_key")
        make_key(self.directory / "user_key")
        if os.geteuid() == 0:
            # Compiled into Debian's sshd, which does not start without it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        configuration = self.directory / "sshd_config"
        only = "" if self._commands else f"ForceCommand internal-sftp -d {self.root}\n"
        configuration.write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nPidFile none\n"
            f"HostKey {self.directory}/host_key\nStrictModes no\nUsePAM no\n"
            f"AuthorizedKeysFile {self.directory}/user_key.pub\n"
            "PermitRootLogin prohibit-password\nPasswordAuthentication no\n"
            f"MaxStartups 100\nSubsystem sftp internal-sftp\n{only}"
        )
        command = [self._sshd, "-D", "-e", "-f", str(configuration)]
        self.process = start(command, self.directory / "output", self.port, b"SSH-2.0")
        return self
