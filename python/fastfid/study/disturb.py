"""``fastfid study disturb``: metrics against the level of six disturbances, as figure 3 of Heusel et al. (2017)."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastfid._console import remark
from fastfid._version import __version__
from fastfid.errors import ImageError
from fastfid.evaluation.image_set import ImageSet
from fastfid.evaluation.opening import effective_options, statistics_of_store
from fastfid.metrics import label_of, make_metrics
from fastfid.metrics.base import Metric, Result
from fastfid.metrics.several import Missing, results_of
from fastfid.provenance import provenance_of
from fastfid.references import numbers_hash
from fastfid.sources.base import ImageSource
from fastfid.statistics import Statistics
from fastfid.study.disturbances import (
    CONTAMINATION,
    DISTURBANCES,
    SEED,
    ContaminatedSource,
    Disturbance,
    DisturbedSource,
    by_key,
)
from fastfid.study.figures import ERRORS, PACKAGES, Curve, Panel, check_packages, draw_grid, short
from fastfid.study.folder import StudyFolder, describe_source, write_json
from fastfid.study.reading import Options, Reader, halves, open_given, open_set

__all__ = ["DEFAULT_METRICS", "disturb", "table"]

# Those of them that the network gives what they need.
DEFAULT_METRICS = ("fid", "sfid", "kid", "prdc", "is")
_STRIP = 96  # side of the images below the curves, in pixels
_CLEAN = "clean-0"
_ORDER = ("clean", *(one.key for one in (*DISTURBANCES, CONTAMINATION)))  # of the disturbances in tables and figures


def disturb(
    source: Any,
    output: str | os.PathLike[str],
    *,
    contaminate: Any = None,
    reference: Any = None,
    disturbances: Iterable[str] | None = None,
    levels: Mapping[str, Sequence[float]] | None = None,
    metrics: Iterable[str | Metric] | None = None,
    fresh: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Compute metrics of a set of images under rising levels of disturbances, and write a figure and a JSON file.

    Half of the images, drawn at random, stay clean. The other half is disturbed and compared with them, at level 0
    too: this value shows what the number of images alone does. As no image is on both sides, the standard errors hold.

    Parameters
    ----------
    source : path or other source
        Images; see :func:`fastfid.compute_statistics`. Their number must be known.
    output : path
        A folder for ``disturb.json``, ``disturb.png`` and one file for each level. A run that was killed goes on there.
        A later run of the same study may name other levels: it adds them, and the files show all levels that are there.
    contaminate : path or other source, optional
        Other images, which replace a share of the set in the sixth disturbance. A run that adds levels of the others
        can leave them out.
    reference : path or other source, optional
        The clean set, instead of half of `source`: images, statistics or a store of features. All of `source` is
        then disturbed. Standard errors take the two sets to be independent.
    disturbances : list of str, optional
        Among "noise", "blur", "rectangles", "swirl", "salt-and-pepper" and "contamination". Default: all; the last
        one if `contaminate` is given.
    levels : dict of str to list of float, optional
        Levels of a disturbance, instead of those of the paper.
    metrics : list of str or Metric, optional
        Default: FID, sFID, KID, precision, recall, density, coverage and Inception Score, without those for which the
        network lacks something: see ``missing`` of the result.
    fresh : bool
        Start over if `output` has results of something else.
    **options
        Of :func:`fastfid.evaluate`: those of the network (`dims`, `extractor` and others), of the sources, `on_error`,
        `max_errors`, `num_workers` and `progress`.

    Returns
    -------
    dict
        The content of ``disturb.json`` (docs/paper.md).

    Raises
    ------
    ValueError
        An argument is wrong, there are too few images, or `output` has results of something else. The exceptions of
        :func:`fastfid.evaluate` are raised too.
    ImportError
        scikit-image or matplotlib is missing.

    Examples
    --------
    >>> found = disturb("real", "study", disturbances=["blur"], metrics=["fid"], dims=64)  # a folder of four pictures
    >>> [(point["disturbance"], point["level"]) for point in found["points"]]
    [('clean', 0.0), ('blur', 1), ('blur', 2), ('blur', 4)]
    """
    check_packages("the study", PACKAGES)
    chosen = _choose(disturbances, levels, has_other=contaminate is not None)
    asked = make_metrics(DEFAULT_METRICS if metrics is None else metrics)
    missing = Missing(lenient=metrics is None)
    how = Options.of(options)
    whole = open_set(source, how.to_open)
    is_contaminated = any(one.apply is None for one in chosen)
    other = open_set(contaminate, how.to_open_all) if is_contaminated else None
    if reference is None:
        first, spoilt = halves(whole)
        clean = ImageSet(None, first)
    else:
        clean, spoilt = open_given(reference, how.to_open_all), whole
    sources = _sources(spoilt, other, chosen)
    reader = Reader(asked, missing, [clean], how)
    plan = {
        "study": "disturb",
        "source": describe_source(whole),
        "reference": "half of the source" if reference is None else _describe_reference(clean),
        "contaminate": describe_source(other) if other is not None else None,
        "network": provenance_of(reader.extractor),
        "metrics": [*asked, *missing],
        "options_of_metrics": [repr(one) for one in asked.values()],
        "options": {**effective_options(how.sources), "on_error": how.reading["on_error"]},
        "seed": SEED,
        "version": __version__,
    }
    study = StudyFolder(output, plan, fresh=fresh, optional=["contaminate"])
    points = _points(study, reader, missing, clean, sources)
    points += _earlier(study, points, missing)
    points.sort(key=lambda point: (_ORDER.index(point["disturbance"]), point["level"]))
    found = {**plan, "contaminate": study.plan["contaminate"], "missing": dict(missing), "points": points}
    write_json(study.path / "disturb.json", found)
    _draw(study.path / "disturb.png", found, spoilt, other)
    return found


