"""The processes that read files: what they answer, what they may not, and that nobody waits."""

from __future__ import annotations

import bz2
import errno
import gzip
import os
import queue
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest

from tests.descriptors import many_open
from tests.unit.verdicts.test_truncations import NAMES, whole
from tests.waiting import wait_until
from watchman.troubles import Troubles
from watchman.verdicts import pool, reader_process, started_reader, verdict
from watchman.verdicts.pool import Pool
from watchman.verdicts.verdict import (
    WHOLE,
    CheckRequest,
    CriterionCheck,
    FileVerdict,
    Kind,
    decode_answers,
    decode_requests,
    encode_answers,
)

GZIP = (CriterionCheck("format", "gzip"),)
BZIP2 = (CriterionCheck("format", "bzip2:thorough"),)


class Asking:
    """A pool, and the answers that came."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.answers: queue.Queue[tuple[str, FileVerdict]] = queue.Queue()

    def ask(self, *paths: Path, asked: Sequence[CriterionCheck] = GZIP) -> None:
        for path in paths:
            descriptor, size = os.open(path, os.O_RDONLY), path.stat().st_size

            def answered(verdict: FileVerdict, name: str = path.name) -> None:
                self.answers.put((name, verdict))

            about = str(path), asked, [descriptor], size, answered
            wait_until(lambda about=about: self.pool.ask(*about))  # type: ignore[misc]  # — binds
        self.pool.flush()

    def no_answer(self, verdict: FileVerdict) -> None:
        """Fail where an answer comes to what takes longer than the test."""
        self.answers.put(("", verdict))

    def answer(self, timeout: float = 60.0) -> tuple[str, FileVerdict]:
        return self.answers.get(timeout=timeout)


@pytest.fixture
def asking() -> Iterator[Asking]:
    made = Pool(Troubles())
    made.start()
    yield Asking(made)
    made.stop()
    assert not [child for child in psutil.Process().children() if is_worker(child)]


def is_worker(process: psutil.Process) -> bool:
    try:
        return any("watchman.verdicts" in word for word in process.cmdline())
    except psutil.Error:
        return False


def workers() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if is_worker(child)]


def test_who_asks_never_waits_though_the_paths_are_long(asking: Asking, tmp_path: Path) -> None:
    """All processes are stopped: nobody takes a question out of the socket."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"rain"))
    asking.ask(path)
    asking.answer()
    stopped = workers()
    for worker in stopped:
        worker.suspend()
    answers: list[FileVerdict] = []
    long = "/" + "/".join(["n" * 250] * 15)
    try:
        with path.open("rb") as file:
            for number in range(pool.IN_FLIGHT):
                about = f"{long}/{number}", GZIP, [os.dup(file.fileno())], 0, answers.append
                assert asking.pool.ask(*about)
            asking.pool.flush()
            # The kernel has no room for all of them.
            assert asking.pool._gathered
            assert not asking.pool.ask(*about)
    finally:
        for worker in stopped:
            worker.resume()
    wait_until(lambda: len(answers) == pool.IN_FLIGHT, what="all are answered")


def test_whole_and_partial_files_are_told_apart(asking: Asking, tmp_path: Path) -> None:
    right, half = tmp_path / "whole.gz", tmp_path / "half.gz"
    right.write_bytes(gzip.compress(b"rain" * 1000))
    half.write_bytes(right.read_bytes()[:-4])
    asking.ask(right)
    asking.ask(half)
    answers = dict(asking.answer() for _ in range(2))
    assert answers["whole.gz"].kind is Kind.WHOLE
    assert answers["half.gz"].kind is Kind.PARTIAL
    assert "ends in the middle" in answers["half.gz"].reason


def test_every_format_can_be_checked_there(asking: Asking, tmp_path: Path) -> None:
    """What a check needs of Python must have been loaded before it is out of reach."""
    for number, name in enumerate(NAMES):
        form, contents = whole(name)
        path = tmp_path / str(number)
        path.write_bytes(contents)
        both = CriterionCheck("format", form), CriterionCheck("format", form + ":thorough")
        asking.ask(path, asked=both)
    answers = dict(asking.answer() for _ in NAMES)
    assert {NAMES[int(n)]: v.reason for n, v in answers.items() if v.kind is not Kind.WHOLE} == {}


