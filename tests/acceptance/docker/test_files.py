"""The Dockerfile and docker-compose.yml of the development set-up, read as text and by Compose."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from textwrap import dedent

import pytest

from tests import readme
from tests.checkout import ROOT, environment, files
from tests.servers import Process, free_port, require
from tests.waiting import wait_until
from watchman.web.passwords import PasswordFile

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.*)$", DOCKERFILE, re.MULTILINE)


def stages() -> dict[str, list[tuple[str, str]]]:
    """Return the instructions of each stage, FROM first."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for instruction, rest in INSTRUCTIONS:
        if instruction == "FROM":
            name = rest.partition(" AS ")[2]
            assert re.fullmatch(r"\w+", name), "each stage has a name"
            assert name not in found
            found[name] = []
        found[name].append((instruction, rest))
    return found


def last(stage: str, instruction: str) -> str:
    return [rest for one, rest in stages()[stage] if one == instruction][-1]


def services() -> dict[str, str]:
    """Return the text of each service."""
    [block] = re.findall(r"^services:\n(.*?)^volumes:\n", COMPOSE, re.MULTILINE | re.DOTALL)
    parts = re.split(r"^  ([\w-]+):\n", block, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def compose(*arguments: str) -> str:
    """Return what Compose says of the file; its first version or its second, if either is here."""
    program = ["docker-compose"]
    if shutil.which("docker-compose") is None:
        program = ["docker", "compose"]
        asked = shutil.which("docker") and subprocess.run(
            [*program, "version"], capture_output=True, check=False
        )
        if not asked or asked.returncode != 0:
            require("docker-compose")
    done = subprocess.run(
        [*program, *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_compose_takes_the_file() -> None:
    assert compose("config")
    assert set(compose("config", "--services").split()) == set(services())
    assert set(compose("config", "--volumes").split()) == {"ftproot", "state"}


def test_it_has_what_the_original_had() -> None:
    found = services()
    assert {"watchman", "worker", "rabbitmq", "redis", "proftpd"} <= set(found)
    for name in ("watchman", "proftpd"):
        assert "- ftproot:/srv/ftp\n" in found[name], name
    assert "image: rabbitmq:4.0-management\n" in found["rabbitmq"]
    # Uploads are somebody's only copies: `docker-compose down --volumes` must not remove them.
    assert "  ftproot:\n    external: true\n" in COMPOSE


def test_nothing_is_published_beyond_this_machine() -> None:
    found = re.findall(r"^ +ports:\n((?: +- .*\n)+)", COMPOSE, re.MULTILINE)
    ports = [line.split("- ")[1] for lines in found for line in lines.splitlines()]
    assert "127.0.0.1:15672:15672" in ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert "network_mode" not in COMPOSE


def test_containers_and_log_lines_are_called_as_in_the_readme() -> None:
    settings = (ROOT / ".env").read_text(encoding="utf-8")
    project = re.findall(r"^COMPOSE_PROJECT_NAME=(.*)$", settings, re.MULTILINE)
    assert project == ["watchman"]
    assert "\nCOMPOSE_COMPATIBILITY=1\n" in settings
    [container] = re.findall(r"docker exec -it (\w+) /bin/bash", readme.DOCKER)
    assert container == "watchman_watchman_1"
    prefixes = set(re.findall(r"^ +([\w-]+?)_1 +\| ", readme.DOCKER, re.MULTILINE))
    assert "watchman" in prefixes
    assert prefixes <= set(services())


def test_what_compose_builds_are_stages() -> None:
    targets = re.findall(r"^ +target: (\w+)$", COMPOSE, re.MULTILINE)
    assert set(targets) == {"watchman", "proftpd"} <= set(stages())
    # The one that `docker build .` makes.
    assert list(stages())[-1] == "watchman"


def test_images_come_from_wherever_the_engine_gets_them() -> None:
    images = [rest.partition(" AS ")[0] for one, rest in INSTRUCTIONS if one == "FROM"]
    images += re.findall(r"^ +image: (.*)$", COMPOSE, re.MULTILINE)
    assert "debian:bookworm-slim" in images
    with_host = re.compile(r"^(localhost|[^/]*[.:][^/]*)/")
    assert [image for image in images if with_host.search(image)] == []
    for image in images:
        assert re.fullmatch(r"[\w-]+:[\w.-]+", image) or image in {*stages(), "watchman-proftpd"}


def test_watchman_runs_without_root_s_powers_and_hears_signals() -> None:
    assert last("watchman", "USER") == "watchman"
    # In the shell form a shell would be process 1, and pass no signal on.
    assert json.loads(last("watchman", "ENTRYPOINT")) == ["entrypoint"]
    assert json.loads(last("watchman", "CMD")) == ["notify"]
    assert json.loads(last("proftpd", "CMD"))[0] == "proftpd"
    # The same for `docker run` and for Compose.
    options, _, check = last("watchman", "HEALTHCHECK").partition(" CMD ")
    # In the shell's form, since two of its statuses mean well.
    assert check == "notify health || [ $? -eq 1 ]"
    assert "--start-period=" in options
    told = [name for name, text in services().items() if "healthcheck:" in text]
    assert told == ["web"]  # it is no daemon
    assert "cap_add: [LEASE]\n" in services()["watchman"]


def test_only_of_the_daemon_s_container_is_asked_whether_it_is_well() -> None:
    """The image's check finds no daemon where its STATE_DIR is not, and calls a worker unwell."""
    parts = re.split(r"^  ([\w-]+):\n", compose("config"), flags=re.MULTILINE)[1:]
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    ours = {name for name, text in found.items() if "    image: watchman\n" in text}
    assert ours == {"watchman", "web", "worker", "worker-3di"}
    checked = {name for name in ours if "    healthcheck:\n" in found[name]}
    assert ours - checked == {"watchman"}


def test_the_page_has_its_libraries_a_password_and_a_check(tmp_path: Path) -> None:
    assert any("'.[web]'" in rest for one, rest in stages()["build"] if one == "RUN")
    service = services()["web"]
    [command] = re.findall(r"^    command: (.*)$", service, re.MULTILINE)
    [program] = re.findall(r"        - \|\n((?: {10}.*\n)+)", service)
    assert "- ./docker:/etc/watchman:ro\n" in service
    assert PasswordFile(str(ROOT / "docker/htpasswd")).accepts("guest", "guest")
    # Both, beside the state of nobody.
    port, own = free_port(), str(ROOT / "docker/htpasswd")
    command = command.replace("0.0.0.0:9002", f"127.0.0.1:{port}")
    words = command.replace("/etc/watchman/htpasswd", own).split()
    assert (words[0], words.count(own)) == ("notify", 1)
    check = [sys.executable, "-c", dedent(program).replace("9002", str(port))]
    (tmp_path / "config.py").touch()
    environ = environment(WATCHMAN_CONFIG=str(tmp_path / "config.py"), PYTHONPATH=str(ROOT))

    def answers() -> bool:
        return subprocess.run(check, capture_output=True, check=False).returncode == 0

    assert not answers()
    argv = [sys.executable, "-m", "watchman", *words[1:]]
    process = Process(argv, tmp_path / "log", environ)
    try:
        wait_until(answers, 30, "the page answers", interval=0.2)
    finally:
        process.stop()


def _is_ignored(name: str) -> bool:
    """Say what .dockerignore says: the last pattern that matches a name or what is above it."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        above = [str(path) for path in (Path(name), *Path(name).parents)][:-1]
        parts = Path(name).parts if "**/" in line else above
        if line and not line.startswith("#") and any(fnmatchcase(part, pattern) for part in parts):
            ignored = not line.startswith("!")
    return ignored


def test_what_is_copied_is_in_the_checkout_and_not_left_out() -> None:
    names = {str(name) for name in files()}
    copied = [rest.split()[:-1] for one, rest in INSTRUCTIONS if one == "COPY"]
    sources = [name for words in copied if not words[0].startswith("--from=") for name in words]
    assert {"setup.py", "watchman", "docker/entrypoint"} <= set(sources)
    for source in sources:
        below = [name for name in names if name == source or name.startswith(f"{source}/")]
        assert below, source
        assert [name for name in below if _is_ignored(name)] == []
    for name in ("config.py", ".git/config", "watchman/__pycache__/x.pyc", ".venv/bin/python"):
        assert _is_ignored(name), name
    mounted = re.findall(r"^ +- \./([\w./]+):", COMPOSE, re.MULTILINE)
    assert {"watchman", "docker"} <= set(mounted)
    for name in mounted:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("name", ["build", "volume create --name=ftproot", "up"])
def test_the_readme_names_the_commands(name: str) -> None:
    program = "docker" if name.startswith("volume") else "docker-compose"
    assert f"    $ {program} {name}\n" in readme.DOCKER
