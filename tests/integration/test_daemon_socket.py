"""The daemon's socket: what it answers, and that no client does any harm."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.descriptors import no_descriptor_left
from tests.journals import counts
from tests.running import config_for, running
from tests.waiting import wait_until
from watchman.journal.failed_deliveries import Selection, retry
from watchman.journal.hold_orders import hold
from watchman.model import HoldKind, State
from watchman.status import daemon_socket
from watchman.status.asking import ask
from watchman.status.daemon_socket import FILE, LONGEST, MOST, Server, request


def echo(words: Sequence[str]) -> list[dict[str, Any]]:
    return [{"ok": True, "word": word, "together": len(words)} for word in words]


@contextlib.contextmanager
def serving(directory: Path, answers: Any = echo) -> Iterator[Server]:
    server = Server(str(directory), answers)
    server.start()
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def connected(directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(directory / FILE))
        client.settimeout(10)
        yield client


def say(directory: Path, content: bytes) -> bytes:
    """Send something and return all that comes."""
    with connected(directory) as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(content)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.recv(1 << 16):
                received += piece
        return received


def test_one_line_for_one_line(tmp_path: Path) -> None:
    with serving(tmp_path):
        mode = os.lstat(tmp_path / FILE).st_mode
        assert (stat.S_ISSOCK(mode), mode & 0o777) == (True, 0o600)
        assert request(str(tmp_path), "x") == {"ok": True, "word": "x", "together": 1}
    assert not (tmp_path / FILE).exists()
    assert request(str(tmp_path), "x") is None


def test_the_umask_of_the_process_is_left_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with serving(tmp_path):
            assert os.lstat(tmp_path / FILE).st_mode & 0o777 == 0o600
        assert os.umask(0) == 0
    finally:
        os.umask(before)


def test_a_directory_whose_path_is_longer_than_a_socket_may_have(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    with serving(deep):
        assert request(str(deep), "x") is not None


def test_what_a_killed_run_has_left_is_in_nobodys_way(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / FILE))
    assert request(str(tmp_path), "x") is None
    with serving(tmp_path):
        assert request(str(tmp_path), "x") is not None


def test_where_it_cannot_be_made_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).mkdir()
    with serving(tmp_path):
        assert "cannot be made" in caplog.text
        assert request(str(tmp_path), "x") is None


def test_without_descriptors_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not ask the kernel again and again, which tells each time that somebody is there."""
    tries: list[float] = []
    accept = Server._accept

    def counting(server: Server, listener: socket.socket) -> None:
        tries.append(time.monotonic())
        accept(server, listener)

    monkeypatch.setattr(Server, "_accept", counting)
    monkeypatch.setattr(daemon_socket, "AGAIN", 0.1)
    with serving(tmp_path), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        with no_descriptor_left():
            client.connect(str(tmp_path / FILE))
            wait_until(lambda: len(tries) >= 3, what="it tries again")
            assert tries[2] - tries[0] >= 0.2
        client.sendall(b'{"request": "x"}\n')
        assert json.loads(client.recv(4096))["ok"]


@pytest.mark.parametrize(
    "rubbish",
    [
        b"\n",
        b"{}\n",
        b"[]\n",
        b'{"request": 7}\n',
        b"\xff\xfe\n",
        b"[" * 3000 + b"\n",
        b"x" * LONGEST,
        b"x" * (10 * LONGEST) + b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_rubbish_is_told_so(tmp_path: Path, rubbish: bytes) -> None:
    with serving(tmp_path):
        answer = say(tmp_path, rubbish)
        assert not answer or json.loads(answer)["ok"] is False
        assert request(str(tmp_path), "x") is not None


def test_those_who_hang_make_room(tmp_path: Path) -> None:
    with serving(tmp_path), contextlib.ExitStack() as stack:
        for _ in range(5 * MOST):
            client = stack.enter_context(connected(tmp_path))
            client.sendall(b'{"request": ')
        begun = time.monotonic()
        assert request(str(tmp_path), "x") is not None
        assert time.monotonic() - begun < daemon_socket.PATIENCE


def test_one_that_says_nothing_is_let_go_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon_socket, "PATIENCE", 0.1)
    with serving(tmp_path), connected(tmp_path) as client:
        assert client.recv(1) == b""


def test_one_that_does_not_take_its_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"ok": True, "text": "x" * (8 << 20)}
    with serving(tmp_path, lambda words: [large for _ in words]) as server:
        with connected(tmp_path) as client:
            client.sendall(b'{"request": "x"}\n')
            wait_until(lambda: bool(server._clients))
            assert request(str(tmp_path), "x") == large
        wait_until(lambda: not server._clients, what="it has gone")


