"""Dead letters as a file: JSON lines, or Parquet with the payload as bytes. Written piece by piece, so their number does not matter."""

import base64
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.event import rfc3339

Rows = Iterator[dict[str, Any]]
_AT_ONCE = 500
_MOMENT = pa.timestamp("us", tz="UTC")
_TYPES = {
    "rejected_at": _MOMENT,
    "received_at": _MOMENT,
    "origin_partition": pa.int32(),
    "origin_offset": pa.int64(),
    "payload": pa.binary(),
}


def json_lines(file: IO[bytes], rows: Rows, columns: tuple[str, ...]) -> int:
    """One object for each letter: the payload is text, and in base64 where it was no UTF-8 (`payload_encoding` says which). The number."""
    number = 0
    for row in rows:
        said = {name: rfc3339(row[name]) if isinstance(row[name], datetime) else row[name] for name in columns}
        file.write(msgspec.json.encode(said) + b"\n")
        number += 1
    return number


def parquet(file: IO[bytes], rows: Rows, columns: tuple[str, ...]) -> int:
    """One row for each letter; `payload` is the original bytes. The number."""
    schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in columns if name != "payload_encoding"])
    number = 0
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(rows, _AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([{**row, "payload": _bytes(row)} for row in some], schema=schema))
            number += len(some)
    return number


WRITERS: Mapping[str, Callable[[IO[bytes], Rows, tuple[str, ...]], int]] = {".jsonl": json_lines, ".parquet": parquet}


def write(to: Path, rows: Rows, columns: tuple[str, ...]) -> int:
    """Write the file `to`, whole or not at all, in the form that its name says; `-` is standard output. The number of letters.

    Raises OSError.
    """
    if str(to) == "-":
        return json_lines(sys.stdout.buffer, rows, columns)
    part = to.with_name(f"{to.name}.part")
    try:
        with part.open("wb") as file:
            number = WRITERS[to.suffix](file, rows, columns)
        os.replace(part, to)
    finally:
        part.unlink(missing_ok=True)
    return number


def _bytes(row: Mapping[str, Any]) -> bytes:
    payload: str = row["payload"]
    return base64.b64decode(payload) if row["payload_encoding"] == "base64" else payload.encode()
