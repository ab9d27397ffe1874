"""Run directories: a plan and the Parts that are done."""

import contextlib
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from fastfid._console import remark
from fastfid._progress import ProgressMode, show_progress
from fastfid.extractor import FeatureExtractor
from fastfid.metrics.base import Metric
from fastfid.metrics.several import Accumulators
from fastfid.pipeline import Report
from fastfid.scale.engine import Engine, InTurn, Work
from fastfid.scale.part import DamagedPart, Part
from fastfid.scale.plan import Changed, Plan, Sizing, Task, plan_of
from fastfid.scale.reduce import Reduction
from fastfid.sources import ImageSource

__all__ = ["RunDirectory"]

_PLAN, _PARTS = "plan.json", "parts"
_DAY_S = 86_400
# The file of a Part, one that is damaged, and one that is being written.
_NAME = re.compile(r"\d{12}-\d+-(rows|node\d+)\.npz(\.bad)?|\.\d{12}-.*\.tmp")


class RunDirectory:
    """A folder with a plan and the Parts that are done.

    Parameters
    ----------
    path : path-like
        The folder, which is made.
    changed : {"refuse", "fresh", "extend"}
        What to do where the folder has a run of other images, another network or other options: raise an error, start
        over, or keep the Parts of images to which others were added at the end.
    workers : int
        How many processes will do the tasks. Each does 20 or more, so that one that is killed loses 5 % or less.
    task_images : int, optional
        Images of a task. Default: as `workers` and the number of images demand.
    reads_images : bool
        Whether Parts that are missing are made. Else a missing Part is an error.
    engine : Engine, optional
        Who makes them. Default: this process, one after the other.

    Attributes
    ----------
    path : Path
    done, found : int
        How many Parts were made here, and how many were there.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        changed: Changed = "refuse",
        workers: int = 1,
        task_images: int | None = None,
        reads_images: bool = True,
        engine: Engine | None = None,
    ):
        if changed not in get_args(Changed):
            raise ValueError(f"changed: expected one of {', '.join(get_args(Changed))}; got {changed!r}")
        for name, value in (("workers", workers), ("task_images", task_images)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
        self.path = Path(os.path.abspath(path))
        self.done = self.found = 0
        self._changed = changed
        self._workers = workers
        self._task_images = task_images
        self._reads_images = reads_images
        self._engine = engine or InTurn()
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """The plan.

        Raises
        ------
        FileNotFoundError
            The folder has none.
        """
        if self._plan is None:
            self._plan = Plan.load(self.path / _PLAN)
        return self._plan

    def begin(
        self,
        sources: Mapping[str, ImageSource],
        decides: Mapping[str, Any],
        request: Mapping[str, Any] | None = None,
    ) -> None:
        """Take the plan of the folder, or make it.

        Raises
        ------
        ValueError
            The folder has a run of something else, or the images do not come from files.
        """
        if not self._reads_images:
            self.plan.check_decisions(decides, str(self.path))
            self._check_complete([task for task in self.plan.tasks if not self.file_of(task).exists()])
            return
        if self._changed == "fresh":
            self._clear()
        old = Plan.load(self.path / _PLAN) if (self.path / _PLAN).exists() else None
        sizings = {}
        for name, source in sources.items():
            side = old.sides.get(name) if old is not None else None
            sizings[name] = side.sizing if side is not None else self._sizing(source)
        new = plan_of(sources, decides, sizings, request or (old.request if old is not None else None))
        if old is not None and old != new:
            if self._changed != "extend":
                old.check_same(new, str(self.path))
            new.check_extends(old, sources, str(self.path))
        for name in sources:
            (self.path / _PARTS / name).mkdir(parents=True, exist_ok=True)
        self._remove_old_temporaries()
        if old is None or old != new or (request is not None and request != old.request):
            new.save(self.path / _PLAN)
        self._plan = new

    def _sizing(self, source: ImageSource) -> Sizing:
        try:
            n = len(source)
        except TypeError:
            raise ValueError(f"{source.name}: the number of images is not known, so there are no tasks") from None
        return Sizing.choose(n, self._workers, self._task_images)

    def _clear(self) -> None:
        """Remove the plan, and the Parts after it: what is left by an interrupt is no run. Other files stay."""
        ours = [path for path in (self.path / _PARTS).glob("*/*") if _NAME.fullmatch(path.name)]
        for path in (self.path / _PLAN, *ours):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _remove_old_temporaries(self) -> None:
        """Remove what processes left that were killed while they wrote."""
        for path in self.path.rglob(".*.tmp"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _DAY_S:
                    path.unlink()

    def file_of(self, task: Task) -> Path:
        """Return the path of a task's Part."""
        return self.path / _PARTS / task.side / f"{task.name}.npz"

    def load(self, task: Task) -> Part | None:
        """Return the Part of a task; None: there is none. A damaged one is set aside, and a remark says so."""
        path = self.file_of(task)
        try:
            part = Part.load(path, task)
        except FileNotFoundError:
            return None
        except DamagedPart as error:
            remark(f"{error}; set aside as {path.name}.bad, and {task} of {task.side} count as not read")
            os.replace(path, f"{path}.bad")
            return None
        self.found += 1
        return part

    def keep(self, task: Task, part: Part) -> None:
        """Write the Part of a task.

        Raises
        ------
        ValueError
            Another process has written another Part of this task.
        """
        with contextlib.suppress(FileNotFoundError, DamagedPart):
            if Part.load(self.file_of(task), task).digest != part.digest:
                raise ValueError(
                    f"{self.file_of(task)}: two processes made this Part, and the two differ: the results of a machine"
                    " are not reproducible, or the machines have different processors"
                )
            return
        part.save(self.file_of(task))
        self.done += 1

    def parts(self, tasks: Sequence[Task], work: Work) -> Iterator[tuple[Task, Part]]:
        """Yield the Part of each task, in the order of `tasks`. The engine makes those that are missing."""
        missing = [task for task in tasks if not self.file_of(task).exists()]
        if not self._reads_images:
            self._check_complete(missing)
        made = self._engine.run(missing, work)
        for task in tasks:
            part = None
            while part is None and not self.file_of(task).exists():
                done, new = next(made)
                if new is not None:
                    self.keep(done, new)
                    part = new if done is task else None
            yield task, part or self._again(task, work)

    def _again(self, task: Task, work: Work) -> Part:
        """Return the Part of a task from its file, or make it where the file is damaged."""
        part = self.load(task)
        if part is None:
            if not self._reads_images:
                self._check_complete([task])
            part = work(task)
            self.keep(task, part)
        return part

    def read(
        self,
        side: str,
        source: ImageSource,
        extractor: FeatureExtractor,
        metrics: Mapping[str, Metric],
        accumulators: Accumulators,
        *,
        max_errors: int | None,
        progress: ProgressMode,
        **options: Any,
    ) -> Report:
        """Add the images of a side to the accumulators, from its Parts, and make those that are missing.

        `options` are those of :func:`fastfid.pipeline.extract`.

        Raises
        ------
        ValueError
            Parts are missing, and `reads_images` is False. The message has the command that makes them.
        """
        tasks = list(self.plan.sides[side].tasks)
        found = self.found
        reduction = Reduction(self.plan.sides[side], accumulators, metrics, max_errors)
        work = Work(source, extractor, metrics, {"max_errors": max_errors, **options})
        with show_progress(len(source), progress, source.name) as bar:
            for task, part in self.parts(tasks, work):
                reduction.add(part)
                bar.update(task.count)
        if self._reads_images and self.found > found:
            remark(f"{source.name}: {self.found - found} of {len(tasks)} tasks were done before")
        if len(reduction.runtimes) > 1:
            made_by = "; ".join(sorted(reduction.runtimes))
            remark(f"{source.name}: its Parts are of different machines, so the last digits depend on them: {made_by}")
        return reduction.report

    def _check_complete(self, missing: list[Task]) -> None:
        if missing:
            raise ValueError(
                f"{self.path}: {len(missing)} of {len(self.plan.tasks)} Parts are missing, first that of {missing[0]}"
                f" of {missing[0].side}; fastfid part --run-dir {self.path} --index 0 --of 1 makes them"
            )
