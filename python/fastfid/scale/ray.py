"""Tasks on a Ray cluster: actors do them, and the driver notices whatever happens to an actor.

Only this file and ray_actors.py import Ray, and only when an engine is connected. The driver gives each actor one task
at a time, and a second one to go on with. Ray's own retries are not used: they are unbounded by default, know no task
by name, and do not notice a worker that hangs.
"""

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from fastfid._checks import check_at_least
from fastfid._console import remark
from fastfid.extractor import FeatureExtractor
from fastfid.scale.engine import Work
from fastfid.scale.part import Part
from fastfid.scale.plan import Task
from fastfid.scale.ray_actors import Witness, Worker, versions

__all__ = ["STALL_TIMEOUT_S", "RayEngine"]

STALL_TIMEOUT_S = 600.0
# A cluster that grows may need this long for its first machine.
_START_TIMEOUT_S = 1800.0
# How often a task is done again whose worker died or stalled, or that failed for a reason that may pass.
_RETRIES = 3
# Seconds before a task that failed with an OSError is done again: times four each time.
_DELAY_S = 0.5
# Seconds between two questions of how far an actor is, and the longest wait for anything.
_PERIOD_S = 1.0
# Seconds without any worker after which a remark says what is waited for.
_PATIENCE_S = 15.0
# Seconds in which the address of a cluster must answer.
_ANSWER_S = 10.0
# An actor has a task to go on with while the driver deals with the Part of the one before.
_IN_FLIGHT = 2
# Answers questions while a task is done.
_WATCH = "watch"