def test_what_waits_for_a_function_is_asked_in_its_turn_and_given_back(tmp_path: Path) -> None:
    config = tmp_path / "config.py"
    config.write_text(
        "import threading\n"
        "def name(path, file):\n"
        "    return path[-1] + ': ' + file.read().decode()\n"
        "def hangs(path, file):\n"
        "    threading.Event().wait()\n"
        "PATTERNS = [('/a/*', {'broker': 'b', 'task': 't', 'complete': [name, hangs]})]\n"
        "WATCHES, BROKERS = [{'path': '/a'}], {'b': 'memory://'}\n"
    )
    one, other = (
        (CriterionCheck("callable", f"PATTERNS['/a/*']: 'complete'[{n}]"),) for n in (0, 1)
    )
    before = len(os.listdir("/proc/self/fd"))
    made = Pool(Troubles(), str(config))
    made.start()
    asking = Asking(made)
    paths = [tmp_path / name for name in "abcdefg"]
    for path in paths:
        path.write_text(path.name)
    for number in range(3 * pool.AHEAD):
        path = paths[number % 7]
        asking.ask(path, asked=one)
        if number < pool.AHEAD:
            asking.ask(path, asked=other)
    found = [asking.answer() for _ in range(3 * pool.AHEAD)]
    assert {(name, told.reason) for name, told in found} == {(n, f"{n}: {n}") for n in "abcdefg"}
    made.stop()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) == before)


def test_bombs_hold_up_nobody(asking: Asking, tmp_path: Path) -> None:
    """100 GB of nothing, in 100 MB; as many of them as there are processor cores."""
    block = gzip.compress(b"\0" * (64 << 20))
    for number in range(2):
        bomb = tmp_path / f"bomb{number}.gz"
        with bomb.open("wb") as stream:
            for _ in range(1600):
                stream.write(block)
        asking.ask(bomb)
    small = tmp_path / "small.gz"
    small.write_bytes(gzip.compress(b"rain"))
    asking.ask(small)
    name, verdict = asking.answer()
    assert (name, verdict.kind) == ("small.gz", Kind.WHOLE)


def test_large_files_leave_room_for_small_ones(asking: Asking, tmp_path: Path) -> None:
    """Empty, too: 8 TiB of nothing take no place, and hours to be read."""
    with (tmp_path / "large").open("w+") as file, (tmp_path / "sum").open("w+") as told:
        told.write("0" * 64)
        told.flush()
        os.truncate(file.fileno(), 8 << 40)
        asked = (CriterionCheck("checksum", "sum", 1),)
        for _ in range(pool.MOST):
            both = [os.dup(file.fileno()), os.dup(told.fileno())]
            assert asking.pool.ask("large", asked, both, 8 << 40, asking.no_answer)
    small = tmp_path / "small.gz"
    small.write_bytes(gzip.compress(b"rain"))
    asking.ask(small)
    assert asking.answer() == ("small.gz", WHOLE)


def test_a_sparse_file_of_10_gb_is_told_at_once(asking: Asking, tmp_path: Path) -> None:
    sparse = tmp_path / "sparse.gz"
    sparse.write_bytes(gzip.compress(b"rain")[:20])
    os.truncate(sparse, 10 << 30)
    asking.ask(sparse)
    assert asking.answer()[1].kind is Kind.PARTIAL


def test_a_killed_process_is_an_answer_and_another_takes_its_place(
    asking: Asking, tmp_path: Path
) -> None:
    block = gzip.compress(b"\0" * (64 << 20))
    long = tmp_path / "long.gz"
    with long.open("wb") as stream:
        for _ in range(400):
            stream.write(block)
    asking.ask(long)
    busy = wait_until(lambda: [w for w in workers() if w.cpu_times().user > 0.5])
    before = len(workers())
    busy[0].kill()
    assert asking.answer()[1] == FileVerdict(Kind.UNKNOWN, "its check ended by signal SIGKILL")
    wait_until(lambda: len(workers()) == before)
    small = tmp_path / "small.gz"
    small.write_bytes(gzip.compress(b"rain"))
    asking.ask(small)
    assert asking.answer()[1].kind is Kind.WHOLE


