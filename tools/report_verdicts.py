"""How often ``fastfid report`` calls two sets of one distribution different, by the KID and by the FID alone.

``python -m tools.report_verdicts`` prints the shares, and the standard errors from 0 that one pair in a hundred
exceeds; docs/report.md cites them. It takes half a minute on an idle machine. ``--pairs 400 --classes 20`` says how
often any of 20 pairs, taken as the classes of one report, is called different.
"""

import argparse

import numpy as np

from fastfid.metrics import kid
from fastfid.metrics.base import Result
from fastfid.metrics.fid import as_result, distance, with_standard_error
from fastfid.metrics.given import gaussian_of
from fastfid.report.header import FEWEST_ERRORS, errors_from_zero
from fastfid.report.verdicts import beyond_noise

CASES = ((64, 80), (64, 300), (64, 1000), (16, 400))  # features, images of each set
TAILS = {
    "normal": lambda rng, n, d: rng.normal(size=(n, d)),
    "heavy": lambda rng, n, d: np.maximum(rng.normal(size=(n, d)), 0) * rng.gamma(1, 1, size=(n, 1)),
    "heavier": lambda rng, n, d: np.maximum(rng.normal(size=(n, d)), 0) * rng.gamma(1, 1, size=(n, d)) ** 2,
}


def ratios(rng, draw, d, n):
    """Return the standard errors from 0 of one pair of sets, by the KID and by the FID."""
    scale = np.exp(-np.arange(d) / (d / 4))  # variances that decay, as those of Inception features
    a, b = ((draw(rng, n, d) * scale).astype(np.float32) for _ in range(2))
    of_kid = kid(a, b)
    sides = gaussian_of(a, "a"), gaussian_of(b, "b")
    fid = with_standard_error(as_result(distance(*sides, needs_bias=True)), *sides)
    results = {"kid": Result(of_kid.value, standard_error=of_kid.standard_error), "fid": fid}
    return errors_from_zero(results)[1], errors_from_zero({"fid": fid})[1]


def main():
    """Print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=300, metavar="N", help="pairs of sets of each case; default: 300")
    parser.add_argument("--classes", type=int, metavar="K", help="take K pairs as the classes of a report")
    args = parser.parse_args()
    for name, draw in TAILS.items():
        for d, n in CASES:
            found = np.array([ratios(np.random.default_rng((d, n, i)), draw, d, n) for i in range(args.pairs)])
            if args.classes:
                reports = found[: args.pairs // args.classes * args.classes].reshape(-1, args.classes, 2)
                named = np.array([[any(beyond_noise(list(one))) for one in report.T] for report in reports])
                print(
                    f"{name:8} d = {d}, n = {n}: {len(reports)} reports of {args.classes} classes: any is named in"
                    f" {named[:, 0].mean():.1%} (KID), {named[:, 1].mean():.1%} (FID)",
                    flush=True,
                )
                continue
            shares, tails = (found >= FEWEST_ERRORS).mean(axis=0), np.quantile(found, 0.99, axis=0)
            print(
                f"{name:8} d = {d}, n = {n}: called different {shares[0]:.1%} (KID), {shares[1]:.1%} (FID); one pair in"
                f" a hundred exceeds {tails[0]:.1f} and {tails[1]:.1f} standard errors",
                flush=True,
            )


if __name__ == "__main__":
    main()
