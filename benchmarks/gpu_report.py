"""The results of benchmarks/gpu.py: targets, Markdown, README's line. This module needs no GPU and no package."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, duration, number

__all__ = [
    "TARGETS",
    "Target",
    "failures",
    "join",
    "judge",
    "latest",
    "markdown",
    "new_record",
    "readme_row",
    "slug",
    "write",
]

COMMAND = "python -m benchmarks.gpu"
WHAT = "tensors on a GPU to their FID (CUDA kernels, ONNX Runtime on the device)"


@dataclass(frozen=True)
class Target:
    """One target of issue 7 for an H200, provisional until the first run on one."""

    name: str  # name of the value in the record
    stage: str
    text: str
    limit: float
    is_floor: bool  # True: the value must be at least the limit; False: at most

    def holds(self, value: float) -> bool:
        """Return whether `value` meets the target. NaN does not."""
        return value >= self.limit if self.is_floor else value <= self.limit


TARGETS = (
    Target("moments_of_dsyrk", "moments", "accumulate, fraction of the speed of cuBLAS dsyrk", 0.6, True),
    Target("moments_of_torchmetrics", "moments", "accumulate, times as fast as torchmetrics' update", 1.0, True),
    Target("trace_ms", "trace", "certified trace at d = 2048, ms", 15.0, False),
    Target("trace_of_eigvals", "trace", "certified trace, times as fast as torch.linalg.eigvals", 100.0, True),
    Target("preprocess_of_copy", "preprocess", "preprocessing, fraction of the copy bandwidth", 0.5, True),
    Target("network_float32", "network", "images/s, times the eager network, both float32", 3.0, True),
    Target("network_tf32", "network", "images/s, times the eager network, both TF32", 3.0, True),
    Target(
        "network_float16", "network", "images/s in float16, times the eager network in TF32 (its default)", 6.0, True
    ),
    Target("fid_change_float16", "network", "change of the FID of photographs in float16", 1e-3, False),
    Target("sanitizer_errors", "sanitizer", "errors that compute-sanitizer reports", 0.0, False),
)


def new_record(**facts: Any) -> dict[str, Any]:
    """Return an empty record.

    ``stages``: for each name, ``state`` ("measured", "not measured", "failed"), ``why`` and ``rows``. ``checks``:
    comparisons with the CPU. ``values``: the measured values that are compared with the targets.
    """
    return {**facts, "stages": {}, "checks": [], "values": {}}


def judge(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every target with its verdict: "met", "not met" or "not measured: why"."""
    verdicts = []
    for target in TARGETS:
        value = record["values"].get(target.name)
        if value is not None:
            verdict = "met" if target.holds(value) else "not met"
        else:
            stage = record["stages"].get(target.stage)
            verdict = f"not measured: {stage['why'] or 'the stage gave no such value' if stage else 'not asked for'}"
        verdicts.append({"target": target, "value": value, "verdict": verdict})
    return verdicts


def failures(record: dict[str, Any]) -> list[str]:
    """Return the failures: failed stages and failed checks. A missed target is not a failure."""
    stages = [f"{name}: {stage['why']}" for name, stage in record["stages"].items() if stage["state"] == "failed"]
    return stages + [f"{check['what']}: {number(check['error'])}" for check in record["checks"] if not check["ok"]]


def join(records: list[dict[str, Any]], stages: Sequence[str]) -> dict[str, Any]:
    """Return one record of several runs of parts, for machines that are available only for minutes at a time.

    If a stage ran twice, the later run is used, but failed checks of the earlier run are kept. The record is "full" if
    it contains all `stages`.

    Raises
    ------
    ValueError
        The runs are of different cards, drivers or commits.
    """
    records = sorted(records, key=lambda record: str(record["date"]))
    for key in ("card", "driver", "commit"):
        if len(values := {str(record[key]) for record in records}) > 1:
            raise ValueError(f"the runs differ in their {key}: {', '.join(sorted(values))}")
    joined = {**records[-1], **new_record()}
    checks: dict[str, dict[str, Any]] = {}
    for record in records:
        joined["stages"].update(record["stages"])
        ran = {name for name, stage in record["stages"].items() if stage["state"] != "not measured"}
        kept = {
            target.name: joined["values"][target.name]
            for target in TARGETS
            if target.name in joined["values"] and target.stage not in ran
        }
        joined["values"] = {**kept, **record["values"]}
        for check in record["checks"]:
            if check["what"] not in checks or checks[check["what"]]["ok"]:
                checks[check["what"]] = check
    joined["checks"] = list(checks.values())
    joined["stages"] = {name: joined["stages"][name] for name in stages if name in joined["stages"]}
    joined["mode"] = "full" if set(joined["stages"]) == set(stages) else "part"
    joined["command"] = "; ".join(record["command"] for record in records)
    joined["versions"] = {name: text for record in records for name, text in record["versions"].items()}
    return joined


