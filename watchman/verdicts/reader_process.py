"""The process in which files are read: it takes a question, answers it, and takes the next.

Several of them wait at one socket; the kernel gives each message, with its questions and their
descriptors, to one of them, in the order in which they were asked. What it is at stands in memory
that it shares with the daemon, so that a question is answered also where its process was killed.
"""

from __future__ import annotations

import codecs
import contextlib
import mmap
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence

from watchman.verdicts import checksums
from watchman.verdicts.confinement import confine
from watchman.verdicts.formats import check_format
from watchman.verdicts.open_file import CannotTell, NotWhole, OpenFile
from watchman.verdicts.verdict import (
    LARGEST_QUESTION,
    SLOT,
    WALL,
    WHOLE,
    CheckRequest,
    CriterionCheck,
    FileVerdict,
    Kind,
    decode_requests,
    encode_answers,
)

MOST_DESCRIPTORS = 16
_ENCODINGS = ("cp437", "utf-8-sig", "utf-16", "utf-32", "cp1252", "iso8859-15")
"""Loaded before the files of Python may be out of reach: zip's, and what XML is written in."""

Callables = Mapping[str, Callable[..., object]]
"""Functions of the user's, by what they are registered as."""


def main(
    connection: int,
    memory: int,
    slot: int,
    parent: int,
    callables: Callable[[], Callables] = dict,
) -> None:
    """Be the process. ``callables`` is called before anything is given up."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(5)
    functions = callables()
    for name in _ENCODINGS:
        codecs.lookup(name)
    shared = mmap.mmap(memory, 0)
    confine(parent)
    with socket.socket(fileno=connection) as questions:
        while True:
            # The kernel closes what does not fit.
            data, descriptors, _, _ = socket.recv_fds(questions, LARGEST_QUESTION, MOST_DESCRIPTORS)
            if not data:
                return
            answers = []
            for question in decode_requests(data):
                SLOT.pack_into(shared, SLOT.size * slot, question.number)
                own = descriptors[: question.descriptors]
                descriptors = descriptors[question.descriptors :]
                answers.append((question.number, judge(question, own, functions)))
                for descriptor in own:
                    os.close(descriptor)
            questions.send(encode_answers(answers))
            SLOT.pack_into(shared, SLOT.size * slot, 0)


def judge(question: CheckRequest, descriptors: Sequence[int], callables: Callables) -> FileVerdict:
    """Answer a question; the first descriptor is the file's, the others are its companions'."""
    try:
        files = [OpenFile(descriptor) for descriptor in descriptors]
        with _limited(question.seconds):
            return _answer(question, files, callables)
    except NotWhole as error:
        return FileVerdict(Kind.PARTIAL, str(error))
    except CannotTell as error:
        return FileVerdict(Kind.UNKNOWN, str(error))
    except MemoryError:
        return FileVerdict(Kind.UNKNOWN, "its check takes too much memory")
    except OSError as error:
        return FileVerdict(Kind.UNKNOWN, f"it cannot be read: {error.strerror or error}")
    except Exception as error:  # noqa: BLE001 — a parser's own mistake, by what a stranger wrote
        said = " ".join(f"{type(error).__name__}: {error}".split())
        return FileVerdict(Kind.UNKNOWN, f"its check failed ({said})")


@contextlib.contextmanager
def _limited(seconds: int) -> Iterator[None]:
    """Have the kernel end this process where the block takes longer than that.

    Nothing less can end what a library does.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    until = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (until, hard))
    signal.setitimer(signal.ITIMER_REAL, seconds * WALL)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _answer(question: CheckRequest, files: Sequence[OpenFile], callables: Callables) -> FileVerdict:
    checksum = ""
    for one in question.asked:
        try:
            checksum = _check(one, question.path, files, callables) or checksum
        except (NotWhole, CannotTell) as error:
            # Companions are named in their reasons, and a function says what it likes.
            if one.kind == "format" and len(question.asked) > 1:
                raise type(error)(f"{one.argument}: {error}") from error
            raise
    return FileVerdict(Kind.WHOLE, "", checksum) if checksum else WHOLE


def _check(one: CriterionCheck, path: str, files: Sequence[OpenFile], callables: Callables) -> str:
    """Check one condition; return the checksum that was verified, if any."""
    if one.kind == "format":
        check_format(files[0], one.argument)
    elif one.kind == "checksum":
        name = os.fsencode(os.path.basename(path))
        return str(checksums.verify(files[0], name, files[one.companion], one.argument))
    elif one.kind == "size":
        size = checksums.size_in(files[one.companion], one.argument)
        if files[0].size != size:
            raise NotWhole(f"it has {files[0].size} bytes, and {one.argument} says {size}")
    else:
        _call(one, path, files[0], callables)
    return ""


def _call(one: CriterionCheck, path: str, file: OpenFile, callables: Callables) -> None:
    """Have the user's function decide: True, False, or why it is not whole."""
    function = callables.get(one.argument)
    if function is None:
        raise CannotTell(f"{one.argument} is not in the configuration any more; reload it")
    try:
        with os.fdopen(os.dup(file.descriptor), "rb") as stream:
            stream.seek(0)
            answer = function(path, stream)
    except (MemoryError, NotWhole, CannotTell):
        raise
    except BaseException as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise CannotTell(f"{one.argument} raised {said}") from error
    if isinstance(answer, str) and answer.split():
        raise NotWhole(" ".join(answer.split()))
    if not answer or isinstance(answer, str):
        raise NotWhole(f"{one.argument} says so")
