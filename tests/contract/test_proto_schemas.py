"""The .proto and the JSON Schema of a version mean the same: each example, as a message, is the same JSON and has the same verdict."""

from pathlib import Path

import orjson
import pytest
from google.protobuf import json_format, message_factory

from cli import examples
from headrace.dead_letter import Invalid
from headrace.protobuf import Messages
from headrace.registry import Registry

SCHEMAS = Path(__file__).parents[2] / "schemas"
REGISTRY = Registry.load(SCHEMAS)
MESSAGES = Messages.load(SCHEMAS, REGISTRY.schemas)  # raises where members or types differ
REFS = {f"{path.parent.name}/{path.stem}" for path in SCHEMAS.glob("*/*.proto")}
EXAMPLES = [example for example in examples.read(SCHEMAS)[0] if example.ref in REFS]


def as_message(example: examples.Example) -> bytes | None:
    """The JSON that the example is once it was a message, or None where no message can say it."""
    event, version = example.ref.split("/")
    file = MESSAGES.pool.FindFileByName(f"{example.ref}.proto")
    assert file.package == f"headrace.schemas.{event}.v{version.replace('-', '_')}"
    (message,) = file.message_types_by_name.values()
    try:
        packed = json_format.Parse(example.data, message_factory.GetMessageClass(message)())
    except json_format.ParseError:
        return None
    ref, data = MESSAGES.read(message.full_name, packed.SerializeToString())
    assert ref == example.ref
    return data


def test_there_are_some() -> None:
    assert {"purchase/1-0-0", "page_view/1-0-0"} <= REFS
    assert {example.ref for example in EXAMPLES} == REFS


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: f"{e.ref}.{e.path.name.split('.')[1]}")
def test_an_example_as_a_message(example: examples.Example) -> None:
    data = as_message(example)
    if example.passes:
        assert data is not None
        assert orjson.loads(data) == orjson.loads(example.data)
        REGISTRY.validate(example.ref, data)
    elif data is not None:
        with pytest.raises(Invalid):
            REGISTRY.validate(example.ref, data)
