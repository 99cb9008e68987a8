"""netCDF-3, HDF5 (and netCDF-4), GRIB, BUFR, TIFF, Parquet and SQLite: each says how long it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from watchman.verdicts.open_file import CannotTell, NotWhole, OpenFile

_NETCDF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
"""Bytes of a value, by the number of its type."""
_MOST = 1 << 20
"""Of entries in a list; more are no header but something else."""
_MOST_DIMENSIONS = 1024
"""Of a variable, as netCDF has it; the product of a million lengths takes for ever."""
_HDF5 = b"\x89HDF\r\n\x1a\n"
_GAP = 1 << 16
"""Bytes between two messages, in which the next is looked for: headings of bulletins."""
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_SIZES |= {16: 8, 17: 8, 18: 8}
_TOGETHER = 1 << 15
"""Numbers of a TIFF entry that are read at a time."""


class _Header:
    """Reads a netCDF-3 header from front to back, as its format description has it."""

    def __init__(self, file: OpenFile) -> None:
        self._file = file
        self.version = file.read(3, 1)[0]
        self._offset = 4

    def number(self, size: int = 0) -> int:
        """Return the next number, of ``size`` bytes or as long as this version's counts are."""
        size = size or (8 if self.version == 5 else 4)
        found = int.from_bytes(self._file.read(self._offset, size), "big")
        self._offset += size
        return found

    def skip(self, length: int) -> None:
        """Leave out so many bytes, with what fills them up to four."""
        self._offset += -(-length // 4) * 4
        if self._offset > self._file.size:
            raise NotWhole("it ends within its netCDF header")

    def entries(self) -> Iterator[int]:
        """Begin a list; yield the number of each entry, which is to be read by the caller."""
        self.number(4)
        count = self.number()
        if count > _MOST:
            raise CannotTell("its netCDF header cannot be understood")
        return iter(range(count))

    def attributes(self) -> None:
        """Leave out a list of attributes."""
        for _ in self.entries():
            self.skip(self.number())
            size = _NETCDF_SIZES.get(self.number(4), 0)
            self.skip(size * self.number())


def netcdf3(file: OpenFile) -> None:
    """Compute from the header where the last value ends."""
    header = _Header(file)
    if header.version not in (1, 2, 5):
        raise CannotTell("its version of netCDF is not known")
    records = header.number()
    if records in ((1 << 32) - 1, (1 << 64) - 1):
        raise CannotTell("its netCDF header does not say how many records it has")
    lengths = []
    for _ in header.entries():
        header.skip(header.number())
        lengths.append(header.number())
    header.attributes()
    fixed: list[tuple[int, int]] = []
    recorded: list[tuple[int, int]] = []
    for _ in header.entries():
        header.skip(header.number())
        dimensions = header.number()
        if dimensions > _MOST_DIMENSIONS:
            raise CannotTell("its netCDF header cannot be understood")
        shape = [header.number() for _ in range(dimensions)]
        header.attributes()
        size = _NETCDF_SIZES.get(header.number(4), 0)
        header.number()  # the size of it all, which old writers could not always tell
        begin = header.number(4 if header.version == 1 else 8)
        if any(number >= len(lengths) for number in shape):
            raise NotWhole("its netCDF header is damaged")
        is_recorded = bool(shape) and lengths[shape[0]] == 0
        for number in shape[1:] if is_recorded else shape:
            size *= lengths[number]
        (recorded if is_recorded else fixed).append((begin, size))
    ends = [begin + size for begin, size in fixed]
    if recorded and records:
        # A single variable's records are not filled up to four bytes.
        step = sum(-(-size // 4) * 4 for _, size in recorded)
        step = recorded[0][1] if len(recorded) == 1 else step
        ends += [begin + (records - 1) * step + size for begin, size in recorded]
    file.reaches(max(ends, default=0), "its netCDF header")


def hdf5(file: OpenFile) -> None:
    """Hold the size against the end that the superblock tells."""
    start = 0
    while file.up_to(start, 8) != _HDF5:
        start = start * 2 or 512  # what stands before it belongs to its user
        if start >= file.size:
            raise NotWhole("there is no HDF5 superblock in it")
    version = file.read(start + 8, 1)[0]
    if version in (0, 1):
        width, at = file.read(start + 13, 1)[0], start + (24 if version == 0 else 28)
    elif version in (2, 3):
        width, at = file.read(start + 9, 1)[0], start + 12
        if file.read(start + 11, 1)[0] & 1 and version == 3:
            raise NotWhole("whoever writes its HDF5 has not closed it")
    else:
        raise CannotTell(f"version {version} of HDF5 is not known")
    if width not in (2, 4, 8, 16, 32):
        raise NotWhole("its HDF5 superblock is damaged")
    addresses = file.read(at, 3 * width)
    base = int.from_bytes(addresses[:width], "little")
    end = int.from_bytes(addresses[2 * width :], "little")
    if end < len(_HDF5):
        raise NotWhole("its HDF5 superblock was not written to its end")
    # The base is where the superblock is, also where that was moved since.
    file.reaches(end if end >= base + start else end + start, "its HDF5 superblock")


def grib(file: OpenFile) -> None:
    """Go from message to message; the last must end in 7777."""
    _messages(file, b"GRIB")


def bufr(file: OpenFile) -> None:
    """Do the same for BUFR."""
    _messages(file, b"BUFR")


def _messages(file: OpenFile, name: bytes) -> None:
    offset = 0
    while True:
        gap = file.up_to(offset, _GAP)
        near = gap.find(name)
        if near < 0:
            if not offset or (gap and name.startswith(gap)):
                raise NotWhole(f"it ends where a {name.decode()} message begins")
            return
        offset += near
        length = _length_of(file, name, offset)
        file.reaches(offset + length, f"its {name.decode()} message at byte {offset}")
        offset += length
        if file.read(offset - 4, 4) != b"7777":
            raise NotWhole(f"its {name.decode()} message at byte {offset - length} has no end")
        if offset == file.size:
            return


def _length_of(file: OpenFile, name: bytes, offset: int) -> int:
    head = file.read(offset, 8)
    if name == b"GRIB" and head[7] == 2:
        (length,) = file.numbers(">Q", offset + 8)
    else:
        length = int.from_bytes(head[4:7], "big")
    if name == b"GRIB" and head[7] == 1 and length & 0x800000:
        length = _length_of_large(file, offset, length)
    return max(length, 12)


def _length_of_large(file: OpenFile, offset: int, told: int) -> int:
    """Return the length of a message that is larger than edition 1 can say, as ECMWF has it.

    ``told`` counts pieces of 120 bytes then, and the length of its section 4 what is too much.
    """
    section = offset + 8
    flags = file.read(section + 7, 1)[0]
    # Sections 2 and 3 may be left out.
    for _ in range(1 + (flags >> 7 & 1) + (flags >> 6 & 1)):
        section += int.from_bytes(file.read(section, 3), "big")
    too_much = int.from_bytes(file.read(section, 3), "big")
    return told if too_much >= 120 else (told & 0x7FFFFF) * 120 - too_much + 4


def tiff(file: OpenFile) -> None:
    """Follow the directories; all strips and tiles that they tell of must be there."""
    order = "<" if file.read(0, 2) == b"II" else ">"
    (version,) = file.numbers(order + "H", 2)
    big = version == 43
    (offset,) = file.numbers(order + ("Q" if big else "I"), 8 if big else 4)
    if not offset:
        raise NotWhole("its TIFF directory was not written")
    seen: set[int] = set()
    left = [offset]
    while left and len(seen) < _MOST:
        offset = left.pop()
        if offset and offset not in seen:
            seen.add(offset)
            left += _Directory(file, order, offset, big=big).check()


class _Directory:
    """A TIFF directory: tags, and where the next one is."""

    def __init__(self, file: OpenFile, order: str, offset: int, *, big: bool) -> None:
        self._file, self._order, self._offset, self._big = file, order, offset, big
        self._width = 8 if big else 4

    def check(self) -> list[int]:
        """Raise NotWhole where something is missing; return where other directories are.

        Those are the next, and those below it, such as smaller copies of its picture.
        """
        order, head = self._order, 8 if self._big else 2
        (count,) = self._file.numbers(order + ("Q" if self._big else "H"), self._offset)
        if count > _MOST:
            raise NotWhole("its TIFF directory is damaged")
        size = 20 if self._big else 12
        entries: dict[int, tuple[int, int, int]] = {}
        for number in range(count):
            at = self._offset + head + number * size
            tag, kind = self._file.numbers(order + "HH", at)
            entries[tag] = self._entry(at, kind)
        for places, lengths in ((273, 279), (324, 325)):
            several = self._values(entries.get(places)), self._values(entries.get(lengths))
            for place, length in zip(*several, strict=False):
                self._file.reaches(place + length, "its TIFF directory")
        layout = order + ("Q" if self._big else "I")
        after = self._file.numbers(layout, self._offset + head + count * size)
        return [*after, *itertools.islice(self._values(entries.get(330)), _MOST)]

    def _entry(self, at: int, kind: int) -> tuple[int, int, int]:
        """Return an entry's kind, how many numbers it has, and where; they must be there."""
        width = self._width
        (count,) = self._file.numbers(self._order + ("Q" if self._big else "I"), at + 4)
        size = _TIFF_SIZES.get(kind, 1)
        place = at + 4 + width
        if count * size > width:
            (place,) = self._file.numbers(self._order + ("Q" if self._big else "I"), place)
        self._file.reaches(place + count * size, "its TIFF directory")
        return kind, count, place

    def _values(self, entry: tuple[int, int, int] | None) -> Iterator[int]:
        """Yield an entry's numbers; a picture may have millions of tiles."""
        kind, count, place = entry or (0, 0, 0)
        letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}.get(kind)
        if letter is not None:
            for start in range(0, count, _TOGETHER):
                layout = f"{self._order}{min(_TOGETHER, count - start)}{letter}"
                yield from self._file.numbers(layout, place + start * _TIFF_SIZES[kind])


def parquet(file: OpenFile) -> None:
    """Check the footer's length and the letters behind it."""
    end = file.tail(8)
    if len(end) < 8 or end[4:] not in (b"PAR1", b"PARE"):
        raise NotWhole("its last bytes are not the end of a Parquet file")
    file.reaches(12 + int.from_bytes(end[:4], "little"), "its Parquet footer")


def sqlite(file: OpenFile) -> None:
    """Hold the size against the number of pages that the header tells."""
    header = file.read(0, 100)
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    if page < 512 or page & page - 1:
        raise NotWhole("its SQLite header is damaged")
    # The number is right only if whoever wrote last has written it, too.
    count = int.from_bytes(header[28:32], "big") if header[24:28] == header[92:96] else 0
    file.reaches(page * max(count, 1), "its SQLite header")
    if file.size % page:
        raise NotWhole("it ends in the middle of an SQLite page")
