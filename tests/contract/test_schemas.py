"""What the schemas promise: each example keeps its verdict, and two validators that share no code agree on anything."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import examples
from headrace.dead_letter import Invalid
from headrace.registry import Registry

SCHEMAS = Path(__file__).parents[2] / "schemas"
REGISTRY = Registry.load(SCHEMAS)
EXAMPLES, MISNAMED = examples.read(SCHEMAS)
ORACLES = {ref: examples.oracle(schema) for ref, schema in REGISTRY.schemas.items()}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.datetimes().map(str)
    | st.sampled_from(["2026-01-01T10:00:00Z", "2026-02-29T10:00:00Z", "2016-12-31T23:59:60Z", "2026-01-01t10:00:00.5+01:00", "x" * 5_000])
)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)


def is_valid(ref: str, data: bytes) -> bool:
    try:
        REGISTRY.validate(ref, data)
    except Invalid:
        return False
    return True


def test_every_file_of_examples_is_one() -> None:
    assert MISNAMED == []
    assert EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.ref}.{e.path.name.split('.')[1]}")
def test_example(example: examples.Example) -> None:
    assert is_valid(example.ref, example.data) == example.passes
    assert ORACLES[example.ref].is_valid(orjson.loads(example.data)) == example.passes


@st.composite
def mutations(draw: st.DrawFn, ref: str) -> Any:
    """An example of `ref` with a few members dropped, replaced or added, at any depth; or any JSON at all."""
    data = json.loads(draw(st.sampled_from([e.data for e in EXAMPLES if e.ref == ref])))
    names = st.sampled_from([*REGISTRY.schemas[ref]["properties"], "unknown"])
    for _ in range(draw(st.integers(0, 3))):
        data = draw(_mutated(data, names))
    return data


def _mutated(value: Any, names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    choices: list[st.SearchStrategy[Any]] = [JSON]
    if isinstance(value, dict):
        choices.append(st.tuples(names, JSON).map(lambda pair: value | {pair[0]: pair[1]}))
        if value:
            keys = st.sampled_from(sorted(value))
            choices.append(keys.map(lambda key: {k: v for k, v in value.items() if k != key}))
            choices.append(keys.flatmap(lambda key: _mutated(value[key], names).map(lambda new: value | {key: new})))
    if isinstance(value, list) and value:
        places = st.integers(0, len(value) - 1)
        choices.append(places.flatmap(lambda i: _mutated(value[i], names).map(lambda new: [*value[:i], new, *value[i + 1 :]])))
    return st.one_of(choices)


def _agreement(ref: str) -> Callable[[], None]:
    @given(mutations(ref))
    def agree(value: Any) -> None:
        data = json.dumps(value).encode()
        try:
            read = orjson.loads(data)
        except orjson.JSONDecodeError:
            assert not is_valid(ref, data)
        else:
            assert is_valid(ref, data) == ORACLES[ref].is_valid(read)

    return agree


@pytest.mark.parametrize("ref", REGISTRY.schemas)
def test_validators_agree(ref: str) -> None:
    _agreement(ref)()
