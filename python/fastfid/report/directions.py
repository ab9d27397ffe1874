"""What is different: the directions among the features that carry the FID, and the images at both ends of each."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastfid.evaluation.result import Evaluation
from fastfid.metrics.given import blocks
from fastfid.report import figures
from fastfid.report.album import Album, SideName
from fastfid.report.content import Cell, Entry, Section, Sheet, Table, minus
from fastfid.report.header import number
from fastfid.report.sides import Side
from fastfid.statistics import Statistics

__all__ = ["Direction", "directions_of", "directions_section"]

_COVARIANCES = 4  # directions of the covariances that are shown


@dataclass(frozen=True)
class Direction:
    """A direction among the features.

    Attributes
    ----------
    name : str
    vector : ndarray, shape (d,)
        Of length 1.
    fid : float
        The Fréchet distance of the two sets along this direction alone: the squared difference of the means, and of
        the standard deviations.
    difference : float
        Of the means along it: generated less real.
    deviations : (float, float)
        Standard deviation of the real and of the generated images along it.
    """

    name: str
    vector: NDArray[np.float64]
    fid: float
    difference: float
    deviations: tuple[float, float]

    @classmethod
    def of(cls, name: str, vector: NDArray[np.float64], real: Statistics, generated: Statistics) -> "Direction":
        """Return a direction with what the two Gaussians are along it."""
        difference = float(vector @ (generated.mu - real.mu))
        a, b = (math.sqrt(max(float(vector @ side.sigma @ vector), 0.0)) for side in (real, generated))
        return cls(name, vector, difference**2 + (a - b) ** 2, difference, (a, b))


def directions_of(real: Statistics, generated: Statistics) -> list[Direction]:
    """Return the direction of the difference of the means, and the eigenvectors of that of the covariances.

    The eigenvectors are those of the largest absolute eigenvalues. Where the means are equal there is no direction of
    the means.
    """
    found = []
    shift = generated.mu - real.mu
    length = float(np.linalg.norm(shift))
    if length > 0:
        found.append(Direction.of("difference of the means", shift / length, real, generated))
    values, vectors = np.linalg.eigh(generated.sigma - real.sigma)
    order = np.argsort(-np.abs(values), kind="stable")[:_COVARIANCES]
    for place, column in enumerate(order.tolist(), start=1):
        vector = vectors[:, column]
        vector = vector if vector[np.abs(vector).argmax()] > 0 else -vector  # an eigenvector has no sign of its own
        kind = "more" if values[column] > 0 else "less"
        found.append(Direction.of(f"covariance {place}: generated images vary {kind}", vector, real, generated))
    return found


def directions_section(evaluation: Evaluation, real: Side, generated: Side, album: Album, pictures: int) -> Section:
    """Return the section, with a histogram and the images at both ends for each direction."""
    section = Section("directions", "What is different")
    found = directions_of(real.statistics, generated.statistics)
    fid = evaluation["fid"].value
    section.paragraphs.append(
        "A direction is a weighting of the features. The FID along one direction is the squared difference of the means"
        " plus that of the standard deviations there. The first direction is that of the difference of the means, the"
        " others are eigenvectors of the difference of the covariances. Their parts overlap, and need not add up."
    )
    rows = [
        [
            Cell(one.name),
            number(one.fid, 4),
            number(100 * one.fid / fid if fid > 0 else None, 3),
            number(one.difference, 3),
            *(number(deviation, 3) for deviation in one.deviations),
        ]
        for one in found
    ]
    head = ("direction", "FID along it", "% of the FID", "means differ by", "deviation, real", "deviation, generated")
    section.blocks.append(Table("Directions that carry the FID", head, rows))
    for one in found:
        positions = {name: _positions(side, one.vector) for name, side in album.sides.items()}
        drawn = {name: values for name, values in positions.items() if values is not None}
        if not drawn:
            continue
        alt = f"Histogram along the direction: {one.name}. " + ", ".join(
            f"{name}: mean {values.mean():.3g}, standard deviation {values.std():.3g}" for name, values in drawn.items()
        )
        section.blocks.append(
            figures.histogram(positions["real"], positions["generated"], f"{alt}.", one.name.capitalize())
        )
        section.blocks += _ends(drawn, album, pictures)
    return section


def _positions(side: Side, vector: NDArray[np.float64]) -> NDArray[np.float64] | None:
    if side.rows is None:
        return None
    return np.concatenate([side.rows[block] @ vector for block in blocks(len(side.rows))])


def _ends(positions: dict[SideName, NDArray[np.float64]], album: Album, pictures: int) -> list[Sheet]:
    """Return the images at the low and at the high end."""
    sheets = []
    few = max(1, pictures // 2)
    for end in ("low", "high"):
        entries = []
        for name in ("generated", "real"):
            if name not in positions:
                continue
            values = positions[name]
            order = np.argsort(values if end == "low" else -values, kind="stable")[:few]
            entries += [Entry(album.picture(name, row, f"{name}, at {minus(values[row], '.3g')}")) for row in order]
        sheets.append(Sheet(f"Images at the {end} end", "", entries, is_of_ends=True))
    return sheets
