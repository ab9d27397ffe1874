"""Ranks: processes that a launcher such as torchrun or srun has started, which do the tasks of one run together.

They find each other through torch's TCPStore, which holds short messages. Tasks are given out one after another, so
fast ranks do more of them. Parts go through the run directory.
"""

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastfid._console import remark
from fastfid.extractor import FeatureExtractor
from fastfid.metrics.base import Metric
from fastfid.metrics.several import Accumulators
from fastfid.pipeline import Report
from fastfid.scale.engine import Work
from fastfid.scale.part import Part, RowsAfter
from fastfid.scale.places import Place
from fastfid.scale.plan import Task
from fastfid.scale.run import RunDirectory
from fastfid.sources import ImageSource

__all__ = ["Over", "RankDirectory", "RankFailed", "Ranks", "meet", "open_store"]

# A rank that has not come is named after this time, and given up after the second.
NAMED_S, GIVEN_UP_S = 60.0, 600.0
# Seconds between two signs of life, and without one until a rank counts as dead.
BEAT_S, SILENT_S = 5.0, 60.0
# How long rank 0 waits for the others to hear how the run ended: where they have no work left, and where they may have.
_GOODBYE_S, _HURRIED_S = 10.0, 0.5
# A file that another machine has written may appear late in a network file system.
_VISIBLE_S = 60.0
_POLL_S = 0.02


class Over(Exception):
    """There is nothing left to do for a rank other than 0."""


class RankFailed(RuntimeError):
    """Another rank cannot go on."""


def open_store(rank: int, size: int, address: str, port: int, *, hosts: bool, space: str) -> Any:
    """Return the store of the messages of a launch.

    Parameters
    ----------
    rank, size : int
        Which of how many processes this is.
    address, port
        Where the store is.
    hosts : bool
        Whether this process opens the port.
    space : str
        What keeps the messages of this launch apart from others in the store.

    Raises
    ------
    RuntimeError
        torch is not there, the port is taken, or rank 0 does not come.
    """
    try:
        from torch.distributed import DistError, PrefixStore, TCPStore  # type: ignore[attr-defined]
    except ImportError:
        raise RuntimeError(
            f"there are {size} ranks, which find each other through torch, and torch is not installed: install it, or"
            " use fastfid plan, part and reduce (docs/scale.md)"
        ) from None
    if not hosts:
        _wait(lambda: [] if _answers(address, port) else [0], size)
    try:
        store = TCPStore(address, port, is_master=hosts, wait_for_workers=False, timeout=timedelta(seconds=NAMED_S))
    except DistError as error:
        reason = str(error).splitlines()[0]
        raise RuntimeError(f"MASTER_ADDR, MASTER_PORT: {address}:{port} cannot be used: {reason}") from None
    # A program may start fastfid several times beside one store.
    times = store.add(f"{space}/{rank}", 1)
    return PrefixStore(f"{space}/{times}", store)


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=BEAT_S):
            return True
    except OSError:
        return False


def _wait(missing: Callable[[], list[int]], size: int) -> None:
    """Wait until no rank is missing; say after a minute which are, and give up after ten."""
    started, is_named, pause = time.monotonic(), False, _POLL_S
    while absent := missing():
        waited = time.monotonic() - started
        shown = f"{', '.join(map(str, absent[:8]))}{', ...' if len(absent) > 8 else ''}"
        who = f"rank{'s' if len(absent) > 1 else ''} {shown} of {size}"
        if waited > GIVEN_UP_S:
            raise RuntimeError(f"{who} did not come within {GIVEN_UP_S:.0f} s")
        if waited > NAMED_S and not is_named:
            is_named = True
            remark(
                f"waiting for {who}; if this process is not one of several, unset WORLD_SIZE, or SLURM_STEP_NUM_TASKS"
                " under SLURM"
            )
        time.sleep(pause)
        pause = min(0.5, pause * 1.5)


