"""Puts the committed results into README and docs: ``python -m benchmarks.figures`` (``make figures``).

This script writes every figure in a Markdown file of this repository, between two comments::

    <!-- figures: NAME MACHINE -->
    <!-- /figures -->

where MACHINE is a file of ``results/`` without its suffix (it may be left out if there is only one file), and NAME is
``summary`` (README's table, `SUMMARY` below), ``plots`` (the pictures) or the name of a stage (its whole table).
``--check`` writes nothing and fails if a file differs from the results. CI runs it. Without ``--check``, the plots are
drawn too.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import gpu_report, report

REPOSITORY = Path(__file__).resolve().parent.parent
MARKER = re.compile(r"(<!-- figures: (?P<name>\S+)(?: (?P<machine>[^\s-]\S*))? -->\n).*?(<!-- /figures -->)", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One line of README's table: a case of a stage, and its description."""

    what: str
    stage: str
    case: str  # the case's text begins with this
    ours: str = "fastfid"
    peer: str | None = None  # None: the peer that the case is compared with
    threads: int | None = None  # None: the largest number of threads with results
    quantity: str = "median"  # or "peak_mib"


SUMMARY = (
    Line("FID of two folders, 192 + 192 PNG of 256 x 256, whole command", "folders", "192 + 192 PNG of 256 x 256"),
    Line("the same, `--dims 64`", "folders", "192 + 192 PNG of 256 x 256, --dims 64"),
    Line("192 + 192 JPEG, each of its own size, whole command", "folders", "192 + 192 JPEG"),
    Line("192 PNG against cached statistics, whole command", "cached", ""),
    Line("two `.npz` of 2048 dims, whole command", "npz", "two .npz"),
    Line("peak memory of the whole command, largest run", "growth", "", quantity="peak_mib"),
    Line("network alone, images of 299 x 299", "network", "inputs of 299 x 299, dims 2048"),
    Line("decode and resize PNG", "decode", "decode and resize 192 PNG"),
    Line("resize 500 x 375, protocol `clean`", "resize", "clean, 500 x 375"),
    Line("mean and covariance of 5,000 rows, d = 2048", "moments", "from rows to covariance, n = 5000, d = 2048"),
    Line("the same, 20,000 rows", "moments", "from rows to covariance, n = 20000, d = 2048"),
    Line("trace of the matrix square root, d = 2048", "trace", "d = 2048, full rank", peer="scipy.linalg.sqrtm"),
    Line("the same", "trace", "d = 2048, full rank", peer="torch.linalg.eigvals"),
    Line("the same, one thread", "trace", "d = 2048, full rank", peer="scipy.linalg.sqrtm", threads=1),
)


# Stage, file and what the picture shows, in the order in which they are shown.
PLOTS = (
    ("folders", "whole_command.png", "Time of the whole command by tool, its parts stacked"),
    ("growth", "time_against_n.png", "Time of the whole command against the number of images"),
    ("growth", "memory_against_n.png", "Peak memory of the whole command against the number of images"),
    ("trace", "trace_against_d.png", "Time of the trace of the matrix square root against d"),
)


def _find(results: dict[str, Any], line: Line) -> dict[str, Any] | None:
    """Return the result that a line shows; None if it was not measured."""
    stage = results["stages"].get(line.stage, {"results": []})
    fitting = [r for r in stage["results"] if r["case"] == line.case] or [
        r for r in stage["results"] if r["case"].startswith(line.case)
    ]
    if line.threads is not None:
        fitting = [r for r in fitting if r["threads"] == line.threads]
    # If several cases match, the last is used: it is the largest.
    return max(reversed(fitting), key=lambda r: int(r["threads"])) if fitting else None


def _entry(result: dict[str, Any], name: str) -> dict[str, Any]:
    for entry in result["measured"]:
        if entry["name"] == name:
            found: dict[str, Any] = entry
            return found
    raise LookupError(f"{result['case']}: no contender {name!r}")


def _shown(entry: dict[str, Any], quantity: str, unit: str) -> str:
    if quantity == "peak_mib":
        return f"{report.number(entry['peak_mib'])} MiB"
    if entry["rate"] is not None:
        return f"{report.number(entry['rate'])} {unit}"
    return report.duration(entry["median"])


def machine_results(folder: Path) -> list[Path]:
    """Return the result files of machines. Those of GPU cards (gpu_report.py) have another format."""
    return sorted(path for path in folder.glob("*.json") if not path.name.startswith("gpu-"))


