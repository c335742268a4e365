"""What benchmarks/scoring.py measures, in the models' environment: `python -m benchmarks.scoring_job ROWS CORES FOLDER`."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from pyspark.sql import functions as F

from ml.contract import AS_OF
from ml.examples.churn import Churn
from ml.export import export
from ml.learners import Blend
from ml.registry import Version
from ml.scoring import Champion, scored
from ml.spark import session

_PARAMETERS = {
    **{"learning_rate": 0.05, "max_iter": 150, "max_leaf_nodes": 12, "min_samples_leaf": 100, "l2_regularization": 1.0},
    "trees": 0.5,
}


def main() -> None:
    """One job: prints its seconds from the first row to the last file, as JSON."""
    rows, cores, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    columns = Churn.columns
    rng = np.random.default_rng(1)
    x = rng.exponential(50, size=(5_000, len(columns))).astype(np.float32)
    onnx, _ = export(Blend.build(_PARAMETERS, 1).fit(x, (x[:, 0] > rng.exponential(50, size=5_000)).astype(float)), x)
    champion = Champion(Version("churn", 1, 0, "", {}), {}, columns, {}, onnx)
    with session({"STATE_DIR": str(folder), "JAVA17_HOME": os.environ["JAVA17_HOME"], "ML_SPARK_MEMORY": "1g"}, cores) as spark:
        made = spark.range(rows, numPartitions=cores * 8).select(
            F.lit("benchmark").alias("source"),
            F.col("id").cast("string").alias("customer_id"),
            F.to_timestamp(F.lit("1998-07-01")).alias(AS_OF),
            F.lit("churn").alias("_model"),
            *((-50 * F.log(F.rand(seed))).alias(name) for seed, name in enumerate(columns)),
        )
        began = time.perf_counter()
        scored(made, Churn, {"churn": champion}, "benchmark").write.parquet(str(folder / "scores"))
        seconds = time.perf_counter() - began
        found = spark.read.parquet(str(folder / "scores")).agg(F.count("*"), F.min("score"), F.max("score")).collect()[0]
    if found[0] != rows or not 0 <= found[1] <= found[2] <= 1:
        raise SystemExit(f"headrace: {found[0]} rows with scores from {found[1]} to {found[2]}")
    print(json.dumps({"seconds": round(seconds, 2)}))


if __name__ == "__main__":
    main()