def meet(store: Any, rank: int, size: int, words: Sequence[str]) -> "Ranks | None":
    """Return the ranks of a launch, once all are there; None: their arguments differ, so each runs by itself.

    Sets LOCAL_RANK, and LOCAL_WORLD_SIZE to the number of ranks among which the processors of this one are divided,
    where the launcher has not.

    Parameters
    ----------
    store
        See :func:`open_store`.
    rank, size : int
        Which of how many processes this is.
    words : list of str
        The arguments of this process.

    Raises
    ------
    RuntimeError
        A rank does not come.
    """
    hello = {
        "words": hashlib.sha256(json.dumps(list(words)).encode()).hexdigest(),
        "host": os.uname().nodename,
        "cpus": sorted(os.sched_getaffinity(0)),
    }
    ranks = Ranks(store, rank, size)
    ranks.tell(f"hello/{rank}", hello)
    if rank == 0:
        _wait(lambda: [other for other in range(size) if not store.check([f"hello/{other}"])], size)
        hellos = [ranks.heard(f"hello/{other}") for other in range(size)]
        ranks.tell("meeting", hellos)
    else:
        _wait(lambda: [] if store.check(["meeting"]) else [0], size)
        hellos = ranks.heard("meeting")
        store.add("met", 1)
    ranks.hosts = [one["host"] for one in hellos]
    _share_machine(rank, hellos)
    if rank == 0:
        _wait_at_most(_GOODBYE_S, lambda: store.add("met", 0) == size - 1)
    if len({one["words"] for one in hellos}) == 1:
        return ranks
    if rank == 0:
        remark(f"the {size} ranks have different arguments, so each runs by itself")
    return None


def _share_machine(rank: int, hellos: Sequence[Mapping[str, Any]]) -> None:
    here = [other for other, one in enumerate(hellos) if one["host"] == hellos[rank]["host"]]
    os.environ.setdefault("LOCAL_RANK", str(here.index(rank)))
    # srun may have given each rank processors of its own, which are not to be divided again.
    shared = max(sum(cpu in hellos[other]["cpus"] for other in here) for cpu in hellos[rank]["cpus"])
    os.environ.setdefault("LOCAL_WORLD_SIZE", str(shared))


def _wait_at_most(seconds: float, is_there: Callable[[], object]) -> None:
    end = time.monotonic() + seconds
    while not is_there() and time.monotonic() < end:
        time.sleep(_POLL_S)


