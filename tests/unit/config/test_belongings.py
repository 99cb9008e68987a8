"""A configuration's receivers, modules and loggers, while it is in force and afterwards."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator

import pytest

from tests.unit.config.conftest import Site
from watchman import config, signals
from watchman.config import belongings, config_file
from watchman.errors import ConfigError
from watchman.model import Config

WATCHES = "WATCHES = [{'path': '$D/ftp'}]\n"
CALLS: list[str] = []
RECEIVER = """
from watchman import signals
from tests.unit.config.test_belongings import CALLS
@signals.arrived.connect
def _(sender, **_):
    CALLS.append(WORD)
"""


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    before = signals.arrived.receivers.copy()
    CALLS.clear()
    yield
    belongings.loading(["/"], ())  # as the next one does: modules step aside
    belongings.adopt(None)
    assert signals.arrived.receivers == before


def called() -> list[str]:
    CALLS.clear()
    signals.arrived.send("")
    return sorted(CALLS)


def adopted(site: Site, text: str) -> Config:
    loaded = site.load(WATCHES + text)
    config.adopt(loaded)
    return loaded


def test_receivers_do_not_multiply(site: Site) -> None:
    for number in range(4):
        adopted(site, f"WORD = 'w{number}'\n" + RECEIVER)
        gc.collect()
        assert called() == [f"w{number}"]
    adopted(site, "")
    assert called() == []


def test_receivers_live_as_long_as_their_configuration(site: Site) -> None:
    site.write("WORD = 'beside'\n" + RECEIVER, "beside.py")
    loaded = adopted(site, "import beside\nWORD = 'own'\n" + RECEIVER)
    gc.collect()
    assert called() == ["beside", "own"]
    assert loaded.warnings


@pytest.mark.parametrize("wrong", ["1 / 0", "HISTORY_DAYS = 0", "import no_such_module"])
def test_a_mistake_leaves_what_is_in_force(site: Site, wrong: str) -> None:
    site.write("WORD = 'old'\n", "beside.py")
    adopted(site, "from beside import WORD\n" + RECEIVER)
    old = sys.modules["beside"]
    site.write("WORD = 'new'\n", "beside.py")
    with pytest.raises(ConfigError):
        site.load(WATCHES + "from beside import WORD\n" + RECEIVER + wrong)
    gc.collect()
    assert called() == ["old"]
    assert sys.modules["beside"] is old


def test_one_that_is_rejected(site: Site) -> None:
    adopted(site, "WORD = 'old'\n" + RECEIVER)
    config.reject(site.load(WATCHES + "WORD = 'new'\n" + RECEIVER))
    assert called() == ["old"]


def test_one_that_was_loaded_and_not_used(site: Site) -> None:
    """``start`` loads it once to look at it, and once more in the daemon."""
    site.load(WATCHES + "WORD = 'first'\n" + RECEIVER)
    adopted(site, "WORD = 'second'\n" + RECEIVER)
    assert called() == ["second"]


def test_receivers_of_others_stay(site: Site) -> None:
    def mine(_: object) -> None:
        CALLS.append("mine")

    signals.arrived.connect(mine)
    try:
        adopted(site, "WORD = 'w'\n" + RECEIVER)
        adopted(site, "")
        assert called() == ["mine"]
    finally:
        signals.arrived.disconnect(mine)


def test_packages_without_init_and_modules_imported_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two versions of one size within a second have one cache file.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (site.root / "spaced").mkdir()
    for number in (1, 2):
        site.write(f"WORD = {number}\n", "spaced/inner_site.py")
        site.write(f"WORD = {number}\n", "later_site.py")
        adopted(site, "import spaced.inner_site\n")
        assert number == sys.modules["spaced.inner_site"].WORD
        import later_site  # type: ignore[import-not-found]  # — beside the configuration

        assert number == later_site.WORD
    adopted(site, "")
    assert not {"spaced", "spaced.inner_site", "later_site"} & sys.modules.keys()


LOGGING = """
LOGGING = {'version': 1, 'handlers': {'f': {'class': 'logging.FileHandler', 'filename': FILE}},
           'filters': {'none': {'name': 'nobody'}}, %s}
"""
ONE = "'loggers': {'site': {'handlers': ['f'], 'level': 'DEBUG', 'propagate': False}}"


@pytest.fixture
def site_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    site = logging.getLogger("site")
    yield site
    made = [one for one in (*root.handlers, *site.handlers) if one not in before]
    root.handlers[:] = before
    root.setLevel(level)
    site.handlers.clear()
    for handler in made:
        handler.close()


def test_loggers_of_an_earlier_configuration(site: Site, site_logger: logging.Logger) -> None:
    text = WATCHES + "FILE = '$D/log'\n"
    config.apply_logging(site.load(text + LOGGING % ONE))
    assert (len(site_logger.handlers), site_logger.propagate) == (1, False)
    gc.collect()  # nothing but the logger holds the handler now
    config.apply_logging(site.load(text + LOGGING % "'root': {'level': 'INFO', 'handlers': ['f']}"))
    assert (site_logger.handlers, site_logger.propagate) == ([], True)
    assert site_logger.level == logging.NOTSET


def test_logging_goes_on_as_before_after_a_mistake(site: Site, site_logger: logging.Logger) -> None:
    config.apply_logging(site.load(WATCHES + "FILE = '$D/log'\n" + LOGGING % ONE))
    with pytest.raises(ConfigError, match="LOGGING"):
        config.apply_logging(site.load(WATCHES + "FILE = '$D/no/log'\n" + LOGGING % ONE))
    site_logger.warning("still there")
    assert "still there" in (site.root / "log").read_text()


def test_a_configuration_in_a_package_finds_that_and_its_neighbours(site: Site) -> None:
    package = site.root / "project/settings"
    package.mkdir(parents=True)
    for directory in (package.parent, package):
        (directory / "__init__.py").touch()
    site.write("WORD = 'first'\n", "project/words.py")
    site.write("WORD = 'next to it'\n", "beside_project.py")
    text = "from project.words import WORD as a\n"
    text += "from beside_project import WORD as b\nWORD = a + b\n"
    path = site.write(WATCHES + text + RECEIVER, "project/settings/watcher.py")
    config.adopt(config.load(str(path), environ={}))
    assert called() == ["firstnext to it"]
    # Of another size: within a second, that alone tells Python that a module has changed.
    site.write("WORD = 'the second'\n", "project/words.py")
    config.adopt(config.load(str(path), environ={}))
    assert called() == ["the secondnext to it"]
    belongings.loading(["/"], ())
    belongings.adopt(None)
    assert "project.words" not in sys.modules
    assert "beside_project" not in sys.modules
    assert str(site.root) not in sys.path


def test_what_is_installed_belongs_to_no_configuration(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.root / "installed").mkdir()
    (site.root / "installed/__init__.py").touch()
    monkeypatch.setattr(config_file, "_PATH", frozenset([str(site.root)]))
    assert config_file.importable(str(site.root / "installed")) == (str(site.root / "installed"),)
