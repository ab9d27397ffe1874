"""Calls in daemon threads that the end of the interpreter waits for.

Up to Python 3.13 a daemon thread that asks for the GIL while the interpreter ends is ended inside the call by
pthread_exit(), which aborts the process where a C++ library has that call in a destructor, as ONNX Runtime has. Our own
core stops such threads itself (csrc/bindings/gil.hpp).
"""

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator

__all__ = ["awaited"]

# Seconds: a run of the network takes tenths of one, and the process must not hang behind a driver that does.
_PATIENCE_S = 30.0


class _Gate:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_closed = False

    def enter(self) -> None:
        with self._changed:
            while self._is_closed:
                self._changed.wait()  # for ever: the process is about to end
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
    _gate = _Gate()  # the threads that were inside are not in the child


os.register_at_fork(after_in_child=_reset)
# Other threads still run then; later the interpreter gives them the GIL no more.
atexit.register(lambda: _gate.close())


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """Let the interpreter end only after this block, at most half a minute later, where a daemon thread runs it.

    One that comes when the interpreter is ending waits for ever. Other threads are joined before, or end it themselves.
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
