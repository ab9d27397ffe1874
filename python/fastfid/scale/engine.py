"""Who does the tasks of a run: the contract of an engine, and the one that does them one after the other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastfid.extractor import FeatureExtractor
from fastfid.metrics.base import Metric
from fastfid.scale.part import Part, run_task
from fastfid.scale.plan import Task
from fastfid.sources import ImageSource

__all__ = ["Engine", "InTurn", "Work"]


@dataclass(frozen=True)
class Work:
    """What makes the Part of any task of a side. Nothing but the task decides the Part.

    Attributes
    ----------
    source : ImageSource
        The images of the side.
    extractor : FeatureExtractor
    metrics : dict of str to Metric
    options : dict
        Keywords of :func:`fastfid.pipeline.extract`.
    """

    source: ImageSource
    extractor: FeatureExtractor
    metrics: Mapping[str, Metric]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, task: Task) -> Part:
        """Read the images of a task and return its Part."""
        return run_task(task, self.source, self.extractor, self.metrics, **self.options)


class Engine(Protocol):
    """Schedules tasks. Counting is not its business: a Part counts once, however often its task was done.

    An engine may also have these attributes: ``workers``, the number that do tasks at most, for which tasks are sized;
    and for the record ``name``, ``at_work`` (the most workers that were there at once) and ``retries`` (how often a
    task was done again).
    """

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[tuple[Task, Part | None]]:
        """Do the tasks and yield each with its Part, in any order.

        None stands for a Part: another process has written the Part into the run directory.
        """
        ...


class InTurn:
    """This process does the tasks, one after the other."""

    name = None

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[tuple[Task, Part | None]]:
        """Do the tasks in their order."""
        for task in tasks:
            yield task, work(task)
