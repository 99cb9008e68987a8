"""Running a configuration file: Python, but with one-line problems instead of tracebacks."""

from __future__ import annotations

import ast
import builtins
import os
import sys
import traceback
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from watchman.config.problems import Problems

_imported: set[str] = set()
"""Modules that were imported from beside a configuration. The next one to be loaded forgets
them, so that a reload sees what was changed in them, and a second configuration its own."""

_MODULES = frozenset({"os", "sys", "re", "logging", "pyinotify", "glob", "datetime", "socket"})


@dataclass
class Source:
    """What a configuration file says."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    """Its names, without those that start with an underscore and without modules."""
    read: frozenset[str] = frozenset()
    """The names that the file itself makes use of: helpers rather than settings."""
    assigned: frozenset[str] = frozenset()
    """The names that the file itself gives a value."""


@contextmanager
def beside(directory: str) -> Iterator[None]:
    """Let modules beside the configuration be imported; write no byte code there."""
    before = set(sys.modules)
    writing = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.dont_write_bytecode = writing
        if directory in sys.path:
            sys.path.remove(directory)
        _imported.update(
            name
            for name in set(sys.modules) - before
            if _lies_in(sys.modules.get(name.partition(".")[0]), directory)
        )


def forget() -> None:
    """Forget the modules that earlier configurations imported from beside them."""
    for name in _imported:
        sys.modules.pop(name, None)
    _imported.clear()


def run(path: str, problems: Problems) -> Source | None:
    """Execute the file and return its names; None, and a problem noted, if that cannot be.

    ``OrderedDict`` and ``os`` are there without an import, as the documentation's examples
    expect. Call it inside :func:`beside`.
    """
    label = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        remedy = "let this user read it"
        if isinstance(error, IsADirectoryError):
            remedy = "name the file itself"
        problems.add(label, f"{path} cannot be read ({error.strerror})", remedy)
        return None
    try:
        tree = ast.parse(text, path)
        _pairs_as_list(tree)
        code = compile(tree, path, "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        _add_syntax_problem(label, error, problems)
        return None
    namespace: dict[str, Any] = {
        "__name__": "watchman_config",
        "__file__": path,
        "__builtins__": builtins,
        "OrderedDict": OrderedDict,
        "os": os,
    }
    try:
        exec(code, namespace)  # noqa: S102 — the configuration is Python by design
    except (Exception, SystemExit) as error:  # noqa: BLE001 — any Python may stand there
        _add_run_problem(label, path, error, problems)
        return None
    used = {
        use: frozenset(
            node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, use)
        )
        for use in (ast.Load, ast.Store)
    }
    values = {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    if values.get("OrderedDict") is OrderedDict:
        del values["OrderedDict"]
    return Source(path, values, used[ast.Load], used[ast.Store])


def _pairs_as_list(tree: ast.Module) -> None:
    """Read ``PATTERNS = {(…, {…}), …}`` as a list.

    This form is in watchman's original documentation, and copied from there into many
    configurations. It is a set of pairs with a dict in them, which Python refuses to hash.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign):
            targets = [node.target]
        else:
            continue
        named = any(isinstance(target, ast.Name) and target.id == "PATTERNS" for target in targets)
        if named and isinstance(node.value, ast.Set):
            node.value = ast.copy_location(
                ast.List(elts=node.value.elts, ctx=ast.Load()), node.value
            )


def _add_syntax_problem(label: str, error: BaseException, problems: Problems) -> None:
    if not isinstance(error, SyntaxError):
        problems.add(label, f"is no Python file ({error})", "write it as plain text in UTF-8")
        return
    where = f"{label}, line {error.lineno}" if error.lineno else label
    if "codec" in error.msg or "encoding" in error.msg or "null bytes" in error.msg:
        problems.add(where, f"is not readable text ({error.msg})", "save the file as UTF-8")
    else:
        problems.add(where, f"syntax error: {error.msg}", "correct this line or the one above it")


def _add_run_problem(label: str, path: str, error: BaseException, problems: Problems) -> None:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == path
    ]
    where = f"{label}, line {lines[-1]}" if lines else label
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    remedy = "correct this line"
    if isinstance(error, NameError) and error.name in _MODULES:
        remedy = f"write 'import {error.name}' at the top"
    elif isinstance(error, ModuleNotFoundError):
        remedy = f"install '{error.name}', or put it beside the configuration"
    elif isinstance(error, SystemExit):
        remedy = "the file must run to its end"
    problems.add(where, what, remedy)


def _lies_in(module: ModuleType | None, directory: str) -> bool:
    """Say whether a top-level module was found in that directory; never watchman itself."""
    if module is None or module.__name__ == "watchman":
        return False
    file: str | None = getattr(module, "__file__", None)
    if not file:
        return False
    place, name = os.path.split(file)
    return directory == (os.path.dirname(place) if name.startswith("__init__.") else place)
