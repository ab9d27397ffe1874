"""The command line: ``fastfid PATH PATH``, pytorch-fid's flags, and a few commands of our own.

stdout carries the answer and nothing else; every other line goes to stderr. Exit codes: 0; 1 with one sentence on
stderr; 2 usage; 130 Ctrl-C; 143 SIGTERM. Heavy imports happen inside the functions that need them, so that ``--help``
is instant.
"""

import argparse
import contextlib
import io
import json
import os
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from fastfid._version import __version__
from fastfid.protocols import PROTOCOLS

__all__ = ["main", "run"]

_DESCRIPTION = """\
Fréchet Inception Distance (FID) of two sets of images. Prints "FID:  <number>".

Takes pytorch-fid's command lines and gives pytorch-fid's numbers. Each PATH is a folder of images, a .zip or .tar, an
.npz with images (arr_0), an .npy, or an .npz with statistics (mu, sigma) written by this or any other tool.
"""

_EPILOG = """\
commands (their names win over paths; write ./stats for a folder called stats):
  fastfid stats SOURCE -o FILE.npz   compute the statistics of one source and keep them
  fastfid weights [show|get|verify]  the Inception weights: where they are, fetch them, check them
  fastfid info                       facts of the build and of this machine
  fastfid demo                       FID of disturbed photographs, as a table and a plot

examples:
  fastfid real/ generated/                       the FID that pytorch-fid prints
  fastfid stats real/ -o real.npz                once
  fastfid real.npz generated.zip --json          then often, with bounds, n and versions
  fastfid real/ generated/ --protocol clean      another preprocessing (see --protocol)

environment:
  FASTFID_WEIGHTS      a weights file to use
  FASTFID_CACHE        folder for the weights (default: fastfid in the user's cache folder)
  FASTFID_NUM_THREADS  threads to compute with, like --threads

exit codes: 0 success, 1 failure (one sentence on stderr), 2 wrong usage, 130 interrupted.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        first = sys.argv[1] if len(sys.argv) > 1 else ""
        hint = ""
        if first in _COMMANDS and os.path.exists(first):
            hint = f" (if you mean the path, write ./{first})"
        self.exit(2, f"{self.prog}: error: {message}{hint}\n")


def _add_source_options(parser: argparse.ArgumentParser) -> None:
    """Options of everything that reads images and runs the network."""
    group = parser.add_argument_group("network")
    group.add_argument(
        "--dims",
        type=int,
        default=2048,
        choices=(64, 192, 768, 2048),
        help="dimensionality of the Inception features: 64 (first max pooling), 192 (second max pooling), 768 "
        "(pre-aux classifier), 2048 (final average pooling); default: 2048. Ignored when both paths are statistics",
    )
    group.add_argument(
        "--device",
        type=_device,
        default="auto",
        help="auto (CUDA if there is any), cpu, cuda or cuda:N; default: auto",
    )
    group.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "tf32", "float16"),
        help="arithmetic of the network; tf32 and float16 need a CUDA device and change the number, see "
        "docs/precision.md; default: float32",
    )
    group.add_argument(
        "--protocol",
        default="pytorch-fid",
        choices=tuple(PROTOCOLS),
        help="preprocessing, which changes the number: pytorch-fid, tensorflow (TTUR, torch-fidelity, ADM), clean "
        "(clean-fid), torchmetrics (>= 1.8), none (no resize); default: pytorch-fid",
    )
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="Inception weights (default: FASTFID_WEIGHTS, the cache, else fetched once)",
    )
    group.add_argument(
        "--batch-size",
        type=_positive,
        default=50,
        help="accepted for compatibility; never changes a number, and on the CPU the network chooses its own batches",
    )
    group.add_argument(
        "--num-workers",
        type=_not_negative,
        help="threads that decode and resize images, 0: none of their own; default: min(8, available CPUs)",
    )
    group.add_argument("--threads", type=_positive, help="threads to compute with; default: the CPUs it may use")

    group = parser.add_argument_group("images")
    group.add_argument("--recursive", action="store_true", help="search sub-folders too")
    group.add_argument("--any-case", action="store_true", help="take upper-case file extensions too")
    group.add_argument("--num", type=_positive, metavar="N", help="use a random subset of N images of each source")
    group.add_argument("--seed", type=int, default=0, help="seed of that subset; default: 0")
    group.add_argument(
        "--alpha",
        action="store_true",
        help="composite on white (default: drop alpha, as pytorch-fid)",
    )
    group.add_argument(
        "--exif",
        action="store_true",
        help="apply the EXIF orientation (default: ignore it, as pytorch-fid)",
    )
    group.add_argument(
        "--max-pixels",
        type=_positive,
        metavar="N",
        help="refuse images that declare more pixels, before they are decoded; default: 89 million",
    )
    group.add_argument(
        "--cache",
        action="store_const",
        const=True,
        default=False,
        help="keep the statistics of folders and archives in the cache, and take them from there when the same files "
        "(path, size, times) come again",
    )
    group.add_argument(
        "--cache-hashes",
        action="store_const",
        const="hashes",
        dest="cache",
        help="the same, but know the files by their content: slower, and holds when files move",
    )
    group.add_argument(
        "--on-error",
        choices=("raise", "skip"),
        default="raise",
        help="what to do with an image that cannot be read; skip goes on with the others and says how many were lost",
    )
    group.add_argument(
        "--max-errors", type=_not_negative, metavar="N", help="with skip: fail once more than N images were lost"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no remarks on stderr; errors only")


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected auto, cpu, cuda or cuda:N, got {text!r}")
    return text


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {value}")
    return value


def _not_negative(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {value}")
    return value


def _fid_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fastfid", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", nargs=2, metavar="PATH", help="the two sets of images, or their statistics (.npz)")
    parser.add_argument(
        "--save-stats",
        action="store_true",
        help="write the statistics of the first path to the second, an .npz file that must not exist yet",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object: fid, bounds, n, protocol, versions, ..."
    )
    parser.add_argument(
        "--uncertainty",
        action="store_true",
        help="estimate the standard error of the FID from 10 groups of each side's images (needs images, not "
        "statistics, and n > d; takes 200 MB a side at 2048 dims); on stderr, or in --json",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="compare what different protocols, networks or precisions made",
    )
    _add_output_options(parser)
    parser.add_argument("--version", action="version", version=f"fastfid {__version__}")
    _add_source_options(parser)
    return parser


def _parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    args = parser.parse_args(argv)
    if args.max_errors is not None and args.on_error != "skip":
        parser.error("--max-errors: needs --on-error skip; without it the first unreadable image is an error")
    return args


def _run_fid(argv: Sequence[str]) -> int:
    parser = _fid_parser()
    args = _parse(parser, argv)
    if args.save_stats:
        for option in ("json", "uncertainty", "force"):
            if getattr(args, option):
                parser.error(f"--{option}: there is no distance with --save-stats")
        return _save_statistics(parser, args, *args.path)
    from fastfid import fid

    for path in args.path:
        _check_exists(path)
    _prepare(args)
    record = fid.compute_fid(
        *args.path, force=args.force, uncertainty=args.uncertainty, return_info=True, **_fid_options(args)
    )
    for side, cached in record["cached"].items():
        if cached:
            _remark(args, f"{record[side]}: statistics from the cache")
    if record["device"] is None:
        _remark(args, _superfluous(parser, args))
    _remark(args, _device_remark(args.device, record["device"]))
    _remark(args, _sample_size_remark(record))
    if args.uncertainty and not args.json:
        _say(_uncertainty_line(record["uncertainty"]))
    if args.json:
        print(json.dumps(record, indent=2, allow_nan=False))
    else:
        print("FID: ", record["fid"])
    return 0


def _run_stats(argv: Sequence[str]) -> int:
    parser = _Parser(
        prog="fastfid stats",
        description="Compute the statistics (mean and covariance of the Inception features) of one source and keep "
        "them as an .npz that fastfid, pytorch-fid and the other tools read.",
    )
    parser.add_argument("source", metavar="SOURCE", help="a folder, .zip, .tar, .npz or .npy with images")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the .npz to write; must not exist yet")
    _add_output_options(parser)
    _add_source_options(parser)
    args = _parse(parser, argv)
    return _save_statistics(parser, args, args.source, args.output)


def _save_statistics(parser: argparse.ArgumentParser, args: argparse.Namespace, source: str, output: str) -> int:
    from fastfid import fid
    from fastfid.sources import is_statistics_file
    from fastfid.statistics import check_writable, npz_path

    if not output:
        raise RuntimeError("the output file has no name")
    _check_exists(source)
    target = npz_path(output)
    for path in (output, target):
        if os.path.lexists(path):
            raise RuntimeError(f"Existing output file: {path}")
    if not target.parent.is_dir():
        raise RuntimeError(f"{target}: there is no folder {target.parent}")
    check_writable(target)
    _prepare(args)
    _remark(args, f"Saving statistics for {source}")
    statistics = fid.compute_statistics(source, **_fid_options(args))
    statistics.save(target)
    if is_statistics_file(source):
        _remark(args, f"{source}: holds statistics already, which were copied")
        _remark(args, _superfluous(parser, args))
    _remark(args, f"{target}: n = {statistics.n}, d = {statistics.d}")
    return 0


def _run_weights(argv: Sequence[str]) -> int:
    parser = _Parser(
        prog="fastfid weights",
        description="The FID Inception weights (Google's Inception, 2015-12-05, Apache-2.0).",
    )
    parser.add_argument(
        "action",
        nargs="?",
        default="show",
        choices=("show", "get", "verify"),
        help="show: where and what they are; get: bring them into the cache, fetched or from "
        "--weights FILE; verify: read them, check every hash, fetch nothing",
    )
    parser.add_argument("--weights", metavar="FILE", help="this file, not FASTFID_WEIGHTS, the cache or the network")
    args = parser.parse_args(argv)
    from fastfid.features import weights

    if args.action == "show":
        print(weights.describe(args.weights))
    else:
        found = weights.find_weights(args.weights, fetch=args.action == "get")
        if args.action == "get" and args.weights:
            found = weights.keep_in_cache(found)
        print(f"{found.path}: {found.identity}")
    return 0


def _run_info(argv: Sequence[str]) -> int:
    parser = _Parser(prog="fastfid info", description="Facts of the build and of this machine, for a bug report.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    from fastfid.info import gather

    facts = gather()
    if args.json:
        print(json.dumps(facts, indent=2))
    else:
        width = max(len(key) for key in facts)
        for key, value in facts.items():
            print(f"{key:{width}}  {value}")
    return 0


def _run_demo(argv: Sequence[str]) -> int:
    parser = _Parser(
        prog="fastfid demo",
        description="FID of 128 crops of real photographs against the same crops disturbed five ways in three rising "
        "levels, as in figure 3 of Heusel et al. 2017: a table on stdout and one PNG plot. Takes 2 to 3 minutes on 2 "
        "cores. Needs scikit-image and matplotlib: pip install 'fastfid[demo]'.",
    )
    parser.add_argument("-o", "--output", default="fastfid-demo.png", metavar="FILE", help="plot; default: %(default)s")
    parser.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:N; default: auto")
    parser.add_argument("--weights", metavar="FILE", help="Inception weights file")
    _add_output_options(parser)
    args = parser.parse_args(argv)
    from fastfid.demo import run

    run(args.output, device=args.device, weights=args.weights, progress=False if args.quiet else "auto")
    return 0


_COMMANDS = {"stats": _run_stats, "weights": _run_weights, "info": _run_info, "demo": _run_demo}


def _fid_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of compute_fid and compute_statistics from the command line."""
    return {
        "dims": args.dims,
        "protocol": args.protocol,
        "device": args.device,
        "precision": args.precision,
        "weights": args.weights,
        "batch_size": args.batch_size,
        "num_workers": args.num_workers,
        "on_error": args.on_error,
        "max_errors": args.max_errors,
        "progress": False if args.quiet else "auto",
        "cache": args.cache,
        "recursive": args.recursive,
        "any_case": args.any_case,
        "num": args.num,
        "seed": args.seed,
        "alpha": args.alpha,
        "exif": args.exif,
        **({"max_pixels": args.max_pixels} if args.max_pixels else {}),
    }


