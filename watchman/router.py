"""Which task a path gets, where its file goes, and whether it is looked at at all.

Pure: no input or output. Everything is an ``fnmatch.fnmatchcase`` on a whole path or name.

``route`` is asked for every file, at many thousand files a second, and most configurations have
patterns like ``/srv/ftp/*.csv``, which a file's directory and extension decide alone. So the
answer is worked out once for each directory and extension and remembered as a :class:`_Plan`:
the patterns that depend on the rest of the name, then the first one that certainly matches.
"""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from watchman.ignored_names import FOR_FILES
from watchman.model import Criteria, Move, Route

_NOT_STAR = re.compile(r"\?|\[!?\]?[^\]]*\]")
_REMEMBERED = 4096  # pairs of directory and extension at a time, and directories
_STAYS = (None, None)
_GRAM = 3
_FEW = 8
"""Up to so many open patterns are tried in turn; more are looked up by what the name contains."""


class Router:
    """Answers for one configuration. ``moves`` (source, destination root) come in any order."""

    def __init__(
        self,
        patterns: Sequence[tuple[str, Route]],
        moves: Sequence[tuple[str, str]] = (),
        ignore: Sequence[str] = (),
        dry_run: Sequence[str] = (),
        criteria: Sequence[Criteria | None] = (),
    ) -> None:
        self._patterns = tuple(_Pattern(text) for text, _ in patterns)
        self._routes = tuple(route for _, route in patterns)
        self._criteria = tuple(criteria)
        self._extensions = frozenset(p.extension for p in self._patterns) - {""}
        self._last: tuple[str | None, int | None] = (None, None)
        """What was answered last: of one file, several things are asked in a row."""
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._lookups: dict[tuple[_Open, ...], _Lookup] = {}
        self._moves = sorted(
            ((_slashed(source), _slashed(root), Move(source, root)) for source, root in moves),
            key=lambda move: -len(move[0]),
        )
        self._targets: dict[str, tuple[str, Move] | None] = {}
        names = [p for p in ignore if "/" not in p]
        self._ignored_name = _matcher([p for p in names if p not in FOR_FILES])
        self._ignored_file = _matcher([p for p in names if p in FOR_FILES])
        self._ignored_first, self._ignored_ends = _hints_of(names)
        self._ignored_path = _matcher([p for p in ignore if "/" in p])
        self._dry_run = _matcher(dry_run)
        self.only_tells = "*" in dry_run
        """Whether nothing at all is moved or sent."""

    def route(self, path: str) -> Route | None:
        """Return the route of the first pattern that matches the whole of ``path``."""
        number = self._first(path)
        return None if number is None else self._routes[number]

    def position(self, path: str) -> int | None:
        """Return the number of the first pattern that matches ``path``; they begin at 0."""
        return self._first(path)

    def pattern(self, path: str) -> str | None:
        """Return the text of the first pattern that matches ``path``."""
        number = self._first(path)
        return None if number is None else self._patterns[number].text

    def criteria(self, path: str) -> Criteria | None:
        """Return what the first pattern that matches ``path`` asks of the file."""
        number = self._first(path) if self._criteria else None
        return None if number is None else self._criteria[number]

    def destination(self, path: str) -> str | None:
        """Return where the file at ``path`` is to be moved, or None where it stays."""
        return self.move(path)[0]

    def move(self, path: str) -> tuple[str | None, Move | None]:
        """Return where the file at ``path`` is to be moved, and by which MOVES entry, if it is.

        The longest source wins, by path component: ``SRC/a/f`` goes to ``DST/a/f``; ``SRC2/f``
        stays.
        """
        if not self._moves:
            return _STAYS
        cut = path.rfind("/") + 1
        directory = path[:cut]
        try:
            target = self._targets[directory]
        except KeyError:
            target = self._target(directory)
        return _STAYS if target is None else (target[0] + path[cut:], target[1])

    def is_wanted(self, path: str) -> bool:
        """Say whether what arrives at ``path`` is moved or gets a task."""
        return self.route(path) is not None or self.destination(path) is not None

    def ignored(self, name: str, path: str | None = None, *, directory: bool = False) -> bool:
        """Say whether an entry of that name is never looked at.

        Patterns without a slash are matched on the name, the others on the whole ``path``. Those
        of FOR_FILES are left out for a ``directory``, and for files their case does not matter.
        """
        lower = name.lower()
        if lower[:1] in self._ignored_first or lower.endswith(self._ignored_ends):
            if self._ignored_name is not None and self._ignored_name(name):
                return True
            if not directory and self._ignored_file is not None and self._ignored_file(lower):
                return True
        return self._ignored_path is not None and path is not None and self._ignored_path(path)

    def is_dry_run(self, path: str) -> bool:
        """Say whether the file at ``path`` is logged, but neither moved nor sent."""
        return self._dry_run is not None and self._dry_run(path)

    def _first(self, path: str) -> int | None:
        last, found = self._last
        if path == last:
            return found
        cut = path.rfind("/") + 1
        name = path[cut:]
        extension = name[name.rfind(".") :]
        if extension not in self._extensions:
            extension = ""
        plan = self._plans.get((path[:cut], extension))
        if plan is None:
            plan = self._plan(path[:cut], extension)
        number = plan.try_open(name, path) if plan.open else None
        number = plan.certain if number is None else number
        self._last = path, number
        return number

    def _target(self, directory: str) -> tuple[str, Move] | None:
        found = None
        for source, root, move in self._moves:
            if directory.startswith(source):
                found = root + directory[len(source) :], move
                break
        if len(self._targets) >= _REMEMBERED:
            self._targets.clear()
        self._targets[directory] = found
        return found

    def _plan(self, directory: str, extension: str) -> _Plan:
        open_: list[_Open] = []
        certain = None
        for number, pattern in enumerate(self._patterns):
            verdict = pattern.judge(directory, extension)
            if verdict is True:
                certain = number
                break
            if verdict is not False:
                open_.append(_Open(number, verdict, pattern.match))
        if len(self._plans) >= _REMEMBERED:
            self._plans.clear()
            self._lookups.clear()
        several = tuple(open_)
        lookup = self._lookups.get(several)  # shared by directories with the same open patterns
        if lookup is None and len(several) > _FEW:
            lookup = self._lookups[several] = _make_lookup(several)
        plan = self._plans[directory, extension] = _Plan(several, certain, lookup)
        return plan