class Ranks:
    """The ranks of a launch, as one of them sees them.

    Attributes
    ----------
    rank, size : int
        Which of how many this one is.
    hosts : list of str
        The machine of each rank.
    """

    def __init__(self, store: Any, rank: int, size: int):
        self.rank = rank
        self.size = size
        self.hosts: list[str] = []
        self._store = store
        self._beats: dict[int, tuple[int, float]] = {}
        self._ended = threading.Event()

    def start(self) -> None:
        """Give signs of life from now on."""
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        with contextlib.suppress(RuntimeError):  # the store has ended
            while not self._ended.wait(BEAT_S):
                self._store.add(f"beat/{self.rank}", 1)

    def tell(self, key: str, value: Any) -> None:
        """Leave a message for all ranks."""
        self._store.set(key, json.dumps(value))

    def heard(self, key: str) -> Any:
        """Return a message; None: it is not there yet."""
        return json.loads(self._store.get(key)) if self._store.check([key]) else None

    def count(self, key: str, more: int = 0) -> int:
        """Return a counter of all ranks, after adding to it."""
        return int(self._store.add(key, more))

    def is_leader(self) -> bool:
        """Whether this is the first rank of its machine."""
        return self.hosts.index(self.hosts[self.rank]) == self.rank

    def wait(self, key: str) -> Any:
        """Return a message of rank 0, or of the first rank of this machine.

        Raises
        ------
        Over
            The run has ended without it.
        RankFailed
            Rank 0 gives no sign of life.
        """
        pause = _POLL_S
        while (value := self.heard(key)) is None:
            if self.is_over():
                if (value := self.heard(key)) is not None:  # told meanwhile
                    break
                raise Over
            self.check_alive(0, "")
            time.sleep(pause)
            pause = min(0.25, pause * 1.2)
        return value

    def fail(self, error: BaseException) -> None:
        """Tell rank 0 that this rank cannot go on. The first failure counts."""
        if self.count("failures", 1) == 1:
            sentence = str(error.args[0]) if error.args else type(error).__name__
            if isinstance(error, OSError) and error.strerror:
                sentence = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
            elif not isinstance(error, ValueError | RuntimeError | OSError | MemoryError):
                sentence = f"{type(error).__name__}: {sentence}"
            self.tell("failed", f"rank {self.rank}: {sentence}")

    def check(self) -> None:
        """Raise RankFailed if a rank cannot go on."""
        failed = self.heard("failed")
        if failed is not None:
            raise RankFailed(failed)

    def check_alive(self, rank: int, what: str) -> None:
        """Raise RankFailed if a rank gives no sign of life; `what` says what it was doing."""
        beats, now = self.count(f"beat/{rank}"), time.monotonic()
        last = self._beats.get(rank)
        if last is None or last[0] != beats:
            self._beats[rank] = (beats, now)
        elif now - last[1] > SILENT_S:
            where = f"rank {rank} on {self.hosts[rank]}"
            raise RankFailed(f"{where} has given no sign of life for {SILENT_S:.0f} s{what}")

    def is_over(self) -> bool:
        """Whether rank 0 has ended the run."""
        return bool(self._store.check(["outcome"]))

    def end(self, code: int, *, hurried: bool) -> None:
        """Tell the others how the run ended, on rank 0, and wait until they have heard it."""
        with contextlib.suppress(RuntimeError):
            self.tell("outcome", code)
            limit = _HURRIED_S if hurried else _GOODBYE_S
            _wait_at_most(limit, lambda: self.count("gone") == self.size - 1)
        self._ended.set()

    def leave(self) -> None:
        """Say, on another rank than 0, that this one ends. Further calls have no effect."""
        if not self._ended.is_set():
            self._ended.set()
            with contextlib.suppress(RuntimeError):
                self.count("gone", 1)


class RankDirectory(RunDirectory):
    """A run directory whose tasks the ranks of a launch do.

    Rank 0 makes the plan, does tasks, and adds up the Parts of all. The others do tasks: :meth:`read` adds nothing to
    the accumulators there, and raises :class:`Over` after the last side.

    Parameters
    ----------
    path : path-like
        The folder, which all ranks see.
    ranks : Ranks
    is_restarted : bool
        Whether ranks of this launch have failed before. What they have done is kept, even with ``changed="fresh"``.
    others
        Of :class:`RunDirectory`.
    """

    def __init__(self, path: str | os.PathLike[str], ranks: Ranks, *, is_restarted: bool = False, **options: Any):
        self._ranks = ranks
        self._tickets = Tickets(ranks, self.file_of)
        self._is_restarted = is_restarted
        super().__init__(path, workers=ranks.size, engine=self._tickets, **options)

    def begin(
        self,
        sources: Mapping[str, ImageSource],
        decides: Mapping[str, Any],
        request: Mapping[str, Any] | None = None,
    ) -> None:
        """Make or take the plan on rank 0; take it on the others. See :meth:`RunDirectory.begin`."""
        if self._ranks.rank == 0:
            self._begin_first(sources, decides, request)
            todo = {}
            for name, side in self.plan.sides.items():
                missing = {task.key for task in self._missing(name)}
                todo[name] = [place for place, task in enumerate(side.tasks) if task.key in missing]
            self._ranks.tell("todo", todo)
        else:
            todo = self._ranks.wait("todo")
            self._find_plan()
            self.plan.check_decisions(decides, str(self.path))
        self._tickets.todo = {name: [self.plan.sides[name].tasks[i] for i in places] for name, places in todo.items()}

    def _begin_first(self, sources: Mapping[str, ImageSource], decides: Any, request: Any) -> None:
        if self._is_restarted and self._changed == "fresh":
            self._changed = "refuse"
            with contextlib.suppress(ValueError):
                return super().begin(sources, decides, request)
            self._changed = "fresh"
        return super().begin(sources, decides, request)

    def _find_plan(self) -> None:
        where = f"rank {self._ranks.rank} on {self._ranks.hosts[self._ranks.rank]}"
        _wait_for_file(self.path / "plan.json", f"{where} does not see it, and rank 0 has written it")

    def read(
        self,
        side: str,
        source: ImageSource,
        extractor: FeatureExtractor,
        metrics: Mapping[str, Metric],
        accumulators: Accumulators | RowsAfter,
        *,
        max_errors: int | None,
        progress: Any,
        **options: Any,
    ) -> Report:
        """Read a side on rank 0; do tasks of it on the others. See :meth:`RunDirectory.read`.

        Raises
        ------
        Over
            On the others: this was the last side.
        RankFailed
            Another rank cannot go on.
        """
        if self._ranks.rank == 0:
            options = {"max_errors": max_errors, "progress": progress, **options}
            return super().read(side, source, extractor, metrics, accumulators, **options)
        work = Work(source, extractor, metrics, {"max_errors": max_errors, **options})
        for place, task in self._tickets.of_this_rank(side):
            if not self.file_of(task).exists():
                self.keep(task, work(task))
            self._tickets.give_back(side, place)
        if side == list(self.plan.sides)[-1]:
            raise Over
        return Report()


