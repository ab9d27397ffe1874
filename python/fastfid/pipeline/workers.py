"""Threads that apply a function to tasks. The end of the process does not wait for these threads."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

__all__ = ["Workers"]

Task = TypeVar("Task")
Result = TypeVar("Result")

# Seconds that the threads have to finish their current task when the pipeline ends early.
_GRACE_S = 5.0


class Workers(Generic[Task, Result]):
    """Threads that apply a function to tasks.

    concurrent.futures is not used, because its threads keep the process alive until they finish: after Ctrl-C, reading
    a picture on a hanging network drive would block the process. These threads are daemon threads, and the pipeline
    waits only a few seconds for them.
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
        """Append a task to the queue. The future holds the result or the exception of the function."""
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
            del entry, task, future  # release the image while waiting for the next task
