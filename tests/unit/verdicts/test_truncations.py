"""Every truncation of a real file: what is told of it, and how often that is wrong."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sqlite3
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests import docs
from watchman.verdicts import compressed, structured
from watchman.verdicts.format_names import FORMAT_NAMES
from watchman.verdicts.formats import FORMATS, check_format
from watchman.verdicts.open_file import PIECE, CannotTell, NotWhole, OpenFile

SAMPLES = Path(__file__).parent / "samples"
TEXT = b"".join(b"%d;%d;rain\n" % (number, number**3) for number in range(120))
QUOTED = b'"name, of it";text\r\n' + b'1;"two\r\nlines; ""and"" quotes"\r\n' * 30
ENTITIES = (
    b"<?xml version='1.0'?>\n<!DOCTYPE svg [\n<!ENTITY ns 'http://www.w3.org/2000/svg'>\n]>\n"
    b"<svg xmlns='&ns;'><title>&ns;</title></svg>\n"
)
XML = (
    b"<?xml version='1.0'?>\n<!-- <a> -->\n<rain xmlns='urn:x'>\n"
    + b"".join(b"  <h t='%d'>%d</h>\n" % (number, number) for number in range(40))
    + b"</rain>\n"
)
JSON = json.dumps(
    {"name": 'a "quoted} name', "values": [{"t": n, "h": [n, "]"]} for n in range(30)]}
).encode()
JSON_LINES = b"".join(b'{"t": %d, "h": [1, 2]}\n' % number for number in range(40))


def a_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.csv", TEXT)
        archive.writestr("b/c.csv", TEXT[:300])
    return made.getvalue()


def a_tar(form: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as archive:
        for name in ("a.csv", "long" * 40 + ".csv"):
            member = tarfile.TarInfo(name)
            member.size = len(TEXT)
            archive.addfile(member, io.BytesIO(TEXT))
    return made.getvalue()


def a_tar_of_an_odd_name() -> bytes:
    """Its pax header has a path that looks as if a size were in it."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("r\xe4in\n9 size=7\n.csv", "a.csv"):
            member = tarfile.TarInfo(name)
            member.size = len(TEXT)
            archive.addfile(member, io.BytesIO(TEXT))
    return made.getvalue()


def a_database() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "made.db")
        fill(path)
        return path.read_bytes()


def fill(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA page_size = 1024")
        connection.execute("CREATE TABLE t (a, b)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", [(n, "x" * 20) for n in range(99)])


STDLIB: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: gzip.compress(TEXT)),
    "gzip of two members": ("gzip", lambda: gzip.compress(TEXT) + gzip.compress(TEXT[:50])),
    "bzip2": ("bzip2", lambda: bz2.compress(TEXT)),
    "bzip2 of two streams": ("bzip2", lambda: bz2.compress(TEXT) + bz2.compress(TEXT[:50])),
    "gzip with zeros behind": ("gzip", lambda: gzip.compress(TEXT) + bytes(40)),
    "xz by Python": ("xz", lambda: lzma.compress(TEXT)),
    "xz of two streams": ("xz", lambda: lzma.compress(TEXT) + bytes(8) + lzma.compress(TEXT[:50])),
    "zip": ("zip", a_zip),
    "tar of GNU": ("tar", lambda: a_tar(tarfile.GNU_FORMAT)),
    "tar of POSIX": ("tar", lambda: a_tar(tarfile.PAX_FORMAT)),
    "tar of an odd name": ("tar", a_tar_of_an_odd_name),
    "sqlite": ("sqlite", a_database),
    "xml": ("xml", lambda: XML),
    "xml in UTF-16": ("xml", lambda: XML.decode().encode("utf-16")),
    "xml with entities": ("xml", lambda: ENTITIES),
    "json": ("json", lambda: JSON),
    "json with a BOM": ("json", lambda: b"\xef\xbb\xbf" + JSON + b"\r\n"),
    "json of a long number": ("json", lambda: b'{"n": ' + b"9" * 5000 + b"}"),
    "jsonlines": ("jsonlines", lambda: JSON_LINES),
    "csv": ("csv", lambda: TEXT),
    "csv with quotes": ("csv", lambda: QUOTED),
    "csv in UTF-16": ("csv", lambda: TEXT.decode().replace(";", "\t").encode("utf-16")),
}
"""Made here, by name: format, and how."""
SAMPLED = {
    "classic.nc": "netcdf3",
    "offset.nc": "netcdf3",
    "data64.nc": "netcdf3",
    "single.nc": "netcdf3",
    "enhanced.nc": "netcdf4",
    "block.h5": "hdf5",
    "noise.png": "png",
    "noise.jpg": "jpeg",
    "preview.jpg": "jpeg",
    "noise.pdf": "pdf",
    "two.pdf": "pdf",
    "strips.tif": "tiff",
    "lzw.tif": "tiff",
    "below.tif": "tiff",
    "table.parquet": "parquet",
    "two.7z": "7z",
    "streamed.zip": "zip",
    "zip64.zip": "zip",
    "holes.tar.gz": "tar",
    "one.grib1": "grib",
    "two.grib2": "grib",
    "obs.bufr": "bufr",
    "text.zst": "zstd",
    "skipped.zst": "zstd",
    "text.xz": "xz",
}
"""Files in ``samples``, and their formats."""