class Tickets:
    """The engine of the ranks: each takes the next task of a list, which all have."""

    def __init__(self, ranks: Ranks, file_of: Callable[[Task], Place]):
        self.todo: dict[str, list[Task]] = {}
        self._ranks = ranks
        self._file_of = file_of

    def of_this_rank(self, side: str) -> Iterator[tuple[int, Task]]:
        """Yield place and task of each ticket that this rank draws, until there are none, or the run is over."""
        tasks = self.todo.get(side, [])
        while not self._ranks.is_over():
            place = self._ranks.count(f"ticket/{side}", 1) - 1
            if place >= len(tasks):
                return
            self._ranks.tell(f"taken/{side}/{place}", self._ranks.rank)
            yield place, tasks[place]

    def give_back(self, side: str, place: int) -> None:
        """Say that the Part of a ticket's task is in the run directory."""
        self._ranks.tell(f"done/{side}/{self._ranks.count(f'done/{side}', 1)}", place)

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[tuple[Task, Part | None]]:
        """Do tasks on rank 0, and yield those of all ranks. RankFailed if another rank cannot go on."""
        missing = {task.key for task in tasks}
        if not missing:
            return
        side, mine = tasks[0].side, set()
        for place, task in self.of_this_rank(side):
            self._ranks.check()
            mine.add(place)
            if task.key in missing:
                yield task, work(task)
        waiting = {
            place: task for place, task in enumerate(self.todo[side]) if task.key in missing and place not in mine
        }
        for place in [place for place, task in waiting.items() if self._file_of(task).exists()]:
            yield waiting.pop(place), None
        read, pause = 0, _POLL_S
        while waiting:
            self._ranks.check()
            done = self._ranks.heard(f"done/{side}/{read + 1}")
            if done is not None:
                read, pause = read + 1, _POLL_S
                if done in waiting:
                    task = waiting.pop(done)
                    _wait_for_file(self._file_of(task), "another rank has written it, and rank 0 does not see it")
                    yield task, None
                continue
            for place, task in waiting.items():
                rank = self._ranks.heard(f"taken/{side}/{place}")
                # A rank that died after it drew the ticket has not said that it did.
                for one in range(1, self._ranks.size) if rank is None else [rank]:
                    self._ranks.check_alive(one, f"; {task} of {side} are not done")
            time.sleep(pause)
            pause = min(0.25, pause * 1.2)


def _wait_for_file(path: Place, why_not: str) -> None:
    """Wait until a file is seen that another process says it has written; ValueError if it stays away."""
    end = time.monotonic() + _VISIBLE_S
    while not path.exists():
        if time.monotonic() > end:
            raise ValueError(f"{path}: {why_not}: all ranks need one --run-dir on a file system that they share")
        if isinstance(path, Path):
            with contextlib.suppress(OSError):
                os.listdir(path.parent)  # asks a network file system for its present state
        time.sleep(_POLL_S)
