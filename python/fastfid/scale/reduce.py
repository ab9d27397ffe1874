"""From Parts to what one process has that reads the whole set."""

from collections.abc import Mapping, Sequence

from fastfid.errors import ImageError
from fastfid.metrics.base import Metric
from fastfid.metrics.several import Accumulators
from fastfid.pipeline import Report
from fastfid.scale.part import Part, RowsAfter
from fastfid.scale.plan import SidePlan, Task

__all__ = ["Reduction", "check_skipped"]


class Reduction:
    """Counts the Part of each task of a side once, in the order of the tasks, whatever the order of arrival.

    Parameters
    ----------
    side : SidePlan
        Its tasks may be nodes, each instead of the tasks below it.
    accumulators : Accumulators or RowsAfter
        Get the images of the Parts.
    metrics : dict of str to Metric
    max_errors : int or None
        Largest number of images that may be left out.

    Attributes
    ----------
    report : Report
        Of the Parts that were counted.
    runtimes : set of str
        What computed them: features of different ones differ in their last bits.
    """

    def __init__(
        self,
        side: SidePlan,
        accumulators: Accumulators | RowsAfter,
        metrics: Mapping[str, Metric],
        max_errors: int | None,
    ):
        self.report = Report()
        self.runtimes: set[str] = set()
        self._tasks = list(side.tasks)
        self._places = {task.key: place for place, task in enumerate(self._tasks)}
        self._accumulators = accumulators
        self._metrics = metrics
        self._max_errors = max_errors
        self._digests: dict[str, str] = {}
        self._waiting: dict[int, Part] = {}
        self._next = 0

    @property
    def missing(self) -> list[Task]:
        """The tasks without a Part."""
        return [task for task in self._tasks if task.key not in self._digests]

    def add(self, part: Part) -> None:
        """Take a Part. A second one of the same task counts no more.

        Raises
        ------
        ValueError
            It is of no task of this side, or is another than the first one of its task.
        fastfid.ImageError
            More images were left out than are accepted.
        """
        if part.key not in self._places:
            raise ValueError("a Part is of another plan")
        place, digest = self._places[part.key], part.digest
        first = self._digests.setdefault(part.key, digest)
        if first != digest:
            raise ValueError(
                f"{self._tasks[place].side}: {self._tasks[place]} gave two Parts that differ: the results of a machine"
                " are not reproducible, or two machines have different processors"
            )
        if place >= self._next:
            self._waiting[place] = part
        while self._next in self._waiting:
            self._count(self._waiting.pop(self._next), self._tasks[self._next])
            self._next += 1

    def _count(self, part: Part, task: Task) -> None:
        part.join(self._accumulators, self._metrics, task)
        report = self.report
        report.n += part.n
        self.runtimes |= part.runtimes
        report.labels += part.labels
        report.skipped += part.skipped
        report.skipped_at += part.arrays["skipped_at"].tolist()
        report.census.merge(part.census())
        check_skipped(report.skipped, self._max_errors)


def check_skipped(skipped: Sequence[tuple[str, str]], max_errors: int | None) -> None:
    """Raise ImageError if more images were left out than are accepted."""
    if max_errors is not None and len(skipped) > max_errors:
        name, reason = skipped[0]
        raise ImageError(f"{name} ({reason}): {len(skipped)} unreadable images, at most {max_errors} are accepted")
