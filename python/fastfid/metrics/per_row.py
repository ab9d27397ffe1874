"""What can be said of single rows by their nearest neighbours: nearest rows, authenticity, realism."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._checks import check_count
from fastfid.metrics.given import Score, blocks, rows_of, same_length
from fastfid.metrics.nearest import search

__all__ = ["AuthPct", "NearestRows", "Realism", "authpct", "nearest_rows", "realism"]


@dataclass(frozen=True, eq=False)
class NearestRows:
    """The nearest rows of each row.

    Attributes
    ----------
    indices : ndarray of int64, shape (n, k)
        Nearest first; of rows that are as near, the smaller index comes first.
    distances : ndarray of float64, shape (n, k)
        Euclidean.
    """

    indices: NDArray[np.int64]
    distances: NDArray[np.float64]

    def __repr__(self) -> str:
        """Return one line with the shape."""
        n, k = self.indices.shape
        return f"NearestRows(n={n}, k={k})"

    def to_dict(self) -> dict[str, Any]:
        """Return both attributes as lists, for JSON."""
        return {"indices": self.indices.tolist(), "distances": self.distances.tolist()}


@dataclass(frozen=True, repr=False)
class AuthPct(Score):
    """The share of generated rows that are authentic.

    Attributes
    ----------
    value : float
        Per cent.
    n_train, n_generated : int
        Numbers of rows.
    """

    n_train: int = 0
    n_generated: int = 0


@dataclass(frozen=True, eq=False)
class Realism:
    """The realism score of each generated row.

    Attributes
    ----------
    values : ndarray of float64, shape (n,)
        At least 1 where the row is in one of the balls that count, infinite where it is the centre of one.
    k : int
        The radius of a ball is the distance to the k-th nearest other real row.
    """

    values: NDArray[np.float64]
    k: int

    def __repr__(self) -> str:
        """Return one line with the number of rows and their median."""
        return f"Realism(n={len(self.values)}, median={np.median(self.values):.6g}, k={self.k})"

    def to_dict(self) -> dict[str, Any]:
        """Return both attributes, the values as a list, for JSON if none is infinite."""
        return {"values": self.values.tolist(), "k": self.k}


def nearest_rows(x: Any, y: Any, k: int = 1) -> NearestRows:
    """Return the k nearest rows of `y` for each row of `x`, exactly.

    They are those by distances in float64, summed feature by feature: float32 products with proven bounds leave out
    what cannot be near, and float64 decides among the rest.

    Parameters
    ----------
    x, y : array_like, shape (m, d) and (n, d)
        float32 or float16; float64 and integers are rounded to float32 first. `y` has at least k rows.
    k : int
        At least 1.

    Returns
    -------
    NearestRows
        ``indices``, rows of `y`, and ``distances``, (m, k) each.

    Raises
    ------
    TypeError
        A set is no array of real numbers, or `k` is no integer.
    ValueError
        Shapes do not fit, `y` has fewer than k rows, or `k` is less than 1.
    fastfid.NumericalError
        A row has values that are NaN or infinite in float32.

    Notes
    -----
    2 m n d float32 operations, and O(k) memory for each row of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> found = nearest_rows(np.array([[0.0], [9.0]]), np.array([[7.0], [1.0], [2.0]]), k=2)
    >>> found.indices.tolist(), found.distances.tolist()
    ([[1, 2], [0, 2]], [[1.0, 2.0], [2.0, 7.0]])
    """
    k = check_count("k", k, 1)
    x, y = rows_of(x, "x", 1, in_float32=True), rows_of(y, "y", k, in_float32=True)
    same_length(x, y)
    indices, squares = search(x, y, k).nearest()
    return NearestRows(indices, np.sqrt(squares))


def authpct(train: Any, fake: Any) -> AuthPct:
    """Return the percentage of generated rows that are authentic.

    A generated row is authentic if its nearest training row has another training row that is nearer than the generated
    row is; else it is a copy (Alaa et al. 2022, "How faithful is your synthetic data?"; this is dgm-eval's AuthPct).
    Comparisons are those of squared distances in float64, summed feature by feature, as in `prdc`; dgm-eval decides in
    float32. Of training rows that are as near, the first counts.

    Parameters
    ----------
    train, fake : array_like, shape (m, d) and (n, d)
        float32 or float16; float64 and integers are rounded to float32 first. At least 2 training rows and 1 generated
        row.

    Raises
    ------
    TypeError
        A set is no array of real numbers.
    ValueError
        Shapes do not fit, or there are too few rows.
    fastfid.NumericalError
        A row has values that are NaN or infinite in float32.

    Notes
    -----
    (m^2 + 2 m n) d float32 operations.

    Examples
    --------
    >>> import numpy as np
    >>> train = np.array([[0.0], [1.0], [5.0]])
    >>> authpct(train, np.array([[0.9], [7.0], [9.5], [-3.0]])).value  # 0.9 and 7 are copies of 1 and 5
    50.0
    """
    x, y = rows_of(train, "train", 2, in_float32=True), rows_of(fake, "fake", 1, in_float32=True)
    same_length(x, y, ("train", "fake"))
    nearest, squares = search(y, x, 1).nearest()
    between = search(x, None, 1).kth_squared_distances()
    authentic = int(np.count_nonzero(between[nearest[:, 0]] < squares[:, 0]))
    return AuthPct(100 * authentic / len(y), n_train=len(x), n_generated=len(y))


def realism(real: Any, fake: Any, *, k: int = 3) -> Realism:
    """Return the realism score of each generated row (Kynkäänniemi et al. 2019, section 5).

    Each real row has a ball, whose radius is the distance to its k-th nearest other real row. The score of a generated
    row is the largest radius divided by the distance of the centre. Only balls count whose radius is at most the
    median: large balls are those of outliers. Balls of radius 0, of duplicates, do not count.

    Parameters
    ----------
    real, fake : array_like, shape (m, d) and (n, d)
        float32 or float16; float64 and integers are rounded to float32 first. At least k + 1 real rows and 1 generated
        row.
    k : int
        At least 1; 3 in the paper.

    Returns
    -------
    Realism
        ``values``, (n,). They are 0 where all balls that count have the radius 0.

    Raises
    ------
    TypeError
        A set is no array of real numbers, or `k` is no integer.
    ValueError
        Shapes do not fit, there are too few rows, or `k` is less than 1.
    fastfid.NumericalError
        A row has values that are NaN or infinite in float32.

    Notes
    -----
    The ball is found by products in float64, the score is computed from its exact distance. StyleGAN's code has squared
    radii over squared distances, with 1e-5 added: the square of this score but for that. (m^2 + m n) d operations, half
    of them in float64.

    Examples
    --------
    >>> import numpy as np
    >>> realism(np.array([[0.0], [1.0], [2.0], [9.0]]), np.array([[1.5], [4.0]]), k=1).values.tolist()
    [2.0, 0.5]
    """
    k = check_count("k", k, 1)
    x, y = rows_of(real, "real", k + 1, in_float32=True), rows_of(fake, "fake", 1, in_float32=True)
    same_length(x, y, ("real", "fake"))
    radii = search(x, None, k).kth_squared_distances()
    balls = (radii <= np.median(radii)) & (radii > 0)
    values = np.zeros(len(y))
    if balls.any():
        for block in blocks(len(y)):
            values[block] = _realism(x[balls].astype(np.float64), radii[balls], y[block].astype(np.float64))
    return Realism(values, k)


def _realism(
    centres: NDArray[np.float64], radii: NDArray[np.float64], rows: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the largest radius / distance of each row, from squared radii."""
    mean = centres.mean(axis=0)  # products of centred rows lose less
    rows_squared = ((rows - mean) ** 2).sum(axis=1)
    least, best = np.full(len(rows), np.inf), np.zeros(len(rows), np.int64)
    for block in blocks(len(centres)):
        some = centres[block] - mean
        distances = rows_squared[:, None] + (some**2).sum(axis=1) - 2 * ((rows - mean) @ some.T)
        ratios = distances / radii[block]  # may be a rounding below 0
        place = ratios.argmin(axis=1)
        found = ratios[np.arange(len(rows)), place]
        nearer = found < least
        least[nearer], best[nearer] = found[nearer], place[nearer] + block.start
    exact = ((rows - centres[best]) ** 2).sum(axis=1)
    with np.errstate(divide="ignore"):  # a copy of a real row is infinitely real
        scores: NDArray[np.float64] = np.sqrt(radii[best] / exact)
    return scores
