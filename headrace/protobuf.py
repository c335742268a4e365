"""Data of events as protobuf messages: schemas/<event>/<version>.proto, beside the JSON Schema of that version.

The JSON Schema decides what is valid; the .proto says the same members in another notation, which is checked when it is loaded. A
message becomes the JSON that the schema describes, so nothing behind the collector knows of protobuf. docs/decisions/0009 has the rules.
"""

import base64
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from headrace.dead_letter import Invalid, Reason
from headrace.protobuf_schema import WELL_KNOWN, Field, is_map, problems
from headrace.registry import PlanError


class Messages:
    """The messages that may be an event's data. `pool` describes them, for gRPC's reflection."""

    def __init__(self, pool: descriptor_pool.DescriptorPool, refs: Mapping[str, str]) -> None:
        """`refs` gives the full name of each schema ref's message."""
        self.pool = pool
        self._known = {name: (ref, message_factory.GetMessageClass(pool.FindMessageTypeByName(name))) for ref, name in refs.items()}

    @classmethod
    def load(cls, folder: Path, schemas: Mapping[str, dict[str, Any]]) -> "Messages":
        """Compile the .proto files in `folder`, whose JSON Schemas by ref are `schemas`. Raises PlanError with every problem found."""
        paths = {f"{path.parent.name}/{path.stem}": path for path in sorted(folder.glob("*/*.proto"))}
        orphans = [
            f"{path}: there is no {path.stem}.json beside it: write that JSON Schema" for ref, path in paths.items() if ref not in schemas
        ]
        if orphans or not paths:
            raise_if(orphans)
            return cls(descriptor_pool.DescriptorPool(), {})
        pool = _compiled(folder, list(paths.values()))
        files = {ref: pool.FindFileByName(f"{ref}.proto") for ref in paths}
        raise_if([problem for ref, file in files.items() for problem in problems(paths[ref], ref, file, schemas[ref])])
        return cls(pool, {ref: next(iter(file.message_types_by_name.values())).full_name for ref, file in files.items()})

    def read(self, type_url: str, value: bytes) -> tuple[str, bytes]:
        """Schema ref and JSON text of a message packed into a google.protobuf.Any. Raises Invalid."""
        name = type_url.rpartition("/")[2]
        if name not in self._known:
            known = ", ".join(self._known) or "none"
            raise Invalid(Reason.UNKNOWN_SCHEMA, f"{name[:100]!r} is no message of an event type; known: {known}")
        ref, kind = self._known[name]
        try:
            message = kind.FromString(value)
        except DecodeError:
            raise Invalid(Reason.UNPARSEABLE, f"the bytes are no protobuf message {name}") from None
        size = message.ByteSize()
        message.DiscardUnknownFields()
        if message.ByteSize() != size:
            raise Invalid(Reason.MALFORMED, f"the message has fields that {name} does not have: a field more is a new version")
        try:
            return ref, orjson.dumps(_members(message))
        except (ValueError, TypeError, json_format.Error) as error:
            raise Invalid(Reason.MALFORMED, f"the message {name} cannot be written as JSON: {error}") from None

    def serve(self, *files: Any) -> None:
        """Describe `files` (FileDescriptors), and what they import, in the pool too."""
        for file in files:
            try:
                self.pool.FindFileByName(file.name)
            except KeyError:
                self.serve(*file.dependencies)
                self.pool.AddSerializedFile(file.serialized_pb)


def number(value: float) -> float | str:
    """A double as JSON can hold it: what is no number is the text that the JSON mapping of protobuf has for it."""
    if value - value == 0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"  # noqa: PLR0124 - only NaN differs from itself


def raise_if(problems: list[str]) -> None:
    """Raises PlanError where there is a problem."""
    if problems:
        raise PlanError(problems)


def _compiled(folder: Path, paths: list[Path]) -> descriptor_pool.DescriptorPool:
    with tempfile.NamedTemporaryFile() as out:
        options = [f"-I{folder}", "--include_imports", f"--descriptor_set_out={out.name}"]
        done = subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *map(str, paths)], capture_output=True, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").splitlines()
            about = [line for line in said if line.startswith(str(folder)) and ": warning: " not in line]
            raise PlanError(about or said or [f"{folder}: protoc ended with {done.returncode}"])
        files = descriptor_pb2.FileDescriptorSet.FromString(Path(out.name).read_bytes()).file
    pool = descriptor_pool.DescriptorPool()
    for file in files:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


# ---- from a message to JSON


def _members(message: Any) -> dict[str, Any]:
    return {field.name: _member(field, value) for field, value in message.ListFields()}


def _member(field: Field, value: Any) -> Any:
    if not field.is_repeated:
        return _value(field, value)
    if is_map(field):
        of = field.message_type.fields_by_name["value"]
        return {key: _value(of, one) for key, one in value.items()}
    return [_value(field, one) for one in value]


def _value(field: Field, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return json_format.MessageToDict(value) if field.message_type.full_name in WELL_KNOWN else _members(value)
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return number(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return base64.b64encode(value).decode()
    if field.type == FieldDescriptor.TYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value
