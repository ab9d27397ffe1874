"""What is said on stderr beside results: one line at a time, with names from files made harmless, and warnings."""

import re
import sys
import threading
import warnings

__all__ = ["about", "escaped", "is_terminal", "remark", "say", "set_quiet", "show_warning", "warn"]

_quiet = False
_about = threading.local()  # .name: the picture that this thread decodes


def set_quiet(quiet: bool) -> None:
    """Choose whether :func:`remark` is silent, as ``--quiet`` asks."""
    global _quiet
    _quiet = quiet


def escaped(text: str) -> str:
    r"""Return `text` with its control characters as ``\xNN``.

    A name in an archive must neither drive the terminal nor write a line of its own. csrc/host/crash.cpp does the same.
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def say(text: str, *steps: str) -> None:
    """Print one line on stderr: ``fastfid: text``. Each of `steps`, our own words, gets a line of its own after it."""
    lines = [f"fastfid: {escaped(text)}", *steps]
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        # A stderr that is closed, full, or no file at all is no reason to lose the result.
        return


def remark(text: str) -> None:
    """Say something that ``--quiet`` silences."""
    if not _quiet:
        say(text)


def is_terminal(stream: object) -> bool:
    """Whether `stream` is a terminal; False for None and for objects that stand in for a file."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """Issue a warning (default: a FastfidWarning) at the line outside of this package that called the package.

    In a thread of this package's own there is no such line, and Python's own, where threads begin, is named.
    """
    from fastfid.errors import FastfidWarning  # loads the core, which --help does not need

    category = category or FastfidWarning
    level = 2
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fastfid":
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


class about:  # noqa: N801 - read as a verb: with about(name)
    """Name the picture that the calling thread decodes; :func:`show_warning` puts the name before what Pillow says."""

    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        _about.name = self._name

    def __exit__(self, *exc: object) -> None:
        _about.name = None


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Say a warning as one line; stands in for ``warnings.showwarning`` on the command line."""
    from fastfid.errors import FastfidWarning

    name = None if issubclass(category, FastfidWarning) else getattr(_about, "name", None)
    say(f"{name}: {message}" if name else str(message))