def test_a_flood_from_many_at_once(tmp_path: Path) -> None:
    answers: list[Any] = []

    def ask() -> None:
        answers.extend(request(str(tmp_path), "x") for _ in range(20))

    threads = [threading.Thread(target=ask) for _ in range(10)]
    with serving(tmp_path):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert request(str(tmp_path), "x") is not None
    assert len(answers) == 200
    assert sum(answer is not None for answer in answers) > 100


def test_another_user_is_not_answered(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    with serving(tmp_path):
        os.chmod(tmp_path / FILE, 0o666)  # noqa: S103 — that is what is tested
        # By a descriptor: the directories above are not for everybody.
        program = (
            "import os, socket, sys\n"
            "os.setuid(65534)\n"
            "client = socket.socket(socket.AF_UNIX)\n"
            "client.connect(f'/proc/self/fd/{sys.argv[1]}/socket')\n"
            'client.sendall(b\'{"request": "x"}\\n\')\n'
            "print(client.recv(100))\n"
        )
        directory = os.open(tmp_path, os.O_PATH)
        os.chmod(tmp_path, 0o755)  # noqa: S103 — the same
        try:
            done = subprocess.run(
                [sys.executable, "-c", program, str(directory)],
                pass_fds=[directory],
                capture_output=True,
                text=True,
                check=False,
                timeout=60,
            )
        finally:
            os.close(directory)
        assert done.stdout == "b''\n" or "Error: [Errno" in done.stderr
        assert request(str(tmp_path), "x") is not None


def test_a_pipeline_answers_with_what_is_true_now(tmp_path: Path) -> None:
    up = tmp_path / "up"
    up.mkdir()
    config = config_for(up, tmp_path / "var")
    with running(config) as (_, publisher):
        begun = time.time_ns()
        answer = ask(config)
        assert answer.live
        assert answer.snapshot is not None
        assert answer.snapshot["beat_ns"] >= begun
        assert answer.age_s is not None
        assert answer.age_s < 5
        unknown = json.loads(say(tmp_path / "var", b'{"request": "nonsense"}\n'))
        assert unknown["error"].startswith("no such request: nonsense; there are: ")
        # Clients that hang hold up neither files nor those who ask.
        with contextlib.ExitStack() as stack:
            for _ in range(MOST):
                stack.enter_context(connected(tmp_path / "var"))
            (up / "a").touch()
            wait_until(lambda: len(publisher.messages) == 1)
            assert ask(config).live
    after = ask(config)
    assert not after.live
    assert after.snapshot is not None
    assert not after.snapshot["watching"]


def test_who_asks_again_at_once_is_answered_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers may take a tenth of the time; when that is over, nothing else wakes the pipeline."""
    for module in ("schedule", "pipeline"):
        monkeypatch.setattr(f"watchman.pipeline.{module}.CHECK", 3600.0)
    up = tmp_path / "up"
    up.mkdir()
    config = config_for(up, tmp_path / "var")
    with running(config):
        assert all(ask(config).live for _ in range(5))


def test_a_hold_is_obeyed_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    up = tmp_path / "up"
    up.mkdir()
    config = config_for(up, tmp_path / "var")
    with running(config) as (pipeline, publisher):
        hold(config.state_dir, [(HoldKind.TASK, "task")], "anna")
        assert request(config.state_dir, "orders") == {"ok": True, "fresh": True}
        assert pipeline.journal.holds.sorts_out
        assert "Held by anna: task task; its tasks wait" in caplog.text
        (up / "a").touch()
        wait_until(lambda: pipeline.journal.last_seq() == 1)
        assert not publisher.messages


def test_what_is_put_back_is_sent_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchman.pipeline.heartbeat.BEAT", 600)  # with which it would be, too
    up = tmp_path / "up"
    up.mkdir()
    config = config_for(up, tmp_path / "var")
    with running(config) as (pipeline, publisher):
        (up / "a").touch()
        wait_until(lambda: ("b", State.SENT) in counts(pipeline.journal))
        pipeline.journal.note([(1, State.FAILED, "as if refused")])
        with retry(config.state_dir, Selection(all=True), lambda _: False) as changes:
            assert [record.seq for record in changes.changed] == [1]
        assert request(config.state_dir, "orders") == {"ok": True, "fresh": True}
        wait_until(lambda: len(publisher.messages) == 2)
