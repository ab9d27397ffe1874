"""The command ``plan``: divide an evaluation into tasks for several processes."""

import argparse
from collections.abc import Sequence
from typing import Any

from fastfid.cli.options import (
    add_force_option,
    add_output_options,
    add_source_options,
    fid_options,
    networks,
    with_labels_of_each,
)
from fastfid.cli.output import remark
from fastfid.cli.parser import Parser, at_least, metrics
from fastfid.cli.runs import add_run_options, run_directory
from fastfid.cli.start import check_exists, parse, prepare, will_read

__all__ = ["parser", "run"]


# Options of the network and of the images that a plan has; how they are read is each process's own.
_OF_A_PLAN = {
    *("dims", "protocol", "extractor", "device", "precision", "weights", "on_error", "max_errors"),
    *("recursive", "any_case", "match", "num", "seed", "key", "value_range", "to_uint8", "column", "alpha", "exif"),
    *("labels", "max_pixels"),
}
# How images are read is an option of fastfid part. What was read is kept in the run directory, not in the cache.
_NOT_OF_A_PLAN = ("--num-workers", "--batch-size", "--cache", "--cache-hashes")


def parser() -> Parser:
    """Return the parser of ``fastfid plan``."""
    made = Parser(
        prog="fastfid plan",
        usage="fastfid plan [options] PATH PATH --run-dir DIR",
        description="Divide an evaluation into tasks, which any number of processes do, on any machines that see DIR "
        "and the images. The result has the digits of fastfid PATH PATH, every bit.",
        epilog="""\
example:
  fastfid plan real/ generated/ --run-dir run --workers 8
  fastfid part --run-dir run --index 0 --of 8      and so on, up to --index 7; again, if one was killed
  fastfid reduce --run-dir run
""",
    )
    made.add_argument("path", nargs=2, metavar="PATH", help="the real set and the generated one, or statistics (.npz)")
    add_run_options(made, required=True)
    made.add_argument(
        "--workers",
        type=at_least(1),
        default=1,
        metavar="N",
        help="about how many processes there will be; default: 1",
    )
    made.add_argument(
        "--metrics",
        type=metrics,
        metavar="NAMES",
        help="metrics with commas between, or all, as of fastfid PATH PATH; default: the FID",
    )
    made.add_argument("--per-class", action="store_true", help="the metrics of each class too (docs/classes.md)")
    made.add_argument("--fake-labels", metavar="WHAT", help="the --labels of the second PATH, if they are others")
    add_force_option(made)
    add_output_options(made)
    add_source_options(made, _NOT_OF_A_PLAN)
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid plan`` with these words."""
    of_command = parser()
    args = parse(of_command, argv)
    run = run_directory(of_command, args)
    from fastfid.evaluation.steps import plan

    for path in args.path:
        check_exists(path)
    reads_images = will_read(args, args.path)
    prepare(args, reads_images)
    asked = args.metrics or ["fid"]
    if len(networks(args)) > 1:
        from fastfid.cli.several import plan_networks

        return _planned(args, run, plan_networks(args, asked, run))
    given = {name: x for name, x in fid_options(args, reads_images=reads_images).items() if name in _OF_A_PLAN}
    given = with_labels_of_each(args, given)
    given |= {"metrics": asked, "force": args.force, "per_class": args.per_class}
    real, fake = args.path
    return _planned(args, run, plan(real, fake, run, **given))


def _planned(args: argparse.Namespace, run: Any, tasks: int) -> int:
    remark(f"{run.path}: {tasks} tasks; next: fastfid part --run-dir {args.run_dir} --index 0 --of {args.workers}")
    return 0
