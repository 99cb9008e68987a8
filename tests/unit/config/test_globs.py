"""``do_glob``: what matches, where uploaders may make symlinks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.config.conftest import Site
from watchman.config.globs import Memory, expand, expand_again
from watchman.model import Watch


def matching(pattern: str) -> list[str]:
    return [watch.path for watch in expand((), [Watch(pattern, pattern=pattern)]).watches]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["[b]", "a", "c"]),
        ("?", ["a", "c"]),
        (".*", [".hidden"]),
        ("[[]b]", ["[b]"]),
        ("*/in", ["a/in", "c/in"]),
        ("a/*", ["a/in"]),
        ("a/i[n]/*", ["a/in/below"]),
        ("*/file/*", []),
        ("a", ["a"]),
        ("missing", []),
        ("missing/*", []),
    ],
)
def test_directories_that_match(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in ("a/in/below", "c/in", "[b]", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a/file").touch()
    assert matching(f"{tmp_path}/{pattern}") == [f"{tmp_path}/{name}" for name in expected]


def test_from_the_first_wildcard_on_no_symlink_matches(tmp_path: Path) -> None:
    (tmp_path / "outside/in").mkdir(parents=True)
    (tmp_path / "up/good/in").mkdir(parents=True)
    (tmp_path / "up/last").mkdir()
    (tmp_path / "up/evil").symlink_to(tmp_path / "outside")
    (tmp_path / "up/last/in").symlink_to(tmp_path / "outside/in")
    assert matching(f"{tmp_path}/up/*") == [f"{tmp_path}/up/good", f"{tmp_path}/up/last"]
    assert matching(f"{tmp_path}/up/*/in") == [f"{tmp_path}/up/good/in"]
    assert matching(f"{tmp_path}/up/*/*") == [f"{tmp_path}/up/good/in"]


def test_before_the_first_wildcard_symlinks_are_the_configuration_s(tmp_path: Path) -> None:
    (tmp_path / "disk/a").mkdir(parents=True)
    (tmp_path / "up").symlink_to(tmp_path / "disk")
    assert matching(f"{tmp_path}/up/*") == [f"{tmp_path}/up/a"]
    assert matching(f"{tmp_path}/up") == [f"{tmp_path}/up"]


@pytest.mark.parametrize(
    ("pattern", "top"),
    [
        ("/up/*", "/up"),
        ("/up/a*/in", "/up"),
        ("/up/a/[bc]/in", "/up/a"),
        ("/?", "/"),
        ("/up/plain", "/up/plain"),
    ],
)
def test_the_directory_from_which_on_no_symlink_is_followed(pattern: str, top: str) -> None:
    assert Watch("/what/matches", pattern=pattern).top == top
    assert Watch(pattern).top == pattern


def test_the_directory_of_the_configuration_is_left_out(site: Site) -> None:
    loaded = site.load("WATCHES = [{'path': '$D*', 'do_glob': True}]\nSTATE_DIR = '/var/lib/x'")
    assert loaded.watches == ()
    why = f"{site.root} matches {site.root}* and is left out: the configuration lies there"
    assert f"WATCHES: {why}" in loaded.warnings


def test_what_was_left_out_is_remembered_as_long_as_it_is_there(site: Site) -> None:
    glob = {"path": f"{site.ftp}/*/in", "do_glob": True, "rec": True}
    around = {"path": f"{site.ftp}/a", "rec": True}
    (site.ftp / "b/in").mkdir(parents=True)
    config = site.load(f"WATCHES = [{around!r}, {glob!r}]")
    memory = Memory()
    for number in range(3):  # who makes and removes them may be an uploader
        left_out = site.ftp / "a" / "in"
        left_out.mkdir(parents=True, exist_ok=True)
        fresh, _ = expand_again(config, memory)
        assert f"{left_out} matches" in fresh.warnings[-1], number
        assert expand_again(config, memory) == (config, {})  # said once
        left_out.rmdir()
        assert expand_again(config, memory) == (config, {})
        assert not memory.left_out
        assert memory.devices.keys() == {f"{site.ftp}/b/in"}
