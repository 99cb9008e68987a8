"""The table ``partial``, as commands read it."""

from __future__ import annotations

from pathlib import Path

from watchman.journal import Journal
from watchman.journal.journal_reader import open_reader
from watchman.journal.partial import PartialFile
from watchman.model import Version


def test_partial_files_are_found_by_name_and_path(tmp_path: Path) -> None:
    journal = Journal(str(tmp_path))
    half = [PartialFile(f"/up/{d}/h\udcfflf", Version(1, 2, 3, 4, 5), 6, "x") for d in "ab"]
    journal.partial.note([*half, half[0]._replace(path="/up/ah\udcfflf")])
    journal.close()
    with open_reader(str(tmp_path)) as reader:
        assert reader.partial_with_name("h\udcfflf", 9) == half
        assert reader.partial_with_name("h\udcfflf", 1) == [half[0]]
        assert reader.partial(half[1].path) == half[1]
        assert reader.partial("/up/b") is None
