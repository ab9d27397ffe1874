"""An evaluation by the executors of a Spark cluster, which all see the images and the run directory.

usage: spark-submit spark_parts.py REAL GENERATED RUN [PARTS]. Spark retries a part that fails, if it is told to:
spark.task.maxFailures=4 (local[2,4] on one machine).
"""

import sys

from pyspark.sql import SparkSession

import fastfid


def main(real: str, generated: str, run: str, parts: int = 64) -> None:
    """Plan, let the executors do the tasks, reduce. The Parts go through files, and only small rows come back."""
    fastfid.plan(real, generated, run, metrics=["fid", "kid"])
    session = SparkSession.builder.appName("fastfid").getOrCreate()

    def do(batches):  # type: ignore[no-untyped-def]  # pandas is the cluster's
        for batch in batches:
            batch["done"] = [fastfid.part(run, int(index), parts) for index in batch["id"]]
            yield batch

    session.range(parts, numPartitions=parts).mapInPandas(do, "id long, done long").collect()
    for name, result in fastfid.reduce(run).items():
        print(name, result.value)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]) if len(sys.argv) > 4 else 64)