def test_one_that_takes_too_long_is_ended_however_many_descriptors_are_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "LOOK", 0.1)
    monkeypatch.setattr(pool, "WALL", 0)
    long = tmp_path / "long.bz2"
    long.write_bytes(bz2.compress(b"\0" * (32 << 20)) * 1000)
    made = Pool(Troubles())
    with many_open():
        made.start()
        asking = Asking(made)
        asking.ask(long, asked=BZIP2)
        ended = FileVerdict(Kind.UNKNOWN, "its check ended by signal SIGKILL")
        assert asking.answer() == ("long.bz2", ended)
        made.stop()
    assert made.error is None


def test_that_no_process_can_be_started_is_said_and_over_when_one_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small.gz"
    small.write_bytes(gzip.compress(b"rain"))
    monkeypatch.setattr(pool, "LOOK", 0.05)
    troubles = Troubles()
    made = Pool(troubles)
    with monkeypatch.context() as patch:
        # No descriptor is left for the pipes of a new process.
        patch.setattr(started_reader.subprocess, "Popen", no_descriptors)  # type: ignore[attr-defined]  # — where it imports it
        made.start()
        (trouble,) = wait_until(troubles.all)
        assert trouble.subject == pool.WAITING
        assert "too many open files" in trouble.message
        asking = Asking(made)
        asking.ask(small)
    assert asking.answer() == ("small.gz", WHOLE)
    wait_until(lambda: not troubles.all())
    made.stop()
    assert made.error is None


def no_descriptors(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture
def together(asking: Asking, tmp_path: Path) -> Path:
    """Ask about a small file behind one that is small as well, and takes minutes."""
    long, small = tmp_path / "long.bz2", tmp_path / "small.bz2"
    long.write_bytes(bz2.compress(b"\0" * (32 << 20)) * 1000)
    small.write_bytes(bz2.compress(b"rain"))
    assert long.stat().st_size < pool.SMALL
    asking.ask(long, small, asked=BZIP2)
    return small


def test_what_waits_behind_a_long_one_in_its_message_is_asked_again(
    asking: Asking, together: Path
) -> None:
    assert asking.answer() == ("small.bz2", pool.NO_ANSWER)
    asking.ask(together, asked=BZIP2)
    assert asking.answer() == ("small.bz2", WHOLE)


def test_a_small_file_that_takes_long_is_to_be_asked_about_as_a_large_one(
    asking: Asking, together: Path
) -> None:
    told = dict(asking.answer() for _ in range(2))
    assert told["long.bz2"] is pool.TAKES_LONG
    long = together.with_name("long.bz2")
    with long.open("rb") as file:
        assert asking.pool.ask(
            str(long), BZIP2, [os.dup(file.fileno())], pool.LARGE, asking.no_answer
        )
    wait_until(lambda: asking.pool.reading(pool.QUICK + 2), 60, "it is given more time")


def test_what_was_in_the_message_of_a_killed_process_is_asked_again(
    asking: Asking, together: Path
) -> None:
    busy = wait_until(lambda: [w for w in workers() if w.cpu_times().user > 0.5])
    busy[0].kill()
    told = dict(asking.answer() for _ in range(2))
    assert told["small.bz2"] is pool.NO_ANSWER
    assert told["long.bz2"].reason == "its check ended by signal SIGKILL"


def test_messages_have_room_for_the_longest_paths_and_reasons(
    asking: Asking, tmp_path: Path
) -> None:
    """Bytes that are no UTF-8 are one character each, and not one byte in every encoding."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"rain"))
    answers: list[FileVerdict] = []
    with path.open("rb") as file:
        for _ in range(pool.TOGETHER):
            about = os.fsdecode(b"/" + b"\xff" * 4094), GZIP, [os.dup(file.fileno())], 0
            assert asking.pool.ask(*about, answers.append)
    wait_until(lambda: len(answers) == pool.TOGETHER, 3, what="all are answered at once")
    assert set(answers) == {WHOLE}

    told = FileVerdict(Kind.PARTIAL, "\U0001d11e" * 5000, "sha512:" + "0" * 128)
    sent = encode_answers([(number, told) for number in range(pool.TOGETHER)])
    assert len(sent) <= verdict.LARGEST_QUESTION
    assert len(decode_answers(sent)) == pool.TOGETHER


def test_small_files_go_together_and_each_has_its_answer(asking: Asking, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.gz" for number in range(3 * pool.TOGETHER + 1)]
    for number, path in enumerate(paths):
        path.write_bytes(gzip.compress(b"rain")[: 5 if number % 5 == 0 else None])
    wait_until(lambda: len(asking.pool.processes) >= pool.LEAST)
    before = len(os.listdir("/proc/self/fd"))
    asking.ask(*paths)
    told = dict(asking.answer() for _ in paths)
    partial = {name for name, verdict in told.items() if verdict.kind is Kind.PARTIAL}
    assert partial == {path.name for path in paths[::5]}
    assert {verdict.kind for verdict in told.values()} == {Kind.WHOLE, Kind.PARTIAL}
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_question_is_answered_that_was_taken_by_a_process_which_is_gone(
    asking: Asking, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed just then, it has not said what it is at; the test takes one in its place."""
    monkeypatch.setattr(pool, "LOST", 0.2)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"rain"))
    asking.ask(path)
    assert asking.answer()[1].kind is Kind.WHOLE
    every = workers()
    for worker in every:
        worker.suspend()
    wait_until(lambda: all(worker.status() == psutil.STATUS_STOPPED for worker in every))
    asking.ask(path)
    asking.pool._theirs.recv(1000)
    asking.ask(path)
    for worker in every:
        worker.resume()
    found = [asking.answer()[1] for _ in range(2)]
    assert [one.kind for one in found] == [Kind.WHOLE, Kind.UNKNOWN]
    assert found[1] is pool.NO_ANSWER


