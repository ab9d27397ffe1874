"""Which generated images lie outside every ball of real ones, which real ones are not covered, and who is a copy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfid import _core
from fastfid.metrics.given import blocks
from fastfid.metrics.nearest import search

__all__ = ["BESIDE", "K", "Neighbourhood", "neighbourhood"]

K = 5  # a ball around a real image reaches to its K-th nearest other real image, as of density and coverage
BESIDE = 3  # nearest neighbours that are shown
_PANEL = 4096  # rows of a call of the core, as in metrics/nearest.py


@dataclass(frozen=True)
class Neighbourhood:
    """Distances between the rows of two sets. Distances are Euclidean.

    Attributes
    ----------
    real_of_generated, generated_of_real : (indices (n, BESIDE), distances (n, BESIDE))
        The nearest rows of the other set.
    own_of_generated, own_of_real : (indices (n, 1), distances (n, 1))
        The nearest other row of the same set.
    radii : ndarray, shape (m,)
        Of the balls around the real rows.
    balls : ndarray of int64, shape (n,)
        Number of balls of real rows that hold each generated row.
    held : ndarray of int64, shape (m,)
        Number of generated rows in the ball of each real row.
    """

    real_of_generated: tuple[NDArray[np.int64], NDArray[np.float64]]
    generated_of_real: tuple[NDArray[np.int64], NDArray[np.float64]]
    own_of_generated: tuple[NDArray[np.int64], NDArray[np.float64]]
    own_of_real: tuple[NDArray[np.int64], NDArray[np.float64]]
    radii: NDArray[np.float64]
    balls: NDArray[np.int64]
    held: NDArray[np.int64]

    @property
    def outside(self) -> NDArray[np.intp]:
        """The generated rows outside every ball, the farthest from the real rows first."""
        rows = np.flatnonzero(self.balls == 0)
        found: NDArray[np.intp] = rows[np.argsort(-self.real_of_generated[1][rows, 0], kind="stable")]
        return found

    @property
    def not_covered(self) -> NDArray[np.intp]:
        """The real rows whose ball holds no generated row; first those whose nearest is the most radii away."""
        rows = np.flatnonzero(self.held == 0)
        radii = np.maximum(self.radii[rows], np.finfo(np.float64).tiny)
        found: NDArray[np.intp] = rows[np.argsort(-self.generated_of_real[1][rows, 0] / radii, kind="stable")]
        return found

    @property
    def near(self) -> float:
        """The distance to the nearest other real row that 1 % of the real rows do not exceed."""
        return float(np.quantile(self.own_of_real[1][:, 0], 0.01))


def neighbourhood(real: NDArray[np.float32], generated: NDArray[np.float32]) -> Neighbourhood:
    """Return the distances between two sets of more than :data:`K` rows each.

    It takes about ``(m + n)^2 d`` float32 multiplications and additions, as precision and recall, and hears Ctrl-C.
    """
    own_of_real = _within(real, K)
    squares = np.ascontiguousarray(own_of_real[1][:, -1])
    balls, held = np.zeros(len(generated), np.int64), np.zeros(len(real), np.int64)
    nothing = np.zeros(len(generated))
    for of_generated in blocks(len(generated), _PANEL):
        for of_real in blocks(len(real), _PANEL):
            found = _core.count_in_balls(
                real[of_real], squares[of_real], generated[of_generated], nothing[of_generated], strict=True
            )
            balls[of_generated] += found[0]
            held[of_real] += found[1]
    return Neighbourhood(
        _between(generated, real),
        _between(real, generated),
        _first(_within(generated, 1)),
        _first(own_of_real),
        np.sqrt(squares),
        balls,
        held,
    )


def _within(rows: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the k nearest other rows of each row, with squared distances."""
    return search(rows, None, k).nearest()


def _between(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    indices, squares = search(x, y, min(BESIDE, len(y))).nearest()
    return indices, np.sqrt(squares)


def _first(
    found: tuple[NDArray[np.int64], NDArray[np.float64]],
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    indices, squares = found
    return indices[:, :1], np.sqrt(squares[:, :1])
