"""A first configuration: written once, never over anything, and good as it is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import embedded
from tests.acceptance.started import Daemon, notify
from tests.checkout import ROOT
from watchman.cli import main
from watchman.commands import first_files

FILES = {"celeryconfig.py", "config.py", "tasks.py", "upload"}


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_what_it_writes_is_a_configuration_without_a_fault(tmp_path: Path) -> None:
    done = notify("init", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done
    assert names(tmp_path) == FILES
    checked = notify("check", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, ""), checked
    assert "BAD" not in checked.stdout
    for name in ("config.py", "celeryconfig.py", "tasks.py"):
        text = (tmp_path / name).read_text()
        compile(text, name, "exec")
        assert max(map(len, text.splitlines())) <= 100


def test_it_says_the_next_three_commands(tmp_path: Path) -> None:
    elsewhere = tmp_path / "a directory"
    here = notify("init", cwd=tmp_path).stdout.splitlines()[-3:]
    there = notify("init", elsewhere, cwd=tmp_path).stdout.splitlines()[-3:]
    assert names(elsewhere) == FILES
    start, upload, worker = map(shlex.split, here)
    assert start[-1] == "start"
    assert "--config" not in start
    assert upload == ["echo", "hello", ">", "upload/hello.txt"]
    assert worker[-5:] == ["-A", "tasks", "worker", "--loglevel", "INFO"]
    assert "--workdir" not in worker
    start, upload, worker = map(shlex.split, there)
    assert start[-3:] == ["--config", f"{elsewhere}/config.py", "start"]
    assert upload[-1] == f"{elsewhere}/upload/hello.txt"
    assert worker[worker.index("--workdir") + 1] == str(elsewhere)


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("mine\n")
    done = notify("init", cwd=tmp_path)
    assert f"{tmp_path}/tasks.py is there, and left as it is" in done.stdout
    assert (tmp_path / "tasks.py").read_text() == "mine\n"
    before = {name: (tmp_path / name).stat() for name in FILES}
    again = notify("init", cwd=tmp_path)
    assert again.returncode == 1
    assert again.stdout == ""
    assert again.stderr == (
        f"notify: {tmp_path} has a config.py, and nothing was changed; edit that one, or name "
        "another directory\n"
    )
    assert {name: (tmp_path / name).stat() for name in FILES} == before


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "config").mkdir()
    (tmp_path / "config/upload").touch()
    for place, wrong in (("file", "Not a directory"), ("config", "File exists")):
        done = notify("init", place, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert done.stderr == (
            f"notify: {tmp_path}/{place}/upload cannot be written: {wrong}; correct that, or name "
            "another directory\n"
        )


def test_celeryconfig_is_the_one_of_the_checkout() -> None:
    assert (ROOT / "celeryconfig.py").read_text(encoding="utf-8") == first_files.CELERYCONFIG


@pytest.mark.parametrize("name", ["hello.txt", "a.csv"])
def test_an_upload_becomes_a_task_of_tasks_py(tmp_path: Path, name: str) -> None:
    top = tmp_path / "site[1]"  # no pattern, though it looks like one
    notify("init", top, cwd=tmp_path)
    with Daemon(top / "config.py") as daemon:
        (top / "upload" / name).write_text("hello\n")
        daemon.wait_for("Sending task")
        daemon.stop()
    task = "import_table" if name.endswith(".csv") else "import_file"
    assert daemon.count(f"Sending task {task}") == 1
    assert f'@app.task(name="{task}"' in (top / "tasks.py").read_text()
    assert [one["task"] for one in embedded.headers(top / "var")] == [task]


def test_what_a_killed_one_left_does_not_stand_for_a_file(tmp_path: Path) -> None:
    # In a container each command may have the process id of the one before.
    (tmp_path / f"config.py.{os.getpid()}").write_text("")
    done = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert f"{tmp_path}/config.py is written" in done.output
    assert names(tmp_path) >= FILES
