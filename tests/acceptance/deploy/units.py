"""The unit for systemd and its drop-ins, read as text."""

from __future__ import annotations

import resource
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from tests.checkout import ROOT

DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "watchman.service"
DROP_INS = DEPLOY / "watchman.service.d"
PROGRAM = "/opt/watchman/bin/notify"
CONFIG = "/etc/watchman/config.py"


def settings(path: Path) -> Mapping[str, list[str]]:
    """Return the values of each key, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found[key].append(value)
    return found


def capabilities() -> list[str]:
    """Return what the service keeps of root's powers, such as ``lease``."""
    [bounding] = settings(UNIT)["CapabilityBoundingSet"]
    [ambient] = settings(UNIT)["AmbientCapabilities"]
    assert bounding == ambient, "without root, what is allowed is had only if it is ambient"
    return [name.removeprefix("CAP_").lower() for name in bounding.split()]


def as_service(uid: int, powers: list[str]) -> tuple[str, ...]:
    """Return the words before a command that run it much as the unit does, without systemd."""
    sets = "=-all" + "".join(f",+{name}" for name in powers)
    [mask] = settings(UNIT)["UMask"]
    [files] = settings(UNIT)["LimitNOFILE"]
    soft, most = map(int, files.split(":"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # only CAP_SYS_RESOURCE raises it
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    prefix = ["sh", "-c", f'umask {shlex.quote(mask)} && exec "$@"', "sh"]
    prefix += ["prlimit", f"--nofile={min(soft, most)}:{most}"]
    # Last: what it takes the place of itself, it finds with root's powers still.
    prefix += ["setpriv", f"--reuid={uid}", f"--regid={uid}"]
    prefix += ["--clear-groups", "--no-new-privs"]
    return (*prefix, *(f"--{one}{sets}" for one in ("bounding-set", "inh-caps", "ambient-caps")))
