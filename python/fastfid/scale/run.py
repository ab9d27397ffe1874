"""Run directories: a plan and the Parts that are done."""

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from fastfid._console import remark
from fastfid._progress import ProgressMode, show_progress
from fastfid.extractor import FeatureExtractor
from fastfid.metrics.base import Metric
from fastfid.metrics.several import Accumulators
from fastfid.pipeline import Report
from fastfid.scale.engine import Engine, InTurn, Work
from fastfid.scale.nodes import Tree, can_merge, merged
from fastfid.scale.part import DamagedPart, Part, RowsAfter
from fastfid.scale.places import Place, entries, place_of, set_aside
from fastfid.scale.plan import Changed, Plan, Sizing, Task, plan_of
from fastfid.scale.reduce import Reduction, check_skipped
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
        The folder, which is made; or a URL to which fsspec can write, as ``s3://bucket/run``.
    changed : {"refuse", "fresh", "extend"}
        What to do where the folder has a run of other images, another network or other options: raise an error, start
        over, or keep the Parts of images to which others were added at the end.
    workers : int, optional
        How many processes will do the tasks. Each does 20 or more, so that one that is killed loses 5 % or less.
        Default: as many as the engine has.
    task_images : int, optional
        Images of a task. Default: as `workers` and the number of images demand.
    reads_images : bool
        Whether Parts that are missing are made. Else a missing Part is an error.
    engine : Engine, optional
        Who makes them. Default: this process, one after the other.

    Attributes
    ----------
    path : Path or UrlPath
    needs_rows : bool
        Whether Parts must have the rows of all images, of large sets too.
    done, found : int
        How many Parts were made here, and how many were there when the run began.
    runtimes : set of str
        What computed the Parts that were read.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        changed: Changed = "refuse",
        workers: int | None = None,
        task_images: int | None = None,
        reads_images: bool = True,
        engine: Engine | None = None,
    ):
        if changed not in get_args(Changed):
            raise ValueError(f"changed: expected one of {', '.join(get_args(Changed))}; got {changed!r}")
        for name, value in (("workers", workers), ("task_images", task_images)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
        self.path = place_of(path)
        self.done = self.found = 0
        self._changed = changed
        self._workers = workers
        self._task_images = task_images
        self._reads_images = reads_images
        self._engine = engine or InTurn()
        self._plan: Plan | None = None
        self._trees: dict[str, Tree] = {}
        self.runtimes: set[str] = set()
        self.needs_rows = False
        self._old: frozenset[str] = frozenset()  # keys of the tasks that were done when this run began

    @property
    def plan(self) -> Plan:
        """The plan.

        Raises
        ------
        FileNotFoundError
            The folder has none.
        """
        if self._plan is None:
            file = self.path / _PLAN
            try:
                self._plan = Plan.load(file)
            except FileNotFoundError:
                reason = "there is no such file; `fastfid plan A B --run-dir DIR` makes it first"
                raise FileNotFoundError(errno.ENOENT, reason, str(file)) from None
        return self._plan

    @property
    def facts(self) -> dict[str, Any]:
        """What a record says of how the run was done."""
        engine = self._engine
        return {
            "engine": getattr(engine, "name", type(engine).__name__),
            "workers": getattr(engine, "at_work", 1),
            "retries": getattr(engine, "retries", 0),
            "resumed": self.found,
            "runtimes": sorted(self.runtimes),
        }

    def use(self, engine: Engine) -> None:
        """Have the Parts that are missing made by this engine."""
        self._engine = engine

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
            self._take(self.plan)
            self._check_complete([task for task in self.plan.tasks if task.key not in self._old])
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
            for sentence in new.unversioned():
                remark(sentence)
            new.save(self.path / _PLAN)
        self._take(new)

    def _take(self, plan: Plan) -> None:
        self._plan = plan
        missing = {task.key for side in plan.sides for task in self._missing(side)}
        self._old = frozenset(task.key for task in plan.tasks) - missing

    def _sizing(self, source: ImageSource) -> Sizing:
        try:
            n = len(source)
        except TypeError:
            raise ValueError(f"{source.name}: the number of images is not known, so there are no tasks") from None
        workers = getattr(self._engine, "workers", 1) if self._workers is None else self._workers
        sizing = Sizing.choose(n, workers, self._task_images)
        return sizing if sizing.level is None or not self.needs_rows else Sizing.of_rows()

    def _clear(self) -> None:
        """Remove the plan, and the Parts after it: what is left by an interrupt is no run. Other files stay."""
        folders = [self.path / _PARTS / side for side in entries(self.path / _PARTS)]
        ours = [folder / name for folder in folders for name in entries(folder) if _NAME.fullmatch(name)]
        for path in (self.path / _PLAN, *ours):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def _remove_old_temporaries(self) -> None:
        """Remove what processes left that were killed while they wrote."""
        if not isinstance(self.path, Path):
            return
        for path in (*self.path.glob(f".{_PLAN}.*.tmp"), *(self.path / _PARTS).glob("*/.*.tmp")):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _DAY_S:
                    path.unlink()

    def file_of(self, task: Task) -> Place:
        """Return the path of a task's Part."""
        return self.path / _PARTS / task.side / f"{task.name}.npz"

    def is_done(self, task: Task) -> bool:
        """Whether the Part of a task is there, or that of a node above it, which has replaced it."""
        tree = self._tree(task.side)
        node: Task | None = task
        while node is not None:  # upwards: a Part goes when the one above it is there
            if self.file_of(node).exists():
                return True
            node = tree.parent(node)
        return False

    def _missing(self, side: str, tasks: Sequence[Task] | None = None) -> list[Task]:
        """Return the tasks of a side that are not done, of all or of these; see :meth:`is_done`."""
        tree, there = self._tree(side), set(entries(self.path / _PARTS / side))

        def is_there(task: Task | None) -> bool:
            return task is not None and (self.file_of(task).name in there or is_there(tree.parent(task)))

        return [task for task in (self.plan.sides[side].tasks if tasks is None else tasks) if not is_there(task)]

    def _tree(self, side: str) -> Tree:
        if side not in self._trees:
            self._trees[side] = Tree(self.plan.sides[side].tasks, has_nodes=True)
        return self._trees[side]

    def load(self, task: Task) -> Part | None:
        """Return the Part of a task; None: there is none. A damaged one is set aside, and a remark says so."""
        part = self._load(task)
        if part is not None:
            self.found += task.key in self._old
        return part

    def _load(self, task: Task) -> Part | None:
        path = self.file_of(task)
        try:
            return Part.load(path, task)
        except FileNotFoundError:
            return None
        except DamagedPart as error:
            remark(f"{error}; set aside as {path.name}.bad, and {task} of {task.side} count as not read")
            set_aside(path)
            return None

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
        """Yield the Part of each task, in the order of `tasks`. The engine makes those that are missing.

        Tasks whose Parts were replaced by that of a node are left out.
        """
        sides = dict.fromkeys(task.side for task in tasks)
        missing = [one for side in sides for one in self._missing(side, [task for task in tasks if task.side == side])]
        if not self._reads_images:
            self._check_complete(missing)
        made, waiting = self._engine.run(missing, work), {task.key for task in missing}
        for task in tasks:
            if task.key not in waiting and not self.file_of(task).exists():
                continue
            part = None
            while part is None and task.key in waiting:
                done, new = next(made)
                waiting.discard(done.key)
                if new is not None:
                    self.keep(done, new)
                    part = new if done is task else None
            yield task, part or self._again(task, work)

    def _nodes(self, side: str, work: Work, advance: Callable[[int], object]) -> Iterator[tuple[Task, Part]]:
        """Have the Parts made that are missing, in any order, and yield those of the roots of the tree.

        A node whose children are there replaces them at once: neither the directory nor the memory gets the Parts of a
        whole set.
        """
        missing = self._missing(side)
        if not self._reads_images:
            self._check_complete(missing)
        keys, names = {task.key for task in missing}, set(entries(self.path / _PARTS / side))
        done = [task for task in self.plan.sides[side].tasks if task.key not in keys]
        self.found += sum(task.key in self._old and self.file_of(task).name not in names for task in done)
        there: set[str] = set()
        skipped: list[tuple[str, str]] = []
        for task in done:
            self._arrive(task, there, work)
            advance(task.count)
        for task, new in self._engine.run(missing, work):
            if new is not None:
                self.keep(task, new)
                skipped += new.skipped
                check_skipped(skipped, work.options.get("max_errors"))
            self._arrive(task, there, work)
            advance(task.count)
        for root in self._tree(side).roots:
            yield root, self._of_node(root, work)

    def _arrive(self, node: Task, there: set[str], work: Work) -> None:
        """Make the nodes above for which this one was the last that was missing."""
        there.add(node.key)
        tree = self._tree(node.side)
        parent = tree.parent(node)
        if parent is None or not self._reads_images or any(one.key not in there for one in tree.children(parent)):
            return
        if not self.is_done(parent):
            self._of_node(parent, work)
        self._arrive(parent, there, work)

    def _of_node(self, node: Task, work: Work) -> Part:
        """Return the Part of a node, from its file or from those of its children, which it then replaces.

        Children that another process takes away meanwhile are made again: slow, but right.
        """
        children = self._tree(node.side).children(node)
        if not children:
            return self._again(node, work)
        part = self._load(node)
        if part is None:
            parts = ((child, self._of_node(child, work)) for child in children)
            part = merged(node, parts, work.metrics, work.extractor)
            if self._reads_images:
                part.save(self.file_of(node))
        if self._reads_images:
            self._remove_below(node)
        return part

    def _remove_below(self, node: Task) -> None:
        """Remove the Parts of all nodes below one whose Part is there, also what was left by a kill meanwhile."""
        below = list(self._tree(node.side).children(node))
        for one in below:
            below += self._tree(node.side).children(one)
        there = set(entries(self.file_of(node).parent))
        for path in map(self.file_of, below):
            if path.name in there:
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()

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
        accumulators: Accumulators | RowsAfter,
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
        planned, found = self.plan.sides[side], self.found
        tasks = list(planned.tasks)
        work = Work(source, extractor, metrics, {"max_errors": max_errors, **options})
        has_nodes = len(self._tree(side).roots) < len(tasks) and can_merge(metrics, extractor)
        counted = replace(planned, tasks=self._tree(side).roots) if has_nodes else planned
        reduction = Reduction(counted, accumulators, metrics, max_errors)
        with self._saying_what_is_kept(), show_progress(len(source), progress, source.name) as bar:
            if has_nodes:
                for _, part in self._nodes(side, work, bar.update):
                    reduction.add(part)
            for task, part in self.parts(tasks, work) if not has_nodes else ():
                reduction.add(part)
                bar.update(task.count)
        self.runtimes |= reduction.runtimes
        if self._reads_images and self.found > found:
            remark(f"{source.name}: {self.found - found} of {len(tasks)} tasks were done before")
        if len(reduction.runtimes) > 1:
            made_by = "; ".join(sorted(reduction.runtimes))
            remark(f"{source.name}: its Parts are of different machines, so the last digits depend on them: {made_by}")
        return reduction.report

    @contextlib.contextmanager
    def _saying_what_is_kept(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            remark(f"{self.path}: the Parts of {self.done + self.found} tasks are kept; the same command goes on")
            raise

    def _check_complete(self, missing: list[Task]) -> None:
        if missing:
            raise ValueError(
                f"{self.path}: {len(missing)} of {len(self.plan.tasks)} Parts are missing, first that of {missing[0]}"
                f" of {missing[0].side}; fastfid part --run-dir {self.path} --index 0 --of 1 makes them"
            )
