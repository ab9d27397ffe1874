"""The toy problem of Heusel et al. (2017): ``python toy.py -o DIR`` writes toy.json and toy.png.

min over x, max over y of f(x, y) = (1 + x^2) (100 - y^2). The equilibrium is (0, 0), where f is 100. Gradient descent
in x and ascent in y, at the same time, with one rate for both (one time scale) or one for each (two). In the noisy
version each gradient has Gaussian noise, as the gradients of mini-batches have.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from figures import draw_toy

START = (0.5, 0.5)
# The rates of x and y, from the largest common one to two time scales in either order.
RATES = {
    "one time scale, 0.01": (0.01, 0.01),
    "one time scale, 0.001": (0.001, 0.001),
    "two time scales, x slower": (0.001, 0.01),
    "two time scales, y slower": (0.005, 0.001),
}


def objective(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return f."""
    return (1 + x**2) * (100 - y**2)


def gradients(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the derivatives of f by x and by y."""
    return 2 * x * (100 - y**2), -2 * y * (1 + x**2)


def descend(
    rate_x: float, rate_y: float, steps: int, *, noise: float = 0.0, runs: int = 1, seed: int = 0, start=START
) -> np.ndarray:
    """Return the paths of so many runs, (steps + 1, runs, 2). `noise` is the deviation of what gradients get added."""
    rng = np.random.default_rng(seed)
    path = np.empty((steps + 1, runs, 2))
    path[0] = start
    for step in range(steps):
        x, y = path[step].T
        of_x, of_y = gradients(x, y)
        drawn = noise * rng.standard_normal((2, runs))
        path[step + 1, :, 0] = x - rate_x * (of_x + drawn[0])
        path[step + 1, :, 1] = y + rate_y * (of_y + drawn[1])
    return path


def factors(rate_x: float, rate_y: float) -> tuple[float, float]:
    """Return by what x and y are multiplied in one step near the equilibrium, where f is 100 (1 + x^2) - y^2."""
    return 1 - 200 * rate_x, 1 - 2 * rate_y


def stationary_deviations(rate_x: float, rate_y: float, noise: float) -> tuple[float, float]:
    """Return the standard deviations of x and y that noise leaves in the end; infinite where a factor is not below 1.

    Near the equilibrium each is an AR(1) process, v <- k v + rate * noise, of variance (rate noise)^2 / (1 - k^2).
    """
    kept = []
    for rate, factor in zip((rate_x, rate_y), factors(rate_x, rate_y), strict=True):
        left = 1 - factor**2
        kept.append(rate * noise / np.sqrt(left) if left > 1e-12 else np.inf)
    return kept[0], kept[1]


def main() -> None:
    """Run every pair of rates without and with noise, and write what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="DIR", help="default: this folder")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--noise", type=float, default=1.0, help="standard deviation; default: %(default)s")
    parser.add_argument("--runs", type=int, default=200, help="of the noisy version; default: %(default)s")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    found = []
    for name, (rate_x, rate_y) in RATES.items():
        for noise, runs in ((0.0, 1), (args.noise, args.runs)):
            path = descend(rate_x, rate_y, args.steps, noise=noise, runs=runs)
            norms, values = np.linalg.norm(path, axis=2), objective(path[..., 0], path[..., 1])
            last = path[-args.steps // 3 :]
            found.append(
                {
                    "name": name,
                    "rates": (rate_x, rate_y),
                    "noise": noise,
                    "norm": [np.quantile(norms, q, axis=1).tolist() for q in (0.1, 0.5, 0.9)],
                    "off": [np.quantile(np.abs(values - 100), q, axis=1).tolist() for q in (0.1, 0.5, 0.9)],
                    "last_norm": float(np.median(norms[-1])),
                    "last_objective": float(np.median(values[-1])),
                    "deviations": np.sqrt(np.square(last).mean(axis=(0, 1))).tolist(),
                    "expected_deviations": stationary_deviations(rate_x, rate_y, noise),
                }
            )
    draw_toy(found, args.output / "toy.png")
    kept = ("name", "rates", "noise", "last_norm", "last_objective", "deviations")
    short = [{key: one[key] for key in kept} for one in found]
    (args.output / "toy.json").write_text(json.dumps(short, indent=1) + "\n")
    print("| rates of x, y | noise | median norm at the end | median f at the end | deviation of x, y | expected |")
    print("|---|---|---|---|---|---|")
    for one in found:
        deviations, expected = ([f"{v:.3g}" for v in one[key]] for key in ("deviations", "expected_deviations"))
        cells = [f"{one['rates'][0]:g}, {one['rates'][1]:g}", f"{one['noise']:g}", f"{one['last_norm']:.3g}"]
        cells += [f"{one['last_objective']:.5g}", ", ".join(deviations), ", ".join(expected)]
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
