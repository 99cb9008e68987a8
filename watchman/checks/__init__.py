"""What ``notify check`` and ``notify match`` tell: plain records, which cli prints."""

from watchman.checks.matching import Match, Target, match
from watchman.checks.record import Check
from watchman.checks.report import check

__all__ = ["Check", "Match", "Target", "check", "match"]
