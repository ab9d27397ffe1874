"""Metrics of two sets of images, and functions of features of one's own.

Each metric has one module and one row in the table `METRICS`. The functions, as ``fastfid.metrics.kid``, are in modules
that have other names, as an imported module would take the name of the function; `_FUNCTIONS` is their table.
"""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastfid.metrics.base import Metric
    from fastfid.metrics.classes import inception_score as inception_score
    from fastfid.metrics.cosine import cmmd as cmmd
    from fastfid.metrics.kernel import kid as kid
    from fastfid.metrics.memorisation import mifid as mifid
    from fastfid.metrics.nearest import prdc as prdc
    from fastfid.metrics.sliced import mind as mind
    from fastfid.metrics.spectrum import vendi as vendi

# Functions of features, and the modules that have them: loaded on first use, as they load NumPy.
_FUNCTIONS = {
    "cmmd": "cosine",
    "inception_score": "classes",
    "kid": "kernel",
    "mifid": "memorisation",
    "mind": "sliced",
    "prdc": "nearest",
    "vendi": "spectrum",
}

__all__ = sorted(["METRICS", "Row", "make_metrics", *_FUNCTIONS])


def __getattr__(name: str) -> Any:
    if name not in _FUNCTIONS:
        raise AttributeError(f"module 'fastfid.metrics' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"fastfid.metrics.{_FUNCTIONS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)


@dataclass(frozen=True)
class Row:
    """One metric of the table.

    Attributes
    ----------
    name : str
        Name of the metric in ``--metrics`` and ``metrics=``.
    label : str
        Text before the value in the output of the command line.
    title : str
        Full name of the metric, with its source.
    home : str
        Module and class, as ``module:class``. They are loaded when the metric is used.
    """

    name: str
    label: str
    title: str
    home: str

    def make(self) -> "Metric":
        """Return the metric with its default options."""
        module, _, name = self.home.partition(":")
        metric: Metric = getattr(importlib.import_module(module), name)()
        return metric


METRICS = {
    row.name: row
    for row in (
        Row(
            "fid",
            "FID",
            "Fréchet Inception Distance (Heusel et al. 2017)",
            "fastfid.metrics.fid:FrechetInceptionDistance",
        ),
        Row(
            "kid",
            "KID",
            "Kernel Inception Distance (Binkowski et al. 2018)",
            "fastfid.metrics.mmd:KernelInceptionDistance",
        ),
    )
}


def _check_metric(metric: object) -> None:
    from fastfid.metrics.base import Metric  # loads NumPy

    if not isinstance(metric, Metric):
        raise TypeError(f"metrics: expected names or objects of fastfid.metrics.base.Metric, got {metric!r}")
    if isinstance(metric.needs, str) or not all(isinstance(output, str) for output in metric.needs):
        raise TypeError(f"metrics: {metric.name}.needs: expected a set of names of outputs, got {metric.needs!r}")


def make_metrics(names: "Iterable[str | Metric]") -> "dict[str, Metric]":
    """Return the metrics of these names, by name and in the given order. Metric objects are returned unchanged.

    Raises
    ------
    ValueError
        A name is unknown or given twice, or no name is given.
    TypeError
        An element is neither a name nor a metric.
    """
    if isinstance(names, str):
        raise ValueError(f"metrics: expected a list of names, such as ({names!r},); got {names!r}")
    if not isinstance(names, Iterable):
        raise TypeError(f"metrics: expected a list of names or metrics, got {names!r}")
    made: dict[str, Metric] = {}
    for name in names:
        if isinstance(name, str) and name not in METRICS:
            raise ValueError(f"metrics: expected names among {', '.join(METRICS)}; got {name!r}")
        metric = METRICS[name].make() if isinstance(name, str) else name
        _check_metric(metric)
        if metric.name in made:
            raise ValueError(f"metrics: {metric.name} comes twice")
        made[metric.name] = metric
    if not made:
        raise ValueError(f"metrics: expected at least one of {', '.join(METRICS)}; got none")
    return made
