"""Plots of the results, drawn for the width of a README."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import FuncFormatter

from benchmarks.report import duration, number

__all__ = ["draw"]

STYLE: dict[str, Any] = {
    "figure.dpi": 160,
    "figure.facecolor": "white",
    "font.size": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#777777",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "legend.handlelength": 3.0,
    "lines.linewidth": 2.2,
    "lines.markersize": 7,
    "savefig.bbox": "tight",
}
WIDTH = 8.4
OURS = "#0b6e4f"
OTHERS = ("#c8553d", "#3c6e9f", "#8a6fb0", "#b8860b", "#5f5f5f")
PARTS = {
    "start and imports": "#b9c4cc",
    "weights and network": "#7f97a8",
    "images to features": "#2f7f9e",
    "FID from features": "#e0a030",
}


def _colour(name: str, others: dict[str, str]) -> str:
    """Return the colour of a tool: a fixed colour for fastfid, and one colour per picture for every other tool."""
    if name == "fastfid":
        return OURS
    return others.setdefault(name, OTHERS[len(others) % len(OTHERS)])


def _setting(results: dict[str, Any], stage: str) -> str:
    machine = results["machine"]
    return f"{machine['cpu']}, {machine['cores']} cores, {results['stages'][stage]['started'][:10]}"


def _save(figure: Any, path: Path, setting: str) -> None:
    figure.axes[0].annotate(
        setting,
        xy=(1, 0),
        xycoords="axes fraction",
        xytext=(0, -46),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=9,
        color="#777777",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the date and version that matplotlib writes, so that equal results give equal files.
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _whole_command(results: dict[str, Any], folder: Path) -> None:
    """A bar for each tool, its stages stacked."""
    stage = results["stages"]["folders"]
    result = max(stage["results"], key=lambda r: sum(bool(m["parts"]) for m in r["measured"]))
    measured = sorted(result["measured"], key=lambda m: m["median"], reverse=True)
    figure, axes = plt.subplots(figsize=(WIDTH, 1.5 + 0.55 * len(measured)))
    ours = next(m["median"] for m in measured if m["name"] == "fastfid")
    for y, entry in enumerate(measured):
        left = 0.0
        parts = entry["parts"] or {"": entry["median"]}
        # The parts come from one run. The length of the bar is the median of all runs.
        scale = entry["median"] / sum(parts.values())
        for part, seconds in parts.items():
            axes.barh(y, seconds * scale, left=left, height=0.62, color=PARTS.get(part, "#d8d8d8"))
            left += seconds * scale
        text = duration(entry["median"])
        text += f"  ({entry['median'] / ours:.1f} x as long)" if entry["name"] != "fastfid" else ""
        axes.text(left, y, f" {text}", va="center", fontsize=11)
    axes.set_yticks(range(len(measured)), [m["name"] for m in measured])
    axes.set_xlim(0, measured[0]["median"] * 1.28)
    axes.set_xlabel("seconds")
    axes.grid(axis="y", visible=False)
    axes.set_title(f"FID of {result['case']}, whole command", pad=34)
    seen = [part for part in PARTS if any(part in m["parts"] for m in measured)]
    handles = [mpl.patches.Patch(color=PARTS[part], label=part) for part in seen]
    if any(not m["parts"] for m in measured):
        handles.append(mpl.patches.Patch(color="#d8d8d8", label="not told apart"))
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(-0.01, 0.99),
        ncols=len(handles),
        fontsize=10,
        columnspacing=1.2,
        handlelength=1.2,
    )
    _save(figure, folder / "whole_command.png", f"{_setting(results, 'folders')}, {result['threads']} threads")


def _series(
    stage: dict[str, Any], x: str, value: str
) -> Iterator[tuple[str, int, list[float], list[float], list[dict[str, Any]]]]:
    """Yield (contender, threads, xs, ys, results) over the results that have the fact `x`."""
    found: dict[tuple[str, int], list[tuple[float, float, dict[str, Any]]]] = {}
    for result in stage["results"]:
        if x not in result["facts"]:
            continue
        for entry in result["measured"]:
            if entry.get(value) is not None:
                point = (result["facts"][x], entry[value], result)
                found.setdefault((entry["name"], result["threads"]), []).append(point)
    for (name, threads), points in found.items():
        points.sort(key=lambda p: p[0])
        yield name, threads, [p[0] for p in points], [p[1] for p in points], [p[2] for p in points]


def _growth(results: dict[str, Any], folder: Path) -> None:
    """Time and memory of the whole command against the number of images."""
    stage = results["stages"]["growth"]
    for value, label, title, file in (
        ("median", "seconds", "Whole command: time against the number of images", "time_against_n.png"),
        ("peak_mib", "peak memory, MiB", "Whole command: memory against the number of images", "memory_against_n.png"),
    ):
        figure, axes = plt.subplots(figsize=(WIDTH, 4.2))
        others: dict[str, str] = {}
        top = 0.0
        for name, threads, xs, ys, _ in _series(stage, "n", value):
            cores = f"{threads} core{'s' if threads > 1 else ''}"
            most = threads == max(r["threads"] for r in stage["results"])
            line = "-" if most else "--" if len(xs) > 1 else ""
            look = {"linestyle": line, **({} if most else {"markerfacecolor": "white"})}
            axes.plot(xs, ys, marker="o", **look, color=_colour(name, others), label=f"{name}, {cores}")
            top = max(top, *ys)
        axes.set_xscale("log")
        ticks = sorted({r["facts"]["n"] for r in stage["results"]})
        axes.set_xticks(ticks, [f"{n:,}" for n in ticks])
        axes.minorticks_off()
        if value == "median":
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: number(y)))
        else:
            axes.set_ylim(0, top * 1.1)
        axes.set_xlabel("images in the first folder (the second has 32)")
        axes.set_ylabel(label)
        axes.set_title(title)
        axes.legend(fontsize=11)
        _save(figure, folder / file, _setting(results, "growth"))


def _trace(results: dict[str, Any], folder: Path) -> None:
    """Time of the trace against d, with the limit that one GEMM sets."""
    stage = results["stages"]["trace"]
    threads = max(r["threads"] for r in stage["results"])
    # Without the cases beside busy processes, and those that begin with n rows.
    quiet = [r for r in stage["results"] if r["threads"] == threads and not {"busy", "n"} & set(r["facts"])]
    figure, axes = plt.subplots(figsize=(WIDTH, 4.8))
    others: dict[str, str] = {}
    for name, _, xs, ys, _ in _series({"results": quiet}, "d", "median"):
        if name.startswith("fastfid"):
            dashes = "-" if name == "fastfid" else "--"
            axes.plot(xs, ys, dashes, marker="o", color=OURS, label=name)
        else:
            axes.plot(xs, ys, marker="s", color=_colour(name, others), label=name)
    limit = sorted((r["facts"]["d"], r["facts"]["gemm"]) for r in quiet if "gemm" in r["facts"])
    if limit:
        axes.plot(*zip(*limit, strict=True), ":", color="#222222", label="limit: one product of d x d matrices")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = sorted({r["facts"]["d"] for r in quiet if "d" in r["facts"]})
    axes.set_xticks(ticks, [str(d) for d in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: duration(y)))
    axes.set_xlabel("d, number of features")
    axes.set_ylabel("time")
    axes.set_title("Trace of the square root of the product of two covariances")
    axes.legend(fontsize=10.5)
    _save(figure, folder / "trace_against_d.png", f"{_setting(results, 'trace')}, {threads} threads")


def draw(results: dict[str, Any], folder: Path) -> None:
    """Draw the plots of all stages with results into `folder`."""
    with mpl.rc_context({**STYLE, "backend": "agg"}):
        for name, picture in (("folders", _whole_command), ("growth", _growth), ("trace", _trace)):
            if results["stages"].get(name, {}).get("results"):
                picture(results, folder)
