"""Files that are no arrivals of their own, since they stand beside another. Pure: names, patterns.

Markers, checksums and sizes tell of another file; the members of a set go with its main file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from watchman.config.criteria import example_suffix, suffix_of
from watchman.model import Criteria, Criterion, Member, Watch
from watchman.router import Router

_KINDS = ("marker", "checksum", "size")
_FIELD = re.compile(r"\{(name|stem|size)\}")


def is_companion(criterion: Criterion) -> bool:
    """Say whether a criterion is met by a file beside the other."""
    return criterion.kind in _KINDS and "{size}" not in criterion.argument


def is_shared(criterion: Criterion) -> bool:
    """Say whether a companion is that of many files, as a manifest is."""
    return not _FIELD.search(criterion.argument)


def name_for(template: str, name: str) -> str:
    """Return how the companion of the file called ``name`` is called."""
    stem = name[: name.rfind(".")] if "." in name.lstrip(".") else name
    fields = {"name": name, "stem": stem}
    # At once: the name may have a field in it itself.
    return _FIELD.sub(lambda found: fields.get(found[1], found[0]), template)


def size_by_name(template: str, name: str) -> int | None:
    """Return the number at the place of ``{size}`` in a name; None where the name is another."""
    found = _pattern(template).fullmatch(name)
    return None if found is None else int(found["size"])


class _Template(NamedTuple):
    """How companions or members are called, and of which files."""

    matches: re.Pattern[str]
    field: str
    """What the name tells of the other's: ``name``, ``stem``, or nothing."""
    asked: Criterion | Member
    suffix: str
    """Of the files, or one of theirs; empty where their pattern tells none."""
    number: int
    """Of the files' pattern; less than 0 where a watch asks."""

    def other(self, name: str) -> str | None:
        """Return the file that one called ``name`` stands beside; ``*`` for any, None for none."""
        found = self.matches.fullmatch(name)
        if found is None:
            return None
        if not self.field:
            return "*" + self.suffix
        other = found[self.field] + (self.suffix if self.field == "stem" else "")
        return other if other != name else None


