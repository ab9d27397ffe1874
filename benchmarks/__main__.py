"""Run the stages side by side with the peers and write results/<machine>.json, a Markdown table and plots."""

import argparse
import ast
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import environment, machine, report
from benchmarks.machine import thread_environment

FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Stage:
    """The docstring and the upper-case constants of a stage's file, which are read without importing the file."""

    name: str
    summary: str
    threads: tuple[int, ...]  # THREADS = (1, 2): run once with each (--quick: the largest); empty: once with --threads
    on_request: bool  # ON_REQUEST = True: only with --stage
    resumes: bool  # RESUMES = True: the next run keeps the cases of an interrupted run and does the others


def stages() -> dict[str, Stage]:
    """Return the stages, by name."""
    found = {}
    for path in sorted(FOLDER.glob("stage_*.py")):
        name = path.stem.removeprefix("stage_")
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants: dict[str, Any] = {}
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("THREADS", "ON_REQUEST", "RESUMES"):
                constants[ast.unparse(node.targets[0])] = ast.literal_eval(node.value)
        summary = (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ")
        found[name] = Stage(
            name,
            summary,
            tuple(constants.get("THREADS", ())),
            bool(constants.get("ON_REQUEST", False)),
            bool(constants.get("RESUMES", False)),
        )
    return found


def kept_results(stage: Stage, before: dict[str, Any] | None, mode: str) -> list[dict[str, Any]]:
    """Return the results of the stage's record `before` that this run keeps."""
    if before is None or not stage.resumes or not before["error"] or before["mode"] != mode:
        return []
    kept: list[dict[str, Any]] = before["results"]
    return kept


def run_stage(stage: Stage, options: argparse.Namespace, before: dict[str, Any] | None) -> dict[str, Any]:
    """Run one stage, once for each of its thread counts, and return its record. `before` is the previous record."""
    cores = machine.available_cores()
    began = time.monotonic()
    mode = "full" if options.full else "quick"
    kept = kept_results(stage, before, mode)
    record: dict[str, Any] = {
        "summary": stage.summary,
        "command": f"python -m benchmarks {'--full' if options.full else '--quick'} --stage {stage.name}",
        "mode": mode,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": list(os.getloadavg()),
        "commit": machine.commit(),
        "versions": machine.versions(),
        "error": "",
        "results": kept,
    }
    wanted = [n for n in stage.threads if n <= cores] or [options.threads or cores]
    if not options.full:
        wanted = wanted[-1:]
    for threads in wanted:
        variables = {**os.environ, **thread_environment(threads)}
        with tempfile.TemporaryDirectory(prefix="fastfid-bench-") as folder:
            output = Path(folder) / "results.jsonl"
            output.touch()
            argv = [sys.executable, "-m", "benchmarks.worker", stage.name, str(output)]
            argv += ["--threads", str(threads), "--cache", str(options.cache)]
            argv += ["--full"] if options.full else []
            argv += ["--data", str(options.data)] if options.data else []
            argv += [f"--done={result['case']}" for result in kept]
            code = subprocess.run(argv, env=variables, check=False).returncode
            lines = output.read_text(encoding="utf-8").splitlines()
            record["results"] += [json.loads(line) for line in lines]
        if code:
            record["error"] = f"exit code {code} with {threads} threads"
    # Of this run alone, where it went on from one that was cut off.
    record["minutes"] = round((time.monotonic() - began) / 60, 1)
    return record


def main() -> int:
    """Return 0 if every stage finished and every answer agreed, else 1. A missed target is not a failure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="about 5 minutes in all (default)")
    mode.add_argument("--full", action="store_true", help="about an hour on 2 cores")
    parser.add_argument("--stage", nargs="+", metavar="NAME", action="extend", help="only these")
    parser.add_argument("--list", action="store_true", help="name the stages and stop")
    parser.add_argument(
        "--threads", type=int, help="threads and cores of every stage that does not choose (default: all)"
    )
    parser.add_argument("--data", type=Path, help="folder with the data sets of stages that need them (cifar)")
    parser.add_argument("--cache", type=Path, default=FOLDER / ".cache", help="images, weights, the peers' environment")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="folder of the results")
    parser.add_argument(
        "--here",
        action="store_true",
        default=os.environ.get("FASTFID_BENCH_HERE") == "1",
        help="use this interpreter and its packages instead of an environment of the benchmark's own",
    )
    options = parser.parse_args()
    known = stages()
    if options.list:
        for stage in known.values():
            print(f"{stage.name:<12} {stage.summary}{' (on request)' if stage.on_request else ''}")
        return 0
    unknown = [name for name in options.stage or () if name not in known]
    if unknown:
        parser.error(f"--stage: expected some of {', '.join(known)}; got {', '.join(unknown)}")
    options.cache = options.cache.resolve()
    options.output = options.output.resolve()
    options.data = options.data.resolve() if options.data else None

    if not options.here:
        python = environment.make_interpreter(options.cache / "environment")
        return subprocess.run([python, "-m", "benchmarks", *sys.argv[1:], "--here"], check=False).returncode

    from benchmarks import plots  # needs matplotlib, which the first interpreter may not have

    chosen = [known[n] for n in options.stage] if options.stage else [s for s in known.values() if not s.on_request]
    path = options.output / f"{machine.slug()}.json"
    failed = []
    minutes = 0.0
    for stage in chosen:
        print(f"== {stage.name}: {stage.summary}", flush=True)
        record = run_stage(stage, options, report.load(path)["stages"].get(stage.name))
        results = report.load(path)
        report.merge(results, machine.describe(), stage.name, record)
        report.write(path, results)
        minutes += record["minutes"]
        if record["error"]:
            failed.append(stage.name)
    plots.draw(report.load(path), options.output / "plots" / path.stem)
    print(f"written: {path} and {path.with_suffix('.md').name}, after {minutes:.0f} minutes")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
