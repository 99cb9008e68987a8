"""What a configuration brought into the process, so that it can be taken out again.

It is Python: it imports modules that lie beside it, or beside the package that it is part of, and
connects receivers to signals. All that belongs to the configuration that did it. One that is loaded
later gets modules of its own, and once it is in force, nothing of the former goes on.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Hashable, Sequence
from types import ModuleType
from typing import Any, Protocol

from watchman import signals


class Signals(Protocol):
    """A group of signals that a configuration may connect receivers to."""

    def connected(self) -> frozenset[Hashable]:
        """Return what tells the present connections apart."""
        ...

    def disconnect(self, connections: frozenset[Hashable]) -> None:
        """Take these connections away; some of them may have gone."""
        ...


class _OwnSignals:
    """The signals of :mod:`watchman.signals`."""

    def connected(self) -> frozenset[Hashable]:
        return frozenset((s, r) for s in signals.every() for r in tuple(s.receivers))

    def disconnect(self, connections: frozenset[Hashable]) -> None:
        for signal in signals.every():
            for key, receiver in tuple(signal.receivers.items()):
                if (signal, key) in connections:
                    found = receiver() if isinstance(receiver, signals.WEAK) else receiver
                    if found is not None:
                        signal.disconnect(found)


class Belongings:
    """Of one configuration, whose modules lie in ``directories``."""

    def __init__(self, directories: Sequence[str], groups: Sequence[Signals]) -> None:
        self.directories = tuple(directories)
        self.namespaces: list[dict[str, Any]] = []
        """The names of its files: signals hold receivers weakly, so these keep them alive."""
        self._modules: dict[str, ModuleType] = {}
        self._groups = (_OwnSignals(), *groups)
        self._before = [group.connected() for group in self._groups]
        self._connections: list[frozenset[Hashable]] = []

    def note(self) -> None:
        """Take down what there is now that was not there when the loading began."""
        self._connections = [
            group.connected() - before
            for group, before in zip(self._groups, self._before, strict=True)
        ]

    def step_aside(self) -> None:
        """Have its modules imported anew by whoever asks for them, also those imported later."""
        for name, module in tuple(sys.modules.items()):
            if _lies_in(sys.modules.get(name.partition(".")[0]), self.directories):
                self._modules[name] = module
        for name, module in self._modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        for directory in self.directories:
            if directory in sys.path:
                sys.path.remove(directory)
        importlib.invalidate_caches()

    def return_(self) -> None:
        """Have its modules found again."""
        sys.modules.update(self._modules)
        for directory in self.directories:
            if directory not in sys.path:
                sys.path.append(directory)

    def withdraw(self) -> None:
        """Take its receivers and modules out of the process."""
        for group, connections in zip(self._groups, self._connections, strict=False):
            group.disconnect(connections)
        for name, module in self._modules.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
        self.namespaces.clear()


class _Process:
    """Whose belongings there are: of the configuration in force, and of one that may replace it."""

    in_force: Belongings | None = None
    candidate: Belongings | None = None

    def both(self) -> list[Belongings]:
        return [one for one in (self.in_force, self.candidate) if one is not None]


_process = _Process()


def loading(directories: Sequence[str], groups: Sequence[Signals]) -> Belongings:
    """Begin to load a configuration: the modules of others step aside."""
    for other in _process.both():
        other.step_aside()
    return Belongings(directories, groups)


def loaded(belongings: Belongings) -> None:
    """It has been loaded, and may come into force; the last one that might have will not."""
    belongings.note()
    if _process.candidate is not None:
        _process.candidate.withdraw()
    _process.candidate = belongings


def reject(belongings: Belongings | None) -> None:
    """It cannot be used, or not now: what is in force stays as it is."""
    if belongings is None:
        return
    belongings.note()
    belongings.step_aside()
    belongings.withdraw()
    if _process.candidate is belongings:
        _process.candidate = None
    for other in _process.both():
        other.return_()


def adopt(belongings: Belongings | None) -> None:
    """It is in force now: nothing of any other goes on."""
    for other in _process.both():
        if other is not belongings:
            other.withdraw()
    _process.in_force, _process.candidate = belongings, None


def _lies_in(module: ModuleType | None, directories: Sequence[str]) -> bool:
    """Say whether a top-level module was found in one of them; never watchman itself."""
    if module is None or module.__name__ == "watchman":
        return False
    file: str | None = getattr(module, "__file__", None)
    if file:
        place, _, name = file.rpartition("/")
        return (place.rpartition("/")[0] if name.startswith("__init__.") else place) in directories
    # A package without __init__.py has no file, and the directories that it was found in.
    places = tuple(getattr(module, "__path__", ()))
    return any(place.rpartition("/")[0] in directories for place in places)
