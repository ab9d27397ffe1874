"""Nodes of the tree of :mod:`fastfid.segments` whose Parts replace those of their children."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from fastfid import segments
from fastfid.extractor import FeatureExtractor, outputs_of
from fastfid.metrics.base import IndexedAccumulator, Metric
from fastfid.metrics.several import Accumulators
from fastfid.mistakes import Census
from fastfid.scale.part import Part, state_arrays
from fastfid.scale.plan import Task

__all__ = ["Tree", "can_merge", "merged"]


class Tree:
    """The tasks of a side, and the nodes above them. Of ``RADIX`` full nodes of a level, one is made.

    Parameters
    ----------
    tasks : list of Task
        In the order of the source.
    has_nodes : bool
        False: the tasks are all there is.

    Attributes
    ----------
    roots : list of Task
        The nodes that have no parent, in the order of the source.
    """

    def __init__(self, tasks: Sequence[Task], *, has_nodes: bool):
        self._parents: dict[str, Task] = {}
        self._children: dict[str, list[Task]] = {}
        nodes, rests = list(tasks), []
        while has_nodes and nodes and nodes[0].level is not None:
            complete = len(nodes) - (nodes[-1].count < nodes[0].count)
            complete -= complete % segments.RADIX
            if not complete:
                break
            rests.append(nodes[complete:])
            groups = [nodes[first : first + segments.RADIX] for first in range(0, complete, segments.RADIX)]
            nodes = [self._add(group) for group in groups]
        self.roots = nodes + [task for rest in reversed(rests) for task in rest]

    def _add(self, children: list[Task]) -> Task:
        """Add the parent of some nodes, which decide its key."""
        first = children[0]
        key = hashlib.sha256("\n".join(child.key for child in children).encode()).hexdigest()
        count = sum(child.count for child in children)
        parent = replace(first, count=count, level=(first.level or 0) + 1, files="", key=key)
        self._children[key] = children
        self._parents |= dict.fromkeys((child.key for child in children), parent)
        return parent

    def parent(self, node: Task) -> Task | None:
        """Return the node above; None: there is none."""
        return self._parents.get(node.key)

    def children(self, node: Task) -> Sequence[Task]:
        """Return the nodes below; none of a task."""
        return self._children.get(node.key, ())


def can_merge(metrics: Mapping[str, Metric], extractor: FeatureExtractor) -> bool:
    """Whether a node takes no more memory than one of its children. Rows of all images do."""
    accumulators = Accumulators(metrics, outputs_of(extractor))
    return all(isinstance(one, IndexedAccumulator) for one in accumulators.values())


def merged(
    node: Task, parts: Iterable[tuple[Task, Part]], metrics: Mapping[str, Metric], extractor: FeatureExtractor
) -> Part:
    """Return the Part of a node from those of its children, in order. One of them is in memory at a time."""
    accumulators = Accumulators(metrics, outputs_of(extractor))
    census, n, skipped, skipped_at, labels, runtimes = Census(), 0, [], [], [], set()
    for task, part in parts:
        part.join(accumulators, metrics, task)
        census.merge(part.census())
        n += part.n
        skipped += part.skipped
        labels += part.labels
        skipped_at.append(part.arrays["skipped_at"])
        runtimes |= part.runtimes
    arrays = state_arrays(accumulators, node.sample_below) | {"skipped_at": np.concatenate(skipped_at)} | census.state()
    if labels:
        arrays["labels"] = np.array(labels)
    return Part(node.key, n, skipped, arrays, {"runtimes": sorted(runtimes)})
