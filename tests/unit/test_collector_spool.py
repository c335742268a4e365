"""The spool's files: what was answered is there, in order, whatever happens to the rest; and its way round Kafka."""

import asyncio
import errno
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.spool import Spool
from collector.spool_files import MAGIC, Item, SpoolFiles, frame, frames, unframe
from headrace.dead_letter import Unavailable

ITEMS = st.lists(
    st.builds(Item, st.sampled_from(["events.raw", "dead-letter.collector"]), st.binary(max_size=40), st.binary(max_size=200)), max_size=8
)


@given(ITEMS)
def test_what_was_framed_comes_back(items: list[Item]) -> None:
    data = b"".join(map(frame, items))
    assert unframe(data) == (items, len(data))


@given(ITEMS, st.data())
def test_a_prefix_loses_only_the_end(items: list[Item], draw: st.DataObject) -> None:
    data = b"".join(map(frame, items))
    cut = draw.draw(st.integers(0, len(data)))
    found, end = unframe(data[:cut])
    whole = [len(b"".join(map(frame, items[:count]))) for count in range(len(items) + 1)]
    count = max(index for index, size in enumerate(whole) if size <= cut)
    assert (found, end) == (items[:count], whole[count])


@given(ITEMS, st.data())
def test_damage_never_makes_a_wrong_message(items: list[Item], draw: st.DataObject) -> None:
    data = bytearray(b"".join(map(frame, items)))
    whole = bytes(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        if data:
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    first = next((at for at in range(len(data)) if data[at] != whole[at]), len(data))
    found, end = unframe(bytes(data))
    assert found == items[: len(found)]
    assert end == len(b"".join(map(frame, items[: len(found)])))
    after = len(b"".join(map(frame, items[: len(found) + 1])))
    assert len(found) == len(items) or end <= first < after  # all before the damage is there


@given(ITEMS, st.binary(max_size=100), st.integers(0, 100))
def test_what_stands_behind_the_end_is_no_message(items: list[Item], rest: bytes, zeros: int) -> None:
    data = b"".join(map(frame, items))
    for tail in (rest, bytes(zeros)):
        assert unframe(data + tail) == (items, len(data))


def item(number: int, size: int = 10) -> Item:
    return Item("events.raw", b"k%d" % number, b"v" * size)


def drained(files: SpoolFiles, most: int = 1_000_000) -> list[Item]:
    found: list[Item] = []
    while True:
        items, size = files.read(most)
        if not items:
            return found
        found += items
        files.done(size)


def test_files_are_read_in_order_and_removed_once_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.spool_files._FILE_BYTES", 200)
    files = SpoolFiles(tmp_path, 10_000_000)
    assert files.empty
    for number in range(50):
        files.append([frame(item(number))])
    assert not files.empty
    assert len(list(tmp_path.rglob("*.spool"))) > 3
    assert drained(files, 100) == [item(number) for number in range(50)]
    assert files.empty
    assert files.size == 0
    assert list(tmp_path.rglob("*.spool")) == []
    files.append([frame(item(1))])
    assert drained(files) == [item(1)]
    files.close()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_who_starts_takes_over_what_nobody_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.spool_files._FILE_BYTES", 200)
    first, second = SpoolFiles(tmp_path, 10_000_000), SpoolFiles(tmp_path, 10_000_000)
    first.append([frame(item(number)) for number in range(20)])
    first.append([frame(item(20))])
    second.append([frame(item(30))])
    assert drained(SpoolFiles(tmp_path, 10_000_000)) == []  # both are held
    first.close()
    third = SpoolFiles(tmp_path, 10_000_000)
    third.append([frame(item(40))])
    assert drained(third) == [*(item(number) for number in range(21)), item(40)]
    assert drained(second) == [item(30)]
    second.close()
    third.close()
    assert drained(SpoolFiles(tmp_path, 10_000_000)) == []


def test_a_torn_end_is_cut(tmp_path: Path) -> None:
    files = SpoolFiles(tmp_path, 10_000_000)
    files.append([frame(item(1)), frame(item(2))])
    files.close()
    (path,) = tmp_path.rglob("*.spool")
    with path.open("ab") as file:
        file.write(frame(item(3))[:-1])
    files = SpoolFiles(tmp_path, 10_000_000)
    assert path.stat().st_size == len(MAGIC) + len(frame(item(1)) + frame(item(2)))
    assert drained(files) == [item(1), item(2)]
    files.append([frame(item(4))])
    assert drained(files) == [item(4)]


@pytest.mark.parametrize("content", [b"", MAGIC[:3], MAGIC])
def test_a_file_that_was_only_begun_is_removed(tmp_path: Path, content: bytes) -> None:
    files = SpoolFiles(tmp_path, 10_000_000)
    files.append([frame(item(1))])
    files.close()
    (path,) = tmp_path.rglob("*.spool")
    (path.parent / "000000000002.spool").write_bytes(content)
    files = SpoolFiles(tmp_path, 10_000_000)
    assert drained(files) == [item(1)]
    assert list(tmp_path.rglob("*.spool")) == []


def test_a_file_that_is_damaged_in_the_middle_is_kept_and_the_next_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("collector.spool_files._FILE_BYTES", 50)
    files = SpoolFiles(tmp_path, 10_000_000)
    files.append([frame(item(1)), frame(item(2)), frame(item(3))])
    files.append([frame(item(4))])
    (path, _) = sorted(tmp_path.rglob("*.spool"))
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + len(frame(item(1))) + 12] ^= 1
    path.write_bytes(data)
    assert drained(files) == [item(1), item(4)]
    assert path.with_suffix(".damaged").read_bytes() == data
    assert files.empty


