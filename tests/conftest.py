"""What a test sees of the platform (the settings file that HEADRACE_ENV_FILE names), and which tests go beside others.

A test, or its file by `pytestmark = pytest.mark.usefixtures("...")`, asks for what it needs, and sees no setting beyond that:

- nothing: it has servers of its own, or needs none.
- `servers`: the addresses of the platform's servers. It makes topics, tables and documents under names of its own, and looks at no others.
- `platform`: every setting. It sends to the services, counts what comes of it, curates, or breaks what others see. A whole file says so.

With several processes (`make test`) the files of the platform are all in one of them, one after the other. Every other file goes beside
them and beside each other, its own tests one after the other.
"""

import os
import re
from collections.abc import Generator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from headrace.settings import read_env_file

settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no test asserts a time
settings.load_profile("headrace")

ROOT = Path(__file__).parent.parent
_EXAMPLE = read_env_file(ROOT / ".env.example")
_PLATFORM = ROOT / os.environ.get("HEADRACE_ENV_FILE", ".runtime/test/.env")
_NOTHING = {name: value for name, value in os.environ.items() if name not in _EXAMPLE} | {"HEADRACE_ENV_FILE": str(ROOT / "tests/no.env")}
_SERVERS = {
    *("BIND_HOST", "KAFKA_BOOTSTRAP_SERVERS", "ELASTICSEARCH_URL", "ENRICHMENT_API_URL", "POSTGRES_URL", "TRINO_URL", "TRINO_USER"),
    *("LAKE_CATALOG_URL", "LAKE_WAREHOUSE", "S3_ENDPOINT", "S3_REGION", "S3_ACCESS_KEY", "S3_SECRET_KEY", "PRIVACY_KEY"),
    *("STATE_DIR", "ENRICHMENT_API_DATA_FILE"),  # what is made once, and read by many
}
_seen: str | None = "not yet said"  # by which of the fixtures the environment is as it is; None: by neither


@pytest.fixture(scope="session")
def servers() -> None:
    """The addresses of the platform's servers are in the environment, for things under names of one's own."""


@pytest.fixture(scope="session")
def platform() -> None:
    """All settings of the platform are in the environment, and no other such test runs."""


def _asks_for(item: pytest.Item) -> str | None:
    return next((name for name in ("platform", "servers") if name in getattr(item, "fixturenames", ())), None)


@cache
def _is_of_the_platform(path: Path) -> bool:
    """Whether a file says that its tests are. (Who hands out the files has collected no tests, but only their names: so it reads.)"""
    return re.search(r'^pytestmark = .*usefixtures\("platform"\)', path.read_text(), re.MULTILINE) is not None


class _ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Each file goes to one process as a whole, and those of the platform all to the same, in the order of their names."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "platform" if _is_of_the_platform(ROOT / file) else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False  # those of the platform take longest: they come early
    return _ByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    global _seen  # noqa: PLW0603 - one process, one environment
    asked = _asks_for(item)
    if asked == "platform" and not _is_of_the_platform(item.path):
        pytest.fail(f'{item.path.name} has to say it for all its tests: pytestmark = pytest.mark.usefixtures("platform")', pytrace=False)
    if asked == _seen:
        return
    if asked and not _PLATFORM.is_file():
        pytest.fail(f"no platform to test on (no {_PLATFORM}): `make test` starts one", pytrace=False)
    os.environ.clear()
    os.environ.update(_NOTHING)
    if asked == "servers":
        os.environ.update({name: value for name, value in read_env_file(_PLATFORM).items() if name in _SERVERS})
    elif asked == "platform":
        os.environ.update(read_env_file(_PLATFORM), HEADRACE_ENV_FILE=str(_PLATFORM))
    _seen = asked


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    error = call.excinfo.value if call.excinfo else None
    if isinstance(error, KeyError) and error.args[0] in _EXAMPLE:
        said = (
            f"{error.args[0]} is a setting of the platform: say with `servers` or `platform` what this test does there (tests/conftest.py)"
        )
        report.sections.append(("setting", said))
    return report
