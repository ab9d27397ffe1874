"""Calls in daemon threads that must finish before the interpreter ends.

Up to Python 3.13, a daemon thread that requests the GIL while the interpreter ends is ended inside the call by
pthread_exit(). This aborts the process if a C++ library makes the call in a destructor, as ONNX Runtime does. The core
of fastfid stops such threads itself (csrc/bindings/gil.hpp).
"""

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator

__all__ = ["awaited"]

# In seconds. A run of the network takes tenths of a second. The limit keeps a hanging driver from blocking the process.
_PATIENCE_S = 30.0


class _Gate:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_closed = False

    def enter(self) -> None:
        with self._changed:
            while self._is_closed:
                self._changed.wait()  # waits for ever: the process is about to end
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: self._inside == 0, _PATIENCE_S)


_gate = _Gate()


def _reset() -> None:
    global _gate
    _gate = _Gate()  # the threads inside the gate do not exist in the child


os.register_at_fork(after_in_child=_reset)
# At this point other threads can still run. Later, they cannot take the GIL any more.
atexit.register(lambda: _gate.close())


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """Delay the end of the interpreter until this block ends, by at most 30 seconds, if a daemon thread runs the block.

    A daemon thread that enters the block while the interpreter ends waits for ever. For other threads the block does
    nothing: the interpreter joins them before it ends.
    """
    if not threading.current_thread().daemon:
        yield
        return
    gate = _gate
    gate.enter()
    try:
        yield
    finally:
        gate.leave()