def _check_exists(path: str) -> None:
    # pytorch-fid's words; globs and brace lists of shards are resolved later.
    if not os.path.exists(path) and not any(c in path for c in "*?[{"):
        raise RuntimeError(f"Invalid path: {path}")


def _prepare(args: argparse.Namespace) -> None:
    """Set the threads, and turn warnings into lines on stderr. A loss of images is said even with --quiet."""
    from fastfid import _core
    from fastfid.errors import FastfidWarning, SkippedImagesWarning

    _core.report_crashes()
    if args.quiet:
        from fastfid.features import weights

        weights.is_quiet = True
    if args.threads is not None:
        _core.set_num_threads(args.threads)
    warnings.simplefilter("ignore" if args.quiet else "always", FastfidWarning)
    warnings.simplefilter("always", SkippedImagesWarning)
    # Pillow's remark on large pictures: from the same size on they are errors of ours.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    warnings.showwarning = lambda message, *_args, **_kwargs: _say(str(message))


def _superfluous(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str | None:
    """Name the options that would have changed the number, had there been images to read."""
    names = ("dims", "protocol", "precision", "weights", "num", "recursive", "any_case", "alpha", "exif", "on_error")
    given = [name for name in names if getattr(args, name) != parser.get_default(name)]
    if not given:
        return None
    return f"{', '.join('--' + name.replace('_', '-') for name in given)}: ignored, as no image is read"


def _device_remark(asked: str, used: str | None) -> str | None:
    """Say so where nobody asked for the CPU (pytorch-fid falls back to it in silence)."""
    if asked != "auto" or used != "cpu":
        return None
    from fastfid import _core

    return f"ran on the CPU: {_core.cuda_driver()[1]}"


def _sample_size_remark(record: dict[str, Any]) -> str | None:
    n, d = record["n"], record["dims"]
    thin = [f"{record[side]} (n = {n[side]})" for side in ("real", "fake") if n[side] is not None and n[side] <= d]
    if not thin:
        return None
    return (
        f"{' and '.join(thin)}: no more images than dims ({d}), so sampling bias dominates: "
        "compare the distance only with distances of the same n"
    )


def _uncertainty_line(uncertainty: dict[str, Any]) -> str:
    if uncertainty["standard_error"] is None:
        return f"standard error: none ({uncertainty['reason']})"
    return f"standard error: {uncertainty['standard_error']:.4g} (itself good to {uncertainty['relative_error']:.0%})"


def _remark(args: argparse.Namespace, text: str | None) -> None:
    if text and not args.quiet:
        _say(text)


def _say(text: str) -> None:
    # One line. Control characters as \xNN: a name in an archive must neither drive the terminal nor write a line of its
    # own. csrc/core/crash.cpp does the same.
    shown = re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)
    try:
        print(f"fastfid: {shown}", file=sys.stderr)
    except OSError:
        # Nobody reads it, or its disk is full: no reason to lose the result. Python would try again at exit.
        sys.stderr = io.StringIO()


