"""celeryconfig.py passes through, but for what would redirect tasks or what Celery refuses."""

from __future__ import annotations

import pytest

from tests.unit.config.conftest import Site
from watchman.config.celerysettings import new_name

GOOD = "WATCHES = [{'path': '$D/ftp'}]\nPATTERNS = []\n"
IGNORED = "is ignored; the brokers are those of BROKERS in config.py"


def test_without_it(site: Site) -> None:
    assert site.load(GOOD).celery == {}


@pytest.mark.parametrize(
    "text",
    [
        "CELERYD_HIJACK_ROOT_LOGGER = False\nCELERY_TASK_SERIALIZER = 'json'\nCELERY_IMPORTS = ()",
        "worker_hijack_root_logger = False\ntask_routes = {'a': 'b'}\nimports = ('x',)",
        "my_helper = 5\nSOMETHING = object",
        "CELERY_ROUTES = {}\ntask_routes = {}",
        "task_prefix = 'lizard.'\nCELERY_ROUTES = {task_prefix + 'a': {'queue': 'b'}}",
    ],
)
def test_settings_pass_through_by_their_names(site: Site, text: str) -> None:
    site.write(text, "celeryconfig.py")
    loaded = site.load(GOOD)
    expected: dict[str, object] = {}
    exec(text, expected)  # noqa: S102 — the text above
    del expected["__builtins__"]
    assert loaded.celery == expected
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    "name",
    [
        *("BROKER_URL", "broker_url", "CELERY_BROKER_URL", "broker_read_url", "BROKER_WRITE_URL"),
        *("BROKER_HOST", "broker_transport"),
    ],
)
def test_a_broker_is_dropped_and_said_so(site: Site, name: str) -> None:
    site.write(f"{name} = 'amqp://u:sesame@elsewhere//'\nCELERY_ROUTES = {{}}", "celeryconfig.py")
    loaded = site.load(GOOD)
    assert loaded.celery == {"CELERY_ROUTES": {}}
    assert loaded.warnings == (f"celeryconfig.py: {name} {IGNORED}",)


@pytest.mark.parametrize(
    "name", ["CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"]
)
def test_a_broker_in_the_environment_is_said_to_be_ignored(site: Site, name: str) -> None:
    loaded = site.load(GOOD, None, **{name: "amqp://u:sesame@elsewhere//"})
    assert loaded.warnings == (f"environment: {name} {IGNORED}",)


def test_other_settings_about_brokers_stay(site: Site) -> None:
    site.write("broker_heartbeat = 10\nbroker_transport_options = {}", "celeryconfig.py")
    assert site.load(GOOD).celery == {"broker_heartbeat": 10, "broker_transport_options": {}}


def test_a_mixture_of_old_and_new_names(site: Site) -> None:
    site.write("CELERY_ROUTES = {}\nCELERYD_POOL = ''\ntask_serializer = 'json'", "celeryconfig.py")
    assert site.problems(GOOD) == [
        "celeryconfig.py: old setting names are mixed with new ones (task_serializer), "
        "which Celery refuses; write worker_pool for CELERYD_POOL, task_routes for CELERY_ROUTES"
    ]


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (
            "CELERY_TASK_ROUTES = {'t': 'q'}\nCELERY_TASK_SERIALIZER = 'json'\n",
            {"task_routes": {"t": "q"}, "task_serializer": "json"},
        ),
        (
            "CELERY_TASK_DEFAULT_QUEUE = 'q'\nCELERYD_POOL = 'solo'\nhelper = 1\n",
            {"task_default_queue": "q", "worker_pool": "solo", "helper": 1},
        ),
        (
            "CELERY_TASK_ROUTES = {'t': 'old'}\ntask_routes = {'t': 'new'}\n",
            {"task_routes": {"t": "new"}},
        ),
        (
            "CELERY_ENABLE_UTC = False\nCELERY_BROKER_TRANSPORT_OPTIONS = {}\n",
            {"enable_utc": False, "broker_transport_options": {}},
        ),
    ],
)
def test_new_names_with_a_name_space(site: Site, text: str, settings: dict[str, object]) -> None:
    site.write(text, "celeryconfig.py")
    loaded = site.load(GOOD)
    assert loaded.celery == settings
    assert loaded.warnings == ()


