"""What is given to others: sdist and wheel, and the versions that all of it was tested with."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import watchman
from tests.checkout import ROOT, clone, environment, files, project
from tests.servers import Process
from tests.waiting import wait_until

NAME = f"watchman-{watchman.__version__}"
MADE_BY_THE_BUILD = {"PKG-INFO", "setup.cfg"}
"""In an sdist, besides its .egg-info."""
EXAMPLES = ("config-example.py", "celeryconfig.py", "supervisord.conf")


def need(*requirements: str) -> None:
    """Skip where a tool of the tests is missing or too old; fail there in CI."""
    for one in map(Requirement, requirements):
        try:
            usable = one.specifier.contains(importlib.metadata.version(one.name))
        except importlib.metadata.PackageNotFoundError:
            usable = False
        if not usable and os.environ.get("CI"):
            pytest.fail(f"{one} is not installed, and CI must not skip what needs it")
        if not usable:
            pytest.skip(f"{one} is not installed")


def tool(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env=environment(PIP_NO_INDEX="1"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Built(NamedTuple):
    """The two archives, and what was said when they were made."""

    sdist: Path
    wheel: Path
    output: str


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Both, made as for a release: the wheel from the sdist."""
    need("build", "setuptools>=77")
    checkout = clone(tmp_path_factory.mktemp("release") / "checkout")
    output = tool("build", "--no-isolation", cwd=checkout)
    dist = checkout / "dist"
    assert {path.name for path in dist.iterdir()} == {
        f"{NAME}.tar.gz",
        f"{NAME}-py3-none-any.whl",
    }
    return Built(dist / f"{NAME}.tar.gz", dist / f"{NAME}-py3-none-any.whl", output)


@pytest.fixture
def wheel(built: Built) -> Iterator[zipfile.ZipFile]:
    with zipfile.ZipFile(built.wheel) as opened:
        yield opened


def metadata(wheel: zipfile.ZipFile, name: str = "METADATA") -> Message:
    return Parser().parsestr(wheel.read(f"{NAME}.dist-info/{name}").decode())


def test_nothing_is_built_with_a_warning_of_what_will_end(built: Built) -> None:
    assert "Deprecat" not in built.output


