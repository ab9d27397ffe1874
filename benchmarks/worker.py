"""Runs one stage in a separate process and writes each result when it is complete, one JSON object per line.

Started by ``python -m benchmarks`` with the thread variables already set (BLAS libraries read them when they load).
"""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from benchmarks.harness import Config


def main() -> int:
    """Run the stage. If it raises, the exit code is 1, and the results so far are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.worker")
    parser.add_argument("stage")
    parser.add_argument("output", type=Path)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--done", action="append", default=[])
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    config = Config(options.full, options.threads, options.cache, sys.executable, options.data, frozenset(options.done))
    stage = importlib.import_module(f"benchmarks.stage_{options.stage}")
    with options.output.open("a", encoding="utf-8") as output:
        for result in stage.run(config):
            print(json.dumps(result.as_dict()), file=output, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
