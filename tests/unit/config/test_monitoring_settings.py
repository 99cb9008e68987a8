"""METRICS_FILE and the hooks: what a configuration may say, and what is said of mistakes."""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import Site
from watchman.masking import mask

BASE = """
BROKERS = {'import': 'amqp://host//'}
WATCHES = [{'path': '$D/ftp', 'rec': True}]
PATTERNS = [('*', {'broker': 'import', 'task': 't'})]
"""
REMEDY = (
    "; write a list of arguments such as ['/usr/bin/mail', 'root'], a URL such as "
    "'https://host/path', a function, or its dotted path"
)


def test_nothing_is_told_to_anybody_unless_it_is_set(site: Site) -> None:
    found = site.load(BASE + "ON_FAILED = None\n")
    assert (found.hooks, found.metrics_file) == ({}, "")


def test_each_kind_of_hook(site: Site) -> None:
    site.write("def told(event): pass\n", "alerts.py")
    found = site.load(
        BASE
        + "def own(event): pass\n"
        + "ON_FAILED = ('mail', '-s', '', 'root')\n"
        + "ON_TROUBLE = 'https://u:sesame@host:8443/x?token=swordfish'\n"
        + "ON_RECOVERED = 'alerts.told'\n"
    )
    failed, trouble, recovered = (
        found.hooks[f"ON_{x}"] for x in ("FAILED", "TROUBLE", "RECOVERED")
    )
    assert failed.command == ("mail", "-s", "", "root")
    assert failed.name == "the command mail"
    assert trouble.url == "https://u:sesame@host:8443/x?token=swordfish"
    assert trouble.name == "https://**@host:8443/x?token=**"
    assert "sesame" not in mask("could not log in with sesame")
    assert recovered.function.__name__ == "told"
    assert recovered.name == "the function alerts.told"
    own = site.load(BASE + "def own(event): pass\nON_TROUBLE = own\n").hooks["ON_TROUBLE"]
    assert (own.name, callable(own.function)) == ("the function own", True)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ON_FAILED = 5", "ON_FAILED: 5 cannot be called"),
        ("ON_FAILED = {}", "ON_FAILED: {} cannot be called"),
        ("ON_FAILED = []", "ON_FAILED: is no list of texts, the first of them a program"),
        ("ON_FAILED = ['a', 5]", "ON_FAILED: is no list of texts, the first of them a program"),
        ("ON_FAILED = ['a\\0']", "ON_FAILED: is no list of texts, the first of them a program"),
        ("ON_FAILED = ['', 'a']", "ON_FAILED: is no list of texts, the first of them a program"),
        ("ON_TROUBLE = ''", "ON_TROUBLE: '': is no dotted path"),
        ("ON_TROUBLE = 'mail root'", "ON_TROUBLE: 'mail root': no module is named"),
        (
            "ON_TROUBLE = 'nowhere.at_all'",
            "ON_TROUBLE: 'nowhere.at_all': ModuleNotFoundError: No module named 'nowhere'",
        ),
        ("ON_TROUBLE = 'os.nothing'", "ON_TROUBLE: 'os.nothing': module os has no 'nothing'"),
        ("ON_TROUBLE = 'os.sep'", "ON_TROUBLE: 'os.sep' cannot be called"),
        (
            "ON_RECOVERED = 'ftp://u:sesame@host/'",
            "ON_RECOVERED: 'ftp://**@host/' is no URL of http or https",
        ),
        (
            "ON_RECOVERED = 'u:sesame@host'",
            "ON_RECOVERED: '**@host': ModuleNotFoundError: No module named 'u'",
        ),
        ("ON_RECOVERED = 'http://'", "ON_RECOVERED: 'http://' is no URL of http or https"),
        (
            "ON_RECOVERED = 'http://host:x/'",
            "ON_RECOVERED: 'http://host:x/' is no URL of http or https",
        ),
        (
            "ON_RECOVERED = 'http://host/\\nX: y'",
            "ON_RECOVERED: 'http://host/\\nX: y' is no URL of http or https",
        ),
    ],
)
def test_mistakes_in_hooks(site: Site, line: str, problem: str) -> None:
    assert site.problems(BASE + line + "\n") == [problem + REMEDY]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("METRICS_FILE = 5", "METRICS_FILE: 5 is no path; write METRICS_FILE = '/the/path'"),
        (
            "METRICS_FILE = '$D/ftp/x.prom'",
            "METRICS_FILE: $D/ftp/x.prom lies in the watched directory $D/ftp; "
            "choose a place outside of it",
        ),
        (
            "METRICS_FILE = '/var/x.txt'",
            "METRICS_FILE: '/var/x.txt' does not end in .prom, and node_exporter reads nothing "
            "else; write METRICS_FILE = '/var/lib/prometheus/node-exporter/watchman.prom'",
        ),
        ("METRICS_FIEL = 'x.prom'", "METRICS_FIEL: unknown setting; write METRICS_FILE, "
         "or give it a name less like it"),
    ],
)  # fmt: skip
def test_mistakes_in_the_file(site: Site, line: str, problem: str) -> None:
    assert site.problems(BASE + line + "\n") == [problem]


def test_a_relative_file_is_beside_the_configuration(site: Site) -> None:
    found = site.load(BASE + "METRICS_FILE = 'out/watchman.prom'\n")
    assert found.metrics_file == str(site.root / "out/watchman.prom")
