"""ARCHITECTURE.md's layers, as pyproject.toml writes them down, hold in the code."""

from __future__ import annotations

import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest

from tests.checkout import ROOT, clone, files, pyproject

ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")


def lint_imports(checkout: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [str(program), "--no-cache"], cwd=checkout, capture_output=True, text=True, check=False
    )


def words(layer: str) -> list[str]:
    return re.findall(r"\w+", layer)


def test_the_layers_are_drawn_as_they_are() -> None:
    _, _, section = ARCHITECTURE.partition("\n## Layers\n")
    # What is in a layer is told behind at least two spaces.
    drawn = [
        words(line.strip().partition("  ")[0]) for line in re.findall(r"^    .+", section, re.M)
    ]
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["id"] == "layers")
    assert "pipeline" in words(layers[5])
    end = drawn.index(words(layers[-1])) + 1
    assert [sorted(layer) for layer in drawn[:end]] == [sorted(words(layer)) for layer in layers]


def test_every_module_that_is_named_is_there() -> None:
    modules = {str(path.relative_to("watchman")) for path in files() if path.parts[0] == "watchman"}
    folders = {path.split("/")[0] for path in modules if "/" in path}
    named = set(re.findall(r"`(\w+/\w+(?:\.py)?|\w+\.py)`", ARCHITECTURE))
    ours = {f"{name.removesuffix('.py')}.py" for name in named if name.split("/")[0] in folders}
    assert len(ours) > 50
    assert ours - modules == set()
    places = {Path(path).name for path in modules}
    assert {name for name in named if "/" not in name} - places == set()


CONFIGURED = (
    "watchman.metrics.exposition",
    "watchman.metrics.facts",
    "watchman.mover.destination",
    "watchman.pipeline.directories",
    "watchman.pipeline.glob_watcher",
    "watchman.pipeline.log_reader",
    "watchman.pipeline.partial_files",
    "watchman.processors.exact_events",
    "watchman.verdicts.formats",
    "watchman.verdicts.pool",
    # Theirs:
    "celery",
    "kombu",
    "prometheus_client",
    "redis",
)
_LOADED = "import sys, watchman.cli, watchman.service; print(*sys.modules)"


def test_what_is_not_configured_is_not_loaded() -> None:
    """The daemon would start a fifth later, and be 3 MB larger."""
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert {"watchman.pipeline.parts", "watchman.mover", "watchman.monitoring"} <= loaded
    assert loaded.isdisjoint(CONFIGURED)
    there = {f"{path.with_suffix('')}".replace("/", ".") for path in files()}
    assert {name for name in CONFIGURED if name.startswith("watchman.")} <= there


def test_every_contract_is_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("model.py", "import watchman.file_access", "A module imports only from layers below it"),
        (
            "sender/sender.py",
            "import watchman.journal",
            "A module imports only from layers below it",
        ),
        ("unheard_of.py", "", "A module imports only from layers below it"),
        ("sender/sender.py", "import redis", "Only brokers/ knows Celery"),
        ("completeness.py", "import pyinotify", "Only the inotify source and processors know"),
        ("router.py", "import sqlite3", "Only journal knows SQL"),
        (
            "monitoring/metrics_file.py",
            "import watchman.journal.journal_reader",
            "The daemon reads its journal by its own connections",
        ),
    ],
)
def test_a_breach_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    copy = clone(tmp_path)
    with (copy / "watchman" / module).open("a") as source:
        source.write(f"\n{line}\n")
    done = lint_imports(copy)
    assert done.returncode == 1
    broken = [text for text in done.stdout.splitlines() if " BROKEN" in text]
    assert [text for text in broken if text.startswith(contract)], done.stdout + done.stderr


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Imports for types only, and those inside functions, count as well."""
    graph = grimp.build_graph("watchman", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert "watchman.journal" in imports["watchman.pipeline.parts"]
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))
