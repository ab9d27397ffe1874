"""The drawings of a report, by matplotlib, as SVG in ``data:`` URIs. The only file of the report that imports it."""

import base64
import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid.report.content import Figure

__all__ = ["Series", "curve", "histogram", "runs"]


@dataclass(frozen=True)
class _Scheme:
    """The colours of a drawing on a light or a dark page."""

    text: str
    grid: str
    lines: tuple[str, ...]


# Okabe and Ito's colours, told apart by those who see fewer colours; lighter ones on dark. Each has a contrast of 3 to
# 1 with the page at least, text 7 to 1.
_LIGHT = _Scheme("#1f2328", "#c8ccd1", ("#0064a4", "#b34a00", "#007a5a", "#8a4f9e", "#6b6b00", "#5a6570"))
_DARK = _Scheme("#e6e8eb", "#454b54", ("#6cb8f0", "#f09a55", "#4fcf9f", "#d79be6", "#d6cf5a", "#b0bac5"))
_LEGEND = 60  # characters of a line in the legend of runs
_MARKS = ("o", "s", "^", "D", "v", "P")  # so that no line is told by its colour alone


@dataclass(frozen=True)
class Series:
    """A line of a figure of runs.

    Attributes
    ----------
    name : str
    x, y : sequence of float
    errors : sequence of (float or None)
        The standard error of each y.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    errors: Sequence[float | None]


def _figure(
    draw: Callable[[Any, _Scheme], None], size: tuple[float, float], alt: str, caption: str, title: str = ""
) -> Figure:
    """Return a drawing in both schemes."""
    light, dark = (_svg(draw, scheme, size) for scheme in (_LIGHT, _DARK))
    return Figure(light, dark, alt, caption, title)


def _svg(draw: Callable[[Any, _Scheme], None], scheme: _Scheme, size: tuple[float, float]) -> str:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    coloured = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    # Text stays text, in the reader's font. The salt makes the ids of two runs the same; math is not parsed.
    settings: dict[str, Any] = {
        **dict.fromkeys(coloured, scheme.text),
        "svg.fonttype": "none",
        "svg.hashsalt": "fastfid",
        "font.family": "sans-serif",
    }
    settings |= {
        "grid.color": scheme.grid,
        "font.size": 11,
        "text.parse_math": False,
        "axes.formatter.useoffset": False,
    }
    with mpl.rc_context(settings):
        canvas = Canvas(figsize=size, layout="constrained")
        FigureCanvasSVG(canvas)
        axes = canvas.subplots()
        axes.patch.set_alpha(0)
        axes.grid(visible=True, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        draw(axes, scheme)
        stream = io.BytesIO()
        with warnings.catch_warnings():
            # Its own font only measures the text. The reader's has other characters.
            warnings.filterwarnings("ignore", "Glyph")
            canvas.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"


def curve(
    points: Sequence[tuple[int, float]],
    line: tuple[NDArray[np.float64], NDArray[np.float64]] | None,
    limit: float | None,
    whole: tuple[int, float, float | None],
    label: str,
    alt: str,
    caption: str,
) -> Figure:
    """Return the FID against the number of generated images.

    Parameters
    ----------
    points : sequence of (n, FID)
        Of random subsets.
    line : (n, FID) or None
        What the closed form of the bias expects.
    limit : float or None
        FID-infinity; None without a line.
    whole : (n, FID, standard error or None)
        Of all images.
    label : str
        What the distance is called.
    """

    def draw(axes: Any, scheme: _Scheme) -> None:
        if line is not None:
            expected = "expected by the closed form of the bias"
            axes.plot(*line, "--", color=scheme.lines[0], linewidth=1.6, label=expected)
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=scheme.lines[0], markersize=6, label="of random subsets")
        n, value, error = whole
        axes.errorbar(
            [n],
            [value],
            yerr=None if error is None else [error],
            fmt="s",
            capsize=4,
            color=scheme.lines[1],
            markersize=7,
            label="of all images" if error is None else "of all images, ± standard error",
        )
        if limit is not None:
            axes.axhline(limit, linestyle=":", linewidth=1.6, color=scheme.lines[2], label=f"{label}-infinity")
        axes.set_xscale("log")
        places = [*[size for size, _ in points][::2], n]
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("generated images")
        axes.set_ylabel(label)
        axes.figure.legend(frameon=False, loc="outside lower left")

    return _figure(draw, (5.4, 4.0), alt, caption)


def histogram(real: NDArray[Any] | None, generated: NDArray[Any] | None, alt: str, title: str) -> Figure:
    """Return how both sets lie along a direction; at least one of them."""
    sets = {name: values for name, values in (("real", real), ("generated", generated)) if values is not None}
    joint = np.concatenate(list(sets.values()))
    edges = np.histogram_bin_edges(joint, bins=40)

    def draw(axes: Any, scheme: _Scheme) -> None:
        for number, (name, values) in enumerate(sets.items()):
            weights = np.full(len(values), 100 / len(values))
            colour = scheme.lines[number]
            axes.hist(
                values,
                edges,
                weights=weights,
                histtype="step",
                linewidth=2,
                color=colour,
                label=name,
                linestyle=("-", "--")[number],
            )
            axes.hist(values, edges, weights=weights, color=colour, alpha=0.2)
        axes.set_xlabel("position along the direction")
        axes.set_ylabel("% of the images")
        # Not loc="best", which is slow with many steps, and warns of it.
        axes.figure.legend(frameon=False, loc="outside upper right", ncols=2)

    caption = "Where the images of both sets lie along the direction."
    return _figure(draw, (5.4, 2.4), alt, caption, title)


def runs(
    series: Sequence[Series], label: str, x_label: str, *, are_dates: bool, alt: str, caption: str, title: str
) -> Figure:
    """Return a metric of several records against a step or a time."""
    names = [textwrap.wrap(one.name, _LEGEND) or [""] for one in series]

    def draw(axes: Any, scheme: _Scheme) -> None:
        for number, one in enumerate(series):
            colour, mark = scheme.lines[number % len(scheme.lines)], _MARKS[number % len(_MARKS)]
            errors = [0.0 if error is None else error for error in one.errors]
            x = np.array(one.x, "datetime64[s]") if are_dates else one.x
            axes.errorbar(
                x,
                one.y,
                yerr=errors if any(errors) else None,
                fmt=f"{mark}-",
                capsize=3,
                color=colour,
                linewidth=1.6,
                label=" " + "\n".join(names[number]),  # a name that begins with _ would have no place in the legend
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(label)
        if are_dates:
            axes.tick_params(axis="x", rotation=30)
        if len(series) > 1:
            axes.figure.legend(frameon=False, loc="outside lower left")

    return _figure(draw, (5.4, 3.0 + (0.2 * sum(map(len, names)) if len(series) > 1 else 0)), alt, caption, title)
