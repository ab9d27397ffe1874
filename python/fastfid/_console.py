"""Messages and warnings on stderr: one line per message, with control characters in file names escaped."""

import re
import sys
import threading
import warnings

__all__ = ["about", "escaped", "is_terminal", "remark", "say", "set_quiet", "show_warning", "warn"]

_quiet = False
_about = threading.local()  # .name: name of the picture that this thread decodes


def set_quiet(quiet: bool) -> None:
    """Set whether :func:`remark` prints nothing, for ``--quiet``."""
    global _quiet
    _quiet = quiet


def escaped(text: str) -> str:
    r"""Return `text` with its control characters as ``\xNN``.

    A name in an archive must neither control the terminal nor start a new line. csrc/host/crash.cpp escapes names in
    the same way.
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def say(text: str, *steps: str) -> None:
    """Print ``fastfid: text`` as one line on stderr, then each of `steps` as a line. `steps` are not escaped."""
    lines = [f"fastfid: {escaped(text)}", *steps]
    try:
        print("\n".join(lines), file=sys.stderr, flush=True)
    except (OSError, ValueError, AttributeError):
        # stderr is closed, full, or not a file. The result must not be lost for this reason.
        return


def remark(text: str) -> None:
    """Print a line that ``--quiet`` silences."""
    if not _quiet:
        say(text)


def is_terminal(stream: object) -> bool:
    """Return whether `stream` is a terminal; False for None and for file-like objects without ``isatty``."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False


def warn(message: str | Warning, category: type[Warning] | None = None) -> None:
    """Issue a warning (default: a FastfidWarning) at the line outside of this package that called the package.

    In a thread started by this package, the warning names the line of Python's threading module that starts threads.
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
    """Set the name of the picture that the calling thread decodes. :func:`show_warning` puts it before warnings."""

    def __init__(self, name: str):
        self._name = name

    def __enter__(self) -> None:
        _about.name = self._name

    def __exit__(self, *exc: object) -> None:
        _about.name = None


def show_warning(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
    """Print a warning as one line. The command line uses this function as ``warnings.showwarning``."""
    from fastfid.errors import FastfidWarning

    name = None if issubclass(category, FastfidWarning) else getattr(_about, "name", None)
    say(f"{name}: {message}" if name else str(message))
