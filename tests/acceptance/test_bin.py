"""The scripts in bin/: from a fresh checkout to a running command, whatever comes between."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import watchman
from tests.checkout import ROOT, clone, environment, run
from tests.servers import require
from tests.supervised import processes_of
from tests.waiting import wait_until

# Making a virtual environment takes seconds, or a minute where packages come from far away.
pytestmark = pytest.mark.timeout(600)

OFFLINE = {
    "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_FIND_LINKS": "",
    "PIP_NO_CACHE_DIR": "1",
    "PIP_RETRIES": "0",
}
VERSION = f"watchman {watchman.__version__}\n"
PREPARING = "watchman: preparing .venv (once)…\n"
OTHERS = "watchman: the versions in constraints.txt cannot be had: trying others…\n"
WAITING = "watchman: waiting for .venv, which another command is preparing…\n"


def assert_version(done: subprocess.CompletedProcess[str], stderr: str = "") -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, VERSION, stderr)


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A checkout in which nothing has been run."""
    return clone(tmp_path / "fresh")


def test_later_runs_are_quiet_and_start_a_few_small_programs_only(
    checkout: Path, tmp_path: Path
) -> None:
    log, programs = tmp_path / "log", tmp_path / "programs"
    programs.mkdir()
    for name in os.listdir("/usr/bin"):
        program = programs / name
        program.write_text(f'#!/bin/sh\necho {name} >>{log}\nexec "/usr/bin/{name}" "$@"\n')
        program.chmod(0o755)
    assert_version(run(checkout / "bin" / "notify", "--version", PATH=str(programs)))
    assert sorted(log.read_text().split()) == [
        "cat", "dirname", "dirname", "dirname", "readlink", "readlink", "readlink", "sha256sum"
    ]  # fmt: skip


def test_works_through_symlinks_from_anywhere(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "absolute").symlink_to(checkout / "bin" / "notify")
    (tmp_path / "relative").symlink_to("absolute")
    (tmp_path / "bin").symlink_to(checkout / "bin")
    assert_version(run("./relative", "--version", cwd=tmp_path))
    assert_version(run("bin/notify", "--version", cwd=tmp_path))
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert_version(run("relative", "--version", PATH=path))
    assert_version(run("sh", "notify", "--version", cwd=checkout / "bin"))


def test_arguments_are_utf8_without_such_a_locale(checkout: Path, tmp_path: Path) -> None:
    (tmp_path / "größe").mkdir()
    config = tmp_path / "ä.py"
    config.write_text("WATCHES = [{'path': 'größe'}]\n", encoding="utf-8")
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    path = str(tmp_path / "größe/ß.csv")
    done = run(
        checkout / "bin/notify", "match", path, "--json", "--config", str(config), **ascii_only
    )
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)
    assert (found["path"], found["watch"]) == (path, str(tmp_path / "größe"))


def test_changes_in_the_checkout_count(checkout: Path) -> None:
    module = checkout / "watchman" / "__init__.py"
    before = module.read_text()
    # Of another length: within a second, size alone tells Python that a module has changed.
    changed = f"{watchman.__version__}.changed"
    module.write_text(before.replace(watchman.__version__, changed))
    try:
        assert run(checkout / "bin" / "notify", "--version").stdout == f"watchman {changed}\n"
    finally:
        module.write_text(before)


def test_arguments_and_exit_status_pass_unchanged(checkout: Path, tmp_path: Path) -> None:
    name = "no such $HOME *.py"
    done = run(checkout / "bin" / "notify", "--config", name, "check", cwd=tmp_path)
    assert done.returncode == 78
    assert name in done.stderr + done.stdout


def test_other_requirements_update_in_place_or_leave_what_works(checkout: Path) -> None:
    notify, settings = checkout / "bin" / "notify", checkout / "pyproject.toml"
    witness = checkout / ".venv" / "witness"
    witness.touch()
    before = settings.read_text()
    settings.write_text(before + "# changed\n")
    done = run(notify, "--version", **OFFLINE)
    assert done.returncode == 1
    assert "pip failed: " in done.stderr
    settings.write_text(before)
    assert_version(run(notify, "--version", **OFFLINE))

    settings.write_text(before + "# changed again\n")
    assert_version(run(notify, "--version"), PREPARING)
    assert_version(run(notify, "--version"))
    assert witness.exists()


def test_versions_that_cannot_be_had_are_no_obstacle(checkout: Path) -> None:
    constraints = checkout / "constraints.txt"
    before = constraints.read_text()
    constraints.write_text(re.sub("^click==.*", "click==999.0", before, flags=re.MULTILINE))
    notify = checkout / "bin" / "notify"
    assert_version(run(notify, "--version"), PREPARING + OTHERS)
    constraints.write_text(before)
    assert_version(run(notify, "--version"), PREPARING)