class Companions:
    """Tells what stands beside another file from a file that is announced itself."""

    def __init__(
        self,
        patterns: Sequence[str],
        criteria: Sequence[Criteria | None],
        watches: Iterable[Watch],
        router: Router,
    ) -> None:
        self._router = router
        self._of_patterns: list[_Template] = []
        members: list[_Template] = []
        for number, (pattern, one) in enumerate(zip(patterns, criteria, strict=False)):
            if one is not None:
                self._of_patterns += _templates(_companions(one), pattern, number)
                members += _templates(one.members, pattern, number)
        self._members = _Names(members)
        self.ask_for(watches)

    def ask_for(self, watches: Iterable[Watch]) -> None:
        """Go by what these watches ask from now on, besides the patterns."""
        # The innermost last: it wins.
        around = sorted(watches, key=lambda watch: len(watch.path))
        self._watches = [(watch.prefix, watch.criteria) for watch in around]
        self._both: dict[tuple[int, str], Criteria] = {}
        """What both a pattern and a watch ask, by the pattern's number and the watch."""
        companions = dict.fromkeys(self._of_patterns)
        for _, one in self._watches:
            if one is not None:
                companions |= dict.fromkeys(_templates(_companions(one), "", -1))
        self._companions = _Names([*companions])

    def tells_of_another(self, path: str) -> bool:
        """Say whether the file at ``path`` is a companion."""
        for other, template in self._companions.beside(path):
            if self._is_main_file(path, other, template):
                continue
            criteria = self.criteria(other)
            if criteria is not None and template.asked in criteria.each:
                return True
        return False

    def main_files(self, path: str) -> list[str]:
        """Return the paths of the main files with which the file at ``path`` goes; mostly none.

        It goes with none whose pattern stands behind the first that matches the file itself, nor
        with what is a member as well. What that pattern matches goes with shorter names alone.
        """
        found: dict[str, None] = {}
        for other, template in self._members.beside(path):
            if self._router.position(other) != template.number:
                continue
            own = self._router.position(path)
            if own is not None and own < template.number:
                continue
            if self._is_main_file(path, other, template):
                continue
            if not self.is_ignored(other) and not self.main_files(other):
                found[other] = None
        return list(found)

    def _is_main_file(self, path: str, other: str, template: _Template) -> bool:
        """Say whether a pattern means a file itself, though it may be called after ``other``.

        Else each would go with the next: a with a.hdr, that with a.hdr.hdr, and so on.
        """
        if not template.field or len(other) < len(path):
            return False
        return self._router.position(path) == template.number

    def is_ignored(self, path: str) -> bool:
        """Say whether the file at ``path`` is never looked at, so that nothing comes of it."""
        return self._router.ignored(path[path.rfind("/") + 1 :], path)

    def criteria(self, path: str) -> Criteria | None:
        """Return what is asked of the file at ``path``: by its pattern, else by its watch."""
        found = self._router.criteria(path)
        if (found is None or not found.each) and self._watches:
            prefix, around = "", None
            for prefix_, criteria in self._watches:
                if path.startswith(prefix_):
                    prefix, around = prefix_, criteria
            if found is None or around is None:
                return found or around
            return self._joined(found, around, (self._router.position(path) or 0, prefix))
        return found

    def criteria_of_member(self, path: str, main_file: str) -> Criteria | None:
        """Return what is asked of the member of a set by itself; None for nothing.

        What the pattern of the set asks is about the main file, also where it matches both.
        """
        position, found = self._router.position(path), self._router.criteria(path)
        if found is not None and found.each and position == self._router.position(main_file):
            return None
        found = self.criteria(path)
        return replace(found, members=()) if found is not None and found.each else None

    def _joined(self, pattern: Criteria, watch: Criteria, key: tuple[int, str]) -> Criteria:
        """Return what is asked of a main file whose pattern leaves ``complete`` to its watch."""
        both = self._both.get(key)
        if both is None:
            both = replace(pattern, each=watch.each, marker_action=watch.marker_action)
            self._both[key] = both
        return both


class _Names:
    """The names of what stands beside others."""

    def __init__(self, templates: Sequence[_Template]) -> None:
        self._templates = templates
        # Most files end in none of these, and that is all that they pay.
        self._ends = tuple({_FIELD.split(_text(one.asked))[-1] for one in templates})

    def beside(self, path: str) -> Iterator[tuple[str, _Template]]:
        """Yield the paths beside which the one at ``path`` may stand."""
        if not path.endswith(self._ends):
            return
        cut = path.rfind("/") + 1
        for template in self._templates:
            other = template.other(path[cut:])
            if other is not None:
                yield path[:cut] + other, template


def _companions(criteria: Criteria) -> list[Criterion]:
    return list(filter(is_companion, criteria.each))


def _templates(
    asked: Iterable[Criterion | Member], pattern: str, number: int
) -> Iterator[_Template]:
    suffix = suffix_of(pattern) or example_suffix(pattern)
    for one in asked:
        text = _text(one)
        field = next(iter(_FIELD.findall(text)), "")
        yield _Template(_pattern(text), field, one, suffix, number)


def _text(asked: Criterion | Member) -> str:
    return asked.template if isinstance(asked, Member) else asked.argument


def _pattern(template: str) -> re.Pattern[str]:
    """Return what matches the names that a template makes, with its fields as groups."""
    parts, last = [], 0
    groups: set[str] = set()
    for found in _FIELD.finditer(template):
        parts.append(re.escape(template[last : found.start()]))
        digits = r"\d+" if found[1] == "size" else ".+"
        again = found[1] in groups
        parts.append(f"(?P={found[1]})" if again else f"(?P<{found[1]}>{digits})")
        groups.add(found[1])
        last = found.end()
    parts.append(re.escape(template[last:]))
    return re.compile("".join(parts), re.DOTALL)
