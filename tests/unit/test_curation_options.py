"""The rule of parallelism, and the settings of curation."""

from collections.abc import Mapping
from datetime import date

import pytest

from dags.curation.options import Days, OptionsError, days_of, options
from dags.curation.parallelism import Input, Limits, Parallelism, parallelism

MB = 1024 * 1024
STORE = ("S3_ENDPOINT", "S3_REGION", "S3_ACCESS_KEY", "S3_SECRET_KEY")
ENV = dict.fromkeys((*STORE, "LAKE_CATALOG_URL", "LAKE_WAREHOUSE", "SPARK_JARS", "SCHEMAS_DIR", "PRIVACY_KEY"), "x")
CLUSTER = ENV | {"CURATION_MASTER": "spark://h:7077", "CURATION_DRIVER_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("of", "limits", "expected"),
    [
        (Input(), Limits(2), Parallelism(1, 1, 2, 8 * MB)),  # nothing: one core, and the fewest partitions
        (Input(1, 2 * MB), Limits(200), Parallelism(1, 1, 2, 8 * MB)),  # one small file does not take a cluster
        (Input(4, 4 * MB), Limits(200), Parallelism(1, 2, 4, 8 * MB)),  # a core for two files
        (Input(1, 64 * MB), Limits(200), Parallelism(1, 2, 4, 65 * MB // 4)),  # a large file is read in parts
        (Input(24, 24 * 16 * MB), Limits(200), Parallelism(3, 4, 24, 17 * MB)),  # 12 cores, evenly, at most 5 each
        (Input(24, 24 * 16 * MB), Limits(200, 2), Parallelism(6, 2, 24, 17 * MB)),  # executors as small as the settings say
        (Input(24, 24 * 16 * MB), Limits(200, 50), Parallelism(3, 4, 24, 17 * MB)),  # never more than 5
        (Input(100, 2000 * MB), Limits(2), Parallelism(1, 2, 16, 128 * MB)),  # the machine's limit; much data: 8 partitions a core
        (Input(5000, 50 * MB), Limits(10), Parallelism(2, 5, 20, 128 * MB)),  # little data in many files: 2 partitions a core
    ],
)
def test_the_rule(of: Input, limits: Limits, expected: Parallelism) -> None:
    assert parallelism(of, limits) == expected


def test_the_rule_keeps_its_bounds() -> None:
    for files in (0, 1, 2, 3, 7, 50, 999):
        for size in (0, 1, 20 * MB, 3000 * MB, 10**12):
            for cores in (1, 2, 3, 7, 16, 101):
                made = parallelism(Input(files, size), Limits(cores))
                assert 1 <= made.executor_cores <= 5
                assert 1 <= made.cores <= cores
                assert 2 * made.cores <= made.partitions <= 8 * made.cores
                assert 8 * MB <= made.split_bytes <= 128 * MB


def test_settings_of_this_machine_and_of_a_cluster() -> None:
    here = options(ENV | {"CURATION_EXECUTOR_CORES": ""})
    assert (here.local, here.limits, here.driver_memory, here.driver_host) == (True, Limits(2), "1g", "127.0.0.1")
    there = options(CLUSTER | {"CURATION_CORES": "40", "CURATION_EXECUTOR_CORES": "4", "CURATION_SPARK_CONF": "spark.a=1 spark.b=x=y"})
    assert (there.local, there.limits, there.executor_memory, there.driver_host) == (False, Limits(40, 4), "1g", "10.0.0.1")
    assert there.conf == {"spark.a": "1", "spark.b": "x=y"}
    image = {"CURATION_MASTER": "k8s://https://h:6443", "CURATION_SPARK_CONF": "spark.kubernetes.container.image=i"}
    assert options(CLUSTER | image).master == "k8s://https://h:6443"
    assert options(CLUSTER | {"CURATION_MASTER": "yarn", "HADOOP_CONF_DIR": "/etc/hadoop"}).master == "yarn"


@pytest.mark.parametrize(
    ("env", "problem"),
    [
        ({**ENV, "SPARK_JARS": ""}, "not set: SPARK_JARS (see .env.example"),
        ({**ENV, "CURATION_CORE": "2"}, "CURATION_CORE: no such setting; known are CURATION_CORES,"),
        ({**ENV, "CURATION_CORES": "0"}, "CURATION_CORES: '0' is not a number of cores"),
        ({**ENV, "CURATION_MEMORY": "much"}, "CURATION_MEMORY: 'much' is not a size"),
        ({**ENV, "CURATION_MASTER": "mesos://h"}, "CURATION_MASTER: 'mesos://h' is not local, spark://HOST:PORT"),
        ({**ENV, "CURATION_EXECUTOR_MEMORY": "2g"}, "CURATION_EXECUTOR_MEMORY: is for clusters only, and CURATION_MASTER is local"),
        ({**CLUSTER, "CURATION_DRIVER_HOST": ""}, "CURATION_DRIVER_HOST: not set: with CURATION_MASTER=spark://h:7077"),
        ({**CLUSTER, "CURATION_EXECUTOR_CORES": "6"}, "CURATION_EXECUTOR_CORES: '6' is not a number from 1 to 5"),
        ({**CLUSTER, "CURATION_MASTER": "yarn"}, "CURATION_MASTER: yarn needs HADOOP_CONF_DIR"),
        ({**CLUSTER, "CURATION_MASTER": "k8s://https://h"}, "Kubernetes needs spark.kubernetes.container.image=IMAGE"),
        ({**ENV, "CURATION_SPARK_CONF": "spark.executor.cores=9"}, "spark.executor.cores is curation's own"),
        ({**ENV, "CURATION_SPARK_CONF": "master=local"}, "'master=local' is not spark.NAME=VALUE"),
    ],
)
def test_a_wrong_setting_is_said(env: Mapping[str, str], problem: str) -> None:
    with pytest.raises(OptionsError) as caught:
        options(env)
    assert len(caught.value.problems) == 1
    assert problem in caught.value.problems[0]


def test_without_arguments_it_is_an_ordinary_run() -> None:
    assert days_of([]) is None


def test_the_last_day_is_whole() -> None:
    days = days_of(["--from", "2026-02-27", "--to", "2026-02-28"])
    assert days == Days(date(2026, 2, 27), date(2026, 2, 28))
    assert days.bounds == ("2026-02-27T00:00:00+00:00", "2026-03-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from", "2026-02-27"], "'--from 2026-02-27' is not --from YYYY-MM-DD --to YYYY-MM-DD"),
        (["--from", "2026-02-30", "--to", "2026-03-01"], "is not --from YYYY-MM-DD --to YYYY-MM-DD"),
        (["--to", "2026-02-27", "--from", "2026-02-26"], "is not --from YYYY-MM-DD --to YYYY-MM-DD"),
        (["--from", "2026-02-27", "--to", "2026-02-26"], "--to 2026-02-26 is before --from 2026-02-27"),
    ],
)
def test_wrong_days_are_said(arguments: list[str], problem: str) -> None:
    with pytest.raises(OptionsError) as caught:
        days_of(arguments)
    assert problem in caught.value.problems[0]
