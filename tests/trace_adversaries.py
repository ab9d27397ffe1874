"""Adversarial pairs of covariances for the bounds of the trace, and their exact values in 60 digits.

The exact value is defined for the matrices as given: every element is an exact binary fraction. It is
T = tr((S1 S2)^(1/2)) of the positive semi-definite parts: the symmetric part of the matrix, with negative eigenvalues
set to zero. Most pairs have no negative eigenvalues. For sides given by rows it is T of the exact sample covariances.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import mpmath
import numpy as np
from numpy.typing import NDArray

from fastfid import _core

Array = NDArray[np.float64]
DIGITS = 60


@dataclass(frozen=True)
class Pair:
    """Two sides, each a covariance (d, d) or rows (n, d)."""

    family: str
    sides: tuple[Array, Array]
    are_rows: tuple[bool, bool] = (False, False)


def rotation(rng: np.random.Generator, d: int) -> Array:
    """Return a random orthogonal matrix."""
    return np.linalg.qr(rng.standard_normal((d, d)))[0]


def with_spectrum(vectors: Array, values: Array) -> Array:
    """Return a symmetric matrix that has, up to rounding, these eigenvectors (columns) and eigenvalues."""
    s = (vectors * values) @ vectors.T
    return (s + s.T) / 2


def spectrum(rng: np.random.Generator, d: int, largest_power: float = 15.0) -> Array:
    """Return eigenvalues in descending order, of a condition from 1 to 10^largest_power."""
    power = rng.uniform(0, largest_power)
    return np.logspace(0, -power, d) if rng.random() < 0.7 else np.r_[1.0, np.full(d - 1, 10.0**-power)]


def scales(rng: np.random.Generator) -> tuple[float, float]:
    """Return two factors from 1e-9 to 1e9."""
    first, second = 10.0 ** rng.uniform(-9, 9, 2)
    return float(first), float(second)


def size(rng: np.random.Generator) -> int:
    """Return a dimension from 2 to 6; small ones are the hardest."""
    return int(rng.choice([2, 2, 3, 4, 5, 6]))


def opposed(rng: np.random.Generator) -> tuple[Array, Array]:
    """Directions that are large in one matrix are small in the other, so T is far below the traces.

    Conditions are up to 1e15 against 1e9.
    """
    d = size(rng)
    q = rotation(rng, d)
    return with_spectrum(q, spectrum(rng, d)), with_spectrum(q, spectrum(rng, d, 9.0)[::-1])


def adjugates(rng: np.random.Generator) -> tuple[Array, Array]:
    """A nearly singular 2 x 2 matrix and its adjugate."""
    v = rng.uniform(0.5, 3, 2)
    a = np.outer(v, v) * rng.uniform(0.5, 2)
    a[1, 1] *= 1 + 10.0 ** -rng.uniform(8, 15.6)
    return a, np.array([[a[1, 1], -a[0, 1]], [-a[0, 1], a[0, 0]]])


def rotated(rng: np.random.Generator) -> tuple[Array, Array]:
    """Independent random eigenvectors."""
    d = size(rng)
    return with_spectrum(rotation(rng, d), spectrum(rng, d)), with_spectrum(rotation(rng, d), spectrum(rng, d, 9.0))


def slightly_turned(rng: np.random.Generator) -> tuple[Array, Array]:
    """Eigenvectors that differ by a small angle."""
    d = size(rng)
    q = rotation(rng, d)
    turned = np.linalg.qr(q + 10.0 ** -rng.uniform(1, 9) * rng.standard_normal((d, d)))[0]
    values = spectrum(rng, d), spectrum(rng, d)
    order = -1 if rng.random() < 0.5 else 1
    return with_spectrum(q, values[0]), with_spectrum(turned, values[1][::order])


def exactly_singular(rng: np.random.Generator) -> tuple[Array, Array]:
    """Gram matrices of integers, whose ranks are below d without any rounding."""
    d = size(rng)
    out = []
    for _ in range(2):
        x = rng.integers(-30, 31, (int(rng.integers(1, d + 1)), d)).astype(float)
        out.append(x.T @ x)
    return out[0], out[1]


def singular_against_regular(rng: np.random.Generator) -> tuple[Array, Array]:
    """The range of one is nearly, or exactly, the null space of the other's large part."""
    d = size(rng)
    q = rotation(rng, d)
    r = int(rng.integers(1, d))
    low = with_spectrum(q, np.r_[np.ones(r), np.zeros(d - r)])
    return low, with_spectrum(q, np.r_[np.full(r, 10.0 ** -rng.uniform(3, 16)), np.ones(d - r)])