def test_a_broker_in_a_name_space_is_dropped(site: Site) -> None:
    site.write("CELERY_BROKER_URL = 'amqp://u:sesame@h'", "celeryconfig.py")
    loaded = site.load(GOOD)
    assert loaded.celery == {}
    assert "sesame" not in "".join(loaded.warnings)


ROUTER = """
class MyRouter:
    def route_for_task(self, *_, **__):
        return {'queue': 'fast'}
"""


@pytest.mark.parametrize("name", ["CELERY_ROUTES", "task_routes", "CELERY_TASK_ROUTES"])
@pytest.mark.parametrize("value", ["('routers_site.MyRouter',)", "'routers_site.MyRouter'"])
def test_a_router_beside_the_configuration(site: Site, name: str, value: str) -> None:
    site.write(ROUTER, "routers_site.py")
    site.write(f"{name} = {value}", "celeryconfig.py")
    loaded = site.load(GOOD)
    import routers_site  # type: ignore[import-not-found]  # — as Celery does when it sends

    assert routers_site.MyRouter().route_for_task("t") == {"queue": "fast"}
    assert not (site.root / "__pycache__").exists()
    assert list(loaded.celery.values()) in [["routers_site.MyRouter"], [("routers_site.MyRouter",)]]


def test_a_router_that_cannot_be_imported(site: Site) -> None:
    site.write("task_routes = ['nowhere_site.Router', {'t': 'q'}]", "celeryconfig.py")
    assert site.problems(GOOD) == [
        "celeryconfig.py: task_routes: the router 'nowhere_site.Router' cannot be imported "
        "(ModuleNotFoundError: No module named 'nowhere_site'); "
        "write 'module.Router', importable from beside the configuration"
    ]


def test_its_mistakes_are_told_like_those_of_the_configuration(site: Site) -> None:
    site.write("x = 1\nBROKER = nonsense\n", "celeryconfig.py")
    assert site.problems("WATCHES = 5") == [
        "WATCHES: 5 is no list; "
        "write WATCHES = [{'path': '/srv/ftp', 'rec': True, 'auto_add': True}]",
        "celeryconfig.py, line 2: NameError: name 'nonsense' is not defined; correct this line",
    ]


def test_the_renames_are_celery_s() -> None:
    defaults = pytest.importorskip("celery.app.defaults")
    renames = dict(defaults._TO_NEW_KEY)
    assert len(renames) > 150
    assert {old: new_name(old) for old in renames} == renames


@pytest.mark.parametrize(
    "text",
    [
        "CELERY_ROUTES = {}\ntask_serializer = 'json'",
        "CELERY_ROUTES = {}\ntask_routes = {}",
        "CELERY_TASK_ROUTES = {}\ntask_serializer = 'json'",
        "CELERYD_POOL = ''\nCELERYBEAT_SCHEDULE = {}",
        "BROKER_HEARTBEAT = 1\nworker_pool = ''",
        "timezone = 'UTC'\nCELERY_ENABLE_UTC = True",
    ],
)
def test_what_celery_refuses_is_refused(site: Site, text: str) -> None:
    utils = pytest.importorskip("celery.app.utils")
    from celery.exceptions import ImproperlyConfigured

    settings: dict[str, object] = {}
    exec(text, settings)  # noqa: S102 — the text above
    try:
        utils.detect_settings(settings)
        refused = False
    except ImproperlyConfigured:
        refused = True
    site.write(text, "celeryconfig.py")
    if refused:
        assert "which Celery refuses" in "".join(site.problems(GOOD))
    else:
        site.load(GOOD)
