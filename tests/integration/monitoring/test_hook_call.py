"""One call of a hook: what it is told, and that it ends whatever it does."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.monitoring.receiver import Receiver, writing, written
from tests.servers import ended, free_port
from tests.waiting import wait_until
from watchman.model import Hook
from watchman.monitoring import hook_call
from watchman.monitoring.hook_call import Commands, HookError

EVENT = {"event": "trouble", "subject": "/up/\udcff\n", "message": "é"}


def command(*argv: str) -> Hook:
    return Hook("ON_TROUBLE", "the command x", command=argv)


def program(text: str) -> Hook:
    return command(sys.executable, "-c", text)


def call(hook: Hook, event: dict[str, str]) -> None:
    hook_call.call(hook, event, Commands())


def test_a_command_reads_the_event(tmp_path: Path) -> None:
    call(command(*writing(tmp_path / "told")), EVENT)
    assert written(tmp_path / "told") == [EVENT]


def test_no_shell_sees_its_arguments(tmp_path: Path) -> None:
    odd = tmp_path / "$(touch x); `touch y`"
    call(command(*writing(odd)), EVENT)
    assert sorted(os.listdir(tmp_path)) == [odd.name]


def test_one_that_reads_nothing_of_much_is_no_trouble() -> None:
    call(program("pass"), {"much": "x" * 1_000_000})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import sys; print('a'); sys.exit('b\\nwrong: c')", "ended with status 1: wrong: c"),
        ("import sys; sys.exit(3)", "ended with status 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        # A flood is read and forgotten.
        (
            "import sys; [sys.stderr.write('x' * 99 + '\\n') for _ in range(200_000)]; sys.exit(4)",
            "ended with status 4: " + "x" * 99,
        ),
    ],
)
def test_what_fails_is_told(text: str, why: str) -> None:
    with pytest.raises(HookError) as caught:
        call(program(text), EVENT)
    assert str(caught.value) == why


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(HookError, match="cannot be run: No such file"):
        call(command("/nonexistent/program"), EVENT)


def test_what_hangs_is_killed_with_all_that_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_call, "LIMIT", 2.0)
    pids = tmp_path / "pids"
    text = (
        "import os, signal, subprocess, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "if sys.argv[1:]:\n"
        "    child = subprocess.Popen([sys.executable, __file__])\n"
        f"    open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "signal.pause()\n"
    )
    hanging = tmp_path / "hanging.py"
    hanging.write_text(text)
    begun = time.monotonic()
    with pytest.raises(HookError, match="took longer than 2 s and was killed"):
        call(command(sys.executable, str(hanging), "parent"), EVENT)
    assert time.monotonic() - begun < 20

    def gone(pid: int) -> bool:
        try:
            return ended(psutil.Process(pid))
        except psutil.NoSuchProcess:
            return True

    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: gone(pid), what="it is killed")  # type: ignore[misc]  # — binds the pid


def test_what_it_leaves_running_is_not_waited_for(tmp_path: Path) -> None:
    text = (
        "import os, signal, sys\n"
        "child = os.fork()\n"
        "if not child:\n    signal.pause()\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child))\n"
    )
    begun = time.monotonic()
    call(program(text), EVENT)
    assert time.monotonic() - begun < hook_call.LIMIT / 2
    left = psutil.Process(int((tmp_path / "pid").read_text()))
    assert not ended(left)
    left.kill()


def test_the_end_of_the_daemon_ends_it(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    text = f"import signal; open({str(ready)!r}, 'w').close(); signal.pause()"
    commands = Commands()
    why: list[str] = []

    def run() -> None:
        with pytest.raises(HookError) as caught:
            hook_call.call(program(text), EVENT, commands)
        why.append(str(caught.value))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(ready.exists, what="it runs")
    commands.end()
    thread.join(20)
    assert why == ["ended by signal 9"]


def test_one_that_is_just_being_started_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands()
    start = subprocess.Popen

    def start_late(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = start(*args, **options)
        commands.end()
        return process

    monkeypatch.setattr(subprocess, "Popen", start_late)
    with pytest.raises(HookError, match="ended by signal 9"):
        hook_call.call(program("import signal; signal.pause()"), EVENT, commands)


def test_a_post(receiver: Receiver) -> None:
    call(Hook("ON_TROUBLE", "url", url=f"http://us%40er:p%3Aw@{receiver.address}/x?y=z"), EVENT)
    assert receiver.events == [EVENT]
    [headers] = receiver.headers
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == f"Basic {base64.b64encode(b'us@er:p:w').decode()}"
    assert headers["Host"] == receiver.address


@pytest.mark.parametrize("status", [302, 400, 503])
def test_what_a_server_refuses_is_told(receiver: Receiver, status: int) -> None:
    receiver.status = status
    with pytest.raises(HookError, match=f"status 1: the server answered {status} "):
        call(Hook("ON_TROUBLE", "url", url=f"http://{receiver.address}/"), EVENT)
    assert len(receiver.events) == 1


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(HookError, match="Connection refused"):
        call(Hook("ON_TROUBLE", "url", url=f"http://127.0.0.1:{free_port()}/"), EVENT)


def test_a_server_that_never_answers_is_left(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hook_call, "LIMIT", 3.0)
    receiver.go_on.clear()
    begun = time.monotonic()
    with pytest.raises(HookError, match="took longer than 3 s and was killed"):
        call(Hook("ON_TROUBLE", "url", url=f"http://{receiver.address}/"), EVENT)
    assert time.monotonic() - begun < 20


def test_a_function() -> None:
    told: list[object] = []
    call(Hook("ON_TROUBLE", "the function", function=told.append), dict(EVENT))
    assert told == [EVENT]
