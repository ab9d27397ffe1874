"""An evaluation by the executors of a Spark cluster, which all see the images and the run directory.

usage: spark-submit spark_parts.py REAL GENERATED RUN [--parts N] [--dims D]. The executors need fastfid, pandas and
pyarrow. Spark does a part again whose worker died: spark.task.maxFailures says how often. On one machine it does so
with --master local[2,4] alone: 2 workers, 4 tries.
"""

import argparse

from pyspark.sql import SparkSession

import fastfid


def main() -> None:
    """Plan, let the executors do the tasks, reduce. The Parts go through files, and only small rows come back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("real")
    parser.add_argument("generated")
    parser.add_argument("run")
    parser.add_argument("--parts", type=int, default=64, help="some for each worker: one that is lost loses one")
    parser.add_argument("--dims", type=int)
    args = parser.parse_args()
    fastfid.plan(args.real, args.generated, args.run, metrics=["fid", "kid"], dims=args.dims)
    session = SparkSession.builder.appName("fastfid").getOrCreate()

    def do(batches):  # type: ignore[no-untyped-def]  # pandas is the cluster's
        for batch in batches:
            batch["done"] = [fastfid.part(args.run, int(index), args.parts) for index in batch["id"]]
            yield batch

    session.range(args.parts, numPartitions=args.parts).mapInPandas(do, "id long, done long").collect()
    session.stop()
    for name, result in fastfid.reduce(args.run).items():
        print(name, result.value)


if __name__ == "__main__":
    main()