def few_samples(rng: np.random.Generator) -> tuple[Array, Array]:
    """Sample covariances of ranks below d, singular up to rounding."""
    d = size(rng)
    out = []
    for _ in range(2):
        x = rng.standard_normal((int(rng.integers(2, d + 2)), d)) * np.logspace(0, -rng.uniform(0, 4), d)
        out.append(np.atleast_2d(np.cov(x @ rotation(rng, d), rowvar=False)))
    return out[0], out[1]


def repeated(rng: np.random.Generator) -> tuple[Array, Array]:
    """Few different eigenvalues, each several times."""
    d = size(rng)
    out = []
    for _ in range(2):
        levels = 10.0 ** -rng.uniform(0, 12, 2)
        out.append(with_spectrum(rotation(rng, d), rng.choice(levels, d)))
    return out[0], out[1]


def diagonal(rng: np.random.Generator) -> tuple[Array, Array]:
    """Diagonal, a few zeros among the elements, in the same or in the opposite order."""
    d = size(rng)
    values = [spectrum(rng, d) * rng.choice([1.0, 1.0, 1.0, 0.0], d) for _ in range(2)]
    if rng.random() < 0.5:
        values[1] = values[1][::-1]
    for v in values:
        v[int(rng.integers(d))] = 1.0
    return np.diag(values[0]), np.diag(values[1])


def graded(rng: np.random.Generator) -> tuple[Array, Array]:
    """Correlations of moderate condition, features of very different size."""
    d = size(rng)
    out = []
    for _ in range(2):
        correlations = with_spectrum(rotation(rng, d), spectrum(rng, d, 3.0))
        feature = np.logspace(0, -rng.uniform(0, 8), d)[:: 1 if rng.random() < 0.5 else -1]
        s = correlations * np.outer(feature, feature)
        out.append((s + s.T) / 2)
    return out[0], out[1]


def nearly_equal(rng: np.random.Generator) -> tuple[Array, Array]:
    """The second differs from the first in its last digits, or not at all."""
    d = size(rng)
    s = with_spectrum(rotation(rng, d), spectrum(rng, d))
    noise = with_spectrum(rotation(rng, d), rng.random(d))
    return s, s + rng.choice([0.0, 1e-16, 1e-14, 1e-9]) * noise


def last_digits(rng: np.random.Generator) -> tuple[Array, Array]:
    """Elements of a rank-one matrix moved by single units in the last place: semi-definite or barely not."""
    d = size(rng)
    out = []
    for _ in range(2):
        v = rng.uniform(0.1, 4, d)
        s = np.outer(v, v)
        i, j = rng.integers(d, size=2)
        for _ in range(int(rng.integers(0, 4))):
            s[i, j] = s[j, i] = np.nextafter(s[i, j], rng.choice([0.0, 10.0]))
        out.append(s)
    return out[0], out[1]


def rounded_to_float32(rng: np.random.Generator) -> tuple[Array, Array]:
    """Singular covariances whose elements were rounded to float32: most are slightly indefinite."""
    a, b = few_samples(rng)
    return a.astype(np.float32).astype(np.float64), b.astype(np.float32).astype(np.float64)


def crooked(rng: np.random.Generator) -> tuple[Array, Array]:
    """Matrices that are not symmetric in the last digits. The exact value is that of the symmetric part."""
    a, b = opposed(rng)
    return a * (1 + np.triu(rng.integers(-2, 3, a.shape), 1) * 2.0**-52), b


def rows(rng: np.random.Generator) -> tuple[Array, Array]:
    """Rows, more or fewer than features, with and without a large common offset."""
    d = size(rng)
    out = []
    for _ in range(2):
        x = rng.standard_normal((int(rng.integers(2, 3 * d)), d)) * np.logspace(0, -rng.uniform(0, 6), d)
        x = x @ rotation(rng, d) if rng.random() < 0.7 else x
        out.append(np.ascontiguousarray(x + rng.choice([0.0, 1.0, 1e6]) * rng.standard_normal(d)))
    return out[0], out[1]


COVARIANCES: dict[str, Callable[[np.random.Generator], tuple[Array, Array]]] = {
    f.__name__: f
    for f in (
        opposed,
        adjugates,
        rotated,
        slightly_turned,
        exactly_singular,
        singular_against_regular,
        few_samples,
        repeated,
        diagonal,
        graded,
        nearly_equal,
        last_digits,
        rounded_to_float32,
        crooked,
    )
}
# Families with more pairs. Earlier bounds did not contain pairs of conditions 1e15 against 1e9 in opposed directions.
WEIGHTS = {"opposed": 5, "adjugates": 3, "rotated": 2, "slightly_turned": 2}


