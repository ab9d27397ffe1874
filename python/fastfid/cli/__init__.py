"""The command line: ``fastfid PATH PATH`` with pytorch-fid's flags, and additional commands.

Only the result is printed on stdout; every other line goes to stderr. Exit codes: 0 success; 1 an error, with one
sentence on stderr; 2 wrong usage; 130 Ctrl-C; 143 SIGTERM. Modules that load slowly are imported inside the functions
that need them, so that ``--help`` is fast.
"""

import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from fastfid import _console
from fastfid._console import say
from fastfid.cli.commands import run_command
from fastfid.cli.launch import launched
from fastfid.cli.signals import Signals

__all__ = ["main", "run"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    # A closed stream is None, and print(file=None) would print errors on stdout.
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    with Signals() as signals, warnings.catch_warnings():
        try:
            launch = launched()
            if launch is None:
                code = run_command(argv)
            else:
                from fastfid.cli import ranks  # loads what the command line of one process does not need

                code = ranks.run_as_rank(argv, launch)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # The reader of stdout has closed the pipe. Without this, Python would report the error again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (KeyboardInterrupt, OSError, ValueError, RuntimeError, ImportError, MemoryError, TypeError) as error:
            if signals.received is not None or isinstance(error, KeyboardInterrupt):
                number = signals.received or signal.SIGINT
                say("interrupted" if number == signal.SIGINT else "terminated")
                return 128 + number
            if os.environ.get("FASTFID_TRACEBACK"):
                raise
            say(f"error: {_sentence(error)}", *_steps(error))
            return 1
        finally:
            _console.set_quiet(False)


def run() -> NoReturn:
    """Run the process's command line and end the process. This is the entry point of the command ``fastfid``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # for "Fréchet" and file names on ASCII terminals
    code = main()
    if code > 128:
        # Interrupted, and the cleanup is done. Python's shutdown is slow, and a signal would change the exit code.
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
    try:
        sys.stderr.flush()
    except OSError:  # closed or full; Python would flush again at exit, and exit with another code
        sys.stderr = io.StringIO()
    sys.exit(code)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return str(error) or "out of memory"
    if _steps(error):
        return str(error.args[0])
    return str(error) or type(error).__name__


def _steps(error: BaseException) -> Sequence[str]:
    """Return the lines that state how to resolve the error."""
    from fastfid.errors import WeightsError

    return error.args[1:] if isinstance(error, WeightsError) else ()
