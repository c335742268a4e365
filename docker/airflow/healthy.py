"""Whether Airflow says of one of its parts (metadatabase, scheduler, dag_processor, triggerer) that it is healthy: exit code 0 or 1."""

import json
import os
import sys
import urllib.request

_SECONDS = 8  # less than the health check's own patience


def main(part: str) -> int:
    """One look, at the API server that all parts are told of."""
    address = os.environ["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"].removesuffix("/execution/")
    try:
        with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=_SECONDS) as answer:  # noqa: S310 - our own address
            status = json.loads(answer.read())[part]["status"]
    except (OSError, ValueError, KeyError) as error:
        status = str(error)
    print(status)
    return int(status != "healthy")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