def whole(name: str) -> tuple[str, bytes]:
    """Return the format and contents of a whole file."""
    if name in STDLIB:
        form, make = STDLIB[name]
        return form, make()
    contents = (SAMPLES / name).read_bytes()
    return SAMPLED[name], gzip.decompress(contents) if name.endswith(".gz") else contents


FALSE = {
    # Cut between two members or messages: nothing tells that there were more.
    "gzip of two members": (1, 1, 1),
    "two.pdf": (9, 9, 9),
    "bzip2 of two streams": (1, 1, 1),
    "one.grib1": (1, 1, 1),
    "two.grib2": (1, 1, 1),
    # Only zeros are missing behind it; or cut between two streams.
    "gzip with zeros behind": (40, 40, 40),
    "xz of two streams": (3, 9, 9),
    # Only its first frame, which is to be skipped, is not all there: two bytes are no magic yet.
    "skipped.zst": (0, 0, 2),
    "holes.tar.gz": (0, 0, 131),
    # What stands before it is its user's, and nobody knows it from other bytes.
    "block.h5": (0, 0, 518),
    # Cut between two lines, or where only the last line's end is missing.
    "csv": (119, 119, None),
    "csv with quotes": (30, 30, None),
    "csv in UTF-16": (238, 238, None),
    "jsonlines": (79, 79, None),
    "xml": (1, 1, 5),
    "xml in UTF-16": (1, 1, 5),
    "xml with entities": (1, 1, 5),
    # Cut where a list or object within ends: by reading all of it that can be told.
    "json": (32, 0, None),
    "json with a BOM": (34, 2, None),
    # Only what fills the last block up is missing. Below 262 bytes it has no magic.
    "tar of GNU": (3072, 3072, 3072 + 261),
    "tar of POSIX": (3072, 3072, 3072 + 261),
    "tar of an odd name": (3072, 3072, 3072 + 261),
}
"""Truncations that are taken for whole: by their ends, as a small file is checked, and as 'auto'
(None where that does not know the format). All others are told."""
NEVER = (0, 0, 0)


