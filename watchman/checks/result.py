"""The record that every check returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """What one thing was found to be."""

    subject: str
    ok: bool
    detail: str
    remedy: str = ""
    """What to do about it; empty where nothing needs to be done. Where it is ``ok``: advice."""
