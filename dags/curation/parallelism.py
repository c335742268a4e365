"""How parallel a Spark job is, from the size of what it reads: one rule for every job. Pure, and free of Spark."""

from dataclasses import dataclass
from math import ceil

MOST_EXECUTOR_CORES = 5
_FILES_OF_A_CORE = 2
_FEWEST, _MOST = 2, 8  # partitions for each core
_MB = 1024 * 1024
_PARTITION = 16 * _MB  # of compressed input that one partition is for
_OPEN_COST = 1 * _MB  # what opening a file costs, in bytes read meanwhile
_SMALLEST_SPLIT, _LARGEST_SPLIT = 8 * _MB, 128 * _MB


@dataclass(frozen=True)
class Input:
    """What a job is about to read: `files` and their `bytes` as stored."""

    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Limits:
    """What machine or settings allow: `cores` of all executors together, of which one executor may have `executor_cores`."""

    cores: int
    executor_cores: int = MOST_EXECUTOR_CORES


@dataclass(frozen=True)
class Parallelism:
    """What a job is started with. `partitions` is for spark.default.parallelism and spark.sql.shuffle.partitions alike, `split_bytes` for
    spark.sql.files.maxPartitionBytes and Iceberg's read.split.target-size."""

    executors: int
    executor_cores: int
    partitions: int
    split_bytes: int

    @property
    def cores(self) -> int:
        """Of all executors together."""
        return self.executors * self.executor_cores


def parallelism(of: Input, limits: Limits) -> Parallelism:
    """The parallelism of a job that reads `of`.

    - An executor has at most 5 cores: more tasks in one JVM wait for one another, for its memory and for its connections to the store.
    - The job has one core for two input files, since a core that has but one file is idle as soon as it is read, while its start and its
      place in the cluster cost as much as another's; at least one, and not more than `limits` allow. A large file is read by several
      tasks, so each 16 MB of input count as a file.
    - Executors share the cores evenly: the slowest one decides when a job ends.
    - There are 2 to 8 partitions for each core. At least 2, so that a core which is done early takes another instead of waiting for the
      slowest; more as there is more data, so that one partition (16 MB as stored, some 100 MB as rows) fits in memory and is not spilled;
      at most 8, since each costs its scheduling, and each of its rows' files a request to the store.
    - A split is so large that the input makes that many tasks, opening a file counted like reading 1 MB: between 8 MB (below, a task costs
      more than it reads) and 128 MB (Spark's own default: what a task does again when it fails).
    """
    files = max(of.files, ceil(of.bytes / _PARTITION))
    cores = min(max(1, ceil(files / _FILES_OF_A_CORE)), max(1, limits.cores))
    most = max(1, min(limits.executor_cores, MOST_EXECUTOR_CORES))
    executors = ceil(cores / most)
    executor_cores = cores // executors  # evenly; what is left over would be an executor of its own
    cores = executors * executor_cores
    for_each = min(max(_FEWEST, ceil(of.bytes / _PARTITION / cores)), _MOST)
    partitions = cores * for_each
    whole = of.bytes + of.files * _OPEN_COST
    split = min(max(ceil(whole / partitions), _SMALLEST_SPLIT), _LARGEST_SPLIT)
    return Parallelism(executors, executor_cores, partitions, split)
