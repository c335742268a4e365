"""Where the tests find the platform: the settings file named by HEADRACE_ENV_FILE becomes their environment.

Only tests in integration/ and e2e/ need a platform and get its settings; all others run without one and see none of them.
"""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from headrace.settings import read_env_file

settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # no test asserts a time
settings.load_profile("headrace")

ROOT = Path(__file__).parent.parent
_HERE = Path(__file__).parent
_environment_before: dict[str, str] | None = None


def _needs_platform(item: pytest.Item | None) -> bool:
    return item is not None and any(item.path.is_relative_to(_HERE / folder) for folder in ("integration", "e2e"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    global _environment_before  # noqa: PLW0603 - one process, one environment
    if not _needs_platform(item) or _environment_before is not None:
        return
    path = ROOT / os.environ.get("HEADRACE_ENV_FILE", ".runtime/test/.env")
    if not path.is_file():
        pytest.fail(f"no platform to test on (no {path}): `make test` starts one", pytrace=False)
    _environment_before = dict(os.environ)
    os.environ.update(read_env_file(path), HEADRACE_ENV_FILE=str(path))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    global _environment_before  # noqa: PLW0603
    if _environment_before is not None and not _needs_platform(nextitem):
        os.environ.clear()
        os.environ.update(_environment_before)
        _environment_before = None
