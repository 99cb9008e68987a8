"""Rules for the repository that no linter knows."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from tests.checkout import ROOT, files

LONGER: dict[str, str] = {
    # Modules that may be longer than MOST_LINES, each with its reason.
    "watchman/brokers/amqp.py": "one conversation on one channel: every step moves its window",
}
MOST_LINES = 500

NEEDED_WITHOUT_IMPORT = {
    "supervisor": "bin/supervisord and bin/supervisorctl run it",
    "pyasyncore": "pyinotify imports what it brings",
}


def sources(*tops: str) -> list[Path]:
    found = [path for path in files() if path.suffix == ".py" and path.parts[0] in tops]
    assert found
    return found


def text(path: Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def test_every_exception_has_its_reason() -> None:
    # Written apart, so that this file is no case of its own.
    marks = re.compile("# (" + "noqa" + "|type: " + "ignore)(.*)")
    # mypy reads nothing but a further comment behind its own.
    reason = re.compile(r"^: [A-Z0-9, ]+ — \w|^\[[\w, -]+\]  # (— )?\w")
    bare = [
        f"{path}:{number}: {line.strip()}"
        for path in sources("watchman", "tests", "setup.py")
        for number, line in enumerate(text(path).splitlines(), 1)
        for mark in marks.finditer(line)
        if not reason.search(mark[2])
    ]
    assert bare == []


def test_no_test_sleeps() -> None:
    sleepers = [
        f"{path}:{node.lineno}"
        for path in sources("tests")
        for node in ast.walk(ast.parse(text(path)))
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sleep"
    ]
    assert sleepers == []


def test_modules_are_short() -> None:
    lengths = {str(path): len(text(path).splitlines()) for path in sources("watchman")}
    assert {path: n for path, n in lengths.items() if n >= MOST_LINES and path not in LONGER} == {}
    assert [path for path in LONGER if lengths.get(path, 0) < MOST_LINES] == []


def test_no_host_or_place_is_named_that_others_lack() -> None:
    words = ["pypi" + ".org", "python" + "hosted.org", "deb" + "ian.org", "npm" + "js.org"]
    words += ["/" + "work/", "." + "library", "shared" + "/seeds"]
    named = [
        f"{path}: {word}"
        for path in files()
        for word in words
        if word.encode() in (ROOT / path).read_bytes()
    ]
    assert named == []


def test_every_requirement_is_used() -> None:
    setup = ast.parse(text(Path("setup.py")))
    lists = {
        keyword.arg: ast.literal_eval(keyword.value)
        for node in ast.walk(setup)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup"
        for keyword in node.keywords
        if keyword.arg == "install_requires"
    }
    required = {re.split(r"[\[<>=;! ]", line, maxsplit=1)[0] for line in lists["install_requires"]}
    assert "pyinotify" in required
    imported = {
        name.split(".")[0]
        for path in sources("watchman")
        for node in ast.walk(ast.parse(text(path)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert required - imported - set(NEEDED_WITHOUT_IMPORT) == set()
    foreign = imported - set(sys.stdlib_module_names) - {"watchman"}
    brought_along = {"redis", "amqp"}  # by celery[redis] and kombu
    assert foreign - required - brought_along == set()


def test_the_scripts_can_be_run() -> None:
    names = ["notify", "in-debian", "supervisord", "supervisorctl", "test"]
    scripts = [".ci/run", ".ci/docker", "docker/entrypoint", *(f"bin/{name}" for name in names)]
    for name in scripts:
        path = ROOT / name
        assert path.stat().st_mode & 0o111 == 0o111, f"chmod +x {name}"
        assert path.read_bytes().startswith(b"#!")