def test_what_does_not_fit_is_refused_whole(tmp_path: Path) -> None:
    files = SpoolFiles(tmp_path, 1000)
    files.append([frame(item(1, 400))])
    with pytest.raises(Unavailable, match="1000 bytes"):
        files.append([frame(item(2, 300)), frame(item(3, 300))])
    files.append([frame(item(4, 300))])
    assert drained(files) == [item(1, 400), item(4, 300)]
    files.append([frame(item(5, 800))])


@pytest.mark.parametrize("failing", ["write", "fdatasync"])
def test_a_failing_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    files = SpoolFiles(tmp_path, 10_000_000)
    files.append([frame(item(1))])
    real_write = os.write
    with monkeypatch.context() as patch:
        if failing == "write":

            def short(handle: int, data: bytes) -> int:
                patch.setattr(os, "write", fail)
                return real_write(handle, data[:5])

            patch.setattr(os, "write", short)
        else:
            patch.setattr(os, failing, fail)
        with pytest.raises(OSError, match="No space"):
            files.append([frame(item(2))])
    files.append([frame(item(3))])
    assert drained(files) == [item(1), item(3)]


class Kafka:
    """Where a spool sends to: takes what comes while it is up."""

    def __init__(self) -> None:
        self.up = False
        self.got: list[Item] = []

    async def send(self, items: Sequence[Item]) -> None:
        await asyncio.sleep(0)
        if not self.up:
            raise Unavailable("down")
        self.got += items


def with_spool(tmp_path: Path, work: Callable[[Spool, Kafka], Awaitable[None]], max_bytes: int = 10_000_000) -> None:
    async def run() -> None:
        spool, kafka = Spool(SpoolFiles(tmp_path, max_bytes), deadline=20, max_waiting_bytes=1_000_000), Kafka()
        running = asyncio.create_task(spool.run(kafka.send))
        await asyncio.wait_for(work(spool, kafka), 60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await spool.close()

    asyncio.run(run())


def messages(number: int, size: int = 10) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
    return [(topic, [(key, value)]) for topic, key, value in [item(number, size)]]


async def empty(spool: Spool) -> None:
    while spool.holds:
        await asyncio.sleep(0.01)


def test_many_requests_are_one_write_and_arrive_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda handle: synced.append(1) or real(handle))  # type: ignore[func-returns-value]

    async def work(spool: Spool, kafka: Kafka) -> None:
        assert await asyncio.gather(*(spool.put(messages(number), 12, willing=True) for number in range(100))) == [True] * 100
        assert len(synced) <= 2
        assert spool.holds
        kafka.up = True
        await empty(spool)
        assert kafka.got == [item(number) for number in range(100)]

    with_spool(tmp_path, work)


def test_it_empties_under_a_load_that_never_stops(tmp_path: Path) -> None:
    async def work(spool: Spool, kafka: Kafka) -> None:
        sent = 0

        async def load() -> None:
            nonlocal sent
            while spool.holds or not kafka.up:
                sent += 1
                number = sent
                if not await spool.put(messages(number, 5000), 5000, willing=True):
                    kafka.got.append(item(number, 5000))  # as the outbox does: told to go to Kafka itself

        loads = [asyncio.create_task(load()) for _ in range(20)]
        while sent < 500:
            await asyncio.sleep(0.01)
        kafka.up = True
        await asyncio.gather(*loads)
        await empty(spool)
        assert sorted(kafka.got) == sorted(item(number, 5000) for number in range(1, sent + 1))

    with_spool(tmp_path, work, 1_000_000_000)


def test_a_full_spool_says_so_and_takes_events_again_later(tmp_path: Path) -> None:
    async def work(spool: Spool, kafka: Kafka) -> None:
        assert spool.problem is None
        assert await spool.put(messages(1, 990), 992, willing=True)
        assert spool.problem is None
        with pytest.raises(Unavailable, match="holds all that it may"):
            await spool.put(messages(2, 990), 992, willing=True)
        assert spool.problem is not None
        kafka.up = True
        await empty(spool)
        assert kafka.got == [item(1, 990)]
        kafka.up = False
        assert await spool.put(messages(3), 12, willing=False)
        assert spool.problem is None

    with_spool(tmp_path, work, 1500)


def test_what_waits_for_the_disk_is_bounded(tmp_path: Path) -> None:
    async def work(spool: Spool, kafka: Kafka) -> None:
        outcomes = await asyncio.gather(
            *(spool.put(messages(number), 300_000, willing=True) for number in range(5)), return_exceptions=True
        )
        assert [outcome if outcome is True else type(outcome) for outcome in outcomes] == [True, True, True, Unavailable, Unavailable]

    with_spool(tmp_path, work)


def test_frames_of_a_batch_are_those_of_each() -> None:
    assert frames("events.raw", [(b"a", b"1"), (b"b", b"2")]) == [
        frame(Item("events.raw", b"a", b"1")),
        frame(Item("events.raw", b"b", b"2")),
    ]
