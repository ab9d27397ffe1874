"""Result files: one JSON file per machine, and the Markdown table made from it."""

import json
import os
from pathlib import Path
from typing import Any

__all__ = ["duration", "load", "markdown", "merge", "number", "stage_table", "write"]

RESULTS = Path(__file__).resolve().parent / "results"


def number(value: float) -> str:
    """Return a number in the format of the tables: three significant digits."""
    if value != value:
        return "-"
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:.2e}"


def duration(seconds: float) -> str:
    """Return a time in the format of the tables, in a suitable unit."""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (600.0, 1.0, "s")):
        if seconds < limit:
            return f"{number(seconds * factor)} {unit}"
    return f"{number(seconds / 60)} min"


def load(path: Path) -> dict[str, Any]:
    """Return a machine's results, or an empty record if there are none."""
    if not path.exists():
        return {"machine": {}, "stages": {}}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(path: Path, results: dict[str, Any]) -> None:
    """Write the results and the table beside them, each atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for target, text in ((path, json.dumps(results, indent=1) + "\n"), (path.with_suffix(".md"), markdown(results))):
        partial = target.with_suffix(f"{target.suffix}.{os.getpid()}.part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)


def merge(results: dict[str, Any], machine: dict[str, Any], name: str, record: dict[str, Any]) -> None:
    """Replace one stage's record."""
    results["machine"] = machine
    results["stages"][name] = record
    results["stages"] = dict(sorted(results["stages"].items()))


def _cell(entry: dict[str, Any], unit: str) -> str:
    parts = []
    if entry["seconds"]:
        parts.append(f"{duration(entry['median'])} ({duration(entry['low'])} to {duration(entry['high'])})")
    if entry["rate"] is not None:
        parts.append(f"{number(entry['rate'])} {unit}")
    if entry["note"]:
        parts.append(entry["note"])
    return "; ".join(parts) or "-"


def stage_table(stage: dict[str, Any]) -> str:
    """Return one stage's table: contenders, times, ratios, agreement of answers, targets."""
    lines = [
        "| case | threads | contender | result | ratio | peak MiB | largest difference | target |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in stage["results"]:
        agreement = result["agreement"]
        targets = "; ".join(
            f"{t['text']}: {number(t['measured'])} ({'met' if t['met'] else '**not met**'})" for t in result["targets"]
        )
        for i, entry in enumerate(result["measured"]):
            difference = agreement.get("difference", {}).get(entry["name"])
            ratio = entry.get("ratio")
            cells = [
                result["case"] if i == 0 else "",
                str(result["threads"]) if i == 0 else "",
                entry["name"],
                _cell(entry, result["unit"]),
                f"{ratio:.2f}" if ratio is not None else "",
                number(entry["peak_mib"]) if entry["peak_mib"] is not None else "",
                "" if difference is None or entry["name"] == agreement["reference"] else number(difference),
                targets if i == 0 else "",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def markdown(results: dict[str, Any]) -> str:
    """Return the tables of all stages, each with its description, date and command."""
    machine = results["machine"]
    lines = [
        f"# {machine.get('cpu', '?')}, {machine.get('cores', '?')} cores, {machine.get('memory_gib', '?')} GiB",
        "",
        "Made by `python -m benchmarks`; do not edit. Times are medians (lowest to highest) of interleaved runs; the",
        "ratio is the speed over the contender marked 1.00. A ratio below 1 means: slower.",
        "",
    ]
    for name, stage in results["stages"].items():
        run = [
            f"`{stage['command']}`",
            stage["started"],
            stage["mode"],
            f"commit {stage['commit'] or 'unknown'}",
            f"load average at start {stage['load_average'][0]:.2f}",
        ]
        if "minutes" in stage:
            run.append(f"{stage['minutes']:.1f} minutes")
        if stage["error"]:
            run.append(f"**stopped: {stage['error']}**")
        lines += [f"## {name}", "", stage["summary"], "", ", ".join(run) + ".", "", stage_table(stage), ""]
    return "\n".join(lines)
