"""What ``notify check`` and ``notify match`` tell: plain records, which cli prints."""

from watchman.checks.matching import Match, match
from watchman.checks.report import Check, check

__all__ = ["Check", "Match", "check", "match"]
