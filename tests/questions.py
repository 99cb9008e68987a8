"""The questions of docs/operating.rst, put to a daemon: ``python -m tests.questions`` writes the
page's answers anew.

A block whose caption ends with a question mark is a question. All of them are asked, in the order
of the page, on one site, where something of everything has happened.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import docs, readme
from tests.acceptance.started import environment
from tests.checkout import typed
from tests.docs import Block
from tests.servers import Process, free_port, tail
from tests.servers.redis import RedisServer
from tests.waiting import wait_until

PAGE = "operating"
CONFIG = "/srv/watchman/config.py"
"""The caption of the site's configuration; its directory is where the questions are asked."""
ACTS = re.compile(r"notify (retry|discard|resend|hold .|release)")
"""Commands that are not asked twice."""
SECONDS = 30.0
_ID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_REPORTS = "reports"
"""A key of another type in Redis, in the place of a queue."""
_OPEN = "import signal, sys; file = open(sys.argv[1], 'w'); signal.pause()"
_WAITING = {"flood.csv": "ready", "data.csv": "moving", "0900.h5": "ready", "1000.h5": "ready"}
"""What is never sent while the questions are asked."""


def questions() -> list[Block]:
    """Return the page's questions, in order."""
    return [block for block in docs.blocks(PAGE) if docs.is_question(block)]


