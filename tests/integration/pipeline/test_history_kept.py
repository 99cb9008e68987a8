"""The running pipeline moves what ended into the archive, and drops it when it is too old."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

import pytest

from tests.running import config_for, running
from tests.waiting import wait_until
from watchman.journal import archive, archiving, sealing
from watchman.journal.answers import ask
from watchman.journal.journal_reader import open_reader
from watchman.journal.question import Question
from watchman.model import State
from watchman.pipeline import heartbeat
from watchman.pipeline import pipeline as pipeline_module

COUNT = 120


def test_what_was_sent_goes_into_the_archive_and_out_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archiving, "KEEP", 40)
    monkeypatch.setattr(archiving, "MORE", 1)
    monkeypatch.setattr(archiving, "AT_A_TIME", 7)
    monkeypatch.setattr(sealing, "ROWS", 30)
    monkeypatch.setattr(heartbeat, "BEAT", 0.1)
    monkeypatch.setattr(pipeline_module, "PRUNE", 0.1)
    root, state = tmp_path / "up", tmp_path / "state"
    root.mkdir()
    directory = archive.directory_of(str(state))

    def in_journal() -> int:
        with open_reader(str(state)) as journal:
            return int(journal.connection.execute("SELECT count(*) FROM deliveries").fetchone()[0])

    config = config_for(root, state)
    with running(config) as (pipeline, sent):
        for n in range(COUNT):
            (root / f"{n}.csv").write_text("x")
        wait_until(lambda: len(sent.messages) == COUNT)
        wait_until(lambda: in_journal() <= 40 and not pipeline._archive.active, 60)
        with open_reader(str(state)) as journal:
            found = ask(journal, Question(state=State.SENT), 1000)
        assert len(found.records) == COUNT
        assert len({record.seq for record in found.records}) == COUNT
        assert len(archive.files(str(state))) >= 2
    with running(dataclasses.replace(config, retention=0.0)) as (pipeline, _):
        wait_until(lambda: not archive.files(str(state)), 60)
        (root / "last.csv").write_text("x")
        wait_until(lambda: pipeline.journal.last_seq() == COUNT + 1)
    assert os.listdir(directory) == []
    assert [line for line in caplog.messages if "history" in line] == []


def test_it_is_quiet_after_a_second_also_where_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has time for the history does not wait for as long as the clock was ahead."""
    root = tmp_path / "up"
    root.mkdir()
    now = time.time_ns
    with running(config_for(root, tmp_path / "state")) as (pipeline, sent):
        with monkeypatch.context() as ahead:
            ahead.setattr(time, "time_ns", lambda: now() + 86_400 * 10**9)
            (root / "a.csv").write_text("x")
            wait_until(lambda: sent.messages)
        assert pipeline.parts.last_arrival_ns > now()
        wait_until(pipeline._is_quiet, 10)
