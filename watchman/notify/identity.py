"""The task id of an arrival."""

from __future__ import annotations

import hashlib
import os

from watchman.model import Version

NAMESPACE = bytes.fromhex("5f0a4b0e7d6c5d5f9a3c2f1e8b7d6a54")


def task_id(source: str, version: Version) -> str:
    """Return the uuid5 (RFC 9562) of a source path and version.

    The same as ``str(uuid.uuid5(namespace, name))``, several times faster.
    """
    name = b"%s\0%d\0%d\0%d\0%d" % (os.fsencode(source), *version)
    digest = hashlib.sha1(NAMESPACE + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
