"""Rules for the repository that no linter knows."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.checkout import ROOT, files, project

LONGER: dict[str, str] = {
    # Modules that may be longer than MOST_LINES, each with its reason.
    "watchman/model.py": "the dictionary; each word once, in one place",
}
MOST_LINES = 500
EVERYWHERE = {"__init__", "__main__"}
"""Modules that Python wants to be called so."""

IMPORTED_AS = {"pythonjsonlogger": "python_json_logger"}
NEEDED_WITHOUT_IMPORT = {
    "supervisor": "bin/supervisord and bin/supervisorctl run it",
    "pyasyncore": "pyinotify imports what it brings",
}
BROUGHT_BY = {
    "jinja2": "flask",
    "markupsafe": "flask",
    "passlib": "libpass",
    "werkzeug": "flask",
}
"""What a requirement brings along, or is called when it is imported."""


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


def test_no_two_modules_or_public_classes_have_the_same_name() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for path in sources("watchman"):
        if path.stem not in EVERYWHERE:
            where[f"module {path.stem}"].append(str(path))
        for node in ast.parse(text(path)).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                where[f"class {node.name}"].append(f"{path}:{node.lineno}")
    assert {"module sender", "class Delivery"} <= where.keys()
    assert {name: places for name, places in where.items() if len(places) > 1} == {}


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
    lines = [*project()["dependencies"], *project()["optional-dependencies"]["web"]]
    names = (re.split(r"[\[<>=;! ]", line, maxsplit=1)[0] for line in lines)
    required = {name.replace("-", "_") for name in names}
    assert "pyinotify" in required
    imported = {
        IMPORTED_AS.get(name.split(".")[0], name.split(".")[0])
        for path in sources("watchman")
        for node in ast.walk(ast.parse(text(path)))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    imported |= {BROUGHT_BY[name] for name in imported & BROUGHT_BY.keys()}
    assert required - imported - set(NEEDED_WITHOUT_IMPORT) == set()
    foreign = imported - set(sys.stdlib_module_names) - {"watchman", *BROUGHT_BY}
    assert foreign - required == set()


def test_the_scripts_can_be_run() -> None:
    names = ["notify", "constraints", "in-debian", "supervisord", "supervisorctl", "test"]
    scripts = [".ci/run", ".ci/docker", "docker/entrypoint", *(f"bin/{name}" for name in names)]
    for name in scripts:
        path = ROOT / name
        assert path.stat().st_mode & 0o111 == 0o111, f"chmod +x {name}"
        assert path.read_bytes().startswith(b"#!")


def test_a_commit_is_checked_by_what_the_tests_check_by() -> None:
    checks = re.findall(r"^check (.+)$", text(Path("bin/test")), re.MULTILINE)
    hooks = text(Path(".pre-commit-config.yaml"))
    assert re.findall(r"^ +entry: \.venv/bin/(.+)$", hooks, re.MULTILINE) == checks
    assert len(checks) == 4
    # Once for all of it: the checks look at files beside the changed ones, too.
    for setting in ("language: system", "pass_filenames: false", "always_run: true"):
        assert hooks.count(f"        {setting}\n") == 4


@pytest.mark.parametrize("where", [".ci/run", "pyproject.toml"])
def test_the_files_that_settings_name_are_there(where: str) -> None:
    named = re.findall(r"\b(?:tests|watchman)/[\w/]+(?:\.py\b)?", text(Path(where)))
    assert len(named) >= 3
    assert [name for name in named if not (ROOT / name).exists()] == []