class QuestionSite:
    """Two brokers, of which one is away, and files of which each has met something else."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.home = base / CONFIG[1:].rpartition("/")[0]
        self.home.mkdir(parents=True)
        self.ftp = base / "srv/ftp"
        self.redis = RedisServer(base / "redis")
        self._ports = {"5672": free_port(), "6379": self.redis.port}
        path = f"{docs.programs(base)}:{os.environ['PATH']}"
        self._environment = environment(PATH=path, TZ="UTC")
        self._writing: Process | None = None
        self._ids: dict[str, str] = {}
        """The task ids of the page, and those that stand in their places here."""

    def begin(self) -> None:
        """Start the servers and the daemon, and have everything happen."""
        [config] = [block for block in docs.blocks(PAGE) if block.caption == CONFIG]
        text = readme.placed(config.text, self.base)
        for shown, real in self._ports.items():
            text = text.replace(f":{shown}/", f":{real}/")
        (self.home / "config.py").write_text(text, encoding="utf-8")
        (self.base / "mnt/storage").mkdir(parents=True)
        self.redis.start()
        with self.redis.client() as client:
            client.set(_REPORTS, "no list")
        self._put("anna/old.csv")
        self._run("notify start")
        self._upload()
        wait_until(self._is_shown, SECONDS, "what is wrong is in the status", interval=0.3)

    def _upload(self) -> None:
        self._put("anna/grids/lake.nc")
        self._becomes("lake.nc", "sent")
        self._put("anna/storm.csv")
        self._becomes("storm.csv", "sent")
        self._put("anna/storm.csv", "12:05,4.0\n")
        self._becomes("storm.csv", "sent", 2)
        tree = self.base / "srv/incoming"
        (tree / "may").mkdir(parents=True)
        (tree / "may/gauge.csv").write_text("12:00,3.5\n")
        tree.rename(self.ftp / "anna/2026")
        self._becomes("gauge.csv", "sent")
        self._put("anna/events/flood.csv")
        self._becomes("flood.csv", "ready")
        for month in ("april", "may", "june"):
            self._put(f"bob/reports/{month}.pdf")
            self._becomes(f"{month}.pdf", "failed")
        self._run(f"notify hold {self.ftp}/bob/radar")
        for hour in ("0900", "1000"):
            self._put(f"bob/radar/{hour}.h5")
            self._becomes(f"{hour}.h5", "ready")
        self._put("carol/data.csv")
        self._becomes("data.csv", "moving")
        self._put("bob/readme.txt")
        self._put("bob/trial/first.csv")
        self._put("bob/photo.jpg.part")
        argv = [sys.executable, "-c", _OPEN, str(self.ftp / "bob/survey.csv")]
        self._writing = Process(argv, self.base / "writing.log")

    def _put(self, name: str, content: str = "12:00,3.5\n") -> None:
        path = self.ftp / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def _json(self, command: str) -> list[Any]:
        return [json.loads(line) for line in self._run(f"{command} --json").splitlines()]

    def _becomes(self, name: str, state: str, number: int = 1) -> None:
        def there() -> bool:
            found = self._json("notify history --all")
            return [
                one["state"] for one in found if one["source"].endswith(f"/{name}")
            ] == number * [state]

        wait_until(there, SECONDS, f"{name} is {state}", interval=0.2)

    def _is_shown(self) -> bool:
        status = json.loads(self._run("notify status --json"))
        noted = {self._json(f"notify where {name}")[0]["noted"] for name in _NOTED}
        return (
            bool(status["brokers"]["lizard"]["trouble"])
            and any(move["reason"] for move in status["moves"])
            and len(status["being_written"]) == 1
            and None not in noted
        )

    def _run(self, command: str) -> str:
        """Type a command; return what it prints, errors among it."""
        done = typed(command, self.home, self._environment)
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    # Asking

    def ask(self, block: Block) -> str:
        """Type the command of a question; return the answer as a page has it."""
        [shown] = block.commands
        if shown.command.startswith("notify retry"):
            with self.redis.client() as client:
                client.delete(_REPORTS)
        command = readme.placed(self.with_ids(shown.command), self.base)
        printed = self._run(command).replace(str(self.base), "")
        for public, real in self._ports.items():
            printed = re.sub(rf"\b{real}\b", public, printed)
        self._ids |= dict(zip(_ID.findall(shown.output), _ID.findall(printed), strict=False))
        if ACTS.match(shown.command):
            wait_until(self._is_sent, SECONDS, "all is sent that can be", interval=0.2)
        return printed

    def with_ids(self, command: str) -> str:
        """Return a command of the page with the task ids that there are here."""
        return _ID.sub(lambda match: self._ids.get(match[0], match[0]), command)

    def _is_sent(self) -> bool:
        found = self._json("notify history --all")
        waiting = {Path(one["source"]).name for one in found if one["state"] in {"ready", "moving"}}
        return waiting <= _WAITING.keys()

    def end(self) -> None:
        """End all that was started."""
        if self._writing is not None:
            self._writing.stop()
        if (self.home / "config.py").exists():
            self._run("notify stop --timeout 10 --kill")
        self.redis.stop()


_NOTED = ("old.csv", "readme.txt", "first.csv")


def _blocks_with_answers(site: QuestionSite) -> Iterator[tuple[str, str]]:
    """Yield caption and body of each question as they are in the page, and as they are to be."""
    for block in questions():
        [shown] = block.commands
        answer = site.ask(block)
        body = f"$ {site.with_ids(shown.command)}\n{_as_shown(answer)}"
        caption = f"    :caption: {block.caption}\n\n"
        yield f"{caption}{_indented(block.text)}\n", f"{caption}{_indented(body)}\n"


def _as_shown(printed: str) -> str:
    """Return an answer without who has made the page, and where."""
    printed = re.sub(r"\b\S+ \(uid \d+[^)]*\)", "anna (uid 1000)", printed)
    printed = re.sub(r"\([\w.]+, user \S+\)", "(proftpd, user bob)", printed)
    # Columns were wider where the directories had longer names.
    return re.sub(r"(?<=\S) {3,}(?=since )", "  ", printed)


def _indented(text: str) -> str:
    return textwrap.indent(text.rstrip("\n"), "    ", lambda line: bool(line.strip()))


def main() -> None:
    """Ask everything, and write the answers into the page."""
    page = docs.DOCS / f"{PAGE}.rst"
    text = page.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as directory:
        site = QuestionSite(Path(directory))
        try:
            site.begin()
            for before, after in _blocks_with_answers(site):
                assert text.count(before) == 1, f"which one is {before}?"
                text = text.replace(before, after)
        except AssertionError:
            print(tail(site.home / "var/log/watchman.out"), file=sys.stderr)
            raise
        finally:
            site.end()
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
