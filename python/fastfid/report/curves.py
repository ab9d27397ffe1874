"""How the FID depends on the number of images, and the KID, which does not."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fastfid.evaluation.result import Evaluation
from fastfid.metrics import label_of
from fastfid.metrics.fid import FIDResult, distance
from fastfid.metrics.given import gaussian_of
from fastfid.report import figures
from fastfid.report.content import Notice, Section, minus
from fastfid.report.sides import Side

__all__ = ["curves_section", "fids_of_subsets"]

_POINTS = 7
_LEAST = 16  # images of the smallest subset
_SEED = 0


def fids_of_subsets(real: Side, generated: Side, sizes: Sequence[int]) -> list[tuple[int, float]]:
    """Return the FIDs of random subsets of the generated images, each of which holds the smaller ones.

    Parameters
    ----------
    real, generated : Side
        The generated side has its rows.
    sizes : sequence of int
    """
    assert generated.rows is not None
    order = np.random.default_rng(_SEED).permutation(len(generated.rows))
    found = []
    for size in sizes:
        subset = gaussian_of(generated.rows, "subset", order[:size])
        found.append((size, distance(real.statistics, subset, force=True).value))
    return found


def curves_section(evaluation: Evaluation, real: Side, generated: Side) -> Section:
    """Return the section: the FID against n, FID-infinity, and the KID with its interval."""
    label = label_of("fid", [side.meta.get("extractor") for side in (evaluation.real, evaluation.fake)])
    section = Section("images", f"The {label} and the number of images")
    fid, n = evaluation["fid"], generated.statistics.n
    assert isinstance(fid, FIDResult)
    section.paragraphs.append(
        f"The {label} of few images is larger than that of many, by its bias, so it is only compared with values of"
        " the same number of images."
    )
    if n is None:
        section.blocks.append(Notice(f"{generated.name} does not say of how many images it is: there is no curve."))
        return section
    has_bias = fid.bias is not None and real.statistics.n is not None
    points = [] if generated.rows is None else fids_of_subsets(real, generated, _sizes(n))
    line, limit = (_expected(fid, real, n), fid.value - (fid.bias or 0)) if has_bias else (None, None)
    if has_bias:
        section.paragraphs.append(
            f"Here the closed form of the bias is {fid.bias:.4g} for Gaussian features, so {label}-infinity, of"
            f" infinitely many images on both sides, is about {minus(limit or 0, '.4g')}. The closed form is too small"
            " for n below about 5 times the number of features."
        )
    else:
        few = f"no more images than the {evaluation.dims:,} features on a side"
        section.blocks.append(Notice(f"There is no closed form of the bias, and no {label}-infinity: {few}."))
    if not points:
        section.blocks.append(
            Notice(f"{generated.name} holds statistics only: there are no rows to draw subsets from.")
        )
    if points or line is not None:
        alt = f"{label} against the number of generated images: " + ", ".join(
            f"{value:.4g} at {size:,}" for size, value in [*points, (n, fid.value)]
        )
        caption = "Random subsets of the generated images, each within the next, against all real images."
        whole = (n, fid.value, fid.standard_error)
        section.blocks.append(figures.curve(points, line, limit, whole, label, alt + ".", caption))
    section.paragraphs += _of_the_kid(evaluation)
    return section


def _of_the_kid(evaluation: Evaluation) -> list[str]:
    """Return what there is to say of the KID."""
    kid = evaluation.results.get("kid")
    if kid is None:
        return []
    name = label_of("kid", [side.meta.get("extractor") for side in (evaluation.real, evaluation.fake)])
    if not kid.standard_error:
        return [f"The {name}, which has no bias, is {minus(kid.value, '.4g')}."]
    half = 1.96 * kid.standard_error
    return [
        f"The {name}, which has no bias at any number of images, is {minus(kid.value, '.4g')}, with the 95 % interval"
        f" {minus(kid.value - half, '.4g')} to {minus(kid.value + half, '.4g')}."
    ]


def _sizes(n: int) -> list[int]:
    """Return the sizes of the subsets: geometric, below n."""
    least = min(max(_LEAST, n // 32), n)
    found = np.geomspace(least, n, _POINTS + 1).astype(int)[:-1]
    return [int(size) for size in dict.fromkeys(found.tolist()) if 2 <= size < n]


def _expected(fid: FIDResult, real: Side, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the FID that the closed form of the bias expects of other numbers of generated images.

    The bias is trace1 / n1 + trace2 / n2 + (1 / n1 + 1 / n2) r, with r the part of the root (docs/numerics.md).
    """
    n_real = real.statistics.n
    assert n_real is not None
    assert fid.bias is not None
    of_root = (fid.bias - fid.trace1 / n_real - fid.trace2 / n) / (1 / n_real + 1 / n)
    sizes = np.geomspace(max(2, math.ceil(n / 4)), 8 * n, 64)
    return sizes, fid.value + (fid.trace2 + of_root) * (1 / sizes - 1 / n)
