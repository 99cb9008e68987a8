"""Checksum files, as md5sum, sha256sum (with ``--tag`` too) and cksfv write them."""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import NamedTuple

from watchman.verdicts.open_file import CannotTell, NotWhole, OpenFile

LARGEST = 1 << 26
"""Bytes of a checksum file that are read at the most: a manifest of half a million files."""
_BY_LENGTH = {8: "crc32", 32: "md5", 40: "sha1", 56: "sha224", 64: "sha256", 96: "sha384"}
_BY_LENGTH |= {128: "sha512"}
_TAGGED = re.compile(rb"(\\?)([A-Za-z0-9-]+) \((.*)\) ?= ?([0-9A-Fa-f]+)")
_PLAIN = re.compile(rb"(\\?)([0-9A-Fa-f]+)(?: [ *](.*)|\s+(\S.*))?")
_SFV = re.compile(rb"(.*\S)\s+([0-9A-Fa-f]{8})")
_ESCAPED = {b"\\\\": b"\\", b"\\n": b"\n", b"\\r": b"\r"}
_ESCAPE = re.compile(rb"\\[\\nr]")


class Checksum(NamedTuple):
    """A sum that somebody has told."""

    algorithm: str
    """A name of :mod:`hashlib`, or ``crc32``."""
    value: str
    """In hexadecimal, lower case."""

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.value}"


def verify(file: OpenFile, name: bytes, companion: OpenFile, told_in: str) -> Checksum:
    """Return the sum of ``file``, whose name is ``name``, if it is what ``companion`` tells.

    Raises NotWhole where it is not, or where ``companion``, which is called ``told_in``, tells
    nothing of the file.
    """
    if companion.size > LARGEST:
        raise CannotTell(f"{told_in} is too large for a checksum file")
    told = find(companion.read(0, companion.size), name)
    if told is None:
        raise NotWhole(f"{told_in} has no checksum of it")
    computed = sum_of(file, told.algorithm)
    if computed != told.value:
        raise NotWhole(f"its {told.algorithm} sum is {computed}, and {told_in} says {told.value}")
    return told


def find(text: bytes, name: bytes) -> Checksum | None:
    """Return what a checksum file tells of the file called ``name``; None for nothing.

    A file that holds one sum and no name is about whatever it stands beside.
    """
    nameless = None
    for line in text.removeprefix(b"\xef\xbb\xbf").splitlines():
        entry = _entry(line.rstrip(b"\r"))
        if entry is None:
            continue
        listed, checksum = entry
        if not listed:
            nameless = checksum
        elif re.split(rb"[/\\]" if b"\\" not in name else rb"/", listed)[-1] == name:
            return checksum
    return nameless


def _entry(line: bytes) -> tuple[bytes, Checksum] | None:
    """Return (name, sum) of a line; the name is empty where it has none."""
    if not line.strip() or line[:1] in b";#":
        return None
    if found := _TAGGED.fullmatch(line):
        escaped, tag, name, value = found.groups()
        algorithm = tag.decode().lower().replace("-", "").replace("blake2b512", "blake2b")
    elif (found := _PLAIN.fullmatch(line)) and len(found[2]) in _BY_LENGTH:
        escaped, value, name = found[1], found[2], found[3] or found[4] or b""
        algorithm = _BY_LENGTH[len(value)]
    elif found := _SFV.fullmatch(line):
        escaped, name, value, algorithm = b"", found[1], found[2], "crc32"
    else:
        return None
    if escaped:
        name = _ESCAPE.sub(lambda code: _ESCAPED[code[0]], name)
    return name, Checksum(algorithm, value.decode().lower())


def sum_of(file: OpenFile, algorithm: str) -> str:
    """Return the sum of all bytes, in hexadecimal. Raises CannotTell for an unknown algorithm."""
    if algorithm == "crc32":
        crc = 0
        for piece in file.pieces():
            crc = zlib.crc32(piece, crc)
        return f"{crc:08x}"
    try:
        digest = hashlib.new(algorithm, usedforsecurity=False)
    except ValueError:
        raise CannotTell(f"the checksum {algorithm} is not known here") from None
    for piece in file.pieces():
        digest.update(piece)
    try:
        return digest.hexdigest()
    except TypeError:
        raise CannotTell(f"the checksum {algorithm} has no fixed length") from None


def size_in(companion: OpenFile, told_in: str) -> int:
    """Return the number that a companion holds: the first in it. Raises NotWhole."""
    found = re.search(rb"\d+", companion.up_to(0, 4096))
    if found is None:
        raise NotWhole(f"there is no size in {told_in}")
    return int(found[0])