def slug(record: dict[str, Any]) -> str:
    """Return the name of the result files: ``gpu-<card>-<date>``."""
    card = "-".join(re.findall(r"[a-z0-9]+", record["card"].lower()))
    return f"gpu-{card}-{record['date'][:10]}"


def _quick(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _cells(row: dict[str, Any]) -> list[str]:
    time = ""
    if row.get("median") is not None:
        time = f"{duration(row['median'])} ({duration(row['low'])} to {duration(row['high'])})"
    rate = f"{number(row['rate'])} {row['unit']}" if row.get("rate") is not None else ""
    return [row["case"], row["contender"], time, rate, _quick(row.get("note", ""))]


def markdown(record: dict[str, Any]) -> str:
    """Return the record as a Markdown page."""
    lines = [
        f"# {record['card']}",
        "",
        f"Made by `{COMMAND}`; do not edit. {record['mode']} run of {record['date']},",
        f"commit {record['commit'] or 'unknown'}, driver {record['driver']}, seed {record['seed']}.",
        "Times are medians (lowest to highest) by CUDA events after a warm-up, the L2 cache flushed before each,",
        "unless a row says otherwise.",
        "",
        "## Targets",
        "",
        "| target | limit | measured | verdict |",
        "|---|---|---|---|",
    ]
    for entry in judge(record):
        target, value = entry["target"], entry["value"]
        verdict = entry["verdict"] if entry["verdict"] == "met" else f"**{_quick(entry['verdict'])}**"
        limit = f"{'at least' if target.is_floor else 'at most'} {number(target.limit)}"
        lines.append(f"| {target.text} | {limit} | {'' if value is None else number(value)} | {verdict} |")
    lines += ["", "## Against the CPU", ""]
    if record["checks"]:
        lines += ["| what | error | limit | |", "|---|---|---|---|"]
        for check in record["checks"]:
            verdict = "holds" if check["ok"] else "**does not hold**"
            lines.append(
                f"| {_quick(check['what'])} | {number(check['error'])} | {number(check['limit'])} | {verdict} |"
            )
    else:
        lines.append("Nothing was compared.")
    for name, stage in record["stages"].items():
        lines += ["", f"## {name}", ""]
        if stage["state"] != "measured":
            lines.append(f"**{stage['state']}: {_quick(stage['why'])}**")
        if stage["rows"]:
            lines += ["| case | contender | time | rate | note |", "|---|---|---|---|---|"]
            lines += ["| " + " | ".join(_cells(row)) + " |" for row in stage["rows"]]
    lines += ["", "## Versions", "", ", ".join(f"{name} {version}" for name, version in record["versions"].items()), ""]
    return "\n".join(lines)


def write(record: dict[str, Any], folder: Path) -> Path:
    """Write JSON and Markdown, each atomically, and return the path of the JSON file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug(record)}.json"
    for target, text in ((path, json.dumps(record, indent=1) + "\n"), (path.with_suffix(".md"), markdown(record))):
        partial = target.with_suffix(f"{target.suffix}.{os.getpid()}.part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    return path


def latest(folder: Path = RESULTS) -> dict[str, Any] | None:
    """Return the record of the newest complete run, or None if there is none."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("gpu-*.json")]
    whole = [record for record in records if record["mode"] == "full"]
    return max(whole, key=lambda record: str(record["date"])) if whole else None


def readme_row(folder: Path = RESULTS) -> str:
    """Return README's line about the GPU: the result of the newest run, or a statement that there was none."""
    record = latest(folder)
    if record is None:
        return f"| {WHAT} | **never run on a GPU** | | | `{COMMAND}` |"
    verdicts = judge(record)
    met = sum(entry["verdict"] == "met" for entry in verdicts)
    unmet = [entry for entry in verdicts if entry["verdict"] != "met"]
    missed = "; ".join(f"{entry['target'].text}: {entry['verdict'].partition(':')[0]}" for entry in unmet)
    verdict = f"{met} of {len(verdicts)} targets met" + (f"; **{missed}**" if missed else "")
    cells = [WHAT, f"{record['card']}, {record['date'][:10]}", "[table](benchmarks/results/" + slug(record) + ".md)"]
    return "| " + " | ".join([*cells, verdict, f"`{COMMAND}`"]) + " |"
