"""`.env.example` and the code name the same settings."""

import importlib
import re
from pathlib import Path

import pytest
from dotenv import dotenv_values

from headrace.settings import Settings

ROOT = Path(__file__).parents[2]
EXAMPLE = set(dotenv_values(ROOT / ".env.example", interpolate=False))
FOLDERS = ["headrace", "collector", "enricher", "enrichment_api", "loaders", "producers", "cli", "runtime", "dags", "dashboards", "docker"]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for pattern in ("*/settings.py", "*/*/settings.py")
    for path in ROOT.glob(pattern)
    if not path.parts[len(ROOT.parts)].startswith(".") and path.parent.name != "headrace"
)
CODE = [
    path
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".yaml", ".yml", ".sql", ".sh", ".java", ".properties"}
] + [path for path in (ROOT / "Makefile", ROOT / "docker-compose.yml") if path.is_file()]  # fmt: skip


def settings_classes(module: str) -> list[type[Settings]]:
    found = vars(importlib.import_module(module)).values()
    return [thing for thing in found if isinstance(thing, type) and issubclass(thing, Settings) and thing is not Settings]


@pytest.mark.parametrize("module", MODULES)
def test_every_field_is_in_the_example(module: str) -> None:
    classes = settings_classes(module)
    assert classes, f"{module} has no settings class"
    for of in classes:
        assert of.environment_names() - EXAMPLE == set(), f"{module}: not in .env.example"


def test_every_key_of_the_example_is_used() -> None:
    used = {name for module in MODULES for of in settings_classes(module) for name in of.environment_names()}
    used |= set(re.findall(r"\$\{([A-Z0-9_]+)\}", (ROOT / ".env.example").read_text()))
    words = {word for path in CODE for word in re.findall(r"[A-Z][A-Z0-9_]+", path.read_text(errors="replace"))}
    assert EXAMPLE - used - words == set()


def test_keys_stand_once() -> None:
    keys = [line.split("=")[0] for line in (ROOT / ".env.example").read_text().splitlines() if re.match(r"[A-Z]", line)]
    assert sorted(keys) == sorted(set(keys))


def test_a_setting_refers_only_to_what_stands_above_it() -> None:
    above: set[str] = set()
    for line in (ROOT / ".env.example").read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            assert set(re.findall(r"\$\{(\w+)\}", value)) <= above, line
            above.add(name)