class _Open(NamedTuple):
    """A pattern of which directory and extension do not tell whether it matches."""

    number: int
    needed: str  # in the file's name
    match: Callable[[str], object]


class _Lookup(NamedTuple):
    """Many open patterns by a piece of what each needs."""

    always: tuple[_Open, ...]
    """Those that need too little to be looked up."""
    by_gram: Mapping[str, tuple[_Open, ...]]


class _Plan(NamedTuple):
    """What is left to do for a path in one directory, with one extension."""

    open: tuple[_Open, ...]
    """To be tried first, in this order."""
    certain: int | None
    """The first pattern that matches whatever the rest of the name is."""
    lookup: _Lookup | None

    def try_open(self, name: str, path: str) -> int | None:
        """Return the number of the first of them that matches."""
        candidates: Iterable[_Open] = self.open
        if self.lookup is not None:
            always, by_gram = self.lookup
            candidates = always
            hits: list[_Open] = []
            for start in range(len(name) - _GRAM + 1):
                gram = name[start : start + _GRAM]
                if gram in by_gram:
                    hits += by_gram[gram]
            if hits:
                candidates = sorted({*hits, *always}, key=attrgetter("number"))
        for number, needed, match in candidates:
            if needed in name and match(path):
                return number
        return None


class _Pattern:
    """One pattern, taken apart at its stars.

    ``?`` and ``[…]`` are read as stars here: what must hold for the wider pattern must hold for
    the pattern itself. Only the regular expression, ``match``, is asked for the exact answer.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.match = re.compile(fnmatch.translate(text)).match
        wider = _NOT_STAR.sub("*", text)
        self.head, *middles = wider.split("*")
        """Every path that matches starts with the head …"""
        self.tail = middles.pop() if middles else self.head
        """… ends with the tail …"""
        self.middles = [middle for middle in middles if middle]
        """… and has these between them, in this order."""
        # A tail that ends in a slash asks for an empty name, which `judge` cannot tell.
        self.exact = wider == text and "*" in text and not self.tail.endswith("/")
        name = self.tail[self.tail.rfind("/") + 1 :]
        self.extension = name[name.rfind(".") :] if "." in name else ""

    def judge(self, directory: str, extension: str) -> bool | str:
        """Say whether every (True) or no (False) path of that kind matches.

        ``directory`` ends with a slash (or is empty); ``extension`` is the name's last one, or
        empty if no pattern ends with it. Where the rest of the name decides, return what that
        name must at least contain (it may be nothing: an empty string).
        """
        needed = self._judge_ends(directory, extension)
        if needed is not None and self.middles:
            rest = self._judge_middles(directory)
            needed = None if rest is None else max(needed, rest, key=len)
        if needed is None:
            return False
        return needed if needed or not self.exact else True

    def _judge_ends(self, directory: str, extension: str) -> str | None:
        """Return what head and tail need in the name; None if they cannot be there."""
        needed = ""
        if len(self.head) > len(directory):
            needed = self.head[len(directory) :]
            if not self.head.startswith(directory) or "/" in needed:
                return None
        elif not directory.startswith(self.head):
            return None
        if len(self.tail) <= len(extension):
            return needed if extension.endswith(self.tail) else None
        cut = self.tail.rfind("/") + 1
        if self.extension != extension or not directory.endswith(self.tail[:cut]):
            return None
        return max(needed, self.tail[cut:], key=len)

    def _judge_middles(self, directory: str) -> str | None:
        """Find the middles in the directory, each as far left as possible.

        The first that is not there must end in the name, and all that follow be in it. Return
        the longest of these, or None where one of them would need a slash in the name.
        """
        position = len(self.head)
        for number, middle in enumerate(self.middles):
            found = directory.find(middle, position)
            if found < 0:
                cut = middle.rfind("/") + 1
                if cut and not directory.endswith(middle[:cut], position):
                    return None
                left = [middle[cut:], *self.middles[number + 1 :]]
                return None if not left[0] or "/" in "".join(left) else max(left, key=len)
            position = found + len(middle)
        return ""


def _make_lookup(open_: Iterable[_Open]) -> _Lookup:
    """Index each pattern under the rarest of the pieces of what it needs."""
    grams = {
        item: [item.needed[at : at + _GRAM] for at in range(len(item.needed) - _GRAM + 1)]
        for item in open_
    }
    frequency = Counter(gram for pieces in grams.values() for gram in set(pieces))
    by_gram: dict[str, tuple[_Open, ...]] = {}
    for item, pieces in grams.items():
        if pieces:
            rarest = min(pieces, key=frequency.__getitem__)
            by_gram[rarest] = (*by_gram.get(rarest, ()), item)
    return _Lookup(tuple(item for item in grams if not grams[item]), by_gram)


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool] | None:
    """Return a test for "any of them matches", quick to say no; None if there are none.

    Most names are ruled out by their first character and their end, without a regular expression.
    """
    if not patterns:
        return None
    parts = [(text, _Pattern(text)) for text in patterns]
    by_first = [text for text, part in parts if part.head]
    by_end = [text for text, part in parts if not part.head and part.tail]
    others = [text for text, part in parts if not part.head and not part.tail]
    first = frozenset(part.head[0] for _, part in parts if part.head)
    ends = tuple(part.tail for _, part in parts if not part.head and part.tail)
    match_first, match_end, match_others = _any(by_first), _any(by_end), _any(others)

    def matches(text: str) -> bool:
        if text[:1] in first and match_first(text):
            return True
        if ends and text.endswith(ends) and match_end(text):
            return True
        return bool(others) and match_others(text) is not None

    return matches


def _hints_of(patterns: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Return first characters and ends, in lower case: a name that matches has one of them.

    "" among the ends, which every name has, where a pattern has neither.
    """
    parts = [_Pattern(text) for text in patterns]
    first = frozenset(part.head[0].lower() for part in parts if part.head)
    ends = tuple(part.tail.lower() for part in parts if not part.head)
    # What other letters become in lower case depends on their neighbours.
    return first, ends if all(part.text.isascii() for part in parts) else ("",)


def _any(patterns: Sequence[str]) -> Callable[[str], Any]:
    return re.compile("|".join(map(fnmatch.translate, patterns))).match


def _slashed(path: str) -> str:
    return path.rstrip("/") + "/"