def test_the_sdist_is_the_checkout(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        members = {
            Path(member.name).relative_to(NAME): member
            for member in archive.getmembers()
            if member.isfile()
        }
        made = {path for path in members if path.parts[0] == "watchman.egg-info"}
        made |= {Path(name) for name in MADE_BY_THE_BUILD}
        assert set(members) - made == set(files())
        for name in files():
            stored = archive.extractfile(members[name])
            assert stored is not None
            assert stored.read() == (ROOT / name).read_bytes(), name
        assert members[Path("bin/notify")].mode & 0o111 == 0o111


def test_the_wheel_has_the_package_and_what_one_begins_with(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    package = {str(path) for path in files() if path.parts[0] == "watchman"}
    assert "watchman/py.typed" in package
    data = {f"share/watchman/{name}": name for name in EXAMPLES}
    data |= {str(path): str(path) for path in files() if path.parts[0] == "share"}
    assert len(data) == len(EXAMPLES) + 4
    assert names == package | {f"{NAME}.data/data/{place}" for place in data}
    for place, name in data.items():
        assert wheel.read(f"{NAME}.data/data/{place}") == (ROOT / name).read_bytes()
    assert f"{NAME}.dist-info/licenses/LICENSE" in wheel.namelist()


def test_the_wheel_says_what_it_is_and_needs(wheel: zipfile.ZipFile) -> None:
    said, meant = metadata(wheel), project()
    assert (said["Name"], said["Version"]) == ("watchman", watchman.__version__)
    assert (said["Requires-Python"], said["License-Expression"]) == (">=3.10", "MIT")
    assert said["Description-Content-Type"] == "text/x-rst"
    assert said.get_payload() == (ROOT / "README.rst").read_text(encoding="utf-8")
    assert said.get_all("Provides-Extra") == list(meant["optional-dependencies"])
    needed = {str(Requirement(line)) for line in meant["dependencies"]}
    found = [Requirement(line) for line in said.get_all("Requires-Dist", [])]
    assert {str(one) for one in found if "extra ==" not in str(one.marker)} == needed
    entries = wheel.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert entries == "[console_scripts]\nnotify = watchman.__main__:main\n"
    assert metadata(wheel, "WHEEL")["Root-Is-Purelib"] == "true"


def test_an_index_would_take_both(built: Built, tmp_path: Path) -> None:
    need("twine")
    output = tool("twine", "check", "--strict", str(built.sdist), str(built.wheel), cwd=tmp_path)
    assert output.count("PASSED") == 2


def test_the_changelog_knows_the_version() -> None:
    heads = re.findall(r"^## \[(.+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    # What is under way stands above the latest release.
    assert watchman.__version__ in heads[:2]


@pytest.fixture(scope="module")
def installed(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a virtual environment of its own, with the dependencies of the tests' one."""
    need("pip")
    place = tmp_path_factory.mktemp("installed") / "venv"
    tool("venv", "--without-pip", str(place), cwd=place.parent)
    options = ["--quiet", "--no-deps", "--ignore-installed", "--disable-pip-version-check"]
    tool("pip", "install", *options, "--prefix", str(place), str(built.wheel), cwd=place.parent)
    return place


def around(installed: Path) -> dict[str, str]:
    """Return the environment of who has activated it."""
    (packages,) = installed.glob("lib/python*/site-packages")
    dependencies = Path(pytest.__file__).parent.parent  # which may have a watchman, too
    return environment(
        PYTHONPATH=f"{packages}:{dependencies}",
        PATH=f"{installed}/bin:{os.environ['PATH']}",
        LC_ALL="C.UTF-8",
    )


def test_pip_installs_the_wheel_and_it_finds_its_example(installed: Path, tmp_path: Path) -> None:
    assert (installed / "bin/notify").stat().st_mode & 0o111 == 0o111
    example = installed / "share/watchman/config-example.py"
    assert example.read_bytes() == (ROOT / "config-example.py").read_bytes()
    done = subprocess.run(
        [str(installed / "bin/python"), "-m", "watchman", "check"],
        cwd=tmp_path,
        env=around(installed),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78, done.stdout + done.stderr
    assert f"write one with 'notify init', or copy {example} there" in done.stdout + done.stderr


def test_a_newcomer_reaches_a_task_in_five_commands(installed: Path, tmp_path: Path) -> None:
    """The first was pip's; the last is a stock worker, which goes on."""

    def typed(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=tmp_path,
            env=around(installed),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    start, upload, worker = typed("notify init").splitlines()[-3:]
    assert f"{tmp_path}/var/log/watchman.out" in typed(start)
    try:
        typed(upload)
        log = tmp_path / "worker.log"
        line = f"cd {shlex.quote(str(tmp_path))} && exec {worker}"
        process = Process(["sh", "-c", line], log, around(installed))
        try:
            told = rf"\[[0-9a-f-]{{36}}\]: {re.escape(str(tmp_path))}/upload/hello.txt has 6 bytes"
            wait_until(lambda: re.search(told, log.read_text()), 60, f"{told} in {log}")
        finally:
            process.stop(signal.SIGKILL)
        assert f"{tmp_path}/upload/hello.txt" in typed("notify history")
    finally:
        typed("notify stop")


def constraints() -> dict[str, list[Requirement]]:
    """Return the lines of constraints.txt, by the name of their package."""
    found: dict[str, list[Requirement]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if text := line.partition("#")[0].strip():
            one = Requirement(text)
            assert not one.extras
            assert not one.url
            assert [each.operator for each in one.specifier] == ["=="]
            found.setdefault(canonicalize_name(one.name), []).append(one)
    return found


def here(**changes: str) -> dict[str, str]:
    """Return this environment, by the names that markers have for it."""
    return {name: str(value) for name, value in default_environment().items()} | changes


def version_at(place: Mapping[str, str], lines: list[Requirement]) -> str | None:
    """Return the one version that holds in an environment, if any does."""
    holding = [one for one in lines if one.marker is None or one.marker.evaluate(place)]
    assert len(holding) <= 1, lines
    return next(iter(holding[0].specifier)).version if holding else None


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_every_requirement_has_a_tested_version_on_every_python(python: str) -> None:
    """bin/constraints mends it."""
    meant, lines = project(), constraints()
    place = here(python_version=python, python_full_version=f"{python}.0")
    for text in (
        *meant["dependencies"],
        *(line for extra in meant["optional-dependencies"].values() for line in extra),
    ):
        one = Requirement(text)
        if one.marker is None or one.marker.evaluate(place):
            version = version_at(place, lines[canonicalize_name(one.name)])
            assert version is not None, text
            assert one.specifier.contains(version), text


def test_what_is_installed_is_what_is_constraints() -> None:
    """In .venv; elsewhere the versions are those of whoever installed them."""
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("these tests do not run from .venv")
    lines = constraints()
    installed = {
        canonicalize_name(one.name): one.version for one in importlib.metadata.distributions()
    }
    # pip comes with Python's venv.
    assert set(installed) - set(lines) <= {"pip", "watchman"}
    wanted = {name: version_at(here(), lines[name]) for name in installed if name in lines}
    assert {name: installed[name] for name in wanted} == wanted
