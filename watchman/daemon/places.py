"""Where the daemon's own files are: as configured, else in a private temporary directory."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

from watchman.errors import WatchmanError
from watchman.model import Config

T = TypeVar("T")

_OUTPUT = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC


class DaemonFile(NamedTuple):
    """A file of the daemon's."""

    setting: str
    path: str
    """As configured."""
    private: str
    """The directory that is used where the configured one cannot be written."""

    @property
    def substitute(self) -> str:
        """The path that stands in for the configured one."""
        return os.path.join(self.private, os.path.basename(self.path))

    def candidates(self) -> Iterator[str]:
        """Yield the paths at which the file may be found; the substitute only if it is ours."""
        yield self.path
        try:
            os.close(_open_private(self.private))
        except OSError:
            return
        yield self.substitute

    def use(self, function: Callable[[str], T]) -> tuple[T, str]:
        """Return what ``function`` makes of the path, and what is to be said about it, if anything.

        Where it raises OSError it is called again, with the substitute. Raises WatchmanError if
        that fails as well.
        """
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            return function(self.path), ""
        except OSError as error:
            wrong = f"{self.setting}: {self.path} cannot be written: {error.strerror}"
        try:
            os.close(_open_private(self.private, make=True))
            found = function(self.substitute)
        except OSError as error:
            raise WatchmanError(
                f"{wrong}; nor can {self.substitute}: {error.strerror}; correct the permissions"
            ) from error
        return found, f"{wrong}; using {self.substitute} until that is corrected"


def pid_file(config: Config) -> DaemonFile:
    """Return the place of the pid file."""
    return DaemonFile("PID_FILE", config.pid_file, _private(config))


def output(config: Config) -> tuple[DaemonFile, DaemonFile]:
    """Return the places of the output and the error file."""
    private = _private(config)
    return (
        DaemonFile(
            "LOG_DIR", config.out_file or os.path.join(config.log_dir, "watchman.out"), private
        ),
        DaemonFile(
            "LOG_DIR", config.err_file or os.path.join(config.log_dir, "watchman.err"), private
        ),
    )


def open_output(path: str) -> int:
    """Open an output file for appending. Raises OSError."""
    descriptor = os.open(path, _OUTPUT, 0o644)
    os.set_blocking(descriptor, True)  # only the opening must not wait, for a FIFO's reader
    return descriptor


def _private(config: Config) -> str:
    """Return the private directory: one for each user and STATE_DIR, so that none collide."""
    mark = hashlib.sha256(os.fsencode(config.state_dir)).hexdigest()[:8]
    return os.path.join(tempfile.gettempdir(), f"watchman-{os.geteuid()}-{mark}")


def _open_private(path: str, *, make: bool = False) -> int:
    """Open the private directory once it is certain that nobody else can write in it.

    Anybody may have made something of that name in the temporary directory before us. Raises
    OSError: the one that occurred, or PermissionError for a directory that is not ours alone.
    """
    if make:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    status = os.fstat(descriptor)
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != 0o700:
        os.close(descriptor)
        raise PermissionError(0, f"{path} is not a private directory of ours (0700)")
    return descriptor
