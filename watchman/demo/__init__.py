"""``notify demo``: the whole chain in a scratch directory, nothing to set up."""

from watchman.demo.demo import Demo

__all__ = ["Demo"]
