"""The SDK's spool: whatever happens to its process or its files, what can be read is given out, in order, until it is acknowledged."""

import logging
import os
import tempfile
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from producers.client.frames import HEAD_BYTES, frame, frames, scan
from producers.client.spool import Mark, QueueFull, Spool, SpoolTaken

TEXTS = st.lists(st.text(max_size=40).map(str.encode), min_size=1, max_size=12)


def read(data: bytes) -> list[bytes]:
    return [text for text, _ in scan(data)]


@given(TEXTS, st.data())
def test_a_cut_loses_the_torn_record_only(texts: list[bytes], data: st.DataObject) -> None:
    whole = frames(texts)
    cut = data.draw(st.integers(0, len(whole)))
    ends = [sum(map(len, map(frame, texts[:count]))) for count in range(len(texts) + 1)]
    assert read(whole[:cut]) == texts[: max(count for count, end in enumerate(ends) if end <= cut)]


@given(TEXTS, st.data())
def test_a_damaged_byte_loses_its_record_only(texts: list[bytes], data: st.DataObject) -> None:
    whole = bytearray(frames(texts))
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    ends = [sum(map(len, map(frame, texts[: count + 1]))) for count in range(len(texts))]
    hit = next(count for count, end in enumerate(ends) if place < end)
    assert read(bytes(whole)) == texts[:hit] + texts[hit + 1 :]


@given(st.binary(max_size=200), TEXTS, st.binary(max_size=200))
def test_any_bytes_around_records_are_passed_over(before: bytes, texts: list[bytes], after: bytes) -> None:
    assert read(before + frames(texts) + after) == texts


