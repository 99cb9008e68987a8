"""The formats whose wholeness can be told, and which of them a file has by its first bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from watchman.verdicts import archives, compressed, pictures, scientific, structured
from watchman.verdicts.format_names import AUTO, THOROUGH
from watchman.verdicts.open_file import CannotTell, NotWhole, OpenFile

SMALL = 1 << 20
"""Bytes up to which a file is read as a whole in any case: that takes no longer than asking."""

Check = Callable[[OpenFile], None]
"""Raises NotWhole or CannotTell; a file of which it raises nothing is whole."""


class Format(NamedTuple):
    """How a format is known, and how it is told to be whole."""

    magic: tuple[tuple[int, bytes], ...]
    """(offset, bytes) pairs, one of which is there; none where only its name can tell."""
    check: Check
    """By its end, or by the lengths that it tells of itself."""
    thorough: Check | None = None
    """By reading all of it; None where that tells no more."""


FORMATS: Mapping[str, Format] = {
    "gzip": Format(((0, b"\x1f\x8b"),), compressed.gzip),
    "bzip2": Format(((0, b"BZh"),), compressed.bzip2_by_end, compressed.bzip2),
    "xz": Format(((0, b"\xfd7zXZ\0"),), compressed.xz_by_end, compressed.xz),
    # The second is a frame to be skipped, with which pzstd begins.
    "zstd": Format(((0, b"\x28\xb5\x2f\xfd"), (1, b"\x2a\x4d\x18")), compressed.zstd),
    "zip": Format(((0, b"PK\3\4"), (0, b"PK\5\6")), archives.zip_by_end, archives.zip_all),
    "tar": Format(((257, b"ustar"),), archives.tar),
    "7z": Format(((0, b"7z\xbc\xaf\x27\x1c"),), archives.sevenzip),
    "netcdf3": Format(((0, b"CDF\1"), (0, b"CDF\2"), (0, b"CDF\5")), scientific.netcdf3),
    # The second stands behind 512 bytes of its user, as in a MAT-file.
    "hdf5": Format(((0, b"\x89HDF\r\n\x1a\n"), (512, b"\x89HDF\r\n\x1a\n")), scientific.hdf5),
    "netcdf4": Format(((0, b"\x89HDF\r\n\x1a\n"),), scientific.hdf5),
    "grib": Format(((0, b"GRIB"),), scientific.grib),
    "bufr": Format(((0, b"BUFR"),), scientific.bufr),
    "tiff": Format(((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0"), (0, b"MM\0+")), scientific.tiff),
    "parquet": Format(((0, b"PAR1"), (0, b"PARE")), scientific.parquet),
    "sqlite": Format(((0, b"SQLite format 3\0"),), scientific.sqlite),
    "pdf": Format(((0, b"%PDF-"),), pictures.pdf),
    "png": Format(((0, b"\x89PNG\r\n\x1a\n"),), pictures.png_by_end, pictures.png),
    "jpeg": Format(((0, b"\xff\xd8\xff"),), pictures.jpeg),
    "xml": Format((), structured.xml_by_end, structured.xml),
    "json": Format((), structured.json_by_end, structured.json_all),
    "jsonlines": Format((), structured.json_lines),
    "csv": Format((), structured.csv_by_end, structured.csv_all),
}
"""By the names that ``complete`` takes, in the order of format_names.py."""

_MAY_LIE_DEEPER = ("hdf5", "netcdf4", "grib", "bufr", "tar")
"""Something else may stand before them, or their letters are no old custom."""


def check_format(file: OpenFile, name: str) -> None:
    """Raise NotWhole where a file is no whole file of a format, CannotTell where nobody knows.

    ``name`` is one of FORMATS, or "auto", with ":thorough" behind it or not.
    """
    must_be_read = name.endswith(THOROUGH)
    name = name.removesuffix(THOROUGH)
    if not file.size:
        raise NotWhole("it is empty")
    if name == AUTO:
        found = by_magic(file)
        if found is None:
            return
        name = found
    elif not _has_magic(file, name):
        raise NotWhole(f"it does not begin as {name} does")
    one = FORMATS[name]
    if one.thorough is None or not (must_be_read or file.size <= SMALL):
        one.check(file)
        return
    try:
        one.thorough(file)
    except CannotTell:
        if must_be_read:
            raise
        one.check(file)  # as of a larger one


def by_magic(file: OpenFile) -> str | None:
    """Return the name of a file's format by its first bytes; None for one that is not known.

    Raises NotWhole where it ends before it is clear what it would have been.
    """
    head = file.up_to(0, 1024)
    for name, one in FORMATS.items():
        for offset, magic in one.magic:
            if head.startswith(magic, offset):
                return name
            if not offset and len(head) < len(magic) and magic.startswith(head):
                raise NotWhole(f"it ends after {len(head)} bytes, with which {name} begins")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "xml" if text.startswith((b"<?xml", b"\xff\xfe<\0?\0", b"\xfe\xff\0<\0?")) else None


def _has_magic(file: OpenFile, name: str) -> bool:
    magics = FORMATS[name].magic
    if not magics or name in _MAY_LIE_DEEPER:
        return True
    if name == "pdf":
        return b"%PDF-" in file.up_to(0, 1024)
    if name == "zip":
        return True  # a program may stand before the archive
    return any(file.up_to(offset, len(magic)) == magic for offset, magic in magics)
