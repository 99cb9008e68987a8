"""The pages of docs/: every command is typed, in order, and what is shown is what is printed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import docs, readme
from tests.acceptance.deploy.booted import Booted
from tests.acceptance.started import environment
from tests.acceptance.test_distribution import need
from tests.checkout import ROOT, typed
from tests.docs import Block, Shown
from tests.servers import Process, require, tail
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.environ.get("WATCHMAN_LONG") != "1", reason="takes minutes: WATCHMAN_LONG=1 runs it"
    ),
]

QUESTION = re.compile(r"notify (status|history|where|scan)|ls ")
"""Commands that may be asked again until what was done before has come to its end."""
SECONDS = 30.0
WALKED = [
    page
    for page in docs.PAGES
    if any(block.language == "console" and not block.caption for block in docs.blocks(page))
]


class Walk:
    """A user who types what a page says, in an empty directory."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._site = base / "site"
        self._site.mkdir()
        path = f"{docs.programs(base)}:{os.environ['PATH']}"
        self._environment = environment(PATH=path, C_FORCE_ROOT="1", TZ="UTC")
        self._others: list[Process] = []

    def take(self, block: Block) -> None:
        """Do what one block says."""
        if block.caption.startswith((docs.NOT_RUN, docs.AS_ROOT, "/")) or docs.is_question(block):
            return
        if block.language != "console":
            self._write(block)
            return
        for shown in block.commands:
            if block.caption == docs.BACKGROUND:
                self._type_in_another_terminal(shown)
            else:
                self._type(shown)

    def _write(self, block: Block) -> None:
        assert block.caption, f"what is it for? {block.text}"
        name, _, _ = block.caption.partition(docs.CONTINUED)
        mode = "a" if block.caption.endswith(docs.CONTINUED) else "w"
        with (self._site / name).open(mode, encoding="utf-8") as file:
            file.write(readme.local(block.text, self._base))

    def _type(self, shown: Shown) -> None:
        if shown.output and QUESTION.match(shown.command):
            self._ask(shown)
            return
        told: list[str] = []
        assert self._answers(shown, told) or not shown.output, "\n".join([shown.command, *told])

    def _ask(self, shown: Shown) -> None:
        told: list[str] = []
        try:
            wait_until(lambda: self._answers(shown, told), SECONDS, interval=0.3)
        except AssertionError as error:
            raise AssertionError("\n".join([shown.command, *told])) from error

    def _answers(self, shown: Shown, told: list[str]) -> bool:
        """Type a command; say whether it prints what is shown."""
        done = typed(readme.placed(shown.command, self._base), self._site, self._environment)
        printed = docs.in_form(done.stdout, self._base, self._site)
        told[:] = [printed]
        inactive = "watchman is inactive" in printed
        assert done.returncode == inactive, f"{shown.command}: {printed}"
        return docs.is_shown(shown.output, printed)

    def _type_in_another_terminal(self, shown: Shown) -> None:
        log = self._base / f"terminal{len(self._others)}.log"
        command = readme.placed(shown.command, self._base)
        argv = ["bash", "-c", f'cd "$0" && exec {command}', str(self._site)]
        process = Process(argv, log, self._environment)
        self._others.append(process)
        lines = [f"…\n{line}\n…" for line in shown.output.splitlines()]

        def told() -> bool:
            assert process.running, tail(log)
            printed = docs.in_form(log.read_text(), self._base, self._site)
            return all(docs.is_shown(line, printed) for line in lines)

        wait_until(told, 60.0, f"{shown.output} in {log}")

    def end(self) -> None:
        """End all that was started."""
        for process in self._others:
            process.stop()
        if (self._site / "config.py").exists():
            notify = [sys.executable, "-m", "watchman", "stop", "--timeout", "10", "--kill"]
            subprocess.run(
                notify, cwd=self._site, env=self._environment, capture_output=True, check=False
            )


def type_as_root(machine: Booted, shown: Shown) -> None:
    """Type a command in a checkout on a machine with systemd; it must print what is shown."""
    done = machine.run(f"cd {shlex.quote(str(ROOT))}; {shown.command}")
    printed = docs.in_form(done.stdout + done.stderr)
    assert done.returncode == 0, f"{shown.command}: {printed}"
    assert docs.is_shown(shown.output, printed) or not shown.output, f"{shown.command}: {printed}"


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    made = Walk(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("page", WALKED)
def test_every_command_does_what_it_says(page: str, walk: Walk) -> None:
    for block in docs.blocks(page):
        walk.take(block)


def test_what_is_for_root_does_it_under_systemd(tmp_path: Path) -> None:
    blocks = [
        block
        for block in docs.blocks("deployment")
        if block.caption.startswith((docs.AS_ROOT, "/"))
    ]
    assert len(blocks) >= 5
    with Booted(tmp_path) as machine:
        # The command, in the place of what pip installs. It may be in /root, which the unit hides.
        machine.install()
        machine.do("rm /etc/systemd/system/watchman.service /etc/sysusers.d/watchman.conf")
        unhidden = "[Service]\nProtectHome=no\n"
        machine.write("/etc/systemd/system/watchman.service.d/test.conf", unhidden)
        machine.do("echo x >/srv/ftp/before.csv")  # on which the lease can be tried
        for block in blocks:
            if block.caption.startswith("/"):
                machine.write(block.caption, readme.without_brokers(block.text))
                continue
            for shown in block.commands:
                type_as_root(machine, shown)


def test_proftpd_understands_its_settings(tmp_path: Path) -> None:
    [block] = [one for one in docs.blocks("servers") if "proftpd" in one.caption]
    modules = (ROOT / "docker/proftpd.conf").read_text(encoding="utf-8").partition("ServerName")[0]
    file = tmp_path / "proftpd.conf"
    file.write_text(f"{modules}ServerType standalone\nUser nobody\nGroup nogroup\n{block.text}")
    done = subprocess.run(
        [require("proftpd"), "--configtest", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_pages_are_made_without_a_warning(tmp_path: Path) -> None:
    need("sphinx")
    source = shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "watchman").symlink_to(ROOT / "watchman")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "--fail-on-warning", "--quiet", source, tmp_path / "html"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    for page in docs.PAGES:
        made = (tmp_path / f"html/{page}.html").read_text(encoding="utf-8")
        assert "<h1>" in made
        assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]*\.(?:js|css)', made) == []
