"""Files that come before the daemon starts, while it starts, reloads and is down: one task each."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.acceptance.started import NOTIFIED, SENDING, Daemon
from tests.waiting import wait_until

CONFIG = """\
BROKERS = {{'b': 'filesystem://'}}
WATCHES = [{{'path': {root!r}, 'rec': True, 'auto_add': True, 'existing': 'all'}}]
PATTERNS = [('{root}/*', {{'broker': 'b', 'task': 'handle'}})]
"""
WRITER = """\
import os, sys, threading
root, number = sys.argv[1], 0
pause = threading.Event()
while not os.path.exists(sys.argv[2]):
    directory = f"{root}/d{number % 40}/e{number % 7}"
    os.makedirs(directory, exist_ok=True)
    with open(f"{directory}/f{number}", "w") as file:
        file.write("x")
    number += 1
    pause.wait(0.001)
print(number)
"""
RELOADS = 5
PATH = re.compile(re.escape(NOTIFIED) + r"(.*)$")


def test_files_of_every_moment(tmp_path: Path) -> None:
    root, done = tmp_path / "up", tmp_path / "done"
    root.mkdir()
    config = tmp_path / "config.py"
    config.write_text(CONFIG.format(root=str(root)))
    argv = [sys.executable, "-c", WRITER, str(root), str(done)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as writer:
        try:
            wait_until((root / "d39").exists, what="the writer is under way")
            with Daemon(config) as daemon:
                for number in range(RELOADS):
                    daemon.send(signal.SIGHUP)
                    daemon.wait_for("Reloaded", number + 1)
                    daemon.wait_for("Watching ", number + 2)
                before = daemon.count(NOTIFIED)
                daemon.wait_for(NOTIFIED, before + 20)
                daemon.stop()
                existing = sum(1 for _ in root.rglob("f*"))
                wait_until(lambda: sum(1 for _ in root.rglob("f*")) > existing + 20)
                daemon.start()
                done.touch()
                assert writer.stdout is not None
                count = int(writer.stdout.read())
                daemon.wait_for(SENDING, count)
                daemon.stop()
        finally:
            done.touch()
    lines = daemon.lines()
    notified = Counter(found[1] for line in lines if (found := PATH.search(line)))
    assert notified == Counter(str(path) for path in root.rglob("f*"))
    assert notified.total() == daemon.count(SENDING) == count > 100
    assert "Traceback" not in "\n".join(lines)
