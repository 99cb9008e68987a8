"""XML, JSON, JSON Lines and CSV: texts whose end can be told by what was opened before it."""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from xml.parsers import expat

from watchman.verdicts.open_file import CannotTell, NotWhole, OpenFile

_TAIL = 1 << 16
"""Bytes read of the end, in which the last line or element must be."""
_CLOSED = {ord("{"): ord("}"), ord("["): ord("]")}
_NO_STRUCTURE = bytes(byte for byte in range(256) if byte not in b"{}[]")
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_DEEPEST = 100_000
_NAME = re.compile(rb"[^\s<>/!?]+")
# Each is tried where it begins, and once: a search for their ends would begin anew at each of many.
_BEFORE_ROOT = (
    re.compile(rb"<!--.*?-->", re.DOTALL),
    re.compile(rb"<\?.*?\?>", re.DOTALL),
    re.compile(rb"<!DOCTYPE[^\[>]*(?:\[.*?\]\s*)?>", re.DOTALL),
)
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NOT_FOR_EXPAT = (18, 43)
"""XML_ERROR_UNKNOWN_ENCODING, and XML_ERROR_AMPLIFICATION_LIMIT_BREACH."""
_LONGEST_FIELD = 1 << 26
"""Characters of a field; Python's own limit is less than a coastline has."""
_GIVEN = re.compile(r'"?sep=(\t|[^"\w\s])"?\r?\n', re.IGNORECASE)
"""The line by which Excel is told what separates the fields."""
_QUOTED = re.compile(r'"[^"]*"')
_LONGEST_FIRST = 1 << 24
"""Bytes in which the first line must end: a table may have a column for each of its stations."""
_BEHIND_ALL = "\x1a behind all lines"


def xml_by_end(file: OpenFile) -> None:
    """Hold the last end tag against the first start tag."""
    head = file.up_to(0, _TAIL)
    if head[:2] in _UTF16:
        return xml(file)
    root = _root_of(head)
    if not root or not _ends_with(file.tail(_TAIL), root):
        return xml(file)  # it may be a single, empty element
    return None


def _root_of(head: bytes) -> bytes:
    """Return the first element's name, behind comments and the like; empty if it is not there."""
    at = head.find(b"<")
    while at >= 0:
        if name := _NAME.match(head, at + 1):
            return name[0]
        before = next(filter(None, (one.match(head, at) for one in _BEFORE_ROOT)), None)
        at = -1 if before is None else head.find(b"<", before.end())
    return b""


def _ends_with(tail: bytes, root: bytes) -> bool:
    """Say whether the end tag of ``root`` is the last, but for comments and the like."""
    end = len(tail)
    while end > 0:
        if tail[end - 1 : end].isspace():
            end -= 1
        elif tail.endswith(b"-->", 0, end):
            end = tail.rfind(b"<!--", 0, end - 3)
        elif tail.endswith(b"?>", 0, end):
            end = tail.rfind(b"<?", 0, end - 2)
        else:
            tag = tail[:end]
            return tag.endswith(b">") and tag[:-1].rstrip().endswith(b"</" + root)
    return False


def xml(file: OpenFile) -> None:
    """Have a parser read all of it. Entities of its own are not followed."""
    parser = expat.ParserCreate()

    def leave_entities(*_: object) -> None:
        # With such a handler expat does not put in what they stand for.
        parser.DefaultHandler = lambda _: None

    parser.EntityDeclHandler = leave_entities
    for piece in file.pieces():
        _parse(parser, piece, last=False)
    _parse(parser, b"", last=True)


def _parse(parser: expat.XMLParserType, piece: bytes, *, last: bool) -> None:
    try:
        parser.Parse(piece, last)
    except expat.ExpatError as error:
        if error.code in _NOT_FOR_EXPAT:
            raise CannotTell(f"its XML cannot be read here: {error}") from error
        raise NotWhole(f"its XML cannot be read: {error}") from error
    except (LookupError, ValueError) as error:
        raise CannotTell(f"the encoding of its XML is not known here: {error}") from error


def json_by_end(file: OpenFile) -> None:
    """Hold the last character against the first."""
    head, tail = file.up_to(0, _TAIL).lstrip(b"\xef\xbb\xbf \t\r\n"), file.tail(_TAIL).rstrip()
    if not head or not tail:
        raise NotWhole("there is nothing but white space at an end of it")
    closed = _CLOSED.get(head[0])
    if closed is not None and tail[-1] != closed:
        raise NotWhole(
            f"its JSON begins with {chr(head[0])!r} and does not end with {chr(closed)!r}"
        )


def json_all(file: OpenFile) -> None:
    """Go through all brackets, outside of strings; the last must close the first."""
    json_by_end(file)
    if file.size <= 1 << 20:
        _one_value(file.read(0, file.size))
        return
    stack = bytearray()
    in_string, escape = False, b""
    for piece in file.pieces():
        # A string may go on in the next piece, a backslash be its last character.
        data = _ESCAPED.sub(b"", escape + piece)
        escape = b"\\" if data.endswith(b"\\") else b""
        parts = data.split(b'"')
        _nest(stack, b"".join(parts[in_string::2]).translate(None, _NO_STRUCTURE))
        in_string ^= len(parts) % 2 == 0
    if in_string or stack:
        raise NotWhole("its JSON ends within a string, list or object")


