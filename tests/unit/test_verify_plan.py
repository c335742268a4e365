"""The tracking plan of a platform that is verified is one that `headrace schemas check` takes."""

from pathlib import Path

from typer.testing import CliRunner

from cli.__main__ import app
from verify import plan

SCHEMAS = Path(__file__).parents[2] / "schemas"


def test_it_is_the_teams_own_and_one_type_more(tmp_path: Path) -> None:
    for _ in range(2):  # a second time it is made anew
        plan.write(SCHEMAS, tmp_path / "schemas")
    done = CliRunner().invoke(app, ["schemas", "check", "--schemas", str(tmp_path / "schemas")])
    assert done.exit_code == 0, done.output
    own = {path.name for path in SCHEMAS.iterdir()}
    assert {path.name for path in (tmp_path / "schemas").iterdir()} - own == {"verify_unscored"}