def test_what_takes_too_much_processor_time_is_ended(tmp_path: Path) -> None:
    """By the limit that the kernel keeps, whatever the library does."""
    program = (
        "from watchman.verdicts import reader_process\n"
        "with reader_process._limited(1):\n    while True: pass\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    # The second where others leave this machine no time.
    assert ended.returncode in {-signal.SIGXCPU, -signal.SIGALRM}


def test_it_has_no_network_no_files_and_no_powers(tmp_path: Path) -> None:
    """What the process could try if what it reads had taken it over."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    tmp_path.chmod(0o777)
    victim.chmod(0o666)
    program = f"""
import os, socket
from watchman.verdicts.confinement import confine
confine({os.getpid()})
def refused(what, *arguments):
    try:
        what(*arguments)
    except OSError:
        return
    raise SystemExit(f"allowed: {{what}} {{arguments}}")
refused(socket.socket)
refused(os.open, {str(victim)!r}, os.O_WRONLY)
refused(os.open, {str(victim)!r}, os.O_RDONLY | os.O_TRUNC)
refused(os.open, {str(tmp_path / "new")!r}, os.O_WRONLY | os.O_CREAT)
refused(os.unlink, {str(victim)!r})
refused(os.rename, {str(victim)!r}, {str(victim)!r} + "2")
refused(os.chmod, {str(victim)!r}, 0)
refused(os.truncate, {str(victim)!r}, 0)
refused(os.mkdir, {str(tmp_path / "d")!r})
refused(os.symlink, "x", {str(tmp_path / "l")!r})
refused(os.kill, {os.getpid()}, 0)
refused(os.execv, "/bin/true", ["true"])
refused(os.setuid, 0) if os.getuid() else None
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
assert int(status["CapEff"], 16) == 0, status["CapEff"]
assert status["NoNewPrivs"].strip() == "1"
assert status["Seccomp"].strip() == "2", status["Seccomp"]
try:
    bytearray(2 << 30)
except MemoryError:
    raise SystemExit(42)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert ended.returncode == 42, ended.stderr.decode()
    assert victim.read_text() == "kept"


def test_a_process_ends_with_the_daemon() -> None:
    program = (
        "import os, time\n"
        "from watchman.verdicts.pool import Pool\n"
        "from watchman.troubles import Troubles\n"
        "pool = Pool(Troubles()); pool.start()\n"
        "import tests.waiting as waiting\n"
        "waiting.wait_until(lambda: len(pool._workers) >= 3)\n"
        "print(*[w.process.pid for w in pool._workers.values()], flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    started = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
        timeout=60,
    )
    pids = list(map(int, started.stdout.split()))
    assert pids
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


@pytest.fixture
def processor_time() -> Iterator[None]:
    """Take back the limit that a check sets: it would end pytest by SIGXCPU some time later."""
    limits = resource.getrlimit(resource.RLIMIT_CPU)
    yield
    resource.setrlimit(resource.RLIMIT_CPU, limits)


@pytest.mark.usefixtures("processor_time")
def test_a_reason_names_its_format_where_several_things_are_asked() -> None:
    descriptor = os.memfd_create("asked")
    os.write(descriptor, b"a;b\n1;2")
    for asked, reason in (
        (("csv",), "its last line has no end"),
        (("auto", "csv"), "csv: its last line has no end"),
    ):
        checks = tuple(CriterionCheck("format", one) for one in asked)
        question = CheckRequest(1, "/up/a", checks, 1, verdict.CPU)
        assert reader_process.judge(question, [descriptor], {}) == FileVerdict(Kind.PARTIAL, reason)
    os.close(descriptor)


@pytest.mark.parametrize("data", [b"", b"\xff", b"1\0", b"x\0y\0z\0", b"1\x007\0\0", b"1\0\0"])
def test_an_answer_that_is_none_is_no_verdict(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"unpack|invalid|valid Kind"):
        decode_answers(data)


def test_the_limits_grow_with_what_the_file_has_on_disk(tmp_path: Path) -> None:
    assert verdict.CPU + (50 << 30) * verdict.CPU_PER_BYTE > 50 * 1024 / 10
    least = verdict.CPU
    with (tmp_path / "file").open("w+b") as file:
        os.truncate(file.fileno(), 8 << 40)
        assert verdict.processor_time(file.fileno()) == least
        file.write(b"x" * 8_000_000)
        file.flush()
        os.fsync(file.fileno())
        assert least + 3 <= verdict.processor_time(file.fileno()) <= least + 5


def test_of_a_file_system_that_tells_no_blocks_the_size_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 8_000_000)
    status = os.stat_result((0, 0, 0, 0, 0, 0, 8_000_000, 0, 0, 0), {"st_blocks": 0})
    monkeypatch.setattr(os, "fstat", lambda _: status)
    with path.open("rb") as file:
        assert verdict.processor_time(file.fileno()) == verdict.CPU + 4


