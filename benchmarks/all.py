"""All benchmarks, one after the other, and the figures and plots in README.rst.

``--quick`` takes small counts, to see that everything works; its figures mean little, so it
writes nothing but JSON, and that where --output says (a directory for the moment by default).
``--render`` measures nothing and writes README.rst from the last results.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
import plots
from report import say, shown, text_table, verdict

PROGRAMS: Mapping[str, list[str]] = {
    # With what --quick gives them.
    "burst_redis": ["--files", "2000", "--runs", "1"],
    "burst_rabbitmq": ["--files", "2000", "--runs", "1"],
    "latency": ["--seconds", "3", "--runs", "1"],
    "moves": ["--files", "2000", "--runs", "1"],
    "patterns": ["--files", "2000", "--runs", "1"],
    "start": ["--directories", "2000", "--runs", "1"],
    "restart": ["--files", "20000", "--runs", "1"],
    "million": ["--files", "20000", "--usual", "5000", "--runs", "1"],
    "memory": ["--directories", "2000", "--files", "5000", "--backlog", "20000", "--runs", "1"],
    "history": [
        "--finished",
        "20000",
        "--failed",
        "100",
        "--unsent",
        "1000",
        "--known",
        "1000",
        "--seconds",
        "3",
        "--files",
        "2000",
        "--runs",
        "1",
    ],
    "complete": ["--files", "1000", "--large", "2", "--runs", "1"],
    "idle": ["--directories", "2000", "--seconds", "3", "--runs", "1"],
    "hotspots": ["--files", "5000"],
}
SHOWN = (*PROGRAMS, "compare")
"""Whose figures README.rst has; compare.py needs another checkout, and is run by itself."""
README = harness.HERE / "README.rst"
BEGIN, END = ".. figures: begin\n", ".. figures: end\n"


def measure(options: argparse.Namespace) -> list[str]:
    """Run the programs; return the names of those that failed."""
    failed = []
    for name in options.only or PROGRAMS:
        say(f"== {name}")
        began = time.monotonic()
        argv = [sys.executable, str(harness.HERE / f"{name}.py"), "--output", str(options.output)]
        argv += ["--peer", str(options.peer)] if options.peer else []
        argv += ["--disk", str(options.disk)] if options.disk else []
        argv += PROGRAMS[name] if options.quick else []
        process = subprocess.Popen(argv)
        try:
            if process.wait():
                failed.append(name)
        finally:
            # If we are told to stop, so is it, and it has servers to stop in turn.
            process.terminate()
            process.wait()
        say(f"== {name}: {time.monotonic() - began:.0f} s")
    return failed


def load(directory: Path) -> dict[str, Any]:
    """Return the results that are there, by program."""
    return {
        name: json.loads((directory / f"{name}.json").read_text(encoding="utf-8"))
        for name in SHOWN
        if (directory / f"{name}.json").exists()
    }


def figures(results: Mapping[str, Any], drawn: list[tuple[str, str]]) -> str:
    """Return the generated part of README.rst."""
    parts = [_heading("What was asked, and what was reached", "-")]
    targets = [target for result in results.values() for target in result["targets"]]
    rows = [[t["what"], t["asked"], shown(t), verdict(t)] for t in targets]
    parts.append(text_table(["what", "asked", "measured", "verdict"], rows))
    failures = [
        f"- {name}: {failure}" for name, result in results.items() for failure in result["failures"]
    ]
    if failures:
        parts += ["**Failed:**", "\n".join(failures)]
    parts += [f".. figure:: plots/{name}\n\n   {caption}" for name, caption in drawn]
    for name, result in results.items():
        parts += [_heading(result["title"], "-"), _taken(name, result)]
        parts.append(text_table(result["columns"], result["rows"]))
        for table in result["more"]:
            text = text_table(table["columns"], table["rows"])
            # Names of functions are no markup.
            parts += [f"{table['title']}::", "\n".join(f"   {line}" for line in text.splitlines())]
    return "\n\n".join(parts) + "\n"


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}"


def _taken(name: str, result: Mapping[str, Any]) -> str:
    machine = result["machine"]
    options = ", ".join(f"{key} {value}" for key, value in result["options"].items())
    broker = f", {machine['broker']}" if "broker" in machine else ""
    packages = ", ".join(f"{key} {value}" for key, value in machine["packages"].items())
    return (
        f"``{name}.py``, {result['taken']}: {options}. {machine['cores']} cores "
        f"({machine['processor']}, {machine['memory']}), {machine['kernel']}, "
        f"Python {machine['python']}{broker}, {packages}; uploads on {machine['uploads on']}, "
        f"journal on {machine['journal on']}, load before {machine['load before']}."
    )


def render(directory: Path) -> None:
    """Write plots, and README.rst's generated part."""
    results = load(directory)
    plotted = harness.HERE / "plots"
    try:
        plots.draw(results, plotted)
    except ImportError:
        say("no plots: matplotlib is not installed; those of the last time are kept")
    drawn = [one for one in plots.CAPTIONS.items() if (plotted / one[0]).exists()]
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    made = f"{before}{BEGIN}\n{figures(results, drawn)}\n{END}{after}"
    README.write_text(made, encoding="utf-8")


def main() -> int:
    """Measure and write; 1 if a program failed."""
    parser = harness.parser(__doc__ or "")
    parser.add_argument("--quick", action="store_true", help="small counts")
    parser.add_argument("--render", action="store_true", help="only write README.rst")
    parser.add_argument("--only", nargs="*", choices=[*PROGRAMS], metavar="PROGRAM", help=" ")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="watchman-bench-") as name:
        if options.quick and options.output == parser.get_default("output"):
            options.output = Path(name)
        failed = [] if options.render else measure(options)
        if not options.quick:
            render(options.output)
    if failed:
        say(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    harness.run(main)