class RayEngine:
    """Does tasks on a Ray cluster. The bits do not depend on the number of workers, nor on what is killed.

    Parameters
    ----------
    workers : int or (int, int), optional
        Number of actors; or the fewest and the most, for a cluster that grows. The most are asked for while there are
        tasks. Default: one for each GPU of the cluster, or one for each machine if there is none.
    address : str, optional
        Address of the cluster, as "auto"; see ``ray.init``. Default: the one that Ray is connected to, or that
        RAY_ADDRESS names, or else Ray is started on this machine.
    threads : int, optional
        Threads of an actor, and CPUs that it asks Ray for. Default: so many that the fewest workers fill the cluster.
    stall_timeout : float
        Seconds after which a worker that has finished no image counts as stalled: it is ended, and its task done again.
    start_timeout : float
        Seconds in which there is not one worker, after which this is an error.

    Attributes
    ----------
    name : str
    workers : int
        The most workers.
    at_work : int
        The most workers that were there at once.
    retries : int
        How often a task was done again.

    Raises
    ------
    ImportError
        Ray is not installed.
    ValueError, TypeError
        An argument is invalid.
    """

    name = "ray"

    def __init__(
        self,
        workers: int | tuple[int, int] | None = None,
        *,
        address: str | None = None,
        threads: int | None = None,
        stall_timeout: float = STALL_TIMEOUT_S,
        start_timeout: float = _START_TIMEOUT_S,
    ):
        _check_installed()
        self._bounds = None if workers is None else _bounds(workers)
        if threads is not None:
            check_at_least("threads", threads, 1)
        for name, value in (("stall_timeout", stall_timeout), ("start_timeout", start_timeout)):
            if not value > 0:
                raise ValueError(f"{name}: expected a positive number of seconds, got {value!r}")
        self.retries = self.at_work = 0
        self._address = address
        self._threads = threads
        self.stall_timeout = stall_timeout
        self.start_timeout = start_timeout
        self._ray: Any = None
        self._is_ours = False  # whether Ray was started or connected to by this engine
        self._pool: list[_Member] = []
        self._networks: dict[int, tuple[FeatureExtractor, Any]] = {}  # by id, with the object in Ray's store
        self._witness: Any = None
        self.failed_starts = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def workers(self) -> int:
        """The most workers. Connects to Ray where the default is wanted."""
        return self.bounds()[1]

    def bounds(self) -> tuple[int, int]:
        """Return the fewest and the most workers."""
        if self._bounds is None:
            nodes = self._nodes()
            gpus = sum(int(node.get("GPU", 0)) for node in nodes)
            number = gpus or max(1, sum(node.get("CPU", 0) >= 1 for node in nodes))
            self._bounds = number, number
        return self._bounds

    def connect(self) -> Any:
        """Connect to the cluster, or start Ray on this machine. Return the module.

        Raises
        ------
        ConnectionError
            There is no cluster at the address.
        """
        if self._ray is not None:
            return self._ray
        ray = importlib.import_module("ray")
        if not ray.is_initialized():
            self._init(ray)
            self._is_ours = True
        self._ray = ray
        return ray

    def _init(self, ray: Any) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing goes to others unless the user wants it
        address = self._address or os.environ.get("RAY_ADDRESS")
        # Without an address, Ray would join whatever cluster was started last on this machine.
        options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
        if address:
            _check_reachable(address)
        is_main = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGTERM) if is_main else None
        logger = logging.getLogger("ray")
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            ray.init(**options, log_to_driver=False, configure_logging=False)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConnectionError(f"engine ray: {address or 'this machine'}: {_first_line(error)}") from None
        finally:
            logger.setLevel(level)
            if handler is not None:
                signal.signal(signal.SIGTERM, handler)  # Ray's own would end the process with another code

    def close(self) -> None:
        """End the actors, and Ray where this engine has started it."""
        ray, self._ray = self._ray, None
        if ray is None:
            return
        self._networks.clear()
        for member in self._pool:
            with contextlib.suppress(Exception):  # Ray may have been ended before
                ray.kill(member.handle, no_restart=True)
        self._pool.clear()
        self._witness = None
        if self._is_ours:
            with contextlib.suppress(Exception):
                ray.shutdown()
            self._is_ours = False

    def run(self, tasks: Sequence[Task], work: Work) -> Iterator[tuple[Task, Part | None]]:
        """Do the tasks and yield each with its Part, as they are done.

        Raises
        ------
        RuntimeError
            A task has ended its worker, or stalled it, four times; or workers cannot be started.
        Others
            Errors of a task, as one process raises them.
        """
        if tasks:
            yield from _Round(self, tasks, work)

    # What a round needs.

    @property
    def pool(self) -> "list[_Member]":
        """The actors that were started and have not been given up."""
        return self._pool

    def parcel(self, work: Work) -> list[Any]:
        """Put what a task needs into Ray's object store, and return its references. A network is put there once."""
        ray = self.connect()
        key = id(work.extractor)
        if key not in self._networks:
            self._networks[key] = work.extractor, ray.put(ray.cloudpickle.dumps(work.extractor))
        return [self._networks[key][1], ray.put(ray.cloudpickle.dumps((work.source, work.metrics, work.options)))]

    def demand(self, extractor: FeatureExtractor) -> dict[str, float]:
        """Return what an actor asks Ray for."""
        gpus = 1 if extractor.device.startswith("cuda") else 0
        if self._threads is not None:
            return {"num_cpus": self._threads, "num_gpus": gpus}
        nodes, fewest = self._nodes(), self.bounds()[0]
        most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
        for cpus in range(most, 1, -1):
            rooms = (min(node.get("CPU", 0) // cpus, node.get("GPU", 0) if gpus else cpus * most) for node in nodes)
            if sum(rooms) >= fewest:
                return {"num_cpus": cpus, "num_gpus": gpus}
        return {"num_cpus": 1, "num_gpus": gpus}

    def start(self, demand: Mapping[str, float]) -> None:
        """Start an actor. It waits until the cluster has room."""
        from PIL import Image

        ray = self.connect()
        actor = ray.remote(max_restarts=0, max_task_retries=0, concurrency_groups={_WATCH: 1}, **demand)(Worker)
        handle = actor.remote(os.getcwd(), int(demand["num_cpus"]), Image.MAX_IMAGE_PIXELS)
        hello = handle.hello.options(concurrency_group=_WATCH).remote()
        self._pool.append(_Member(handle, hello, dict(demand)))

    def end(self, member: "_Member") -> None:
        """End an actor that is dead, or of no use."""
        self._pool.remove(member)
        with contextlib.suppress(Exception):  # it is dead already
            self.connect().kill(member.handle, no_restart=True)

    def witness(self) -> Any:
        """Return the actor that remembers, for tasks that ended a worker, which image was begun last.

        It is on the driver's machine: those of the workers may be lost.
        """
        if self._witness is None:
            ray = self.connect()
            here = importlib.import_module("ray.util.scheduling_strategies").NodeAffinitySchedulingStrategy(
                ray.get_runtime_context().get_node_id(), soft=True
            )
            witness = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(Witness)
            self._witness = witness.remote()
        return self._witness

    def room(self) -> str:
        """Say what the cluster has."""
        found = [f"{node.get('CPU', 0):g} CPUs and {node.get('GPU', 0):g} GPUs" for node in self._nodes()]
        return "; ".join(f"{many} x {what}" for what, many in Counter(found).items()) or "no machine"

    def _nodes(self) -> list[Mapping[str, float]]:
        return [node["Resources"] for node in self.connect().nodes() if node["Alive"]]


def _bounds(workers: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(workers, int):
        check_at_least("workers", workers, 1)
        return workers, workers
    try:
        fewest, most = workers
    except (TypeError, ValueError):
        raise TypeError(f"workers: expected a number, or the fewest and the most; got {workers!r}") from None
    check_at_least("workers", fewest, 1)
    check_at_least("workers", most, fewest)
    return fewest, most


def _check_installed() -> None:
    """Raise ImportError unless Ray is installed. A folder called ray, as Ray leaves one in /tmp, is no package."""
    found = importlib.util.find_spec("ray")
    if found is None or found.origin is None:
        raise ImportError(
            "engine ray: needs Ray, which is not installed: pip install '.[ray]' in fastfid's source folder"
        )


def _check_reachable(address: str) -> None:
    """Raise ConnectionError where nothing listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if "://" in address or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(f"engine ray: {address}: there is no cluster ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@dataclass(eq=False)
class _Member:
    """An actor as the driver sees it."""

    handle: Any
    hello: Any  # the reference of its first answer; None: it has answered
    demand: dict[str, float]
    where: str = ""
    doing: list[tuple[Any, Task]] = field(default_factory=list)  # references and tasks, in the order of being done
    question: Any = None  # the reference of an answer that is waited for
    asked_at: float = 0.0
    images: int = -1
    changed_at: float = 0.0


class _Clock:
    """Seconds in which the driver could have taken an answer: those in which it did other things do not count."""

    def __init__(self) -> None:
        self.now = 0.0
        self._last = time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        self.now += min(now - self._last, 2 * _PERIOD_S)
        self._last = now


class _Round:
    """The tasks of one side on the actors of an engine."""

    def __init__(self, engine: RayEngine, tasks: Sequence[Task], work: Work):
        self._engine = engine
        self._ray = engine.connect()
        self._name = work.source.name
        self._parcel = engine.parcel(work)
        self._demand = engine.demand(work.extractor)
        self._waiting = deque(tasks)
        self._left = len(tasks)
        self._tries: Counter[str] = Counter()
        self._not_before: dict[str, float] = {}
        self._is_careful: set[str] = set()
        self._clock = _Clock()
        self._alone_since = 0.0
        self._has_said = False

    def __iter__(self) -> Iterator[tuple[Task, Part]]:
        # Those of another network; and those that still do tasks of a round that an error has ended.
        for member in [one for one in self._engine.pool if one.doing or one.demand != self._demand]:
            self._engine.end(member)
        for member in self._engine.pool:
            member.asked_at = member.changed_at = 0.0
        while self._left:
            self._grow()
            self._dispatch()
            for member in self._wait():
                for task, part in self._take(member):
                    self._left -= 1
                    yield task, part
            self._look()

    def _grow(self) -> None:
        """Start actors up to the wanted number, or end idle ones where tasks run out."""
        pool, (fewest, most) = self._engine.pool, self._engine.bounds()
        while len(pool) < min(most, self._left):
            self._engine.start(self._demand)
        spare = [one for one in pool if not one.doing]
        while spare and not self._waiting and len(pool) > max(fewest, self._left):
            self._engine.end(spare.pop())

    def _dispatch(self) -> None:
        ready = [member for member in self._engine.pool if member.hello is None]
        for depth in range(_IN_FLIGHT):
            if depth and len(self._waiting) < len(ready):
                return  # the last tasks go to whoever is idle first
            for member in ready:
                if len(member.doing) == depth and (task := self._next()) is not None:
                    self._give(member, task)

    def _next(self) -> Task | None:
        for place, task in enumerate(self._waiting):
            if self._not_before.get(task.key, 0.0) <= time.monotonic():
                del self._waiting[place]
                return task
        return None

    def _give(self, member: _Member, task: Task) -> None:
        if not member.doing:
            member.changed_at = self._clock.now
        witness = self._engine.witness() if task.key in self._is_careful else None
        member.doing.append((member.handle.do.remote(task, self._parcel, witness), task))

    def _wait(self) -> list[_Member]:
        """Wait for any answer, and return the actors that have given one."""
        waited: dict[Any, _Member] = {}
        for member in self._engine.pool:
            self._ask(member)
            first = [reference for reference, _ in member.doing[:1]]
            waited |= dict.fromkeys([x for x in (member.hello, member.question, *first) if x is not None], member)
        references = list(waited)
        found, _ = self._ray.wait(references, num_returns=1, timeout=_PERIOD_S)
        if found:
            found, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        self._clock.tick()
        return list(dict.fromkeys(waited[reference] for reference in found))

    def _ask(self, member: _Member) -> None:
        """Ask a busy actor how far it is, from time to time."""
        if member.doing and member.question is None and self._clock.now - member.asked_at >= _PERIOD_S:
            member.question = member.handle.images.options(concurrency_group=_WATCH).remote()
            member.asked_at = self._clock.now

    def _take(self, member: _Member) -> Iterator[tuple[Task, Part]]:
        """Take what an actor has answered."""
        if member.hello is not None:
            self._greet(member)
            return
        if member.question is not None and self._is_ready(member.question):
            with contextlib.suppress(self._ray.exceptions.RayError):  # its task says so too
                images = self._ray.get(member.question)
                if images != member.images:
                    member.images, member.changed_at = images, self._clock.now
            member.question = None
        while member.doing and self._is_ready(member.doing[0][0]):
            reference, task = member.doing[0]
            try:
                part, error = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as wrapped:  # what was sent cannot be unpacked there
                raise RuntimeError(f"engine ray: {member.where}: {_first_line(wrapped.cause)}") from None
            except self._ray.exceptions.RayError as lost:
                self._lose(member, self._why(lost))
                return
            member.doing.pop(0)
            member.changed_at = self._clock.now
            if error is None:
                yield task, part
            else:
                self._fail(task, error)

    def _is_ready(self, reference: Any) -> bool:
        return bool(self._ray.wait([reference], timeout=0)[0])

    def _greet(self, member: _Member) -> None:
        """Take the first answer of an actor."""
        engine = self._engine
        try:
            pid, host, there = self._ray.get(member.hello)
        except self._ray.exceptions.RayError as error:
            engine.end(member)
            engine.failed_starts += 1
            if engine.failed_starts > _RETRIES:
                raise RuntimeError(
                    f"engine ray: {engine.failed_starts} workers ended before they had begun: {self._why(error)}"
                ) from None
            return
        here = versions()
        differs = [f"{name} {there.get(name)}" for name in here if there.get(name) != here[name]]
        if differs:
            raise RuntimeError(
                f"engine ray: {host} has {', '.join(differs)}, this machine"
                f" {', '.join(str(here[one.split()[0]]) for one in differs)}: install the same versions"
            )
        member.hello, member.where = None, f"process {pid} on {host}"
        engine.failed_starts = 0
        engine.at_work = max(engine.at_work, sum(one.hello is None for one in engine.pool))

    def _why(self, error: BaseException) -> str:
        """Return why an actor is gone, as far as Ray knows."""
        kinds = self._ray.exceptions
        if isinstance(error, kinds.OutOfMemoryError):
            return "Ray ended it, as the machine ran out of memory"
        cause = getattr(error, "cause", None)
        text = _text_of(error)
        if cause is not None:
            return f"{type(cause).__name__}: {_first_line(cause)}"
        if "node has died" in text or "node was terminated" in text:
            return "its machine is gone"
        if "error code 2" in text:
            return "its process died, by a signal or a crash"
        reasons = [
            line for line in text.splitlines() if line.startswith(("The actor is dead", "The actor died because"))
        ]
        return reasons[0].strip() if reasons else _first_line(error)

    def _lose(self, member: _Member, why: str) -> None:
        """Give up an actor, and have its tasks done by others."""
        self._engine.end(member)
        (_, first), *rest = member.doing
        self._waiting.extendleft(task for _, task in reversed(rest))
        tries = self._count(first)
        last = None
        if first.key in self._is_careful:
            with contextlib.suppress(self._ray.exceptions.RayError):
                last = self._ray.get(self._engine.witness().last.remote(first.key), timeout=_PATIENCE_S)
        image = f"; the last image begun was {last}" if last else ""
        if tries > _RETRIES:
            raise RuntimeError(
                f"{self._name}: {first} ended the worker that read them, {tries} times, last {member.where}:"
                f" {why}{image}"
            )
        remark(f"{self._name}: {first} are read again, as the worker is lost, {member.where}: {why}{image}")
        self._is_careful.add(first.key)
        self._waiting.appendleft(first)

    def _fail(self, task: Task, error: Exception) -> None:
        """Raise the error of a task, or have the task done again if the reason may pass."""
        if not isinstance(error, OSError):
            raise error
        tries = self._count(task)
        if tries > _RETRIES:
            raise error
        remark(f"{self._name}: {task} are read again: {error}")
        self._not_before[task.key] = time.monotonic() + _DELAY_S * 4 ** (tries - 1)
        self._waiting.appendleft(task)

    def _count(self, task: Task) -> int:
        self._tries[task.key] += 1
        tries = self._tries[task.key]
        self._engine.retries += tries <= _RETRIES
        return tries

    def _look(self) -> None:
        """Give up actors that stall; and say so where there is no actor at all."""
        limit, now = self._engine.stall_timeout, self._clock.now
        for member in [one for one in self._engine.pool if one.doing and now - one.changed_at > limit]:
            self._lose(member, f"no image was finished for {limit:g} s")
        self._wait_for_one()

    def _wait_for_one(self) -> None:
        """Say so where there is no worker at all, and raise an error if this lasts."""
        engine, now = self._engine, self._clock.now
        if any(member.hello is None for member in engine.pool):
            self._alone_since = now
            return
        alone, limit = now - self._alone_since, engine.start_timeout
        if alone <= min(limit, _PATIENCE_S):
            return
        asks = f"a worker asks for {self._demand['num_cpus']:g} CPUs and {self._demand['num_gpus']:g} GPUs"
        if alone > limit:
            raise RuntimeError(
                f"engine ray: no worker has started in {limit:g} s: {asks}; the cluster has {engine.room()}"
            )
        if not self._has_said:
            self._has_said = True
            remark(f"engine ray: waits for a worker: {asks}; the cluster has {engine.room()}")


def _text_of(error: BaseException) -> str:
    return f"{error} {getattr(error, 'error_msg', '')}"
