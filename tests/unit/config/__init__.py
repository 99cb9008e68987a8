"""Tests of watchman.config."""
