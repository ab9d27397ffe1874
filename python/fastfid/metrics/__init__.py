"""Metrics of two sets of images, and functions of features of one's own.

Each metric has one module and one row in the table `METRICS`. The functions, as ``fastfid.metrics.kid``, are in modules
that have other names, as an imported module would take the name of the function; `_FUNCTIONS` is their table.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastfid.provenance import is_of_inception

if TYPE_CHECKING:
    from fastfid.metrics.base import Metric
    from fastfid.metrics.cosine import cmmd as cmmd
    from fastfid.metrics.infinity import fid_infinity as fid_infinity
    from fastfid.metrics.kernel import kid as kid
    from fastfid.metrics.logits import inception_score as inception_score
    from fastfid.metrics.memorisation import mifid as mifid
    from fastfid.metrics.nearest import prdc as prdc
    from fastfid.metrics.per_row import authpct as authpct
    from fastfid.metrics.per_row import nearest_rows as nearest_rows
    from fastfid.metrics.per_row import realism as realism
    from fastfid.metrics.ratios import fdr as fdr
    from fastfid.metrics.sliced import mind as mind
    from fastfid.metrics.spectrum import rke as rke
    from fastfid.metrics.spectrum import vendi as vendi

# Functions of features, and the modules that have them: loaded on first use, as they load NumPy.
_FUNCTIONS = {
    "authpct": "per_row",
    "cmmd": "cosine",
    "fdr": "ratios",
    "fid_infinity": "infinity",
    "inception_score": "logits",
    "kid": "kernel",
    "mifid": "memorisation",
    "mind": "sliced",
    "nearest_rows": "per_row",
    "prdc": "nearest",
    "realism": "per_row",
    "rke": "spectrum",
    "vendi": "spectrum",
}

__all__ = sorted(["ALL", "METRICS", "Row", "check_name", "label_of", "make_metrics", *_FUNCTIONS])


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
    labels : dict of str to str
        Text before each value in the output of the command line, by the name of the value: the metric's, or those of
        its several values.
    title : str
        Full name of the metric, with its source.
    home : str
        Module and class, as ``module:class``. They are loaded when the metric is used.
    conventions : tuple of str
        Tools whose convention can be chosen instead of fastfid's own, as ``kid:torch-fidelity``.
    """

    name: str
    labels: Mapping[str, str]
    title: str
    home: str
    conventions: tuple[str, ...] = ()

    def make(self, convention: str | None = None) -> "Metric":
        """Return the metric with its default options, or with the convention of a tool."""
        module, _, name = self.home.partition(":")
        kind = getattr(importlib.import_module(module), name)
        metric: Metric = kind(convention=convention) if convention else kind()
        return metric


METRICS = {
    row.name: row
    for row in (
        Row(
            "fid",
            {"fid": "FID"},
            "Fréchet Inception Distance (Heusel et al. 2017)",
            "fastfid.metrics.fid:FrechetInceptionDistance",
        ),
        Row(
            "sfid",
            {"sfid": "sFID"},
            "FID of spatial features (Nash et al. 2021)",
            "fastfid.metrics.fid:SpatialFID",
        ),
        Row(
            "kid",
            {"kid": "KID"},
            "Kernel Inception Distance (Binkowski et al. 2018)",
            "fastfid.metrics.kernel:KernelInceptionDistance",
            ("torch-fidelity", "torchmetrics", "clean-fid", "stylegan3", "dgm-eval", "mmd-gan"),
        ),
        Row(
            "is",
            {"is": "Inception Score"},
            "Inception Score of the generated set (Salimans et al. 2016)",
            "fastfid.metrics.logits:InceptionScoreMetric",
            ("openai", "torch-fidelity", "torchmetrics", "adm"),
        ),
        Row(
            "prdc",
            {"precision": "Precision", "recall": "Recall", "density": "Density", "coverage": "Coverage"},
            "Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)",
            "fastfid.metrics.nearest:PrecisionRecall",
            ("prdc", "adm", "torch-fidelity"),
        ),
        Row(
            "mind",
            {"mind": "MIND"},
            "MIND, a sliced Wasserstein distance (arXiv:2605.06797)",
            "fastfid.metrics.sliced:SlicedDistance",
        ),
        Row(
            "mifid",
            {"mifid": "MIFID"},
            "Memorisation-informed FID (Bai et al. 2021)",
            "fastfid.metrics.memorisation:MemorisationInformedFID",
        ),
        Row(
            "vendi",
            {"vendi": "Vendi"},
            "Vendi score of the generated set (Friedman and Dieng 2023)",
            "fastfid.metrics.spectrum:Vendi",
        ),
        Row(
            "cmmd",
            {"cmmd": "CMMD"},
            "CMMD, a Gaussian MMD of the features' directions (Jayasumana et al. 2024)",
            "fastfid.metrics.cosine:DirectionalMMD",
        ),
        Row(
            "fid-infinity",
            {"fid-infinity": "FID-infinity"},
            "FID of infinitely many images (Chong and Forsyth 2020), by the closed form of the bias",
            "fastfid.metrics.infinity:FIDInfinity",
        ),
    )
}

