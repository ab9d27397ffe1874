"""SIGINT and SIGTERM end a run in order: workers end, temporary files go, the exit code says why."""

import os
import signal
import threading
import time
from typing import Any

__all__ = ["Signals"]


class _Interrupted(KeyboardInterrupt):
    """What a signal raises.

    Python remembers a bare KeyboardInterrupt that ends an exec() of a string, as namedtuple and dataclass have them,
    however it is caught later: `python -m fastfid` would end by the signal and not with its exit code. The interpreter
    does not take a subclass for one.
    """


class Signals:
    """SIGINT and SIGTERM end the block, and are remembered.

    An exception raised inside an import can come out as that module's own ImportError, so what ended the run is asked
    of this object and not of the exception.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: object) -> None:
        if self.received is not None:
            # A second one at once (a shell and its `timeout` both send one) must not cut the tidying short. A later
            # one means that waiting has lasted long enough.
            if time.monotonic() - self._at > 1:
                os._exit(128 + self.received)
            return
        self.received = number
        self._at = time.monotonic()
        # Both unwind: workers end, temporary files go.
        raise _Interrupted

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