def _choose(
    keys: Iterable[str] | None, levels: Mapping[str, Sequence[float]] | None, *, has_other: bool
) -> list[Disturbance]:
    """Return the disturbances with the levels that were asked for."""
    if keys is None:
        chosen = [*DISTURBANCES, *([CONTAMINATION] if has_other else [])]
    else:
        chosen = [by_key(key) for key in keys]
        if len({one.key for one in chosen}) < len(chosen) or not chosen:
            raise ValueError(f"disturbances: expected one or more names, each once; got {', '.join(keys) or 'none'}")
    if has_other and not any(one.apply is None for one in chosen):
        raise ValueError("contaminate: is for the disturbance contamination, which is not among those asked for")
    if not has_other and any(one.apply is None for one in chosen):
        raise ValueError("contamination: needs a second set of images: --contaminate OTHER (contaminate=)")
    levels = dict(levels or {})
    for key, values in levels.items():
        one = by_key(key)
        if one not in chosen:
            raise ValueError(f"levels: {key} is not among the disturbances asked for")
        if not values or any(not 0 < value <= one.most for value in values):
            raise ValueError(f"levels: {key}: expected numbers above 0, up to {one.most:g} ({one.unit}); got {values}")
    return [_with_levels(one, levels.get(one.key)) for one in chosen]


def _with_levels(one: Disturbance, levels: Sequence[float] | None) -> Disturbance:
    if levels is None:
        return one
    rising = tuple(sorted(set(map(float, levels))))
    return replace(one, levels=rising)


def _describe_reference(clean: ImageSet) -> dict[str, Any]:
    if clean.source is None:
        given = clean.given
        assert given is not None
        statistics = given if isinstance(given, Statistics) else statistics_of_store(given)
        return {"name": given.name, "n": given.n, "network": dict(given.meta), "numbers": numbers_hash(statistics)}
    return describe_source(clean.source)


def _sources(
    spoilt: ImageSource, other: ImageSource | None, chosen: Sequence[Disturbance]
) -> dict[str, tuple[str, float, ImageSource]]:
    """Return the name of the disturbance, the level and the disturbed set of every point, by the name of its file."""
    found: dict[str, tuple[str, float, ImageSource]] = {_CLEAN: ("clean", 0.0, spoilt)}
    for one in chosen:
        for level in one.levels:
            found[f"{one.key}-{repr(level).removesuffix('.0')}"] = (
                one.key,
                level,
                _disturbed(spoilt, other, one, level),
            )
    return found


def _disturbed(spoilt: ImageSource, other: ImageSource | None, one: Disturbance, level: float) -> ImageSource:
    if one.apply is not None:
        return DisturbedSource(spoilt, one, level)
    assert other is not None
    return ContaminatedSource(spoilt, other, level)


def _points(
    study: StudyFolder,
    reader: Reader,
    missing: Missing,
    clean: ImageSet,
    sources: Mapping[str, tuple[str, float, ImageSource]],
) -> list[dict[str, Any]]:
    """Return all points: those that are there, and those that are made now."""
    there = {key: point for key in sources if (point := study.load(key)) is not None}
    if 0 < len(there) < len(sources):
        remark(f"{study.path}: {len(there)} of {len(sources)} levels are there; the others follow")
    is_read = False
    for key, (name, level, images) in sources.items():
        if key in there:
            missing.update(there[key]["missing"])
            continue
        if not is_read:
            reader.read(clean)
            is_read = True
        fake = reader.read(images)
        results = results_of(reader.metrics, missing, clean, fake)
        first = next(iter(reader.metrics.values()))
        point = {
            "disturbance": name,
            "level": level,
            "n": {"reference": clean.sample(first).n, "disturbed": fake.sample(first).n},
            "skipped": fake.skipped,
            "missing": dict(missing),
            "metrics": {key: _of_result(result) for key, result in results.items()},
        }
        study.keep(key, point)
        there[key] = point
    return [there[key] for key in sources]