def _nest(stack: bytearray, brackets: bytes) -> None:
    for bracket in brackets:
        if bracket in _CLOSED:
            stack.append(_CLOSED[bracket])
            if len(stack) > _DEEPEST:
                raise CannotTell("its JSON is nested too deeply")
        elif not stack or stack.pop() != bracket:
            raise NotWhole("a bracket in its JSON closes nothing")


def _one_value(text: bytes) -> None:
    try:
        json.loads(text, parse_int=len)  # a number may be too long to be computed
    except RecursionError as error:
        raise CannotTell("its JSON is nested too deeply") from error
    except ValueError as error:
        raise NotWhole(f"its JSON cannot be read: {error}") from error


def json_lines(file: OpenFile) -> None:
    """The last line must be JSON, and end as a line or as an object or list does."""
    line = _last_line(file)
    if not line.endswith(b"\n") and line.rstrip()[-1:] not in (b"}", b"]"):
        raise NotWhole("its last line has no end")
    _one_value(line)


def csv_by_end(file: OpenFile) -> None:
    """The last line must end as a line, and have as many fields as the first.

    A file that ends between two lines cannot be told from a whole one.
    """
    (delimiter, wanted), *_ = _first_row(file)
    if _encoding(file) == "utf-16" or not _last_line_ends(file):
        csv_all(file)
        return
    tail = file.tail(_TAIL)
    if len(tail) < file.size:
        tail = tail[tail.find(b"\n") + 1 :]
    last = _last_row([tail], delimiter, "utf-8")
    if last is None or len(last) != wanted:
        csv_all(file)  # a line may go on within quotes, and only the beginning tells


def csv_all(file: OpenFile) -> None:
    """Do the same, by reading all lines: some may be ends of values in quotes."""
    first = _first_row(file)
    if not _last_line_ends(file):
        raise NotWhole("its last line has no end")
    wrong = ""
    for delimiter, wanted in first:
        last = _last_row(file.pieces(), delimiter, _encoding(file))
        if last is None:
            raise NotWhole(wrong or "it ends within quotes")
        if len(last) == wanted:
            return
        wrong = wrong or f"its first line has {wanted} fields and its last {len(last)}"
    raise NotWhole(wrong)


def _encoding(file: OpenFile) -> str:
    return "utf-16" if file.up_to(0, 2) in _UTF16 else "utf-8-sig"


def _last_line_ends(file: OpenFile) -> bool:
    if _encoding(file) == "utf-16":
        return file.tail(2) in (b"\n\0", b"\0\n")
    return file.tail(1) == b"\n"


def _first_row(file: OpenFile) -> list[tuple[str, int]]:
    """Return what may separate the fields of the first line, and how many there are then.

    The likeliest first: what is there most often, beside what stands in quotes.
    """
    length = _TAIL
    while True:
        lines = list(_lines([file.up_to(0, length)], _encoding(file)))
        given = _GIVEN.fullmatch(lines[0]) if lines else None
        if given:
            del lines[0]
        if lines and lines[0].endswith("\n"):
            outside = _QUOTED.sub("", lines[0])
            there = filter(outside.count, ",;\t|")
            likely = sorted(there, key=outside.count, reverse=True) or [","]
            likely = [given[1]] if given else likely
            lines.append(_BEHIND_ALL)
            row = next(_rows(lines, likely[0]))
            # Else it goes on within quotes.
            is_whole = not row or _BEHIND_ALL not in row[-1]
            if is_whole or length >= min(file.size, _LONGEST_FIRST):
                return [(one, len(next(_rows(lines, one)))) for one in likely]
        elif length >= file.size:
            raise NotWhole("its first line has no end")
        elif length >= _LONGEST_FIRST:
            raise CannotTell("the first line of its CSV is too long")
        length *= 4


def _last_row(pieces: Iterable[bytes], delimiter: str, encoding: str) -> list[str] | None:
    """Return the last row that has something in it; None where it ends within quotes."""
    last: list[str] = []
    # Within quotes the line behind the last is no row of its own.
    for row in _rows(itertools.chain(_lines(pieces, encoding), [_BEHIND_ALL]), delimiter):
        if row == [_BEHIND_ALL]:
            return last
        last = row or last
    return None


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    csv.field_size_limit(_LONGEST_FIELD)
    try:
        yield from csv.reader(lines, delimiter=delimiter)
    except csv.Error as error:
        raise CannotTell(f"its CSV cannot be read: {error}") from error


def _lines(pieces: Iterable[bytes], encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)("replace")
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        for line in lines:
            yield line + "\n"
    if rest:
        yield rest


def _last_line(file: OpenFile) -> bytes:
    """Return the last line that has something in it."""
    tail = file.tail(_TAIL)
    size = _TAIL
    while b"\n" not in tail.rstrip() and len(tail) < file.size and size < 1 << 26:
        size *= 4
        tail = file.tail(size)
    stripped = tail.rstrip()
    if not stripped:
        raise NotWhole("there is nothing in it")
    return tail[stripped.rfind(b"\n") + 1 :]
