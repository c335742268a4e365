"""What `make up` started last: the later commands ask this, not the code, which may have changed since."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from runtime.component import Place, Program
from runtime.ordering import grouped


@dataclass(frozen=True)
class Started:
    """A program as it was started: names of those it waits for, and its ports by what a person calls them."""

    name: str
    after: Sequence[str]
    ports: Mapping[str, str]


def remember(place: Place, programs: Sequence[Program]) -> None:
    """Keep what is about to be started."""
    started = [
        Started(program.name, list(program.after), {what: place.env[setting] for what, setting in program.ports.items()})
        for program in programs
    ]
    path = place.state / "run" / "programs.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_text(json.dumps([asdict(each) for each in started]))


def recall(place: Place) -> dict[str, Started]:
    """By name; empty where nothing was ever started."""
    path = place.state / "run" / "programs.json"
    return {each["name"]: Started(**each) for each in json.loads(path.read_text())} if path.is_file() else {}


def stop_order(started: Mapping[str, Started], known: set[str]) -> list[list[str]]:
    """The names in `known` in groups, what depends on others first."""
    after = {name: [other for other in started[name].after if other in known] if name in started else [] for name in known}
    return list(reversed(grouped(after)))