def _earlier(study: StudyFolder, points: Sequence[Mapping[str, Any]], missing: Missing) -> list[dict[str, Any]]:
    """Return the points of earlier runs that this one did not ask for."""
    asked = {(point["disturbance"], point["level"]) for point in points}
    found = []
    for key in study.names():
        point = study.load(key) or {}
        name, level = point.get("disturbance"), point.get("level")
        if name not in _ORDER or not isinstance(level, int | float) or not isinstance(point.get("metrics"), dict):
            raise ValueError(f"{study.file_of(key)}: holds no level of a disturbance; remove the file")
        if (name, level) not in asked:
            missing.update(point.get("missing", {}))
            found.append(point)
    if found:
        remark(f"{study.path}: {len(found)} levels of earlier runs are shown too")
    return found


def _of_result(result: Result) -> dict[str, Any]:
    found = result.to_dict()
    keys = ("value", "numerical_lower", "numerical_upper", "standard_error", "standard_error_of", "no_standard_error")
    return {key: found[key] for key in keys}


def _names(found: Mapping[str, Any]) -> list[str]:
    """Return the names of the values that every point has."""
    points = found["points"]
    return [name for name in points[0]["metrics"] if all(name in point["metrics"] for point in points)]


def table(found: Mapping[str, Any]) -> str:
    """Return a table: a line for each level, a column for each value with its standard error."""
    names = _names(found)
    networks = [found["network"]["extractor"]]
    titles = [label_of(name, networks) for name in names]
    lines = [["disturbance", "level", *titles]]
    for point in found["points"]:
        cells = []
        for name in names:
            one = point["metrics"][name]
            error = "" if one["standard_error"] is None else f" ± {one['standard_error']:.2g}"
            cells.append(f"{one['value']:.4g}{error}")
        lines.append([point["disturbance"], f"{point['level']:g}", *cells])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def _draw(
    target: Path,
    found: Mapping[str, Any],
    spoilt: ImageSource,
    other: ImageSource | None,
) -> None:
    """Draw a panel for each disturbance and metric, and one image at each level."""
    points = {(point["disturbance"], point["level"]): point for point in found["points"]}
    clean = points["clean", 0.0]
    levels: dict[str, list[float]] = {}
    for name, level in points:
        levels.setdefault(name, []).append(level)
    chosen = [_with_levels(by_key(name), of_it) for name, of_it in levels.items() if name != "clean"]
    rows = {}
    for name in _names(found):
        curves = []
        for one in chosen:
            values = [clean["metrics"][name], *(points[one.key, level]["metrics"][name] for level in one.levels)]
            errors = [value["standard_error"] for value in values]
            curves.append(Curve((0, *one.levels), [value["value"] for value in values], errors))
        rows[label_of(name, [found["network"]["extractor"]])] = curves
    panels = [Panel(one.name, one.unit, _strip(spoilt, other, one)) for one in chosen]
    n, network = clean["n"], found["network"]
    what = (
        f"{n['disturbed']:,} disturbed images of {short(found['source']['name'])} against {n['reference']:,} clean ones"
    )
    network_name = network["extractor"].partition(":")[0]
    bars = f"bars: ±{ERRORS} standard errors" if any(e for c in rows.values() for e in c[0].errors) else "no error bars"
    title = f"{what}\n{network_name}, {network['dims']} dims, {network['protocol']}; {bars}"
    size = (max(3.0 * len(panels), 7), 1.1 + 2.2 * len(rows) + 1.2)
    draw_grid(target, title, panels, rows, size, one_scale=False)


def _strip(spoilt: ImageSource, other: ImageSource | None, one: Disturbance) -> list[NDArray[np.uint8]]:
    """Return one image, clean and at each level; for contamination the first images that are replaced.

    Empty where the other set was given to an earlier run alone.
    """
    if one.apply is None and other is None:
        return []
    if one.apply is not None:
        sets = [spoilt, *(_disturbed(spoilt, other, one, level) for level in one.levels)]
        return [_square(_first_that_loads(images)) for images in sets]
    pairs = zip(spoilt, _disturbed(spoilt, other, one, max(one.levels)), strict=True)
    foreign = (new for old, new in pairs if old.name != new.name)
    shown = [next(iter(spoilt)), *(new for new, _ in zip(foreign, one.levels, strict=False))]
    return [_square(image.load()) for image in shown]


def _first_that_loads(images: ImageSource) -> NDArray[np.uint8]:
    """Return the first image that can be read; ImageError, of the last one, if none can."""
    error: ImageError | None = None
    for image in images:
        try:
            return image.load()
        except ImageError as why:
            error = why
    raise error or ImageError(f"{images.name}: has no image")


def _square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the centre of an image at the size of the strip."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    resample = Image.Resampling.LANCZOS if side > _STRIP else Image.Resampling.NEAREST
    square = Image.fromarray(image[top : top + side, left : left + side]).resize((_STRIP, _STRIP), resample)
    return np.asarray(square)
