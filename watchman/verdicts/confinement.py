"""A process gives up what it does not need, before it reads what a stranger has made.

What is left: to read what is open or may be read by anybody, to compute, and to answer. Whatever a
kernel or an architecture does not have of this is left out; the others hold all the same.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
from typing import NamedTuple

MEMORY = 1 << 30
"""Bytes of address space."""
_DESCRIPTORS = 64
_NOBODY = 65534
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_CAPABILITY_VERSION_3 = 0x20080522

# BPF, as in linux/filter.h and linux/seccomp.h.
_LOAD, _JUMP_EQUAL, _JUMP_FROM, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_OTHER_NUMBERS = 0x40000000
"""From here on x86_64 has the same calls once more."""
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class _Calls(NamedTuple):
    """System calls of an architecture, by number."""

    audit: int
    refused: tuple[int, ...]
    """What nobody needs who only reads."""
    opening: tuple[tuple[int, int], ...]
    """open and openat, and which argument of each has the flags."""


_CALLS = {
    "x86_64": _Calls(
        0xC000003E,
        # The network, programs and other processes; then files, one line by their paths, one by
        # directories, one by what is open: modes, owners, times and attributes.
        (
            *(41, 42, 49, 59, 62, 101, 165, 200, 234, 310, 311, 321, 322, 425),
            *(76, 82, 83, 84, 85, 86, 87, 88, 90, 92, 94, 132, 133, 188, 189, 235),
            *(258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 316, 437, 452),
            *(91, 93, 190),
        ),
        ((2, 1), (257, 2)),
    ),
    "aarch64": _Calls(
        0xC00000B7,
        (
            *(40, 117, 129, 130, 131, 198, 200, 203, 221, 270, 271, 280, 281, 425),
            *(5, 6, 33, 34, 35, 36, 37, 38, 45, 53, 54, 88, 276, 437, 452),
            *(7, 52, 55),
        ),
        ((56, 2),),
    ),
}


def confine(parent: int, memory: int = MEMORY) -> None:
    """Give up what is not needed; end with the process ``parent``. For a process without threads.

    Raises OSError where what every kernel has does not work.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    # A unit may have given some to its user. Two sets of 32 bits, none of them left.
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    libc.capset(header, bytes(24))
    # After the change of user, which would undo it.
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_DESCRIPTORS, _DESCRIPTORS))
    with contextlib.suppress(ValueError, OSError):  # a lower limit was set before
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    _filter_calls(libc)


def _filter_calls(libc: ctypes.CDLL) -> None:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return
    program = _program(calls)
    code = b"".join(struct.pack("HBBI", *step) for step in program)
    buffer = ctypes.create_string_buffer(code)
    filter_ = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_char_p(filter_), 0, 0)


def _program(calls: _Calls) -> list[tuple[int, int, int, int]]:
    """Return the filter: (code, steps to leave out if so, if not, value) each."""
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, calls.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_FROM, 0, 1, _OTHER_NUMBERS),
        refuse,
    ]
    for number in calls.refused:
        steps += [(_JUMP_EQUAL, 0, 1, number), refuse]
    for number, flags in calls.opening:
        steps += [
            (_JUMP_EQUAL, 0, 4, number),
            (_LOAD, 0, 0, _ARGUMENTS + 8 * flags),
            (_JUMP_ANY_BIT, 0, 1, _WRITES),
            refuse,
            (_RETURN, 0, 0, _ALLOW),
        ]
    return [*steps, (_RETURN, 0, 0, _ALLOW)]
