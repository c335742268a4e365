"""The tracking plan of a platform that is verified: the team's own, and one type more whose enrichment no model gives."""

import json
import shutil
from pathlib import Path

from verify.events import UNSCORED_TYPE

_TYPE = f"""
  {UNSCORED_TYPE}:
    version: 1-0-0
    owner: platform
    purpose: Verification alone. It asks for an enrichment that no model gives.
    enrich: [no_such_model]
"""
_SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Something that cannot be scored",
    "type": "object",
    "properties": {"url": {"type": "string", "maxLength": 2000}, "title": {"type": "string", "maxLength": 500}},
    "required": ["url"],
}


def write(source: Path, target: Path) -> None:
    """Make `target` a copy of the schemas in `source` that knows the additional type."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    plan = target / "tracking_plan.yaml"
    plan.write_text(plan.read_text().rstrip("\n") + _TYPE)
    (target / UNSCORED_TYPE).mkdir()
    (target / UNSCORED_TYPE / "1-0-0.json").write_text(json.dumps(_SCHEMA, indent=2) + "\n")
    examples = target / "examples" / UNSCORED_TYPE
    examples.mkdir()
    (examples / "1-0-0.a_page.pass.json").write_text('{"url": "https://shop.example.com/"}\n')
    (examples / "1-0-0.no_url.fail.json").write_text('{"title": "Shop"}\n')
