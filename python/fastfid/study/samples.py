"""``fastfid study samples``: FID against the number of images, its bias, and FID-infinity."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import check_count
from fastfid._progress import show_progress
from fastfid._version import __version__
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.opening import effective_options
from fastfid.metrics import label_of
from fastfid.metrics.fid import distance
from fastfid.metrics.given import gaussian_of
from fastfid.metrics.infinity import FIDInfinityFit, FIDInfinityResult, fid_infinity
from fastfid.metrics.rows import FeatureRows, KeptRows
from fastfid.metrics.several import Missing
from fastfid.provenance import provenance_of
from fastfid.statistics import Statistics
from fastfid.study.disturbances import SEED
from fastfid.study.figures import BLUE, ERRORS, ORANGE, check_packages, new_figure, save, short
from fastfid.study.folder import write_json
from fastfid.study.reading import Options, Reader, halves, open_given, open_set

__all__ = ["samples", "table"]

_SMALLEST = 10  # images of the smallest subset


def samples(
    source: Any,
    other: Any,
    output: str | os.PathLike[str],
    *,
    sizes: int = 10,
    repeats: int = 3,
    **options: Any,
) -> dict[str, Any]:
    """Compute the FID of growing subsets of a set, and write a figure and a JSON file.

    Parameters
    ----------
    source : path or other source
        The real images, or a store of features. All of them are used for every value.
    other : path or other source, or None
        The generated images, or a store of features, of which random subsets are drawn without replacement. None: one
        random half of `source` takes its place, and the other half that of `source`.
    output : path
        A folder for ``samples.json`` and ``samples.png``.
    sizes : int
        How many numbers of images, 3 or more: from 10 to all, with equal ratios.
    repeats : int
        Subsets of each size.
    **options
        Of :func:`fastfid.evaluate`: those of the network (`dims`, `extractor` and others), of the sources, `on_error`,
        `max_errors`, `num_workers` and `progress`.

    Returns
    -------
    dict
        The content of ``samples.json`` (docs/paper.md).

    Raises
    ------
    ValueError
        An argument is wrong, or there are too few images. The exceptions of :func:`fastfid.evaluate` are raised too.
    ImportError
        matplotlib is missing.

    Examples
    --------
    >>> import numpy as np
    >>> images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    >>> found = samples(images, None, "study", sizes=3, repeats=1, dims=64)
    >>> [point["n"] for point in found["points"]]
    [10, 12, 15]
    """
    check_packages("the study", {"matplotlib": "matplotlib"})
    check_count("sizes", sizes, 3)
    check_count("repeats", repeats, 1)
    how = Options.of(options)
    if other is None:
        a, b = (ImageSet(None, half) for half in halves(open_set(source, how.to_open)))
    else:
        a, b = open_given(source, how.to_open), open_given(other, how.to_open)
    for one in (a, b):
        if one.known is not None:
            raise ValueError(f"{one.known.name}: holds statistics, and the study needs images or a store of features")
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    rows = KeptRows()
    reader = Reader({rows.key: rows}, Missing(lenient=False), [a, b], how)
    real, fake = (cast(FeatureRows, reader.read(one).sample(rows).seen).rows() for one in (a, b))
    names = [one.name for one in (a, b)]
    network = provenance_of(reader.extractor)
    whole = gaussian_of(real, names[0])
    points = _points(whole, fake, sizes, repeats, how.reading["progress"])
    found = {
        "study": "samples",
        "real": {"name": names[0], "n": len(real)},
        "generated": {"name": names[1], "n": len(fake)},
        "network": network,
        "options": {**effective_options(how.sources), "on_error": how.reading["on_error"]},
        "seed": SEED,
        "version": __version__,
        "points": points,
        **_infinity(whole, gaussian_of(fake, names[1]), fake),
    }
    write_json(folder / "samples.json", found)
    _draw(folder / "samples.png", found)
    return found


def _points(
    whole: Statistics, fake: NDArray[np.float32], sizes: int, repeats: int, progress: Any
) -> list[dict[str, Any]]:
    """Return the FIDs of random subsets. Subsets of one repetition are nested: each holds those before it."""
    n = len(fake)
    if n <= _SMALLEST:
        raise ValueError(f"generated images: expected more than {_SMALLEST}, got {n}")
    numbers = np.unique(np.round(np.geomspace(_SMALLEST, n, sizes)).astype(int)).tolist()
    orders = [np.random.default_rng((SEED, repeat)).permutation(n) for repeat in range(repeats)]
    points = []
    with show_progress(len(numbers) * repeats, progress, "FIDs of subsets", "FID") as bar:
        for number in numbers:
            fids = []
            for order in orders if number < n else orders[:1]:  # there is one subset of all images
                fids.append(distance(whole, gaussian_of(fake, "subset", order[:number]), force=True).value)
                bar.update(1)
            spread = float(np.std(fids, ddof=1)) if len(fids) > 1 else None
            points.append({"n": number, "fid": float(np.mean(fids)), "spread": spread, "fids": fids})
    return points


def _infinity(whole: Statistics, all_of_it: Statistics, fake: NDArray[np.float32]) -> dict[str, Any]:
    """Return FID-infinity by both methods, and the bias at every n; None, with the reason, where there is none."""
    d, n = whole.d, len(fake)
    try:
        found = fid_infinity(whole, all_of_it)
    except ValueError as error:
        return {"fid_infinity": None, "fit": None, "no_fid_infinity": str(error), "bias": None}
    curve = _bias_curve(found, whole, all_of_it)
    smallest = max(d + 1, n // 4)
    fit = fid_infinity(whole, fake, method="fit", smallest=smallest, seed=0) if smallest < n else None
    return {
        "fid_infinity": _of(found),
        "fit": None if fit is None else _of(fit),
        "no_fid_infinity": None,
        "bias": curve,
    }


def _of(found: FIDInfinityResult | FIDInfinityFit) -> dict[str, Any]:
    kept = found.to_dict()
    keys = ("value", "standard_error", "no_standard_error", "bias", "bias_error", "fit_error", "slope", "note")
    return {key: kept[key] for key in keys if key in kept}


def _bias_curve(found: FIDInfinityResult, real: Statistics, fake: Statistics) -> dict[str, list[float]]:
    """Return FID-infinity plus the bias of n generated images, for n above the number of features.

    The bias is the sum of the noise of the means, Tr(S) / n of each side, and of a term that is as 1 / n of both sides
    together (docs/numerics.md). Its value at all images gives the latter.
    """
    assert real.n is not None
    assert fake.n is not None
    traces = float(np.trace(real.sigma)), float(np.trace(fake.sigma))
    of_root = (found.bias - traces[0] / real.n - traces[1] / fake.n) / (1 / real.n + 1 / fake.n)
    numbers = np.geomspace(fake.d + 1, fake.n, 50)
    bias = traces[0] / real.n + traces[1] / numbers + of_root * (1 / real.n + 1 / numbers)
    return {"n": numbers.tolist(), "fid": (found.value + bias).tolist()}


def table(found: Mapping[str, Any]) -> str:
    """Return a line for each number of images, and FID-infinity."""
    label = label_of("fid", [found["network"]["extractor"]])
    lines = [f"{'n':>8}  {label:>10}  {'spread':>8}  (standard deviation over subsets)"]
    for point in found["points"]:
        spread = "" if point["spread"] is None else f"{point['spread']:.3g}"
        lines.append(f"{point['n']:8,}  {point['fid']:10.4g}  {spread:>8}".rstrip())
    if found["no_fid_infinity"]:
        lines.append(f"no {label}-infinity: {found['no_fid_infinity']}")
    for name, title in (("fid_infinity", "closed form of the bias"), ("fit", "fit in 1 / n")):
        one = found[name]
        if one is not None:
            error, reason = one["standard_error"], one["no_standard_error"]
            told = f" (no standard error: {reason})" if error is None else f" ± {error:.2g}"
            lines.append(f"{label}-infinity, {title}: {one['value']:.4g}{told}")
    return "\n".join(lines)


def _draw(target: Path, found: Mapping[str, Any]) -> None:
    """Draw the FID against n: the subsets, the expected curve, and FID-infinity."""
    label = label_of("fid", [found["network"]["extractor"]])
    figure = new_figure(7.5, 5)
    axis = figure.subplots()
    x, y = zip(*((point["n"], fid) for point in found["points"] for fid in point["fids"]), strict=True)
    axis.plot(x, y, "o", ms=5, alpha=0.6, color=BLUE, label=f"{label} of random subsets")
    d = found["network"]["dims"]
    if found["bias"] is not None:
        one = found["fid_infinity"]
        axis.plot(
            found["bias"]["n"],
            found["bias"]["fid"],
            color=ORANGE,
            lw=2,
            label=f"{label}-infinity + bias (closed form)",
        )
        axis.axhline(one["value"], color=ORANGE, ls="--", lw=1.2, label=f"{label}-infinity: {one['value']:.4g}")
        if one["standard_error"] is not None:
            low, high = (one["value"] + sign * ERRORS * one["standard_error"] for sign in (-1, 1))
            axis.axhspan(low, high, color=ORANGE, alpha=0.15, lw=0, label=f"±{ERRORS} standard errors")
    if min(x) <= d <= max(x):
        axis.axvline(d, color="black", ls=":", lw=1, label=f"n = d = {d}")
    axis.set_xscale("log")
    if min(y) > 0 and max(y) > 20 * min(y) and (found["bias"] is None or found["fid_infinity"]["value"] > 0):
        axis.set_yscale("log")
    axis.set_xlabel(f"n, images of {short(found['generated']['name'])}")
    axis.set_ylabel(label)
    axis.set_title(f"{label} to {found['real']['n']:,} images of {short(found['real']['name'])}", fontsize=11)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=9)
    save(figure, target)
