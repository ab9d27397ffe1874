"""The Kernel Inception Distance of features of one's own, over all rows or over a tool's random subsets."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import check_count
from fastfid.errors import NumericalError
from fastfid.metrics.base import Result, Sample
from fastfid.metrics.given import Score, rows_of, same_length, torch_for
from fastfid.metrics.mmd import (
    Draws,
    OneSample,
    Polynomial,
    numpy_draws,
    subset_values,
    unbiased_mmd2,
    unbiased_mmd2_under,
)
from fastfid.metrics.rows import RowMetric

__all__ = ["KernelDistance", "KernelInceptionDistance", "KernelInceptionDistanceToOne", "kid"]


@dataclass(frozen=True, repr=False)
class KernelDistance(Score):
    """The KID of two sets of features.

    Attributes
    ----------
    value : float
        May be negative, as it is unbiased.
    standard_error : float or None
        Of the value over all rows: its standard deviation over samples of the two distributions, estimated
        (docs/numerics.md). None for a value over subsets, and if a set has fewer than 4 rows.
    std : float or None
        Standard deviation of the values of the subsets (ddof 0). It is no standard error of the value: the subsets
        overlap. None for a value over all rows.
    protocol : str or None
        The tool whose convention it is.
    subsets, subset_size : int or None
        Number of subsets, and of rows in one.
    """

    standard_error: float | None = None
    std: float | None = None
    protocol: str | None = None
    subsets: int | None = None
    subset_size: int | None = None


@dataclass(frozen=True)
class _Convention:
    """How a tool draws its 100 subsets of 1,000 rows.

    Attributes
    ----------
    generator : {"numpy", "torch"}
    seed : int or None
        None: the tool draws from the global generator.
    generated_first : bool
        Whether the tool draws of the generated set first.
    clamps : bool
        Whether smaller sets make the subsets smaller. Else they are an error.
    in_float64 : bool
        Whether float32 features become float64 first.
    """

    generator: str = "numpy"
    seed: int | None = None
    generated_first: bool = False
    clamps: bool = False
    in_float64: bool = False


_CONVENTIONS = {
    None: _Convention(seed=2020, in_float64=True),
    "torch-fidelity": _Convention(seed=2020, generated_first=True),
    "torchmetrics": _Convention(generator="torch"),
    "clean-fid": _Convention(generated_first=True, clamps=True),
    "stylegan3": _Convention(generated_first=True, clamps=True),
    "dgm-eval": _Convention(clamps=True, in_float64=True),
    "mmd-gan": _Convention(generated_first=True),
}


def _torch_draws(torch: Any, seed: int | None, m: int, n: int, subsets: int, size: int) -> Draws:
    generator = torch.default_generator if seed is None else torch.Generator().manual_seed(seed)
    for _ in range(subsets):
        of_x, of_y = (torch.randperm(k, generator=generator)[:size].numpy() for k in (m, n))
        yield of_x, of_y


def _kernel(degree: Any, gamma: float | None, coef0: float, d: int) -> Polynomial:
    for name, value in (("gamma", 0 if gamma is None else gamma), ("coef0", coef0)):
        if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
            raise TypeError(f"{name}: expected a number, got {value!r}")
    kernel = Polynomial(check_count("degree", degree, 1), float(1 / d if gamma is None else gamma), float(coef0))
    if not math.isfinite(kernel.gamma) or not math.isfinite(kernel.coef0):
        raise ValueError(f"gamma, coef0: expected finite numbers, got {gamma!r} and {coef0!r}")
    return kernel


def _over_subsets(
    x: NDArray[Any],
    y: NDArray[Any],
    kernel: Polynomial,
    protocol: str | None,
    subsets: int | None,
    subset_size: int | None,
    seed: int | None,
) -> KernelDistance:
    convention = _CONVENTIONS[protocol]
    subsets = check_count("subsets", 100 if subsets is None else subsets, 1)
    size = check_count("subset_size", 1000 if subset_size is None else subset_size, 2)
    m, n = len(x), len(y)
    if convention.clamps:
        size = min(size, m, n)
    if size > min(m, n):
        raise ValueError(f"subset_size: {size} rows are more than the {min(m, n)} of {'x' if m < n else 'y'}")
    if seed is None:
        seed = convention.seed
    if convention.generator == "torch":
        draws = _torch_draws(torch_for(f"protocol {protocol!r}"), seed, m, n, subsets, size)
    else:
        # Of NumPy's global generator where no seed is given, as the tool.
        rng = np.random.RandomState(np.random.mtrand.get_bit_generator() if seed is None else seed)
        draws = numpy_draws(rng, m, n, subsets, size)
    dtype = np.dtype(np.float64) if convention.in_float64 else np.promote_types(x.dtype, y.dtype)
    values = subset_values(kernel, x, y, draws, dtype)
    return KernelDistance(
        float(values.mean()), std=float(values.std()), protocol=protocol, subsets=subsets, subset_size=size
    )


def kid(
    x: Any,
    y: Any,
    *,
    protocol: str | None = None,
    subsets: int | None = None,
    subset_size: int | None = None,
    seed: int | None = None,
    degree: int = 3,
    gamma: float | None = None,
    coef0: float = 1,
) -> KernelDistance:
    """Return the Kernel Inception Distance of two sets of features.

    It is the unbiased squared MMD under ``k(a, b) = (gamma a . b + coef0)^degree`` (Binkowski et al. 2018,
    "Demystifying MMD GANs", section 4; the estimator is that of Gretton et al. 2012, lemma 6). Without options it is
    taken over all pairs of rows, with its standard error: the root of an estimate of the variance of the U-statistic,
    with both terms of Hoeffding's decomposition. The tools take the mean over random subsets instead.

    Subsets are drawn from `x`, then from `y`, whatever the protocol. The value over all rows is the same both ways; for
    a tool's own number, `x` is the side that this tool draws from first:

    ==================  =========  =======================================  ================  ===================
    protocol            `x` is     draws from                               sets too small    products
    ==================  =========  =======================================  ================  ===================
    "torch-fidelity"    generated  ``RandomState(2020)``                    error             the features' dtype
    "torchmetrics"      real       torch's global generator                 error             the features' dtype
    "clean-fid"         generated  NumPy's global generator                 smaller subsets   the features' dtype
    "stylegan3"         generated  NumPy's global generator                 smaller subsets   the features' dtype
    "dgm-eval"          real       NumPy's global generator                 smaller subsets   float64
    "mmd-gan"           generated  NumPy's global generator                 error             the features' dtype
    None, with subsets  either     ``RandomState(2020)``                    error             float64
    ==================  =========  =======================================  ================  ===================

    Sums are float64 everywhere. Where a tool sums in float32, its number is within 1e-6 of the mean of the kernel.

    Parameters
    ----------
    x, y : array_like, shape (m, d) and (n, d)
        float16, float32, float64 or integers; at least 2 rows. m and n may differ.
    protocol : str, optional
        A tool of the table.
    subsets, subset_size : int, optional
        Number of subsets, and of rows in each; 100 and 1,000 if a protocol, or the other one, is given.
    seed : int, optional
        Seed of the draws; by default the tool's, or its global generator as it is, which goes on by these draws.
    degree : int
    gamma : float, optional
        1 / d by default.
    coef0 : float

    Raises
    ------
    TypeError
        An argument has another type.
    ValueError
        Shapes do not fit, a set is smaller than 2 rows or than a subset, or a protocol is unknown.
    fastfid.NumericalError
        A row has NaN or infinite values, or the values are too large for the kernel.
    fastfid.BackendUnavailable
        "torchmetrics", and torch is not installed.

    Notes
    -----
    O((m + n)^2 d) operations over all rows, and for subsets too if that is less than (4 size^2 d) for each. No (m, n)
    matrix is held. Over all rows, float32 features with the default kernel are multiplied by fastfid's core; NumPy is
    about as fast with float64 ones.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.standard_normal((500, 16)), rng.standard_normal((400, 16)) + 0.5
    >>> kid(x, y)
    KernelDistance(value=1.11..., standard_error=0.08...)
    >>> kid(x, y, protocol="torch-fidelity", subset_size=100)
    KernelDistance(value=1.07..., std=0.13..., protocol='torch-fidelity', subsets=100, subset_size=100)
    """
    if protocol not in list(_CONVENTIONS):  # a list, as it may be unhashable
        names = ", ".join(repr(name) for name in _CONVENTIONS if name)
        raise ValueError(f"protocol: expected one of {names}; got {protocol!r}")
    x, y = rows_of(x, "x"), rows_of(y, "y")
    same_length(x, y)
    kernel = _kernel(degree, gamma, coef0, x.shape[1])
    if seed is not None:
        check_count("seed", seed, 0)
    with np.errstate(over="ignore", invalid="ignore"):  # said below
        if protocol is not None or subsets is not None or subset_size is not None:
            found = _over_subsets(x, y, kernel, protocol, subsets, subset_size, seed)
        elif seed is not None:
            raise ValueError("seed: nothing is drawn over all rows; give subsets or a protocol")
        elif (x.dtype, y.dtype) == (np.float32, np.float32) and kernel == Polynomial(3, 1 / x.shape[1], 1.0):
            found = KernelDistance(*unbiased_mmd2(x, y))
        else:
            found = KernelDistance(*unbiased_mmd2_under(kernel, x, y))
    if not all(math.isfinite(number) for number in (found.value, found.standard_error or 0, found.std or 0)):
        raise NumericalError("x, y: the features are too large for the kernel")
    return found


@dataclass(frozen=True)
class KernelInceptionDistance(RowMetric):
    """The unbiased squared MMD of the features of all images with its standard error, or the KID of a tool.

    Parameters
    ----------
    convention : str, optional
        A protocol of :func:`fastfid.metrics.kid`. The sets are handed over in the tool's order.
    seed : int, optional
        Seed of the draws of a convention. Default: the tool's; 0 for tools that draw from a global generator.

    Raises
    ------
    ValueError
        There is no such convention, or there is a seed without a convention.
    """

    name: ClassVar[str] = "kid"

    convention: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.convention not in _CONVENTIONS:
            names = ", ".join(repr(name) for name in _CONVENTIONS if name)
            raise ValueError(f"convention: expected one of {names}; got {self.convention!r}")
        if self.seed is not None and self.convention is None:
            raise ValueError("seed: nothing is drawn over all images; give a convention")

    def result(self, real: Sample, fake: Sample) -> Result:
        """Return the distance. Raises ValueError if a set has fewer than two images, or than a subset."""
        x, y = self.rows_of(real, fake)
        names = f"{real.name}, {fake.name}"
        found = self._over_all(x, y) if self.convention is None else self._of_the_tool(x, y, names)
        if not math.isfinite(found.value):
            raise NumericalError(
                f"{names}: the features are too large for the kernel of the KID; look for wrong values in them"
            )
        return found

    def _of_the_tool(self, real: NDArray[np.float32], fake: NDArray[np.float32], names: str) -> Result:
        convention = _CONVENTIONS[self.convention]
        seed = (convention.seed or 0) if self.seed is None else self.seed
        sides = (fake, real) if convention.generated_first else (real, fake)
        size = 1000 if not convention.clamps else min(1000, len(real), len(fake))
        if size > min(len(real), len(fake)):
            raise ValueError(f"{names}: {self.key} needs at least {size} images, got {len(real)} and {len(fake)}")
        try:
            found = kid(*sides, protocol=self.convention, seed=seed)
        except NumericalError:
            return Result(math.nan)  # the caller reports it
        return Result(
            found.value,
            no_standard_error="the subsets overlap; details.std is the standard deviation of their values",
            details={"std": found.std, "subsets": found.subsets, "subset_size": found.subset_size, "seed": seed},
        )

    def _over_all(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> Result:
        with np.errstate(over="ignore", invalid="ignore"):  # the caller reports it
            value, error = self._squared_mmd(x, y)
        if error is None:
            return Result(value, no_standard_error="a set has fewer than 4 images")
        if not math.isfinite(error):
            return Result(value, no_standard_error="the features are too large for a standard error")
        return Result(value, standard_error=error, standard_error_of="both")

    def _squared_mmd(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, float | None]:
        return unbiased_mmd2(x, y)


@dataclass(frozen=True)
class KernelInceptionDistanceToOne(KernelInceptionDistance):
    """The KID of several sets to one set, which is one of the two each time: its own pairs are summed once.

    Parameters
    ----------
    one : OneSample
        Its rows are those that the samples of this set return.
    """

    one: OneSample | None = None

    def _squared_mmd(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[float, float | None]:
        if self.one is None or (x is not self.one.rows and y is not self.one.rows):
            return unbiased_mmd2(x, y)
        return self.one.unbiased_mmd2(x if y is self.one.rows else y)
