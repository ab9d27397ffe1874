"""The Inception Score, of images and of logits of one's own, with the conventions of the tools."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import check_count
from fastfid._console import warn
from fastfid.errors import NumericalError, SuspiciousInputWarning
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.given import BLOCK, Score, blocks, rows_of, torch_for
from fastfid.metrics.rows import RowMetric

__all__ = ["InceptionScore", "InceptionScoreMetric", "inception_score"]

# What consecutive blocks may differ by from blocks of a random order, relative, before a warning.
_ORDER_MATTERS = 0.2


@dataclass(frozen=True, repr=False)
class InceptionScore(Score):
    """The Inception Score of logits.

    Attributes
    ----------
    value : float
        Mean of the scores of the blocks.
    std : float or None
        Standard deviation of these scores. None where the tool gives none: "adm", and "torchmetrics" for one block. It
        is no standard error.
    protocol : str or None
        The tool whose convention it is.
    splits : int
        Number of blocks.
    order : {"given", "shuffle"}
        The order of the rows from which consecutive blocks were taken.
    """

    std: float | None = None
    protocol: str | None = None
    splits: int = 1
    order: str = "given"


@dataclass(frozen=True)
class _Convention:
    """How a tool splits the rows.

    Attributes
    ----------
    order : {"given", "shuffle"}
    blocks : {"even", "chunk", "size"}
        "even": block i of N rows is [i N // splits, (i + 1) N // splits). "chunk": blocks of ceil(N / splits) rows, as
        ``torch.chunk``, which may be fewer. "size": blocks of a given size and the rest.
    ddof : int or None
        Of the standard deviation; None: the tool gives none.
    in_torch : bool
        Whether the order is torch's.
    """

    order: str = "given"
    blocks: str = "even"
    ddof: int | None = 0
    in_torch: bool = False


_CONVENTIONS = {
    None: _Convention(),
    "openai": _Convention(),
    "torch-fidelity": _Convention(order="shuffle"),
    "torchmetrics": _Convention(order="shuffle", blocks="chunk", ddof=1, in_torch=True),
    "adm": _Convention(blocks="size", ddof=None),
}


@dataclass
class _Sums:
    """Sums over rows p of probabilities, from which the score of the rows follows."""

    n: int
    negative_entropy: float  # of p log p
    p: NDArray[np.float64]

    @classmethod
    def of(cls, logits: NDArray[Any], rows: NDArray[np.int64]) -> "_Sums":
        total, p = 0.0, np.zeros(logits.shape[1])
        for start in range(0, len(rows), BLOCK):
            # By the logarithm, as p may be too small for a float.
            log_p = logits[rows[start : start + BLOCK]].astype(np.float64)
            log_p -= log_p.max(axis=1, keepdims=True)
            probabilities = np.exp(log_p)
            norms = probabilities.sum(axis=1, keepdims=True)
            log_p -= np.log(norms)
            probabilities /= norms
            p += probabilities.sum(axis=0)
            total += float(np.vdot(probabilities, log_p))
        return cls(len(rows), total, p)

    def __add__(self, other: "_Sums") -> "_Sums":
        return _Sums(self.n + other.n, self.negative_entropy + other.negative_entropy, self.p + other.p)

    def score(self) -> float:
        """Return exp of the mean of KL(p || mean p)."""
        mean = self.p / self.n
        mean = mean[mean > 0]  # the smallest numbers vanish in the division
        return math.exp(self.negative_entropy / self.n - float(mean @ np.log(mean)))


def _bounds(n: int, blocks: str, splits: int, split_size: int) -> Iterator[tuple[int, int]]:
    if blocks == "even":
        yield from ((i * n // splits, (i + 1) * n // splits) for i in range(splits))
        return
    size = -(-n // splits) if blocks == "chunk" else split_size
    yield from ((start, min(start + size, n)) for start in range(0, n, size))


def _shuffled(n: int, protocol: str | None, seed: int | None) -> NDArray[np.int64]:
    if not _CONVENTIONS[protocol].in_torch:
        return np.random.RandomState(2020 if seed is None else seed).permutation(n)
    torch = torch_for(f"protocol {protocol!r}")
    generator = torch.default_generator if seed is None else torch.Generator().manual_seed(seed)
    order: NDArray[np.int64] = torch.randperm(n, generator=generator).numpy()
    return order


def _warn_if_ordered(logits: NDArray[Any], bounds: list[tuple[int, int]], parts: list[_Sums], value: float) -> None:
    """Warn if blocks of rows in the given order have another score than blocks of a random order.

    The score of all rows at once is known already, and only if that differs are rows shuffled. It differs for small
    blocks of rows in random order too, so it alone does not tell.
    """
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    whole = total.score()
    if abs(whole - value) <= _ORDER_MATTERS * value:
        return
    order = _shuffled(len(logits), None, None)
    at_random = float(np.mean([_Sums.of(logits, order[start:stop]).score() for start, stop in bounds]))
    if abs(at_random - value) > _ORDER_MATTERS * value:
        warn(
            f"logits: the order of rows matters: the Inception Score is {value:.4g} over {len(bounds)} blocks of rows "
            f"as given, {at_random:.4g} over blocks of shuffled rows and {whole:.4g} unsplit, as if rows were sorted "
            "by class; see openai/guided-diffusion#165",
            SuspiciousInputWarning,
        )


def _options(
    protocol: str | None, splits: int | None, split_size: int | None, order: str | None, seed: int | None
) -> tuple[int, int, str]:
    """Return splits, split_size and order, checked, with the convention's where none is given."""
    if protocol not in list(_CONVENTIONS):  # a list, as it may be unhashable
        names = ", ".join(repr(name) for name in _CONVENTIONS if name)
        raise ValueError(f"protocol: expected one of {names}; got {protocol!r}")
    convention = _CONVENTIONS[protocol]
    if order not in (None, "given", "shuffle"):
        raise ValueError(f"order: expected 'given' or 'shuffle'; got {order!r}")
    if convention.blocks == "size" and splits is not None:
        raise ValueError(f"splits: protocol {protocol!r} has blocks of split_size rows, whatever their number")
    if convention.blocks != "size" and split_size is not None:
        raise ValueError("split_size: only protocol 'adm' has blocks of a given size; give splits")
    if seed is not None:
        check_count("seed", seed, 0)
    return (
        check_count("splits", 10 if splits is None else splits, 1),
        check_count("split_size", 5000 if split_size is None else split_size, 1),
        order or convention.order,
    )


def inception_score(
    logits: Any,
    *,
    protocol: str | None = None,
    splits: int | None = None,
    order: str | None = None,
    seed: int | None = None,
    split_size: int | None = None,
) -> InceptionScore:
    """Return the Inception Score of logits: the mean over blocks of rows of ``exp(mean KL(p || mean p))``.

    p is the softmax of a row (Salimans et al. 2016, "Improved techniques for training GANs", section 4). All is
    float64 from the logits on, and takes logarithms of probabilities from the logits, so that none is of 0.

    The score depends on the blocks, and on the order of the rows where they are sorted by class. The tools' blocks:

    ================  =======================================  ======================================  ===========
    protocol          order of rows                            blocks                                  `std`
    ================  =======================================  ======================================  ===========
    None, "openai"    as given                                 10; i is [i N // 10, (i + 1) N // 10)   ddof 0
    "torch-fidelity"  ``RandomState(2020).permutation(N)``     the same                                ddof 0
    "torchmetrics"    ``randperm`` of torch's own generator    ``torch.chunk``: ceil(N / 10) rows      ddof 1
    "adm"             as given                                 5,000 rows; the rest counts as much     None
    ================  =======================================  ======================================  ===========

    "openai" is improved-gan's, which stylegan3 and pytorch-gan-metrics follow.

    Parameters
    ----------
    logits : array_like, shape (n, classes)
        float16, float32, float64 or integers. For the Inception Score of the tools: pool3 times the classifier matrix
        without its bias, all 1,008 columns.
    protocol : str, optional
        A tool of the table.
    splits : int, optional
        Number of blocks, 10 by default; not for "adm".
    order : {"given", "shuffle"}, optional
        The protocol's by default.
    seed : int, optional
        Of the shuffle: 2020 by default; for "torchmetrics" torch's generator as it is, which goes on by this shuffle.
    split_size : int, optional
        Rows of a block, for "adm".

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        `logits` has another shape or fewer rows than blocks, or an option has another value.
    fastfid.NumericalError
        A row has NaN or infinite values.
    fastfid.BackendUnavailable
        "torchmetrics" shuffles, and torch is not installed.

    Warns
    -----
    fastfid.SuspiciousInputWarning
        The order of rows matters: in the given order the score differs by more than 20 % from the unsplit one, and from
        that of shuffled rows too.

    Notes
    -----
    O(n classes) operations, a few blocks of 1,024 rows of memory.

    Examples
    --------
    >>> import numpy as np
    >>> round(inception_score(np.zeros((50, 10))).value, 12)
    1.0
    >>> inception_score(np.random.default_rng(0).standard_normal((500, 10)), protocol="torch-fidelity")
    InceptionScore(value=1.4..., std=0.0..., protocol='torch-fidelity', splits=10, order='shuffle')
    """
    splits, split_size, order = _options(protocol, splits, split_size, order, seed)
    convention = _CONVENTIONS[protocol]
    logits = rows_of(logits, "logits", 1, "logits")
    n = len(logits)
    if convention.blocks == "even" and n < splits:
        raise ValueError(f"logits: expected at least {splits} rows for {splits} splits, got {n}")
    rows = _shuffled(n, protocol, seed) if order == "shuffle" else np.arange(n)
    bounds = list(_bounds(n, convention.blocks, splits, split_size))
    parts = [_Sums.of(logits, rows[start:stop]) for start, stop in bounds]
    scores = np.array([part.score() for part in parts])
    value = float(scores.mean())
    if order == "given" and len(bounds) > 1:
        _warn_if_ordered(logits, bounds, parts, value)
    has_std = convention.ddof is not None and len(scores) > convention.ddof
    std = float(scores.std(ddof=convention.ddof or 0)) if has_std else None
    return InceptionScore(value, std=std, protocol=protocol, splits=len(bounds), order=order)


@dataclass(frozen=True)
class InceptionScoreMetric(RowMetric):
    """The Inception Score of the generated set; see :func:`fastfid.metrics.inception_score`.

    The logits are the features times the network's classifier without its bias.

    Parameters
    ----------
    convention : str, optional
        A protocol of :func:`fastfid.metrics.inception_score`. Default: 10 blocks in the given order ("openai").
    seed : int, optional
        Seed of the shuffle of a convention. Default: 2020.
    """

    name: ClassVar[str] = "is"
    needs_classifier: ClassVar[bool] = True
    is_of_generated: ClassVar[bool] = True

    convention: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        _options(self.convention, None, None, None, self.seed)

    def result(self, real: Sample, fake: Sample) -> Result:
        """Return the score of the generated set. Raises ValueError if it has fewer images than blocks."""
        if fake.classifier is None:
            raise ValueError(f"{fake.name}: no classifier of the network is known, which the Inception Score needs")
        (features,) = self.rows_of(fake)
        weights = fake.classifier()
        logits = np.empty((len(features), len(weights)), np.float32)
        for block in blocks(len(features)):
            np.matmul(features[block], weights.T, out=logits[block])
        try:
            seed = 2020 if self.seed is None else self.seed
            found = inception_score(logits, protocol=self.convention, seed=seed)
        except (NumericalError, ValueError) as error:
            raise type(error)(f"{fake.name}: {error}") from None
        why = "details.std is the standard deviation of the scores of the blocks, which is no standard error"
        details = {"std": found.std, "splits": found.splits, "order": found.order}
        return Result(found.value, no_standard_error=why, details=details)