class _Interrupted(KeyboardInterrupt):
    """What a signal raises.

    Python remembers a bare KeyboardInterrupt that ends an exec() of a string, as namedtuple and dataclass have them,
    however it is caught later: `python -m fastfid` would end by the signal and not with its exit code. The interpreter
    does not take a subclass for one.
    """


class _Signals:
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
            # A second one at once (a shell and its `timeout` both send one) must not cut the tidying short. Whoever
            # presses Ctrl-C again later is tired of waiting for it.
            if time.monotonic() - self._at > 1:
                os._exit(128 + self.received)
            return
        self.received = number
        self._at = time.monotonic()
        # Both unwind: workers end, temporary files go.
        raise _Interrupted

    def __enter__(self) -> "_Signals":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own) and return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    # A closed stream is None, and print(file=None) would write errors to stdout.
    sys.stdout = sys.stdout or io.StringIO()
    sys.stderr = sys.stderr or io.StringIO()
    with _Signals() as signals, warnings.catch_warnings():
        try:
            run = _COMMANDS.get(argv[0]) if argv else None
            code = run(argv[1:]) if run else _run_fid(argv)
            sys.stdout.flush()
            return code
        except BrokenPipeError:
            # Whoever read stdout has gone; Python would complain once more when it flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (KeyboardInterrupt, OSError, ValueError, RuntimeError, ImportError, MemoryError, TypeError) as error:
            if signals.received is not None or isinstance(error, KeyboardInterrupt):
                number = signals.received or signal.SIGINT
                _say("interrupted" if number == signal.SIGINT else "terminated")
                return 128 + number
            if os.environ.get("FASTFID_TRACEBACK"):
                raise
            _say(f"error: {_sentence(error)}")
            return 1
        finally:
            if weights := sys.modules.get("fastfid.features.weights"):
                weights.is_quiet = False  # type: ignore[attr-defined]


def run() -> NoReturn:
    """Run the process's command line and end the process: what the command ``fastfid`` calls."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # "Fréchet", and names, where the terminal knows ASCII only
    code = main()
    if code > 128:
        # Interrupted, and tidied up. Python's own end takes a while, and another signal would change the exit code.
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError):
        return "out of memory"
    return str(error) or type(error).__name__