class SpoolMachine(RuleBasedStateMachine):
    """A spool beside a list: appended, read, acknowledged, left by a dead process and taken up by the next, in any order."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.spool = Spool(Path(self.folder.name), 3_000_000)
        self.kept: deque[bytes] = deque()  # not acknowledged
        self.out: deque[Mark] = deque()
        self.given = self.number = 0

    @rule(count=st.integers(1, 30), size=st.sampled_from([0, 10, 20_000]))
    def append(self, count: int, size: int) -> None:
        texts = [f"{self.number + each} {'x' * size}".encode() for each in range(count)]
        self.number += count
        try:
            self.spool.append(texts)
        except QueueFull:
            assert sum(file.stat().st_size for file in Path(self.folder.name).glob("*.spool")) + len(frames(texts)) > 3_000_000
        else:
            self.kept += texts

    @rule(events=st.integers(1, 40), size=st.sampled_from([30, 1000, 100_000]))
    def read(self, events: int, size: int) -> None:
        chunk = self.spool.read(events, size)
        if chunk is None:
            assert self.given == len(self.kept)
            return
        assert chunk.texts == list(self.kept)[self.given : self.given + len(chunk.texts)]
        assert (chunk.lost, chunk.mark.records) == (0, len(chunk.texts))
        assert 0 < len(chunk.texts) <= events
        self.given += len(chunk.texts)
        self.out.append(chunk.mark)

    @rule()
    def done(self) -> None:
        if self.out:
            mark = self.out.popleft()
            self.spool.done(mark)
            for _ in range(mark.records):
                self.kept.popleft()
            self.given -= mark.records

    @rule(torn=st.binary(max_size=30))
    def next_process(self, torn: bytes) -> None:
        self.spool.close()
        files = sorted(Path(self.folder.name).glob("*.spool"))
        if files and torn:
            with files[-1].open("ab") as file:
                file.write(torn)
        self.spool = Spool(Path(self.folder.name), 3_000_000)
        self.out.clear()
        self.given = 0

    @rule()
    def end_with_some_under_way(self) -> None:
        """As a client is closed: what was in memory goes first."""
        self.number += 1
        self.spool.put_first([b"first %d" % self.number, b"then %d" % self.number])
        self.kept.extendleft([b"then %d" % self.number, b"first %d" % self.number])
        self.next_process(b"")

    @invariant()
    def counts(self) -> None:
        assert self.spool.records == len(self.kept)

    def teardown(self) -> None:
        while (chunk := self.spool.read(500, 480_000)) is not None:
            assert chunk.texts == list(self.kept)[self.given : self.given + len(chunk.texts)]
            self.given += len(chunk.texts)
        assert self.given == len(self.kept)
        self.spool.close()
        self.folder.cleanup()


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def everything(spool: Spool) -> list[bytes]:
    found: list[bytes] = []
    while (chunk := spool.read(500, 480_000)) is not None:
        found += chunk.texts
        spool.done(chunk.mark)
    return found


def test_damage_is_said_and_what_is_around_it_is_given_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [b"event %d" % number for number in range(5)]
    spool = Spool(tmp_path, 1_000_000)
    spool.append(texts)
    spool.close()
    [file] = tmp_path.glob("*.spool")
    data = bytearray(file.read_bytes())
    data[len(frames(texts[:2])) + HEAD_BYTES] ^= 0xFF
    file.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        spool = Spool(tmp_path, 1_000_000)
    assert f"{len(frame(texts[2]))} bytes are damaged" in caplog.text
    assert (spool.records, everything(spool)) == (4, texts[:2] + texts[3:])
    assert list(tmp_path.glob("*.spool")) == []


def test_a_file_without_any_event_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / f"{7:020}.spool").write_bytes(b"no event at all")
    spool = Spool(tmp_path, 1_000_000)
    assert (spool.records, spool.read(1, 100)) == (0, None)
    assert [path.name for path in tmp_path.glob("*7.*")] == [f"{7:020}.damaged"]


def test_what_breaks_while_it_is_open_is_counted_as_lost(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000_000)
    spool.append([b"a", b"b", b"c"])
    [file] = tmp_path.glob("*.spool")
    file.write_bytes(frame(b"a") + b"\0" * len(frame(b"b")) + frame(b"c"))
    chunk = spool.read(10, 1000)
    assert chunk is not None
    assert (chunk.texts, chunk.lost, chunk.mark.records) == ([b"a", b"c"], 1, 3)
    spool.done(chunk.mark)
    assert spool.records == 0


def test_the_bound_holds_and_room_comes_back(tmp_path: Path) -> None:
    spool, texts = Spool(tmp_path, 200_000), [b"x" * 10_000]
    for _ in range(19):
        spool.append(texts)
    with pytest.raises(QueueFull, match=r"is full: 19 events wait \(190228 of 200000 bytes\)"):
        spool.append(texts)
    assert everything(spool) == texts * 19
    spool.append(texts)
    assert everything(spool) == texts


def test_a_disk_that_is_full_takes_nothing_of_an_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, write = Spool(tmp_path, 1_000_000), os.write
    spool.append([b"before"])

    def full(fd: int, data: memoryview) -> int:
        if len(data) < 10:
            raise OSError(28, "No space left on device")
        return write(fd, data[:10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(QueueFull, match="cannot be written: No space left on device"):
        spool.append([b"much too large"])
    monkeypatch.undo()
    spool.append([b"after"])
    assert everything(spool) == [b"before", b"after"]


def test_a_folder_that_cannot_be_synced_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, 1_000_000)

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(QueueFull, match="cannot be written: Input/output error"):
        spool.append([b"first"])
    monkeypatch.undo()
    spool.append([b"second"])
    assert everything(spool) == [b"second"]


def test_one_owner_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1_000_000)
    with pytest.raises(SpoolTaken, match=f"belongs to process {os.getpid()}: give each process a spool_dir of its own"):
        Spool(tmp_path, 1_000_000)
    spool.close()
    Spool(tmp_path, 1_000_000).close()


def test_events_on_disk_are_for_their_owner_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1_000_000)
    spool.append([b"private"])
    assert (tmp_path / "spool").stat().st_mode & 0o077 == 0
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "spool").iterdir())
