"""Patterns that are never reached, since one above them matches all that they match."""

from __future__ import annotations

import fnmatch
import re

_WILDCARD = re.compile(r"\*|\?|\[!?\]?[^\]]*\]")
_ANYTHING = "\ufdd0"
"""Stands for what a wildcard matches. No character: no pattern has it, so only a star covers it."""
_MOST = 300
"""Patterns with stars that each further one is held against."""


class Shadows:
    """The patterns so far, in their order."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._stars: list[tuple[str, re.Pattern[str]]] = []

    def above(self, pattern: str) -> str | None:
        """Return a pattern above this one that certainly covers it; None if there is none known.

        One whose only wildcard is the star covers whatever it matches when each wildcard of the
        other is taken for one unknown character: only its stars can have matched that, and stars
        match anything.
        """
        found = self.covering(pattern)
        self._seen.add(pattern)
        if not re.search(r"[?\[]", pattern) and "*" in pattern and len(self._stars) < _MOST:
            self._stars.append((pattern, re.compile(fnmatch.translate(pattern))))
        return found

    def covering(self, pattern: str) -> str | None:
        """Return the same without putting this one among the others."""
        if pattern in self._seen:
            return pattern
        example = _WILDCARD.sub(_ANYTHING, pattern)
        return next((text for text, regex in self._stars if regex.match(example)), None)
