"""Running a configuration file: Python, but with one-line problems instead of tracebacks."""

from __future__ import annotations

import ast
import builtins
import os
import stat
import sys
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from watchman.config.belongings import Belongings
from watchman.config.problems import Problems
from watchman.errors import ConfigError
from watchman.masking import mask
from watchman.text import describe, normal_path

EXAMPLE = "config-example.py"
LARGEST = 10_000_000
"""Bytes that a configuration may have."""

_PATH = frozenset(sys.path)
"""Where modules are found without any configuration."""
_MODULES = frozenset({"os", "sys", "re", "logging", "pyinotify", "glob", "datetime", "socket"})


@dataclass
class ConfigFile:
    """What a configuration file says."""

    path: str
    values: dict[str, Any] = field(default_factory=dict)
    """Its names, without those that start with an underscore and without modules."""
    read: frozenset[str] = frozenset()
    """The names that the file itself makes use of: helpers rather than settings."""
    assigned: frozenset[str] = frozenset()
    """The names that the file itself gives a value."""


def find(path: str | None, environ: Mapping[str, str]) -> str:
    """Return the absolute path of the configuration: as named, else $WATCHMAN_CONFIG's, else
    ``config.py`` here. Raises ConfigError where there is no "here" any more.
    """
    path = path or environ.get("WATCHMAN_CONFIG") or "config.py"
    try:
        return normal_path(os.path.abspath(path))
    except OSError as error:
        raise ConfigError(
            [
                f"configuration: {path}: the working directory cannot be told ({error.strerror}); "
                "go to one that exists, or name the whole path"
            ]
        ) from error


def importable(directory: str) -> tuple[str, ...]:
    """Return where modules are found for a configuration in that directory: there, and, if that is
    a package, such as the settings of a Django project, beside the outermost package around it.

    Not where Python finds modules anyway: what is installed belongs to no configuration.
    """
    top = directory
    while os.path.isfile(os.path.join(top, "__init__.py")) and top != os.path.dirname(top):
        top = os.path.dirname(top)
    return (directory,) if top == directory or top in _PATH else (directory, top)


@contextmanager
def beside(directory: str) -> Iterator[None]:
    """Let modules beside the configuration, and those that are :func:`importable` with it, be
    imported; write no byte code there.

    They come before installed ones of the same name. Afterwards they can still be imported, such as
    a router that Celery looks up when it sends, but come last: whatever is imported then may be
    what Celery itself needs.
    """
    writing = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    directories = importable(directory)
    sys.path[:0] = directories
    try:
        yield
    finally:
        sys.dont_write_bytecode = writing
        for one in directories:
            if one in sys.path:
                sys.path.remove(one)
            if one not in sys.path:
                sys.path.append(one)


def run(path: str, problems: Problems, belongings: Belongings | None = None) -> ConfigFile | None:
    """Execute the file and return its names; None, and a problem noted, if that cannot be.

    ``OrderedDict`` and ``os`` are there without an import, as the documentation's examples
    expect. Call it inside :func:`beside`.
    """
    label = os.path.basename(path)
    text = _text(path, label, problems)
    if text is None:
        return None
    try:
        tree = ast.parse(text, path)
        _pairs_as_list(tree)
        code = compile(tree, path, "exec")
    except Exception as error:  # noqa: BLE001 — SyntaxError, ValueError, RecursionError …
        _add_syntax_problem(label, error, problems)
        return None
    namespace: dict[str, Any] = {
        "__name__": "watchman_config",
        "__file__": path,
        "__builtins__": builtins,
        "OrderedDict": OrderedDict,
        "os": os,
    }
    if belongings is not None:
        belongings.namespaces.append(namespace)
    try:
        exec(code, namespace)  # noqa: S102 — the configuration is Python by design
    except BaseException as error:  # noqa: BLE001 — any Python may stand there; Ctrl-C ends it
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
        # By the type, not isinstance(): an object may lie about its __class__, or raise.
        if type(name) is str
        and not name.startswith("_")
        and not issubclass(type(value), ModuleType)
    }
    if values.get("OrderedDict") is OrderedDict:
        del values["OrderedDict"]
    return ConfigFile(path, values, used[ast.Load], used[ast.Store])


def _text(path: str, label: str, problems: Problems) -> bytes | None:
    """Return the file's bytes; None, and a problem noted, if it cannot be read.

    Asked before it is opened: opening a FIFO waits for a writer, opening a device may do anything.
    """
    wrong, remedy = "", "let this user read it, and search the directories above it"
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            wrong, remedy = "is a directory", "name the file itself"
        elif not stat.S_ISREG(status.st_mode):
            wrong, remedy = "is no regular file", "name a file: it is read again by each reload"
        elif status.st_size > LARGEST:
            wrong, remedy = f"has {status.st_size} bytes", "name a configuration file"
        else:
            with open(path, "rb", opener=_without_waiting) as file:
                return file.read()
    except (FileNotFoundError, NotADirectoryError):
        if not os.path.islink(path):
            problems.add("configuration", f"{path} does not exist", _how_to_begin())
            return None
        wrong, remedy = "is a link to nothing", "correct or remove it"
    except OSError as error:
        wrong = f"cannot be read ({error.strerror})"
    problems.add(label, f"{path} {wrong}", remedy)
    return None


def _without_waiting(path: str, flags: int) -> int:
    """Open a file that may have become a FIFO just now."""
    return os.open(path, flags | os.O_NONBLOCK)


def _how_to_begin() -> str:
    """Say what to do without a configuration, with the example where it is: checkout or wheel."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    places = (package, os.path.join(sys.prefix, "share", "watchman"))
    examples = (os.path.join(place, EXAMPLE) for place in places)
    example = next((path for path in examples if os.path.exists(path)), None)
    copy = f", or copy {example} there" if example else ""
    return f"write one with 'notify init'{copy}, or name another with --config or WATCHMAN_CONFIG"


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
    what = mask(describe(error))
    remedy = "correct this line"
    if isinstance(error, NameError) and error.name in _MODULES:
        remedy = f"write 'import {error.name}' at the top"
    elif isinstance(error, ModuleNotFoundError):
        remedy = f"install '{error.name}', or put it beside the configuration"
    elif not isinstance(error, Exception):  # SystemExit, KeyboardInterrupt, GeneratorExit …
        remedy = "the file must run to its end"
    problems.add(where, what, remedy)