class Cut:
    """A file that is made shorter and shorter."""

    def __init__(self, contents: bytes) -> None:
        self.descriptor = os.memfd_create("cut")
        os.write(self.descriptor, contents)
        self.size = len(contents)
        self.step = max(1, self.size // 20_000)

    def close(self) -> None:
        os.close(self.descriptor)

    def is_whole(self, check: Callable[[OpenFile], None]) -> bool:
        try:
            check(OpenFile(self.descriptor))
        except NotWhole:
            return False
        return True

    def taken_for_whole(self, check: Callable[[OpenFile], None]) -> int:
        """Count the truncations that are taken for whole."""
        found = 0
        for length in range(self.size - 1, -1, -self.step):
            os.ftruncate(self.descriptor, length)
            found += self.is_whole(check)
        return found


def checks(form: str) -> list[Callable[[OpenFile], None]]:
    """By the end, as a small file is checked, and as 'auto' where that knows the format."""
    return [
        FORMATS[form].check,
        lambda file: check_format(file, form),
        *([lambda file: check_format(file, "auto")] if form not in UNKNOWN_TO_AUTO else []),
    ]


UNKNOWN_TO_AUTO = ("json", "jsonlines", "csv")
NAMES = [*STDLIB, *SAMPLED]


def test_a_format_is_told_for_each_name() -> None:
    assert tuple(FORMATS) == FORMAT_NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_truncation(name: str) -> None:
    form, contents = whole(name)
    found: list[int] = []
    for check in checks(form):
        with closing(Cut(contents)) as cut:
            assert cut.is_whole(check)
            found.append(cut.taken_for_whole(check))
    wanted = [number for number in FALSE.get(name, NEVER) if number is not None]
    assert found == wanted[: len(found)]


@pytest.mark.parametrize("name", NAMES)
def test_thorough_checks_find_whole_files_whole(name: str) -> None:
    form, contents = whole(name)
    with closing(Cut(contents)) as cut:
        assert cut.is_whole(lambda file: check_format(file, form + ":thorough"))


MISSED = {
    "gzip": 6,
    "gzip of two members": 15,
    "bzip2": 1,
    "xz by Python": 0,
    "text.xz": 0,
    "zip": 104,
    "streamed.zip": 113,
    "noise.png": 0,
    # Their values have no checksums, or ones that nobody computes here.
    "text.zst": 222,
    "two.7z": 136,
    "classic.nc": 184,
    "strips.tif": 456,
    "json": 118,
    "csv": 1709,
}
"""Flipped bytes that are not told: times, names of systems, and in zip what is there twice."""


@pytest.mark.parametrize("name", MISSED)
def test_a_flipped_byte_is_found(name: str) -> None:
    form, contents = whole(name)
    missed = []
    for place in range(len(contents)):
        flipped = bytearray(contents)
        flipped[place] ^= 0x10
        with closing(Cut(bytes(flipped))) as cut:
            try:
                if cut.is_whole(lambda file: check_format(file, form + ":thorough")):
                    missed.append(place)
            except CannotTell:
                continue
    assert len(missed) == MISSED[name], missed


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_an_hdf5_superblock_of_nothing_is_not_whole(version: int) -> None:
    """As where the rest of a file is a hole that was to be filled later."""
    contents = b"\x89HDF\r\n\x1a\n" + bytes([version]) + bytes(200)
    with closing(Cut(contents)) as cut:
        assert not cut.is_whole(lambda file: check_format(file, "hdf5"))


BY_THEIR_ENDS = {"ppmd.zip": "zip", "large_dict.xz": "xz", "Shift_JIS": "xml"}
"""What cannot be read here: as small files they are judged by their ends, as larger ones are."""


@pytest.mark.parametrize("name", BY_THEIR_ENDS)
def test_what_cannot_be_read_is_told_by_its_end(name: str) -> None:
    form = BY_THEIR_ENDS[name]
    japanese = "<?xml version='1.0' encoding='Shift_JIS'?><a>\u65e5\u672c</a>".encode("shift_jis")
    contents = japanese if name == "Shift_JIS" else (SAMPLES / name).read_bytes()
    with closing(Cut(contents)) as cut:
        assert cut.is_whole(lambda file: check_format(file, form))
        with pytest.raises(CannotTell):
            check_format(OpenFile(cut.descriptor), form + ":thorough")


def test_archives_that_cannot_be_read_are_told_by_their_ends() -> None:
    for name in ("ppmd.zip", "large_dict.xz"):
        with closing(Cut((SAMPLES / name).read_bytes())) as cut:
            form = BY_THEIR_ENDS[name]
            assert cut.taken_for_whole(partial(check_format, name=form)) == 0


def test_a_grib_message_larger_than_its_edition_can_say() -> None:
    """12 MB, of which only the first bytes matter; eccodes has written them."""
    size = 12_000_108
    with closing(Cut((SAMPLES / "large.grib1.head").read_bytes())) as cut:
        os.ftruncate(cut.descriptor, size)
        os.pwrite(cut.descriptor, b"7777", size - 4)
        assert cut.is_whole(lambda file: check_format(file, "grib"))
        for length in (size - 1, size // 2, 200, 50, 9):
            os.ftruncate(cut.descriptor, length)
            assert not cut.is_whole(lambda file: check_format(file, "grib"))


def test_all_strips_of_a_tiff_are_looked_for_however_many_there_are() -> None:
    """The last one holds the file's last byte."""
    count = (1 << 20) + 1
    at = 8 + 2 + 2 * 12 + 4
    end = at + 2 * 4 * count + 1
    contents = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", 2)
    contents += struct.pack("<HHII", 273, 4, count, at)
    contents += struct.pack("<HHIII", 279, 4, count, at + 4 * count, 0)
    contents += struct.pack("<I", 8) * (count - 1) + struct.pack("<I", end - 1)
    contents += struct.pack("<I", 1) * count + b"1"
    with closing(Cut(contents)) as cut:
        assert cut.is_whole(FORMATS["tiff"].check)
        os.ftruncate(cut.descriptor, end - 1)
        assert not cut.is_whole(FORMATS["tiff"].check)


WIDE = b"".join(b",".join(b"%d" % n for n in range(line, line + 20_000)) + b"\n" for line in (7, 8))

WHOLE = {
    "a field as long as a coastline": ("csv", b'id,line\n1,"' + b"1 2," * 50_000 + b'"\n'),
    "a CSV whose last lines are empty": ("csv", b"a,b\r\n1,2\r\n\r\n\r\n"),
    "a CSV with a BOM": ("csv", b"\xef\xbb\xbfa;b\r\n1;2\r\n"),
    "a CSV for Excel": ("csv", b"sep=;\r\na;b;c\r\n1,2;3;4\r\n"),
    "a CSV with commas in its titles": (
        "csv",
        "Zeit;Temperatur, °C;Druck, hPa\n1;2,5;1000\n".encode(),
    ),
    "a CSV with commas in quoted titles": ("csv", b'"T (mean, C)";"P (mean, hPa)"\n2,5;1000,5\n'),
    "a CSV of 20,000 columns": ("csv", WIDE),
    "a CSV of 20,000 columns in UTF-16": ("csv", WIDE.decode().encode("utf-16")),
    "a CSV with a long text in its first line": ("csv", b'a,"' + b"b\n" * 50_000 + b'",c\n1,2,3\n'),
    "a PDF behind what a server said": (
        "pdf",
        b"HTTP/1.1 200 OK\r\n\r\n" + (SAMPLES / "noise.pdf").read_bytes(),
    ),
    "a PDF with something behind": ("pdf", (SAMPLES / "noise.pdf").read_bytes() + b"\r\n\0\0"),
    "a PNG with something behind": ("png", (SAMPLES / "noise.png").read_bytes() + b"behind"),
    "a JPEG with a film behind": ("jpeg", (SAMPLES / "noise.jpg").read_bytes() + b"\0\0ftypmp42"),
    "a zip behind a program": ("zip", b"#!/bin/sh\n" + a_zip()),
    "a zip64 behind a program": ("zip", b"#!/bin/sh\n" + (SAMPLES / "zip64.zip").read_bytes()),
    "a zip with a comment": ("zip", a_zip()[:-2] + b"\7\0comment"),
    "JSON in UTF-16": ("json", JSON.decode().encode("utf-16")),
    "XML of its own DTD": ("xml", b"<!DOCTYPE a SYSTEM 'a.dtd'><a>&foo;</a>"),
    "a large bzip2 with zeros behind": ("bzip2", bz2.compress(os.urandom(1 << 21)) + bytes(10_240)),
    "a gzip with garbage behind": ("gzip", gzip.compress(TEXT) + b"garbage"),
}
"""As other programs write them."""


@pytest.mark.parametrize("name", WHOLE)
def test_what_other_programs_write_is_whole(name: str) -> None:
    form, contents = WHOLE[name]
    with closing(Cut(contents)) as cut:
        check_format(OpenFile(cut.descriptor), form)


def test_a_database_whose_last_rows_are_in_its_log_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "made.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        fill(path)
        with closing(Cut(path.read_bytes())) as cut:
            check_format(OpenFile(cut.descriptor), "sqlite")


def test_the_first_line_of_a_csv_is_not_looked_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(structured, "_LONGEST_FIRST", 1 << 16)
    with closing(Cut(WIDE)) as cut, pytest.raises(CannotTell, match="too long"):
        check_format(OpenFile(cut.descriptor), "csv")
    with closing(Cut(WIDE[:1000])) as cut, pytest.raises(NotWhole, match="has no end"):
        check_format(OpenFile(cut.descriptor), "csv")


def test_where_the_end_of_a_bzip2_stream_has_zeros_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cut of what ends in them is told."""
    end = (0x177245385090 << 32).to_bytes(10, "big")
    for pad in range(8):
        stream = (int.from_bytes(b"BZh9" + os.urandom(40) + end, "big") << pad).to_bytes(55, "big")
        with closing(Cut(stream.lstrip(b"\0") + bytes(3))) as cut:
            assert cut.is_whole(compressed.bzip2_by_end)
            assert cut.taken_for_whole(compressed.bzip2_by_end) == 3


def test_a_csv_that_ends_within_quotes_is_partial() -> None:
    """Its last line ends, and has as many fields as the first."""
    with closing(Cut(b'a,b\n1,"two\n')) as cut, pytest.raises(NotWhole, match="within quotes"):
        check_format(OpenFile(cut.descriptor), "csv")


def test_members_begin_wherever_a_piece_of_the_file_ends() -> None:
    """Two gzip members, the second of which begins at each place near the end of what is read."""
    first = gzip.compress(os.urandom(PIECE - 200))
    for zeros in range(PIECE - len(first) - 3, PIECE - len(first) + 2):
        with closing(Cut(first + bytes(zeros) + gzip.compress(TEXT))) as cut:
            check_format(OpenFile(cut.descriptor), "gzip")
            for length in (cut.size - 1, cut.size - 9, PIECE + 20):
                os.ftruncate(cut.descriptor, length)
                assert not cut.is_whole(lambda file: check_format(file, "gzip"))


def test_docs_have_these_figures() -> None:
    text = docs.text("formats")
    for name, form in (("tar of GNU", "tar"), ("jsonlines", "jsonlines"), ("csv", "csv")):
        missed = FALSE[name][0]
        assert f"{missed} of {len(whole(name)[1])}" in text, form
    assert f"by its end {FALSE['json'][0]} of {len(JSON)}" in text
    assert f"two revisions: {FALSE['two.pdf'][0]} of {len(whole('two.pdf')[1])}" in text
    for name in ("gzip", "bzip2", "zip"):
        assert f"{MISSED[name]} of {len(whole(name)[1])}" in text