def pairs(count: int, seed: int) -> Iterator[Pair]:
    """Yield `count` pairs; the same ones for the same seed."""
    names = [name for name in COVARIANCES for _ in range(WEIGHTS.get(name, 1))] + [
        "rows",
        "rows",
        "rows and covariance",
    ]
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        name = names[index % len(names)]
        if name == "rows":
            yield Pair(name, rows(rng), (True, True))
            continue
        if name == "rows and covariance":
            x, _ = rows(rng)
            while True:
                _, s = COVARIANCES[str(rng.choice(["opposed", "graded", "few_samples"]))](rng)
                if len(s) == x.shape[1]:
                    break
            yield Pair(name, (x, s), (True, False))
            continue
        a, b = COVARIANCES[name](rng)
        # Powers of ten change the last digits, so families about the last digits are not scaled.
        first, second = (1.0, 1.0) if name in ("last_digits", "rounded_to_float32") else scales(rng)
        if rng.random() < 0.5:
            a, b = b, a
        yield Pair(name, (a * first, b * second))


def fractions(side: Array, *, are_rows: bool) -> list[list[Fraction]]:
    """Return the exact covariance of a side."""
    if not are_rows:
        exact = [[Fraction(float(x)) for x in row] for row in side]
        return [[(exact[i][j] + exact[j][i]) / 2 for j in range(len(exact))] for i in range(len(exact))]
    n, d = side.shape
    x = [[Fraction(float(value)) for value in row] for row in side]
    means = [sum(row[j] for row in x) / n for j in range(d)]
    for row in x:
        for j in range(d):
            row[j] -= means[j]
    return [[sum(row[i] * row[j] for row in x) / (n - 1) for j in range(d)] for i in range(d)]


def exact_factor(s: list[list[Fraction]]) -> mpmath.matrix:
    """Return F (r, d) with F^T F the positive semi-definite part of S, for the working precision of mpmath.

    Where elimination in rational numbers finds no negative pivot, S is its own part, and F its Cholesky factor.
    """
    d = len(s)
    rest = [row[:] for row in s]
    out: list[list[mpmath.mpf]] = []
    for k in range(d):
        pivot = rest[k][k]
        if pivot < 0 or (pivot == 0 and any(rest[k])):
            break
        if pivot == 0:
            continue
        root = mpmath.sqrt(mpmath.mpf(pivot.numerator) / pivot.denominator)
        ratios = [x / pivot for x in rest[k]]
        out.append([root * x.numerator / x.denominator for x in ratios])
        for i in range(d):
            if rest[i][k]:
                weight = rest[i][k]
                rest[i] = [x - weight * y for x, y in zip(rest[i], ratios, strict=True)]
    else:
        return mpmath.matrix(out) if out else mpmath.zeros(1, d)
    values, vectors = mpmath.eigsy(mpmath.matrix([[mpmath.mpf(x.numerator) / x.denominator for x in row] for row in s]))
    kept = [i for i in range(d) if values[i] > 0]
    return mpmath.matrix([[mpmath.sqrt(values[i]) * vectors[j, i] for j in range(d)] for i in kept])


@dataclass(frozen=True)
class Truth:
    """T and the distance of Gaussians of equal means, in DIGITS digits."""

    trace: mpmath.mpf
    distance: mpmath.mpf
    traces: tuple[mpmath.mpf, mpmath.mpf]  # of the two sides


def truth(pair: Pair) -> Truth:
    """Return the exact values that must lie between the bounds."""
    with mpmath.workdps(DIGITS):
        factors = [
            exact_factor(fractions(side, are_rows=is_rows))
            for side, is_rows in zip(pair.sides, pair.are_rows, strict=True)
        ]
        m = factors[0] * factors[1].T
        if m.rows < m.cols:
            m = m.T
        trace = mpmath.fsum(mpmath.svd_r(m, compute_uv=False))
        first, second = (mpmath.fsum(x * x for x in factor) for factor in factors)
        return Truth(trace, first + second - 2 * trace, (first, second))


def solve(pair: Pair, method: str = "auto", tol: float | None = None) -> _core.FrechetResult:
    """Return fastfid's result for a pair with equal means."""
    mu = np.zeros(pair.sides[0].shape[1])
    sides = [
        _core.Gaussian(mu, rows=side) if is_rows else _core.Gaussian(mu, side)
        for side, is_rows in zip(pair.sides, pair.are_rows, strict=True)
    ]
    return _core.frechet_distance(*sides, method=method, tol=tol)


def violation(bounds: _core.TraceResult | _core.FrechetResult, exact: mpmath.mpf) -> float:
    """Return the distance of the exact value from the bounds, 0 if it is inside."""
    with mpmath.workdps(DIGITS):
        return float(max(mpmath.mpf(0), bounds.lower - exact, exact - bounds.upper))