def test_an_interrupted_or_failed_install_is_done_again(fresh: Path) -> None:
    notify = fresh / "bin" / "notify"

    done = run(notify, "--version", **OFFLINE)
    assert done.returncode == 1
    preparing, others, message = done.stderr.splitlines(keepends=True)
    assert preparing == PREPARING
    assert others == OTHERS
    assert "pip failed: " in message
    assert "check the network" in message
    assert str(fresh / ".venv.log") in message

    # In a session of its own: the kill reaches all that it started, as a power cut would.
    killed = subprocess.Popen(
        [str(notify), "--version"],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    pip = fresh / ".venv" / "bin" / "pip3"
    wait_until(pip.exists, 60.0, "the new virtual environment to have pip")
    os.killpg(killed.pid, signal.SIGKILL)
    assert killed.wait(10) == -signal.SIGKILL
    wait_until(lambda: not processes_of(fresh), what="all that it started to be gone")
    assert not (fresh / ".venv" / "stamp").exists()

    # Two at once: one prepares, the other waits for it, and both work.
    both = [
        subprocess.Popen(
            [str(notify), "--version"],
            cwd="/",
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    results = [process.communicate(timeout=500) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [out for out, _ in results] == [VERSION, VERSION]
    assert sorted(err for _, err in results) == [PREPARING, WAITING]


def test_without_a_python_it_says_so_and_leaves_nothing(fresh: Path) -> None:
    done = run(fresh / "bin" / "notify", PYTHON="/no/python")
    assert done.returncode == 1
    assert done.stderr == (
        "watchman: PYTHON=/no/python is not a Python 3.10 or newer: unset it, or name another one\n"
    )
    assert not (fresh / ".venv").exists()


def test_without_ensurepip_it_names_the_package(fresh: Path, tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\ncase "$*" in *ensurepip*) exit 1 ;; esac\n')
    python.chmod(0o755)
    done = run(fresh / "bin" / "notify", PYTHON=str(python))
    assert done.returncode == 1
    assert done.stderr == (
        f"watchman: {python} cannot make a virtual environment (no ensurepip):"
        " apt install python3-venv\n"
    )


SHELLS = {
    "dash": ["dash"],
    "bash": ["bash"],
    "bash as sh": ["bash", "--posix"],
    "busybox": ["busybox", "sh"],
}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    """A shell that /bin/sh may be."""
    name, *options = SHELLS[request.param]
    return [require(name), *options]


SCRIPTS = ("notify", "supervisord", "supervisorctl", "test")


@pytest.mark.parametrize("script", ["notify", "supervisorctl"])
def test_it_works_under_every_shell(checkout: Path, shell: list[str], script: str) -> None:
    version = "--version" if script == "notify" else "--help"
    done = run(shell[0], *shell[1:], str(checkout / "bin" / script), version)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def refused(shell: list[str], script: Path) -> str:
    """Run a script that cannot work; return the one line that says why."""
    done = run(shell[0], *shell[1:], str(script), PYTHON="/no/python")
    assert done.returncode == 1, done
    assert done.stdout == ""
    assert done.stderr.startswith("watchman: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("name", ["setup.py", "pyproject.toml", "constraints.txt"])
def test_files_that_are_missing_are_named(
    fresh: Path, shell: list[str], script: str, name: str
) -> None:
    (fresh / name).unlink()
    assert f"cannot read {fresh / name}: " in refused(shell, fresh / "bin" / script)


@pytest.mark.parametrize("script", SCRIPTS)
def test_files_that_cannot_be_written_are_named(fresh: Path, shell: list[str], script: str) -> None:
    (fresh / ".venv.lock").mkdir()  # root can write any file, but no directory
    assert f"cannot write {fresh}/.venv.lock: run this once as the owner of {fresh}" in refused(
        shell, fresh / "bin" / script
    )


def test_a_log_that_cannot_be_written_is_named(fresh: Path, shell: list[str]) -> None:
    (fresh / ".venv.log").mkdir()
    done = run(shell[0], *shell[1:], str(fresh / "bin/notify"), "--version")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"watchman: cannot write {fresh}/.venv.log: run this once as")
    assert not (fresh / ".venv").exists()


NOBODY = 65534


@pytest.fixture
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A checkout of another user's, which this one can read."""
    if os.geteuid() != 0:
        pytest.skip("only root can leave files to somebody else")
    top = Path(tempfile.mkdtemp(prefix="watchman-test-"))
    top.chmod(0o755)
    yield clone(top / "checkout")
    shutil.rmtree(top)


@pytest.mark.parametrize("state", ["nothing yet", "an old .venv"])
def test_a_checkout_of_somebody_else(foreign: Path, shell: list[str], state: str) -> None:
    if state != "nothing yet":
        (foreign / ".venv").mkdir()
        (foreign / ".venv/stamp").write_text("other\n" * 5)
        (foreign / ".venv.lock").touch()
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    message = refused([require("setpriv"), *ids, *shell], foreign / "bin/notify")
    assert f"cannot write {foreign}/.venv.lock: run this once as the owner of {foreign}" in message


def in_debian(
    shell: list[str], *arguments: str, by: tuple[str, ...] = (), **changes: str
) -> tuple[int, str]:
    """Run what must be refused before anything is made; its status and the one line it says."""
    command = [*by, *shell, str(ROOT / "bin/in-debian"), *arguments]
    done = run(command[0], *command[1:], **changes)
    assert done.stdout == ""
    assert done.stderr.startswith("watchman: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.returncode, done.stderr


@pytest.mark.parametrize("arguments", [[], [""], ["11"], ["--help"], ["trixie", "true"]])
def test_a_debian_that_is_not_known(shell: list[str], tmp_path: Path, arguments: list[str]) -> None:
    status, message = in_debian(shell, *arguments, IN_DEBIAN_KEEP=str(tmp_path / "kept"))
    assert status == 2
    assert message.endswith(": bin/in-debian 12|13|testing [command [argument…]]\n")
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("place", ["/", "here", "/a/../b", "/opt/it's", "/opt/x/", "/opt/a b"])
def test_a_place_inside_that_is_none(shell: list[str], tmp_path: Path, place: str) -> None:
    kept = str(tmp_path / "kept")
    status, message = in_debian(shell, "13", CHECKOUT=place, IN_DEBIAN_KEEP=kept)
    assert (status, f"CHECKOUT={place} is no plain absolute path" in message) == (2, True)
    assert not (tmp_path / "kept").exists()


def test_a_debian_by_somebody_who_is_not_root(shell: list[str], foreign: Path) -> None:
    ids = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    done = run(require("setpriv"), *ids, *shell, str(foreign / "bin/in-debian"), "12")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "watchman: only root can make a Debian system: run this with sudo\n"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH of our own, with a debootstrap that copies no archive."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a Debian system")
    require("unshare")
    found = tmp_path / "tools"
    found.mkdir()
    return found


def write_debootstrap(tools: Path, text: str) -> None:
    path = tools / "debootstrap"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@contextlib.contextmanager
def begun(shell: list[str], tools: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start bin/in-debian; it is gone afterwards."""
    (tools / "tmp").mkdir(exist_ok=True)
    ours = {"PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(tools / "tmp")}
    with subprocess.Popen(
        # Who starts the tests in the background has them ignore these two, and no shell traps
        # what was ignored when it began.
        ["env", "--default-signal=INT,HUP", *shell, str(ROOT / "bin/in-debian"), *arguments],
        env=environment(**ours, IN_DEBIAN_MIRROR="http://127.0.0.1:9/"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as making:
        try:
            yield making
        finally:
            making.terminate()


def mounts_below(directory: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if f" {directory}/" in line]


def test_a_debian_that_cannot_be_made_leaves_nothing(shell: list[str], tools: Path) -> None:
    write_debootstrap(tools, 'echo "E: $4 does not answer"; mkdir -p "$3/proc"; exit 1')
    with begun(shell, tools, "12", "true") as making:
        output, errors = making.communicate(timeout=60)
    assert (making.returncode, output) == (1, "")
    assert "E: http://127.0.0.1:9/ does not answer\n" in errors
    assert errors.endswith(
        "watchman: debootstrap failed, see above; IN_DEBIAN_MIRROR=URL names another mirror\n"
    )
    assert list((tools / "tmp").iterdir()) == []


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
def test_a_debian_that_is_interrupted_leaves_nothing(
    shell: list[str], tools: Path, number: signal.Signals
) -> None:
    """No process, no mount, no directory: whatever it was in the midst of."""
    busy = tools / "busy"
    write_debootstrap(
        tools,
        'mkdir -p "$3/proc" && mount -t proc proc "$3/proc" && mount --rbind /dev "$3/proc/tty"\n'
        f"cat /proc/self/status >{busy}.new; mv {busy}.new {busy}; tail -f {busy}",
    )
    with begun(shell, tools, "12", "true") as making:
        wait_until(busy.exists, 60.0, "it is making a system")
        # What runs inside can be interrupted: its shell does not have it ignore the signal.
        [held_off] = re.findall(r"^SigIgn:\s*(\w+)$", busy.read_text(), re.MULTILINE)
        assert not int(held_off, 16) & 1 << (signal.SIGINT - 1)
        left = psutil.Process(making.pid).children(recursive=True)
        assert {"unshare", "debootstrap"} <= {process.name() for process in left}
        assert mounts_below(tools) == []
        making.send_signal(number)
        assert making.communicate(timeout=60)[0] == ""
        assert making.returncode == 128 + {1: 15}.get(number, number)
        assert psutil.wait_procs(left, 10)[1] == []
    assert mounts_below(tools) == []
    assert list((tools / "tmp").iterdir()) == []
    assert Path("/dev/null").is_char_device()
