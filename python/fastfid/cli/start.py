"""What a command does first: it reads its words, looks at its paths, and sets up the process."""

import argparse
import os
import warnings
from collections.abc import Sequence

from fastfid import _console
from fastfid.cli.engines import check_engine_options
from fastfid.cli.options import check_network_options
from fastfid.cli.output import remark
from fastfid.cli.parser import Parser, unknown_command

__all__ = ["check_exists", "parse", "prepare", "show_warnings", "will_read"]


def parse(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """Return the words as options; end with a usage error where options do not go together."""
    args = parser.parse_args(argv)
    if args.max_errors is not None and args.on_error != "skip":
        parser.error("--max-errors: needs --on-error skip; without it the first unreadable image is an error")
    if hasattr(args, "engine"):
        check_engine_options(parser, args)
    check_network_options(parser, args)
    return args


def check_exists(path: str) -> None:
    """Refuse a path that is not there.

    Raises
    ------
    RuntimeError
        With pytorch-fid's message.
    """
    # Globs and brace lists of shards are resolved later.
    if not os.path.exists(path) and not any(c in path for c in "*?[{") and "://" not in path:
        meant = unknown_command(path)
        raise RuntimeError(f"Invalid path: {path}{f' ({meant})' if meant else ''}")


def will_read(args: argparse.Namespace, paths: Sequence[str]) -> bool:
    """Return whether an image of the paths is read: they are not all statistics or stores of features."""
    from fastfid.sources import is_statistics_file
    from fastfid.store import is_store

    return not all(is_statistics_file(path, args.key) or is_store(path) for path in paths)


def prepare(args: argparse.Namespace, reads_images: bool) -> None:
    """Set up the process: crash reports, warnings as lines on stderr, threads; print a remark if the CPU is used."""
    from fastfid import _core

    _core.report_crashes()
    show_warnings(args)
    if args.threads is not None:
        _core.set_num_threads(args.threads)
    if reads_images:
        from PIL import Image

        # fastfid checks its own limit, --max-pixels, before decoding. No option can raise Pillow's limit.
        Image.MAX_IMAGE_PIXELS = None
        devices, why = _core.cuda_driver()
        if args.device in (None, "auto") and devices == 0:  # pytorch-fid falls back to the CPU in silence
            remark(f"running on the CPU: {why}")


def show_warnings(args: argparse.Namespace) -> None:
    """Print warnings as lines on stderr. Skipped images and likely mistakes are reported even with --quiet."""
    from fastfid.errors import FastfidWarning, SkippedImagesWarning, SuspiciousInputWarning

    _console.set_quiet(args.quiet)
    if args.quiet:  # what Pillow says of a picture is no likely mistake
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
    warnings.simplefilter("ignore" if args.quiet else "always", FastfidWarning)
    warnings.simplefilter("always", SkippedImagesWarning)
    warnings.simplefilter("always", SuspiciousInputWarning)
    warnings.showwarning = _console.show_warning
