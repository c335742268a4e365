"""Programs start after what they wait for; what cannot be ordered is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.component import Place, Program
from runtime.errors import RuntimeFailure
from runtime.ordering import check, levels, startable
from runtime.remembered import recall, remember, stop_order


def program(name: str, *after: str) -> Program:
    return Program(name=name, command=["true"], ready=lambda: True, after=after)


def test_each_group_waits_only_for_earlier_ones() -> None:
    programs = [program("trino", "postgres", "minio"), program("superset", "trino"), program("minio"), program("postgres")]
    assert [[each.name for each in group] for group in levels(programs)] == [["minio", "postgres"], ["trino"], ["superset"]]


def test_what_waits_for_nothing_missing_can_start() -> None:
    waiting = {each.name: each for each in (program("a", "kafka"), program("b", "kafka", "minio"), program("c"))}
    assert [each.name for each in startable(waiting, {"kafka"})] == ["a", "c"]


def test_a_circle_is_named() -> None:
    with pytest.raises(RuntimeFailure, match="wait for one another: a, b"):
        check([program("a", "b"), program("b", "a"), program("c")])


def test_a_missing_program_is_named() -> None:
    with pytest.raises(RuntimeFailure, match="enricher waits for kafka"):
        check([program("enricher", "kafka")])


def test_a_name_stands_for_one_program() -> None:
    with pytest.raises(RuntimeFailure, match="two programs are called a"):
        check([program("a"), program("a")])


@given(st.lists(st.sets(st.integers(0, 19)), max_size=20))
def test_every_order_without_a_circle_is_kept(edges: list[set[int]]) -> None:
    programs = [program(str(i), *(str(j) for j in after if j < i)) for i, after in enumerate(edges)]
    place = {each.name: index for index, group in enumerate(levels(programs)) for each in group}
    assert sorted(place, key=int) == [each.name for each in programs]
    assert all(place[before] < place[each.name] for each in programs for before in each.after)


def test_what_depends_on_others_stops_first(tmp_path: Path) -> None:
    place = Place(root=tmp_path, env={"STATE_DIR": "state", "KAFKA_PORT": "9092"})
    remember(
        place, [replace(program("kafka"), ports={"clients": "KAFKA_PORT"}), program("collector", "kafka"), program("shop", "collector")]
    )
    started = recall(place)
    assert started["kafka"].ports == {"clients": "9092"}
    assert [set(group) for group in stop_order(started, {"kafka", "shop", "unknown"})] == [{"kafka", "shop", "unknown"}]
    assert stop_order(started, {"kafka", "collector", "shop"}) == [["shop"], ["collector"], ["kafka"]]
