"""What ``notify check`` and ``notify match`` tell: plain records, which commands print."""

from watchman.checks.matching import Match, RouteTarget, match
from watchman.checks.report import check
from watchman.checks.result import Check

__all__ = ["Check", "Match", "RouteTarget", "check", "match"]