class WithoutProcesses(Pool):
    """A pool of which the test answers the questions."""

    def _fill(self) -> None:
        """Start none."""

    def answer_one(self) -> str:
        """Take the next question, say that its file is whole, and return its function."""
        self._theirs.settimeout(20)
        data, descriptors, _, _ = socket.recv_fds(self._theirs, 1 << 16, 16)
        for descriptor in descriptors:
            os.close(descriptor)
        (question,) = decode_requests(data)
        self._theirs.send(encode_answers([(question.number, WHOLE)]))
        return question.asked[0].argument


@pytest.mark.parametrize(("config_path", "at_a_time"), [("", 3), ("config.py", 2)])
def test_a_process_is_left_beside_large_files_and_functions(
    tmp_path: Path, config_path: str, at_a_time: int
) -> None:
    """Of four; functions may take one of these beside the one that is added for the first."""
    made = WithoutProcesses(Troubles(), config_path)
    made._count = 4
    made.start()
    try:
        with (tmp_path / "a").open("w+") as file:
            for asked in (*GZIP, CriterionCheck("callable", "function")):
                for _ in range(4):
                    about = "/a", [asked], [os.dup(file.fileno())], pool.LARGE, print
                    assert made.ask(*about)
            assert made._numbers[pool.LARGE_FILES] == at_a_time
            assert made._numbers[pool.Lane(("function",))] == 2
            made.answer_one()
            wait_until(lambda: len(made._held[pool.LARGE_FILES]) == 4 - at_a_time - 1)
            assert made._numbers[pool.LARGE_FILES] == at_a_time
    finally:
        made.stop()


def test_however_many_functions_there_are_each_gets_its_turn(tmp_path: Path) -> None:
    functions = [f"function {number}" for number in range(pool.LEAST + pool.MORE + 2)]
    made = WithoutProcesses(Troubles())
    made.start()

    def ask_on(function: str) -> None:
        """Have as much of it wait as there can be."""
        while True:
            descriptor = os.dup(file.fileno())
            if not made.ask("/a", [CriterionCheck("callable", function)], [descriptor], 0, print):
                os.close(descriptor)
                return

    try:
        with (tmp_path / "a").open("w+") as file:
            for function in functions:
                ask_on(function)
            asked = []
            for _ in range(10 * len(functions)):
                asked.append(made.answer_one())
                ask_on(asked[-1])
    finally:
        made.stop()
    assert set(asked) == set(functions)
