"""Figures of the studies, by matplotlib."""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._files import atomic_file

__all__ = [
    "BLUE",
    "ERRORS",
    "ORANGE",
    "PACKAGES",
    "Curve",
    "Panel",
    "check_packages",
    "draw_grid",
    "new_figure",
    "save",
    "short",
]

# The packages of figures and disturbances, and the module of each.
PACKAGES = {"scikit-image": "skimage", "matplotlib": "matplotlib"}
BLUE, ORANGE = "#1f5fa8", "#c8501e"
ERRORS = 2  # half the length of an error bar, in standard errors: about 95 % of a normal distribution


@dataclass(frozen=True)
class Panel:
    """A column of a figure.

    Attributes
    ----------
    title, unit : str
        The text above, and that of the horizontal axis.
    strip : sequence of ndarray
        Images of equal size below, uint8 (h, w, 3); none for an empty sequence.
    """

    title: str
    unit: str
    strip: Sequence[NDArray[np.uint8]] = ()


@dataclass(frozen=True)
class Curve:
    """Values against levels.

    Attributes
    ----------
    x, y : sequence of float
    errors : sequence of float or None, optional
        Standard errors; None where there is none.
    """

    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float | None] = ()


def check_packages(what: str, modules: Mapping[str, str]) -> None:
    """Raise ImportError unless the packages are installed.

    Parameters
    ----------
    what : str
        What needs them.
    modules : dict
        The module of each package.
    """
    missing = [package for package, module in modules.items() if not _has(module)]
    if missing:
        raise ImportError(f"{what} needs {' and '.join(missing)}: pip install '.[demo]' in fastfid's source folder")


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def short(name: str) -> str:
    """Return the name of a set without the folders that it is in.

    >>> short("one half of data/photos.zip")
    'one half of photos.zip'
    """
    return re.sub(r"[^ ]*/(?=[^ /])", "", name)


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of this size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, target: Path) -> None:
    """Write the figure as a PNG, whole or not at all."""
    with atomic_file(target, overwrite=True) as stream:
        figure.savefig(stream, format="png", dpi=110)


def draw_grid(
    target: Path,
    title: str,
    panels: Sequence[Panel],
    rows: Mapping[str, Sequence[Curve]],
    size: tuple[float, float],
    *,
    one_scale: bool = True,
) -> None:
    """Draw a row of panels for each metric, with the value against the level, and a strip of images below each column.

    Parameters
    ----------
    rows : dict
        By the label of the vertical axis, one curve for each panel.
    size : (float, float)
        Width and height, in inches.
    one_scale : bool
        Whether the vertical axes of a row begin at 0 and are the same. Else each panel has its own.
    """
    figure = new_figure(*size)
    strip_share = 1 / (1 + 3.1 * len(rows))
    upper, lower = np.asarray(figure.subfigures(2, 1, height_ratios=(1 - strip_share, strip_share)))
    upper.suptitle(title, fontsize=12)
    grid = upper.subplots(len(rows), len(panels), sharey="row" if one_scale else False, squeeze=False)
    for number, (axes, (label, curves)) in enumerate(zip(grid, rows.items(), strict=True)):
        for axis, panel, curve in zip(axes, panels, curves, strict=True):
            _draw_curve(axis, curve)
            axis.set_xticks(list(curve.x))
            if number == 0:
                axis.set_title(panel.title, fontsize=11)
            if number == len(rows) - 1:
                axis.set_xlabel(panel.unit)
            if one_scale:
                axis.set_ylim(bottom=0)
        axes[0].set_ylabel(label)
    for axis, panel in zip(lower.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        if len(panel.strip):
            axis.imshow(np.concatenate(panel.strip, axis=1))
        axis.axis("off")
    save(figure, target)


def _draw_curve(axis: Any, curve: Curve) -> None:
    axis.plot(curve.x, curve.y, "o-", color=BLUE, lw=2, ms=5)
    bars = [(x, y, e) for x, y, e in zip(curve.x, curve.y, curve.errors, strict=False) if e is not None]
    if bars:
        x, y, errors = zip(*bars, strict=True)
        axis.errorbar(x, y, ERRORS * np.array(errors), fmt="none", ecolor=BLUE, capsize=4, lw=1.5)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
