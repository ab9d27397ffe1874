"""The options of a run directory."""

import argparse
from collections.abc import Callable
from typing import Any

from fastfid.cli.parser import Parser

__all__ = ["Directory", "add_run_options", "run_directory"]

# What makes the run directory of a command from its options.
Directory = Callable[[Parser, argparse.Namespace], Any]


def add_run_options(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options."""
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        required=required,
        help="keep what was read in DIR, task by task: a run that was killed goes on there (docs/scale.md)",
    )
    changed = parser.add_mutually_exclusive_group()
    changed.add_argument("--fresh", action="store_true", help="start over: what DIR has of a run is removed")
    changed.add_argument(
        "--extend", action="store_true", help="keep what was read where images were only added at the end of a set"
    )


def run_directory(parser: Parser, args: argparse.Namespace) -> Any:
    """Return the run directory that the options ask for; None: none."""
    if args.run_dir is None:
        if args.fresh or args.extend:
            parser.error(f"--{'fresh' if args.fresh else 'extend'}: is of --run-dir")
        return None
    if getattr(args, "cache", None):
        parser.error("--cache: does not go with --run-dir")
    from fastfid.scale import RunDirectory

    workers = None if getattr(args, "engine", None) else getattr(args, "workers", None)  # the engine has its own
    if args.fresh or args.extend:
        return RunDirectory(args.run_dir, changed="fresh" if args.fresh else "extend", workers=workers)
    return RunDirectory(args.run_dir, workers=workers)
