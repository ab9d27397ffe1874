"""Threads that apply a function to tasks, and that nothing waits for."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Workers"]

Task = TypeVar("Task")
Result = TypeVar("Result")

# Seconds that the threads get to finish the task they are at when the pipeline is left early.
_GRACE_S = 5.0


class Workers(Generic[Task, Result]):
    """Threads that apply a function to tasks.

    Not concurrent.futures: its threads keep a process alive until they are done, so that a picture on a hanging network
    drive would outlive Ctrl-C. These are daemons, and are given a moment to finish.
    """

    def __init__(self, name: str, number: int, function: Callable[[Task], Result]):
        self._tasks: queue.SimpleQueue[tuple[Task, Future[Result]] | None] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._function = function
        self._threads = [
            threading.Thread(target=self._work, name=f"fastfid-{name}-{i}", daemon=True) for i in range(number)
        ]

    def __enter__(self) -> "Workers[Task, Result]":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stopped.set()
        for _ in self._threads:
            self._tasks.put(None)
        deadline = time.monotonic() + _GRACE_S
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def submit(self, task: Task) -> Future[Result]:
        """Put a task at the end of the queue; the future has what the function returns or raises."""
        future: Future[Result] = Future()
        self._tasks.put((task, future))
        return future

    def _work(self) -> None:
        while (entry := self._tasks.get()) is not None and not self._stopped.is_set():
            task, future = entry
            try:
                future.set_result(self._function(task))
            except BaseException as error:
                future.set_exception(error)
            del entry, task, future  # waiting for the next task, hold no image
