"""The order in which the moments of a source are added up, which its images alone decide.

The images of a source are cut into segments of :data:`SEGMENT` indices. The rows of a segment are one stream of
:class:`fastfid.Moments`. Segments are the leaves of a tree: node k of a level is the left fold, by
:meth:`fastfid.Moments.merge`, of the nodes ``RADIX k`` to ``RADIX k + RADIX - 1`` of the level below. So the bits do
not depend on how many processes read the images, or in which runs of images. Images that were left out keep their
index. A source of one segment is one stream.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastfid._core import Moments

__all__ = ["RADIX", "SEGMENT", "SegmentedMoments"]

# 43 blocks of the core (`kBlockRows` in csrc/core/moments.hpp): a full segment has no pending rows, which a merge would
# fold anew.
SEGMENT = 43 * 383
RADIX = 16


class SegmentedMoments:
    """Moments of the rows of a source, in segments. Rows, and nodes of the tree, come in the source's order.

    Parameters
    ----------
    d : int
        Features in a row.
    """

    def __init__(self, d: int):
        self.d = d
        self._segment = 0
        self._open = Moments(d)  # the rows of this segment
        # At place l the last node of level l + 1: its index, and the fold of its children so far.
        self._nodes: list[tuple[int, Moments] | None] = []

    @property
    def n(self) -> int:
        """Number of rows."""
        return self._open.n + sum(node[1].n for node in self._nodes if node is not None)

    def update(self, rows: NDArray[Any], indices: NDArray[np.int64]) -> None:
        """Add rows (m, d) of the images with these indices (m,), ascending.

        Raises
        ------
        fastfid.NumericalError
            A row has NaN or infinite values. The rows of segments before it have been added.
        """
        done = 0
        while done < len(rows):
            segment = int(indices[done]) // SEGMENT
            self._begin(segment)
            stop = len(rows)
            if indices[-1] >= (segment + 1) * SEGMENT:
                stop = int(np.searchsorted(indices, (segment + 1) * SEGMENT))
            self._open.update(rows[done:stop])
            done = stop

    def push(self, node: Moments, index: int, level: int) -> None:
        """Add node `index` of a level of the tree; level 0 are the segments. The node is not to be used any more."""
        self._begin((index + 1) * RADIX**level)
        _push(self._nodes, node, index, level)

    def total(self) -> Moments:
        """Return the moments of all rows, a copy."""
        nodes = [None if node is None else (node[0], _copy(node[1])) for node in self._nodes]
        if self._open.n:
            _push(nodes, _copy(self._open), self._segment, 0)
        for level, node in enumerate(nodes):
            if node is not None and any(nodes[level + 1 :]):
                _push(nodes, node[1], node[0], level + 1)
        return next((node[1] for node in reversed(nodes) if node is not None), Moments(self.d))

    def _begin(self, segment: int) -> None:
        """Close the segments before this one."""
        if segment == self._segment:
            return
        if self._open.n:
            _push(self._nodes, self._open, self._segment, 0)
            self._open = Moments(self.d)
        self._segment = segment


def _push(nodes: list[tuple[int, Moments] | None], node: Moments, index: int, level: int) -> None:
    """Add a node of a level to its parent. A parent of other children is complete, and goes to its own parent first."""
    nodes += [None] * (level + 1 - len(nodes))
    parent, found = index // RADIX, nodes[level]
    if found is not None and found[0] == parent:
        found[1].merge(node)
        return
    nodes[level] = (parent, node)
    if found is not None:
        _push(nodes, found[1], found[0], level + 1)


def _copy(moments: Moments) -> Moments:
    copy = Moments(moments.d)
    copy.merge(moments)
    return copy
