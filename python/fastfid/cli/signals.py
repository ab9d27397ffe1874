"""Handling of SIGINT and SIGTERM: workers are stopped, temporary files are removed, the exit code names the signal."""

import os
import signal
import sys
import threading
import time
from typing import Any

__all__ = ["Signals"]


class _Interrupted(KeyboardInterrupt):
    """The exception that a signal raises.

    Python records a KeyboardInterrupt that ends an exec() of a string, which namedtuple and dataclass use, even if it
    is caught later. `python -m fastfid` would then be killed by the signal instead of returning the exit code. Python
    does not record subclasses of KeyboardInterrupt.
    """


class Signals:
    """Context manager in which SIGINT and SIGTERM end the block. `received` holds the number of the signal.

    An exception raised during an import can be replaced by an ImportError of the imported module. Therefore the cause
    of the end of a run is read from this object and not from the exception.

    Python drops an exception that is raised in a ``__del__`` or in a callback of a weak reference, which imports have.
    The signal is then sent again.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def _handle(self, number: int, frame: object) -> None:
        if self.received is not None:
            # An immediate second signal (a shell and its `timeout` both send one) must not interrupt the cleanup. A
            # later signal means that the user does not want to wait any longer.
            if time.monotonic() - self._at > 1:
                os._exit(128 + self.received)
            return
        self.received = number
        self._at = time.monotonic()
        # The exception unwinds the stack, which stops workers and removes temporary files.
        raise _Interrupted

    def _dropped(self, found: Any) -> None:
        if not isinstance(found.exc_value, _Interrupted):
            self._hook(found)
            return
        number, self.received = self.received, None
        # Not from here: an exception in this function is dropped too.
        threading.Timer(0.01, os.kill, (os.getpid(), number)).start()

    def __enter__(self) -> "Signals":
        self._hook, sys.unraisablehook = sys.unraisablehook, self._dropped
        if threading.current_thread() is threading.main_thread():  # Python allows handlers only in the main thread
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        sys.unraisablehook = self._hook
        for number, handler in self._before.items():
            signal.signal(number, handler)
