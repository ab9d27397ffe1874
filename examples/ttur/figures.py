"""Figures of toy.py and gan.py."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

COLOURS = ("#1f5fa8", "#c8501e", "#3a7d44", "#7b4fa0", "#8a6d3b", "#5b5b5b")
STYLES = ("-", "--", "-.", ":")


def _pair(one: dict) -> str:
    return f"D {one['discriminator']:g}, G {one['generator']:g}"


def _tidy(axis) -> None:
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _curve(axis, one: dict, colour: str, label: str, style: str = "-", alpha: float = 0.2) -> None:
    x, y = np.array(one["steps"]), np.array(one["fid"])
    axis.plot(x, y, style, color=colour, lw=1.6, label=label)
    if None not in one["standard_deviation"]:
        spread = np.array(one["standard_deviation"])
        axis.fill_between(x, np.maximum(y - spread, y.min() / 2), y + spread, color=colour, alpha=alpha, lw=0)


def draw_curves(found: dict, target: Path) -> None:
    """Draw the FID against the step: one time scale, two time scales, and the best of each."""
    figure = Figure(figsize=(15, 6), layout="constrained")
    rates = found["conditions"]["rates"]
    left, middle, right = figure.subplots(1, 3, sharey=True)
    for axis, count, title in ((left, 1, "One time scale"), (middle, 2, "Two time scales")):
        pairs = [one for one in found["pairs"] if one["time_scales"] == count]
        for one in pairs:  # a colour for each rate of the discriminator, a style for each of the generator
            colour, style = (rates.index(one[player]) for player in ("discriminator", "generator"))
            style = STYLES[style % len(STYLES)] if count == 2 else "-"
            _curve(axis, one, COLOURS[colour % len(COLOURS)], _pair(one), style, 0.6 / max(len(pairs), 3))
        axis.set_title(title)
    for count, best in found["best"].items():
        if best is not None:
            words = "one time scale" if int(count) == 1 else "two time scales"
            _curve(right, best, COLOURS[int(count) - 1], f"{words}: {_pair(best)}")
    right.axhline(found["fid_of_two_halves"], color="black", ls=":", lw=1, label="two halves of the real images")
    right.set_title("The best of each")
    for axis in (left, middle, right):
        axis.set_yscale("log")
        axis.set_xlabel("steps")
        if axis.lines:
            columns = 2 if len(axis.lines) > 3 else 1
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.12)}
            axis.legend(fontsize=8, ncols=columns, frameon=False, **place)
        _tidy(axis)
    left.set_ylabel("FID (small classifier)")
    seeds = found["conditions"]["seeds"]
    figure.suptitle(f"FID against step: mean over {seeds} seeds, ± standard deviation over them")
    figure.savefig(target, dpi=100)


def draw_grid(found: dict, target: Path) -> None:
    """Draw the lowest mean FID of every pair of rates."""
    rates = found["conditions"]["rates"]
    best = {(one["discriminator"], one["generator"]): min(one["fid"]) for one in found["pairs"]}
    values = np.array([[best[d, g] for g in rates] for d in rates])
    figure = Figure(figsize=(1.3 * len(rates) + 2.5, 1.1 * len(rates) + 1.6), layout="constrained")
    axis = figure.subplots()
    shown = axis.imshow(np.log10(values), cmap="viridis_r", origin="lower")
    middle = (np.log10(values).max() + np.log10(values).min()) / 2
    for i, j in np.ndindex(values.shape):
        colour = "white" if np.log10(values[i, j]) > middle else "black"
        weight = "bold" if i == j else "normal"
        axis.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", color=colour, weight=weight)
    axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.set_yticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.set_xlabel("rate of the generator")
    axis.set_ylabel("rate of the discriminator")
    axis.set_title("Lowest mean FID; bold: one time scale", fontsize=10)
    figure.colorbar(shown, label="log10 FID")
    figure.savefig(target, dpi=100)


def draw_samples(found: dict, real: np.ndarray, output: Path) -> None:
    """Draw real images, and generated ones of the best pair of each kind, first seed, at its best checkpoint."""
    sets = {"real images": real}
    for count, best in found["best"].items():
        if best is not None:
            path = output / "work" / f"d{best['discriminator']:g}-g{best['generator']:g}-seed0-best.npy"
            sets[f"{'one time scale' if int(count) == 1 else 'two time scales'}\n{_pair(best)}"] = np.load(path)
    figure = Figure(figsize=(3.2 * len(sets), 3.9), layout="constrained")
    for axis, (title, images) in zip(figure.subplots(1, len(sets), squeeze=False)[0], sets.items(), strict=True):
        chosen = images[np.random.default_rng(0).permutation(len(images))[:64]]
        apart = np.pad(chosen, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=110)  # a grey frame around each
        rows = apart.reshape(8, 8, *apart.shape[1:])
        axis.imshow(np.concatenate([np.concatenate(list(row), axis=1) for row in rows]))
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    figure.savefig(output / "gan-samples.png", dpi=100)


def draw_toy(found: list[dict], target: Path) -> None:
    """Draw norm and objective of the toy problem against the step, without noise (above) and with it."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    for row, noise in zip(figure.subplots(2, 2), sorted({one["noise"] for one in found}), strict=True):
        for axis, key, label in zip(row, ("norm", "off"), ("norm of (x, y)", "|f(x, y) - 100|"), strict=True):
            runs = [one for one in found if one["noise"] == noise]
            for number, (colour, one) in enumerate(zip(COLOURS, runs, strict=False)):
                low, middle, high = np.array(one[key])
                style = "--" if number == 3 else "-"  # it lies on another curve
                axis.plot(middle, style, color=colour, lw=1.5, label=one["name"])
                if noise:
                    axis.fill_between(range(len(low)), low, high, color=colour, alpha=0.2, lw=0)
            with_noise = f"noise {noise:g}: median, and 10 to 90 % of the runs"
            axis.set_title(with_noise if noise else "without noise", fontsize=10)
            axis.set_yscale("log")
            axis.set_xlabel("steps")
            axis.set_ylabel(label)
            _tidy(axis)
        row[0].set_ylim(1e-4, 3)
        row[1].set_ylim(1e-6, 1000)
    figure.axes[0].legend(fontsize=8)
    figure.savefig(target, dpi=100)
