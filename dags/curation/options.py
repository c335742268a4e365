"""The settings of curation, typed: where the lake is, where Spark runs, and with how much. Pure, and free of Spark."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from dags.curation.parallelism import MOST_EXECUTOR_CORES, Limits

# The name of the advisory lock in the catalog's PostgreSQL of whoever may write to silver: a curation, or an erasure.
LOCK = "headrace curation"
_NEEDED = (
    *("LAKE_CATALOG_URL", "LAKE_WAREHOUSE", "S3_ENDPOINT", "S3_REGION", "S3_ACCESS_KEY", "S3_SECRET_KEY", "SPARK_JARS", "SCHEMAS_DIR"),
    "PRIVACY_KEY",
)
_MASTER = re.compile(r"local|yarn|spark://[\w.-]+:\d+(,[\w.-]+:\d+)*|k8s://\S+")
_MEMORY = re.compile(r"[1-9]\d*[kmgt]")
_KNOWN = {
    *("CURATION_SCHEDULE", "CURATION_MASTER", "CURATION_CORES", "CURATION_MEMORY", "CURATION_EXECUTOR_CORES", "CURATION_EXECUTOR_MEMORY"),
    *("CURATION_DRIVER_HOST", "CURATION_SPARK_CONF"),
}
_OF_CLUSTERS = ("CURATION_EXECUTOR_CORES", "CURATION_EXECUTOR_MEMORY", "CURATION_DRIVER_HOST")
_IMAGE = "spark.kubernetes.container.image"
# What curation itself decides: by the rule of parallelism, or by another setting.
_OURS = re.compile(
    r"spark\.(master|cores\.max|executor\.(cores|instances|memory)|driver\.(memory|host)|default\.parallelism|sql\.shuffle\.partitions"
    r"|sql\.files\.maxPartitionBytes|sql\.catalog\..*|sql\.extensions|sql\.session\.timeZone|sql\.caseSensitive|dynamicAllocation\..*)"
)


class OptionsError(Exception):
    """Settings are missing, wrong, unknown or contradict one another; `problems` has a sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Options:
    """`master` is Spark's, but `local` without the number of cores. `conf` are further properties of Spark."""

    env: Mapping[str, str]
    master: str
    limits: Limits
    driver_memory: str
    executor_memory: str
    driver_host: str
    conf: Mapping[str, str]

    @property
    def local(self) -> bool:
        """Whether all of Spark is one process on this machine."""
        return self.master == "local"

    @property
    def schemas(self) -> Path:
        """The folder with the tracking plan."""
        return Path(self.env["SCHEMAS_DIR"])


@dataclass(frozen=True)
class Days:
    """Days (UTC), both included."""

    first: date
    last: date

    @property
    def bounds(self) -> tuple[str, str]:
        """The moments from which on and before which they are, as RFC 3339."""
        return f"{self.first}T00:00:00+00:00", f"{self.last + timedelta(days=1)}T00:00:00+00:00"


def days_of(arguments: Sequence[str]) -> Days | None:
    """The days of `--from DAY --to DAY`, None where there are no arguments. Raises OptionsError."""
    if not arguments:
        return None
    usage = f"{' '.join(arguments)!r} is not --from YYYY-MM-DD --to YYYY-MM-DD"
    if len(arguments) != 4 or (arguments[0], arguments[2]) != ("--from", "--to"):
        raise OptionsError([usage])
    try:
        days = Days(*(date.fromisoformat(arguments[place]) for place in (1, 3)))
    except ValueError:
        raise OptionsError([usage]) from None
    if days.last < days.first:
        raise OptionsError([f"--to {days.last} is before --from {days.first}"])
    return days


def options(env: Mapping[str, str]) -> Options:
    """The settings in `env`; an empty one counts as not set. Raises OptionsError."""
    env = {name: value for name, value in env.items() if value}
    problems = []
    if missing := [name for name in _NEEDED if name not in env]:
        problems.append(f"not set: {', '.join(missing)} (see .env.example; `make up` passes all of them to Airflow)")
    problems += [
        f"{name}: no such setting; known are {', '.join(sorted(_KNOWN))}"
        for name in sorted(env)
        if name.startswith("CURATION_") and name not in _KNOWN
    ]

    def matching(name: str, default: str, pattern: re.Pattern[str], wanted: str) -> str:
        value = env.get(name, default)
        if not pattern.fullmatch(value):
            problems.append(f"{name}: {value!r} is not {wanted}")
        return value

    def number(name: str, default: int, fits: Callable[[int], bool], wanted: str) -> int:
        value = env.get(name, str(default))
        if not value.isdecimal() or not fits(int(value)):
            problems.append(f"{name}: {value!r} is not {wanted}")
            return default
        return int(value)

    master = matching("CURATION_MASTER", "local", _MASTER, "local, spark://HOST:PORT, k8s://https://HOST:PORT or yarn")
    cores = number("CURATION_CORES", 2, lambda n: n > 0, "a number of cores, 1 or more")
    most = number(
        "CURATION_EXECUTOR_CORES", MOST_EXECUTOR_CORES, lambda n: 1 <= n <= MOST_EXECUTOR_CORES, f"a number from 1 to {MOST_EXECUTOR_CORES}"
    )
    memory = matching("CURATION_MEMORY", "1g", _MEMORY, "a size such as 1g or 800m")
    executor_memory = matching("CURATION_EXECUTOR_MEMORY", "1g", _MEMORY, "a size such as 1g or 800m")
    conf = _properties(env.get("CURATION_SPARK_CONF", ""), problems)
    if master == "local":
        problems += [f"{name}: is for clusters only, and CURATION_MASTER is local: leave it empty" for name in _OF_CLUSTERS if name in env]
    elif _MASTER.fullmatch(master) and "CURATION_DRIVER_HOST" not in env:
        problems.append(
            f"CURATION_DRIVER_HOST: not set: with CURATION_MASTER={master} it is the address at which executors reach this machine"
        )
    if master == "yarn" and not (env.get("HADOOP_CONF_DIR") or env.get("YARN_CONF_DIR")):
        problems.append("CURATION_MASTER: yarn needs HADOOP_CONF_DIR in the environment: the folder with yarn-site.xml")
    if master.startswith("k8s://") and _IMAGE not in conf:
        problems.append(f"CURATION_SPARK_CONF: Kubernetes needs {_IMAGE}=IMAGE there: the image that executors run")
    if problems:
        raise OptionsError(problems)
    limits = Limits(cores) if master == "local" else Limits(cores, most)
    return Options(env, master, limits, memory, executor_memory, env.get("CURATION_DRIVER_HOST", "127.0.0.1"), conf)


def _properties(text: str, problems: list[str]) -> dict[str, str]:
    """`name=value name=value`."""
    found = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals or not name.startswith("spark."):
            problems.append(f"CURATION_SPARK_CONF: {pair!r} is not spark.NAME=VALUE (with spaces between several)")
        elif _OURS.fullmatch(name):
            problems.append(f"CURATION_SPARK_CONF: {name} is curation's own: by its rule of parallelism or by another setting CURATION_…")
        else:
            found[name] = value
    return found
