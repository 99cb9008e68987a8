"""Paths are UTF-8 whatever the locale: in patterns, tasks, reports and arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import embedded
from tests.acceptance.started import Daemon, command, environment, notify
from tests.json_lines import parsed
from tests.servers import require
from tests.waiting import wait_until

NAME = "größe-é.csv"
NOT_UTF8 = b"byte-\xff.csv"

# Python's own help for a missing locale is turned off: LC_ALL=C is then ASCII.
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.fixture(scope="session")
def latin(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a real locale that is not UTF-8: en_US with ISO-8859-1."""
    if not Path("/usr/share/i18n/locales/en_US").exists():
        pytest.skip("the sources of locales are not installed: apt install locales")
    directory = tmp_path_factory.mktemp("locales")
    made = [require("localedef"), "-i", "en_US", "-f", "ISO-8859-1", str(directory / "en_US")]
    subprocess.run(made, check=True, capture_output=True)
    return {"LOCPATH": str(directory), "LC_ALL": "en_US"}


@pytest.fixture(params=["ascii", "latin"])
def locale(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a locale that is not UTF-8; what Python makes of it has been looked at."""
    found: dict[str, str] = ASCII if request.param == "ascii" else request.getfixturevalue("latin")
    code = "import sys; print(sys.getfilesystemencoding())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(**found), capture_output=True, check=True
    )
    assert done.stdout.strip() in (b"ascii", b"iso8859-1")
    return found


def test_the_whole_way(
    daemon: Callable[..., Daemon], upload: Path, storage: Path, locale: dict[str, str]
) -> None:
    text = (
        "BROKERS = {'b': 'filesystem://'}\n"
        f"WATCHES = [{{'path': {str(upload)!r}, 'rec': True, 'auto_add': True}}]\n"
        f"PATTERNS = [({str(upload)!r} + '/grö?e-é.csv', {{'broker': 'b', 'task': 't'}}),\n"
        f"            ({str(upload)!r} + '/byte*', {{'broker': 'b', 'task': 't'}})]\n"
        f"MOVES = {{{str(upload)!r}: {str(storage)!r}}}\n"
    )
    watching = daemon(text, **locale).start()
    (upload / NAME).write_text("1")
    (upload / os.fsdecode(NOT_UTF8)).write_text("2")
    state = watching.config.parent / "var"
    wait_until(lambda: len(embedded.messages(state)) == 2, 20, "two tasks")
    expected = [str(upload / os.fsdecode(NOT_UTF8)), str(upload / NAME)]
    assert embedded.sources(state) == expected
    assert (storage / NAME).read_text() == "1"
    assert (storage / os.fsdecode(NOT_UTF8)).read_text() == "2"
    watching.wait_for(f"Moving {upload}/{NAME} to {storage}/{NAME}")
    watching.wait_for("byte-\\xff.csv")
    done = notify(
        "history",
        upload / NAME,
        "--json",
        "--config",
        watching.config,
        cwd="/",
        timeout=60.0,
        **locale,
    )
    [record] = parsed(done.stdout)
    assert record["final"] == str(storage / NAME)


def test_arguments_are_the_bytes_that_were_given(tmp_path: Path, locale: dict[str, str]) -> None:
    directory = tmp_path / "größe"
    (directory / "ftp").mkdir(parents=True)
    config = directory / "ä.py"
    config.write_text(
        "BROKERS = {'b': 'filesystem://'}\nWATCHES = [{'path': 'ftp'}]\n"
        "PATTERNS = [('*/ß*', {'broker': 'b', 'task': 't'})]\n",
        encoding="utf-8",
    )
    path = os.fsencode(directory / "ftp/ß") + b"-\xff"
    done = subprocess.run(
        [*command("match", "--json", "--config", config), path],
        env=environment(**locale),
        capture_output=True,
        check=True,
        cwd=tmp_path,
    )
    [found] = json.loads(done.stdout)
    assert (found["path"], found["pattern"]) == (os.fsdecode(path), "*/ß*")
    assert done.stderr == b""


def test_the_demo(tmp_path: Path, locale: dict[str, str]) -> None:
    scratch = tmp_path / "größe"
    scratch.mkdir()
    done = subprocess.run(
        command("demo", "--once"),
        env=environment(TMPDIR=str(scratch), **locale),
        capture_output=True,
        check=False,
        cwd=tmp_path,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout
    assert f"import_table('{scratch}/".encode() in done.stdout


def test_it_becomes_itself_again_with_number_and_options(
    tmp_path: Path, locale: dict[str, str]
) -> None:
    (tmp_path / "config.py").write_text(
        "import os, sys\nraise SystemExit(f'{os.getpid()} {sys.warnoptions} {sys.flags.utf8_mode}')"
    )
    argv = [sys.executable, "-W", "ignore::ResourceWarning", "-m", "watchman", "match", "x"]
    with subprocess.Popen(
        argv, cwd=tmp_path, env=environment(**locale), stderr=subprocess.PIPE, text=True
    ) as process:
        _, errors = process.communicate(timeout=60)
    assert errors == (
        f"notify: config.py, line 2: SystemExit: {process.pid} ['ignore::ResourceWarning'] 1; "
        "the file must run to its end\n"
    )


def test_a_locale_that_is_utf8_needs_no_second_start(tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text("import sys\nraise SystemExit(sys.flags.utf8_mode)")
    done = notify("match", "x", cwd=tmp_path)
    assert "SystemExit: 0; " in done.stderr


def test_what_the_output_cannot_hold_is_escaped(tmp_path: Path) -> None:
    (tmp_path / "ftp").mkdir()
    (tmp_path / "config.py").write_text("WATCHES = [{'path': 'ftp'}]\n")
    done = notify("match", "ftp/ł", cwd=tmp_path, PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path}/ftp/\\u0142\n")


@pytest.mark.parametrize("numbers", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_descriptors_are_not_given_to_files(
    tmp_path: Path, upload: Path, numbers: tuple[int, ...]
) -> None:
    (tmp_path / "config.py").write_text(
        "import os\n"
        "NAMES = [os.readlink(f'/proc/self/fd/{number}') for number in range(3)]\n"
        "open('names', 'w').write(repr(NAMES))\n"
    )
    closed = " ".join(f"{number}>&-" for number in numbers)
    line = f"exec {sys.executable} -m watchman match x {closed}"
    subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environment(), check=False, capture_output=True
    )
    names: list[str] = eval((tmp_path / "names").read_text())  # noqa: S307 — written above
    assert all(names[number] == os.devnull for number in numbers)
    assert not any("config.py" in name or name.endswith("names") for name in names)
