"""The examples beside the schemas, judged by the platform's validator and by a second one that shares no code with it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import orjson

from headrace.dead_letter import Invalid
from headrace.registry import Registry

_NAME = re.compile(r"(?P<version>[0-9]+-[0-9]+-[0-9]+)\.(?P<name>[^.]+)\.(?P<verdict>pass|fail)\.json")
_DATE_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt]([01]\d|2[0-3]):([0-5]\d):([0-5]\d|60)(?:\.\d+)?(?:[Zz]|([+-])([01]\d|2[0-3]):([0-5]\d))", re.ASCII
)


@dataclass(frozen=True)
class Example:
    """One file of schemas/examples: `data` that must pass or fail by the schema `ref`."""

    path: Path
    ref: str
    passes: bool
    data: bytes


def read(folder: Path) -> tuple[list[Example], list[str]]:
    """The examples of the schemas in `folder`, and a sentence for each file there that is named wrongly."""
    examples, problems = [], []
    for path in sorted((folder / "examples").glob("*/*")):
        match = _NAME.fullmatch(path.name)
        if match:
            ref = f"{path.parent.name}/{match['version']}"
            examples.append(Example(path, ref, match["verdict"] == "pass", path.read_bytes()))
        else:
            problems.append(f"{path}: name it <version>.<name>.pass.json or <version>.<name>.fail.json")
    return examples, problems


def problems(folder: Path, registry: Registry) -> Iterator[str]:
    """One sentence for each thing to mend in schemas/examples: a missing, misnamed or orphaned file, or a wrong verdict."""
    examples, misnamed = read(folder)
    yield from misnamed
    for ref in registry.schemas:
        for passes, verdict in ((True, "pass"), (False, "fail")):
            if not any(example.ref == ref and example.passes == passes for example in examples):
                wanted = folder / "examples" / f"{ref}.<name>.{verdict}.json"
                yield f"{wanted}: there is none: write an example that must {verdict}"
    oracles = {ref: oracle(schema) for ref, schema in registry.schemas.items()}
    for example in examples:
        if example.ref not in registry.schemas:
            yield f"{example.path}: there is no schema {example.ref}.json: rename the example or remove it"
        else:
            yield from _misjudged(example, registry, oracles[example.ref])


def _misjudged(example: Example, registry: Registry, oracle: jsonschema.Draft202012Validator) -> Iterator[str]:
    refusal = None
    try:
        registry.validate(example.ref, example.data)
    except Invalid as error:
        refusal = error.detail
    try:
        second = oracle.is_valid(orjson.loads(example.data))
    except orjson.JSONDecodeError as error:
        yield f"{example.path}: not JSON: {error}"
        return
    if second != (refusal is None):
        verdicts = f"jsonschema-rs says {refusal or 'valid'}, jsonschema {'valid' if second else 'invalid'}"
        yield f"{example.path}: the two validators disagree: {verdicts}"
    elif example.passes and refusal:
        yield f"{example.path}: must pass, but {refusal}"
    elif not example.passes and not refusal:
        yield f"{example.path}: must fail, but it is valid by {example.ref}"


def oracle(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    """The second validator. It checks those formats that both know alike (`date-time` by `is_date_time`)."""
    checker = jsonschema.FormatChecker(["date", "uuid", "ipv4", "ipv6"])
    checker.checks("date-time")(is_date_time)
    return jsonschema.Draft202012Validator(schema, format_checker=checker)


def is_date_time(value: object) -> bool:
    """Whether `value` is no string, or an RFC 3339 section 5.6 date-time; a leap second only at the end of a day in UTC."""
    if not isinstance(value, str):
        return True
    match = _DATE_TIME.fullmatch(value)
    if not match:
        return False
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    try:
        date(year or 2000, month, day)  # the year 0000 has a calendar (of a leap year), though not in Python
    except ValueError:
        return False
    sign, offset_hours, offset_minutes = match.groups()[6:]
    offset = timedelta(hours=int(offset_hours or 0), minutes=int(offset_minutes or 0)) * (-1 if sign == "-" else 1)
    in_utc = (timedelta(hours=hour, minutes=minute) - offset) % timedelta(days=1)
    return second < 60 or in_utc == timedelta(hours=23, minutes=59)
