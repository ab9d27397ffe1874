"""Progress on stderr: a bar on a terminal, lines in a log."""

import sys
import time
from types import TracebackType
from typing import Literal, Protocol, Self

from fastfid._console import is_terminal, say

__all__ = ["Progress", "ProgressMode", "check_progress", "show_progress"]

ProgressMode = bool | Literal["auto", "lines"]

# Seconds between two progress lines.
INTERVAL_S = 30.0


class Progress(Protocol):
    """An object that displays progress."""

    def update(self, n: int) -> object:
        """Add `n` to the count."""

    def set_description(self, description: str) -> object:
        """Set the description of the counted items."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> object: ...


def check_progress(progress: ProgressMode) -> None:
    """Raise ValueError unless `progress` is True, False, "auto" or "lines"."""
    if not isinstance(progress, bool) and progress not in ("auto", "lines"):
        raise ValueError(f"progress: expected True, False, 'auto' or 'lines'; got {progress!r}")


def show_progress(
    total: int | None, progress: ProgressMode, description: str, unit: str = "img", *, scale: bool = False
) -> Progress:
    """Return an object that displays the progress towards `total`.

    Parameters
    ----------
    total : int or None
        Number of items; None if it is not known.
    progress : bool or str
        True: a bar. "auto": a bar if stderr is a terminal, else nothing. "lines": a bar if stderr is a terminal, else
        a line every 30 seconds and one at the end.
    description : str
        Description of the counted items.
    unit : str
        Unit of the count.
    scale : bool
        Write numbers as 12k and 3.4M.
    """
    check_progress(progress)
    has_terminal = is_terminal(sys.stderr)
    if progress == "lines" and not has_terminal:
        return _Lines(total, description, unit)
    shown = progress is True or (progress is not False and has_terminal)
    from tqdm import tqdm  # imported here, because computing distances does not need it

    if len(description) > 40:  # keep the end of a path, and leave room for rate and time left
        description = f"...{description[-37:]}"
    bar: Progress = tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=scale,
        disable=not shown or sys.stderr is None,
        file=sys.stderr,
        dynamic_ncols=has_terminal,
    )
    return bar


class _Lines:
    """Prints a progress line at regular intervals."""

    def __init__(self, total: int | None, description: str, unit: str):
        self._total = total
        self._description = description
        self._unit = unit
        self._done = 0
        self._started = self._said = time.monotonic()

    def update(self, n: int) -> None:
        """Add `n` to the count, and print a line if the last line is old enough."""
        self._done += n
        now = time.monotonic()
        if now - self._said >= INTERVAL_S:
            self._said = now
            say(f"{self._description}: {self._so_far(now)}")

    def set_description(self, description: str) -> None:
        """Set the description of the counted items."""
        self._description = description

    def _so_far(self, now: float) -> str:
        rate = self._done / max(now - self._started, 1e-9)
        if self._total is None:
            return f"{self._done:,} {self._unit}, {rate:.1f} {self._unit}/s"
        left = (self._total - self._done) / max(rate, 1e-9)
        share = f"{self._done / max(self._total, 1):.0%}"
        return (
            f"{self._done:,} of {self._total:,} {self._unit} ({share}), {rate:.1f} {self._unit}/s, {_time(left)} left"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Print the total count and time, unless an error ended the work."""
        if kind is None:
            seconds = time.monotonic() - self._started
            say(f"{self._description}: {self._done:,} {self._unit} in {_time(seconds)}")


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
