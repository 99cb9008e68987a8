"""What the hooks and METRICS_FILE name, tried without calling or writing anything."""

from __future__ import annotations

import os
import shutil

from watchman.checks.result import Check
from watchman.model import Config


def check_monitoring(config: Config) -> list[Check]:
    """Look for the programs of hooks, and at the directory of METRICS_FILE."""
    found = []
    for setting, hook in config.hooks.items():
        if hook.command and shutil.which(hook.command[0]) is None:
            detail = f"there is no program {hook.command[0]}"
            found.append(Check(setting, False, detail, "install it, or correct its path"))
        else:
            found.append(Check(setting, True, hook.name))
    if config.metrics_file:
        directory = os.path.dirname(config.metrics_file)
        good = os.access(directory, os.W_OK | os.X_OK)
        detail = config.metrics_file if good else f"{directory} cannot be written"
        remedy = "" if good else "create it, or give this user write permission"
        found.append(Check("METRICS_FILE", good, detail, remedy))
    return found