def summary(results: dict[str, Any], folder: Path = report.RESULTS) -> str:
    """Return README's table of ratios; `folder` holds the results of cards."""
    machine = results["machine"]
    rows = ["| what | fastfid | the other | ratio | command |", "|---|---|---|---|---|"]
    for line in SUMMARY:
        result = _find(results, line)
        if result is None:
            print(f"not measured: {line.stage}, {line.case or 'any case'}", file=sys.stderr)
            continue
        ours, peer = _entry(result, line.ours), _entry(result, line.peer or result["against"])
        ratio = peer[line.quantity] / ours[line.quantity]
        behind = "slower" if line.quantity == "median" else "more"
        verdict = f"{ratio:.1f} x" if ratio >= 1 else f"**{ratio:.2f} x: {behind}**"
        other = f"{_shown(peer, line.quantity, result['unit'])} ({peer['name']})"
        cells = [line.what, _shown(ours, line.quantity, result["unit"]), other, verdict, f"`--stage {line.stage}`"]
        rows.append("| " + " | ".join(cells) + " |")
    rows.append(gpu_report.readme_row(folder))
    dates = sorted(stage["started"][:10] for stage in results["stages"].values())
    when = dates[0] if dates[:1] == dates[-1:] else f"{dates[0]} to {dates[-1]}"
    return "\n".join(
        [
            f"{machine['cpu']}, {machine['cores']} cores, two threads unless said, {when}. Medians of interleaved runs",
            "on real photographs; every answer was checked against the peer's in the same run. A line is measured",
            "again by `python -m benchmarks --full --stage NAME`.",
            "",
            *rows,
            "",
        ]
    )


def pictures(results: dict[str, Any], slug: str) -> str:
    """Return the plots as Markdown, for a file in ``benchmarks/``; `slug` names the machine's folder."""
    return "".join(
        f"![{title}](results/plots/{slug}/{file})\n"
        for stage, file, title in PLOTS
        if results["stages"].get(stage, {}).get("results")
    )


def rewrite(text: str, results_folder: Path) -> str:
    """Return a Markdown text with the content between its markers regenerated.

    Raises
    ------
    LookupError
        A marker names a machine or a stage without results.
    """

    def fill(match: re.Match[str]) -> str:
        name, machine = match["name"], match["machine"]
        if machine is None:
            measured = [path.stem for path in machine_results(results_folder)]
            if not measured:  # a checkout in which nothing was measured yet
                return f"{match[1]}{match[4]}"
            if len(measured) > 1:
                raise LookupError(f"marker 'figures: {name}': say which machine: {', '.join(measured)}")
            machine = measured[0]
        path = results_folder / f"{machine}.json"
        if not path.exists():
            raise LookupError(f"marker 'figures: {name} {machine}': no file {path.name} in {results_folder.name}")
        results = report.load(path)
        if name == "summary":
            body = summary(results, results_folder)
        elif name == "plots":
            body = pictures(results, machine)
        elif name in results["stages"]:
            body = report.stage_table(results["stages"][name]) + "\n"
        else:
            raise LookupError(f"marker 'figures: {name} {machine}': no such stage in {path.name}")
        return f"{match[1]}{body}{match[4]}"

    return MARKER.sub(fill, text)


def main() -> int:
    """Return 0, or 1 if ``--check`` finds a difference."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file differs")
    options = parser.parse_args()
    stale = []
    own = (REPOSITORY / "README.md", REPOSITORY / "benchmarks" / "README.md")
    for path in (*own, *sorted((REPOSITORY / "docs").glob("**/*.md"))):
        text = path.read_text(encoding="utf-8")
        made = rewrite(text, report.RESULTS)
        if made == text:
            continue
        stale.append(path.relative_to(REPOSITORY).as_posix())
        if not options.check:
            path.write_text(made, encoding="utf-8")
    for path in machine_results(report.RESULTS):
        table = path.with_suffix(".md")
        results = report.load(path)
        if not table.exists() or table.read_text(encoding="utf-8") != report.markdown(results):
            stale.append(table.relative_to(REPOSITORY).as_posix())
            if not options.check:
                report.write(path, results)
        if not options.check:
            from benchmarks import plots

            plots.draw(results, report.RESULTS / "plots" / path.stem)
    if options.check and stale:
        print(f"differ from benchmarks/results (run `make figures`): {', '.join(stale)}", file=sys.stderr)
        return 1
    print("\n".join(f"written: {name}" for name in stale) or "README, docs and tables agree with benchmarks/results")
    return 0


if __name__ == "__main__":
    sys.exit(main())
