"""The command ``reduce``: the result of a plan whose tasks are done."""

import argparse
from collections.abc import Sequence

from fastfid.cli.options import add_output_options, chosen_metrics
from fastfid.cli.output import print_result, remark_on
from fastfid.cli.parser import Parser, at_least
from fastfid.cli.start import prepare

__all__ = ["parser", "run"]


def parser() -> Parser:
    """Return the parser of ``fastfid reduce``."""
    made = Parser(
        prog="fastfid reduce",
        usage="fastfid reduce --run-dir DIR [options]",
        description="Print what fastfid PATH PATH prints, from a plan whose tasks are done. No image is read.",
    )
    made.add_argument("--run-dir", metavar="DIR", required=True, help="the folder of fastfid plan")
    made.add_argument("--json", action="store_true", help="print one JSON object (docs/json.md)")
    made.add_argument("--weights", metavar="FILE", help="Inception weights file, for metrics that need them")
    made.add_argument("--threads", type=at_least(1), metavar="N", help="threads to compute with")
    add_output_options(made)
    return made


def run(argv: Sequence[str]) -> int:
    """Run ``fastfid reduce`` with these words."""
    args = parser().parse_args(argv)
    from fastfid.evaluation.steps import are_several, metrics_of, reduce, work_where_planned

    run_dir = work_where_planned(args.run_dir)
    prepare(args, reads_images=False)
    args.append = None
    args.metrics = metrics_of(run_dir)
    if are_several(run_dir):
        return _of_several(args, argv, run_dir)
    found = reduce(run_dir, metrics=chosen_metrics(args), weights=args.weights)
    remark_on(args, found)
    print_result(args, found, found.to_dict(command=["fastfid", "reduce", *argv]))
    return 0


def _of_several(args: argparse.Namespace, argv: Sequence[str], run_dir: str) -> int:
    from fastfid.cli.several import print_table
    from fastfid.evaluation.joint_steps import reduce_extractors

    found = reduce_extractors(run_dir, metrics=chosen_metrics(args), weights=args.weights)
    print_table(args, found, found.to_dict(command=["fastfid", "reduce", *argv]))
    return 0
