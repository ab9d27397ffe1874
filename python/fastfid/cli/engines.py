"""The options of an engine, which has the images read by several workers."""

import argparse
import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

from fastfid.cli.parser import Parser, at_least, one_of

__all__ = ["add_engine_options", "check_engine_options", "engine_of"]


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument(
        "--engine",
        type=one_of("ray"),
        metavar="NAME",
        help="who reads the images: ray, the workers of a Ray cluster or of this machine; equal digits (docs/scale.md)",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        metavar="N",
        help="workers of --engine ray; 4:64 for 4 at least and 64 at most; default: one for each GPU, else for each "
        "machine",
    )
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="address of the Ray cluster, as auto; default: RAY_ADDRESS, or none"
    )
    parser.add_argument(
        "--stall-timeout",
        type=at_least(1),
        metavar="S",
        help="seconds without an image after which a worker of --engine ray is ended; default: 600",
    )


def _workers(text: str) -> int | tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,9}))?", text)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not 1 <= fewest <= most:
        raise argparse.ArgumentTypeError(
            f"expected a number of workers, or the fewest and the most as 4:64; got {text!r}"
        )
    return fewest if fewest == most else (fewest, most)


def check_engine_options(parser: Parser, args: argparse.Namespace) -> None:
    """End with a usage error where options of an engine are given without one, or with what it has no place for."""
    if args.engine is None:
        for option in ("workers", "ray_address", "stall_timeout"):
            if getattr(args, option) is not None:
                parser.error(f"--{option.replace('_', '-')}: is of --engine ray")
        return
    if getattr(args, "cache", None):
        parser.error("--cache: does not go with --engine")
    if re.fullmatch(r"cuda:\d+", str(args.device)):
        parser.error(f"--device: Ray gives each worker a GPU of its own: --device cuda; got {args.device}")


@contextlib.contextmanager
def engine_of(args: argparse.Namespace) -> Iterator[Any]:
    """Yield the engine that the options ask for, or None.

    While it is there, nothing goes to stdout: Ray's threads print there what they hear from the cluster.
    """
    if args.engine is None:
        yield None
        return
    from fastfid.scale.ray import STALL_TIMEOUT_S, RayEngine

    timeout = STALL_TIMEOUT_S if args.stall_timeout is None else args.stall_timeout
    how = {"address": args.ray_address, "threads": args.threads, "stall_timeout": timeout}
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        RayEngine(args.workers, **how) as engine,
    ):
        yield engine
