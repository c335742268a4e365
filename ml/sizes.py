"""How large a unit's task may be: what Kubernetes gives its pod, and here the threads that training takes. Airflow reads this too."""

from collections.abc import Mapping
from typing import NamedTuple


class Size(NamedTuple):
    """`cpus` are whole; `memory` as Kubernetes writes it."""

    cpus: int
    memory: str


SIZES: Mapping[str, Size] = {"small": Size(1, "1Gi"), "large": Size(2, "4Gi")}
