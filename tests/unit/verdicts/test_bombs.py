"""Small files that would take a check minutes or for ever, as a stranger may make them."""

from __future__ import annotations

import os
import signal
import struct
import zlib
from collections.abc import Callable, Iterator
from types import FrameType

import pytest

from watchman.verdicts import archives, compressed, pictures, scientific, structured
from watchman.verdicts.open_file import CannotTell, NotWhole, OpenFile

SECONDS = 5.0
"""Of processor time: each takes far less, and took far more."""


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """Fail where it takes longer; a test that hangs would tell less."""

    def is_over(_: int, __: FrameType | None) -> None:
        pytest.fail("it takes too long")

    before = signal.signal(signal.SIGPROF, is_over)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def told(check: Callable[[OpenFile], None], contents: bytes) -> str:
    """Return what a check says; empty for whole."""
    descriptor = os.memfd_create("bomb")
    try:
        os.write(descriptor, contents)
        check(OpenFile(descriptor))
    except (NotWhole, CannotTell) as verdict:
        return str(verdict)
    finally:
        os.close(descriptor)
    return ""


SPACES = b" " * 60_000
SOUND = {
    "spaces before the end tag": b"<a>" + SPACES + b"</a>",
    "spaces behind the end tag": b"<a>" + b"<b/>" * 20_000 + b"</a>" + SPACES,
    "spaces within the end tag": b"<a>" + b"<b/>" * 20_000 + b"</a" + SPACES + b">",
    "many comments behind": b"<a>" + b"<b/>" * 20_000 + b"</a>" + b"<!---->\n<?x?>" * 4000,
    "one comment behind": b"<a>" + b"<b/>" * 20_000 + b"</a><!--" + b"->" * 25_000 + b"-->",
    "comments before": b"<!-- <b> -->" * 5000 + b"<a>" + b"<b/>" * 20_000 + b"</a>",
    "a long comment before": b"<!--" + b"<b>" * 30_000 + b"--><a></a>",
    "a type": b"<!DOCTYPE a [" + b"<!ENTITY x ']'>" * 3000 + b"]><a>" + SPACES + b"</a>",
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_xml_is_whole_at_once(name: str) -> None:
    assert told(structured.xml_by_end, SOUND[name]) == ""


@pytest.mark.parametrize(
    "contents",
    [
        b"<!--" * 16_000 + b"<a></a>",
        b"<?x" * 20_000 + b"<a></a>",
        b"<!DOCTYPE[" * 6500 + b"<a></a>",
        b"<a>" + b"<b>" * 30_000 + b"-->" * 20_000,
        b"<a>" + b"<!DOCTYPE[" * 6500 + b"</b>",
        b"<a>" + b"<!--" * 15_000 + b"--></b>",
    ],
    ids=lambda contents: str(contents[:9]),
)
def test_broken_xml_is_told_at_once(contents: bytes) -> None:
    assert told(structured.xml_by_end, contents).startswith("its XML cannot be read")


def test_strings_of_json_that_go_on_and_on_are_whole() -> None:
    """In a piece of the file each quotation mark could be where a string begins."""
    for inner in (rb"\"", rb"\\", b"x", rb"\u0022[", b"[{"):
        long = b'{"a": "' + inner * 1_000_000 + b'"}'
        assert told(structured.json_all, long) == ""
        assert "within a string" in told(structured.json_all, b'[["' + inner * 1_100_000 + rb"\"]]")


def header(size: bytes) -> bytes:
    made = bytearray(512)
    made[:1], made[124:136], made[156:157] = b"a", size.ljust(12, b"\0"), b"0"
    made[148:156] = b" " * 8
    made[148:156] = b"%06o\0 " % sum(made)
    return bytes(made)


@pytest.mark.parametrize("size", [b"-0000001000", b"+1000", b"1_000", b"0o1000", b"10 00"])
def test_a_number_in_a_tar_has_neither_sign_nor_words(size: bytes) -> None:
    assert (
        told(archives.tar, header(size) + bytes(2048)) == "a number in a tar header of it is none"
    )
    assert told(archives.tar, header(b" 0001000 ") + bytes(2048)) == ""


def test_a_number_in_an_xz_index_has_63_bits() -> None:
    index = b"\0\x01" + b"\xff" * 400_000
    index += bytes(-(len(index) + 4) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    footer = struct.pack("<I", len(index) // 4 - 1) + b"\0\4"
    footer = struct.pack("<I", zlib.crc32(footer)) + footer + b"YZ"
    contents = compressed._XZ_MAGIC + bytes(6) + index + footer
    assert told(compressed.xz_by_end, contents) == "the index of its last xz stream is damaged"


def test_a_variable_of_netcdf_has_no_million_dimensions() -> None:
    most = 1 << 20
    contents = b"CDF\1" + struct.pack(">III", 0, 10, 1)  # a dimension, as long as can be
    contents += struct.pack(">I4sI", 1, b"x", 0xFFFF_FFFF) + bytes(8)
    contents += struct.pack(">III4sI", 11, 1, 1, b"v", most) + bytes(4 * most)
    contents += bytes(8) + struct.pack(">III", 1, 0, 0)
    assert told(scientific.netcdf3, contents) == "its netCDF header cannot be understood"


def test_the_markers_of_a_jpeg_are_found_at_once() -> None:
    """As those that restart its decoder are, where something follows the picture."""
    begin = b"\xff\xd8\xff\xda" + struct.pack(">H", 2)
    contents = begin + b"abc\xff\xd0" * 400_000 + b"\xff\xd9" + b"behind it " * 10
    assert told(pictures.jpeg, contents) == ""