# What --metrics and metrics= take instead of names, for every metric of the table.
ALL = "all"


# What has the Inception network in its name, of another network's features.
_OF_OTHERS = {"FID": "FD", "KID": "KD", "MIFID": "MIFD", "FID-infinity": "FD-infinity"}


def label_of(key: str, extractors: Iterable[str | None] = ()) -> str:
    """Return the text before a value in the output: of its name, with the convention, as ``KID (torch-fidelity)``.

    `extractors`: the identities of the networks of the two sets; None where a set names none.

    >>> label_of("fid"), label_of("fid", [None, "onnx:cls:5d2c"])
    ('FID', 'FD')
    """
    name, _, convention = key.partition(":")
    label = next((row.labels[name] for row in METRICS.values() if name in row.labels), name)
    if not all(map(is_of_inception, extractors)):
        label = _OF_OTHERS.get(label, label)
    return f"{label} ({convention})" if convention else label


def check_name(text: str) -> tuple[str, str | None]:
    """Return the metric's name and the convention, as in ``kid`` and ``kid:torch-fidelity``.

    Raises
    ------
    ValueError
        There is no such metric, or it has no such convention.
    """
    name, colon, convention = text.partition(":")
    if name not in METRICS:
        whole = next((row.name for row in METRICS.values() if name in row.labels), None)
        hint = f"; {name} is a value of {whole}" if whole else f"; {ALL} stands alone" if name == ALL else ""
        raise ValueError(f"expected names among {', '.join(METRICS)}; got {text!r}{hint}")
    known = METRICS[name].conventions
    if colon and convention not in known:
        what = f"a convention among {', '.join(known)}" if known else "no convention"
        raise ValueError(f"{name}: expected {what}; got {text!r}")
    return name, convention or None


def _check_metric(metric: object) -> None:
    from fastfid.metrics.base import Metric  # loads NumPy

    if not isinstance(metric, Metric):
        raise TypeError(f"metrics: expected names or objects of fastfid.metrics.base.Metric, got {metric!r}")
    if isinstance(metric.needs, str) or not all(isinstance(output, str) for output in metric.needs):
        raise TypeError(f"metrics: {metric.name}.needs: expected a set of names of outputs, got {metric.needs!r}")


def _make(name: str) -> "Metric":
    try:
        known, convention = check_name(name)
    except ValueError as error:
        raise ValueError(f"metrics: {error}") from None
    return METRICS[known].make(convention)


def make_metrics(names: "str | Iterable[str | Metric]") -> "dict[str, Metric]":
    """Return the metrics of these names, by key and in the given order. Metric objects are returned unchanged.

    Raises
    ------
    ValueError
        A name is unknown or given twice, or no name is given.
    TypeError
        An element is neither a name nor a metric.
    """
    if names == ALL:
        names = list(METRICS)
    if isinstance(names, str):
        such = f"[{', '.join(repr(name.strip()) for name in names.split(','))}]"
        raise ValueError(f"metrics: expected a list of names, such as {such}, or {ALL!r}; got {names!r}")
    if not isinstance(names, Iterable):
        raise TypeError(f"metrics: expected a list of names or metrics, got {names!r}")
    made: dict[str, Metric] = {}
    for name in names:
        metric = _make(name) if isinstance(name, str) else name
        _check_metric(metric)
        if metric.key in made:
            raise ValueError(f"metrics: {metric.key} comes twice")
        made[metric.key] = metric
    if not made:
        raise ValueError(f"metrics: expected at least one of {', '.join(METRICS)}; got none")
    return made
